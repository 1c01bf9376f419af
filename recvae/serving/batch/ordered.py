"""Stored events, which may be larger than memory, as blocks of complete users in ascending order, sorted by DuckDB."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recvae.data.ids import ItemIndex
from recvae.data.parquet.source import Source
from recvae.data.parquet.stored import StoredEvents
from recvae.data.rules import UnknownIds
from recvae.errors import InvalidDataError, shown
from recvae.serving.batch.seen import SEEN, with_columns

EVENTS_AT_A_TIME = 1 << 18
LISTS_AT_A_TIME = 1 << 12
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}|1[0-9]{19}")  # as Python writes it, of 64 bits


class OrderedEvents(StoredEvents):
    """Stored events in the order of their users, or those after a user.

    Events below `min_value` and zeros are among them: `read_histories` takes these items as seen, but not liked. So are
    the rows of `seen_rows`, columns user and seen, where item is null. With `only_users`, all others are left out.
    """

    def __init__(
        self,
        source: Source,
        scratch: Path,
        memory_mib: int,
        seen_rows: pa.Table | None = None,
        only_users: ItemIndex | None = None,
    ):
        super().__init__(source, scratch, memory_mib)
        self._seen_rows, self._only_users = seen_rows, only_users

    def __enter__(self) -> Self:
        super().__enter__()
        self._all, self.seen_rows, self.only_users = self._rows, None, None
        if self._seen_rows is not None:
            with self._translating_errors():
                null, column = self._duckdb.ConstantExpression(None), self._duckdb.ColumnExpression
                seen_rows = self._connection.from_arrow(self._seen_rows[:0])
                columns = [column(name) if name == SEEN else null.alias(name) for name in self._rows.columns]
                all_rows = self._rows.select("*", null.alias(SEEN))
                all_rows = all_rows.union(seen_rows.select(*columns, column(SEEN)))
                self.seen_rows = with_columns(self._seen_rows, all_rows.limit(0).to_arrow_reader(1).schema)
                self._all = all_rows.union(self._connection.from_arrow(self.seen_rows))
        if self._only_users is not None:
            self._select(self._only_users)
        return self

    def _select(self, only_users: ItemIndex) -> None:
        """Leave out all users but these."""
        with self._translating_errors():
            kind = self._all.limit(0).to_arrow_reader(1).schema.field("user").type
            self.only_users = matching_users(only_users, kind)
            self._all = self._all.join(self._connection.from_arrow(self.only_users), "user", "semi")

    def check(self, index: ItemIndex) -> None:
        """Raise InvalidDataError for nulls, values that are not numbers >= 0, or no event on an item of `index`."""
        self.check_events()
        with self._translating_errors():
            items = "unnest(item)" if self._source.lists else "item"
            names = self._rows.select(f"CAST({items} AS VARCHAR) AS name")
            known = self._connection.from_arrow(
                pa.table({"name": pa.array([str(name) for name in index], pa.string())})
            )
            if not names.join(known, "name", "semi").limit(1).fetchall():
                raise InvalidDataError(
                    f"Expected events on some of the {len(index):,} items, such as {next(iter(index))!r}, got none: "
                    f"the items of {self._source.path} are such as {[row[0] for row in names.limit(1).fetchall()]}."
                )

    def count_users(self) -> int:
        """The number of users."""
        with self._translating_errors():
            ((n_users,),) = self._all.select("user").distinct().aggregate("count(*)").fetchall()
        return int(n_users)

    def unknown_users(self) -> tuple[UnknownIds, ...]:
        """The users of `only_users` who have no events. Raises InvalidDataError if none of them has any."""
        if self._only_users is None:
            return ()
        n_all, n_known = len(self._only_users), self.count_users()
        if not n_known:
            raise InvalidDataError(
                f"Expected only_users with at least one user of {self._source.path}, got {n_all:,} others, such as "
                f"{shown(next(iter(self._only_users)))}."
            )
        return (UnknownIds("only_users", n_all - n_known, n_all, (), "users"),) if n_known < n_all else ()

    def blocks(self, after: Any, sizes: Iterable[int]) -> Iterator[pa.Table]:
        """Events of the users after the user `after` (None: of all users), in blocks as `by_users` cuts them.

        Columns are user, item and, if the source has them, value and seen: the same ones in all blocks.
        """
        events = self._all
        if after is not None:
            with self._translating_errors():
                events = events.filter(self._duckdb.ColumnExpression("user") > self._duckdb.ConstantExpression(after))
        # values of repeated items are summed, and float sums depend on the order
        order = '"user"' if not self._source.has_values else '"user", "item", "value"'
        at_a_time = LISTS_AT_A_TIME if self._source.lists else EVENTS_AT_A_TIME
        return by_users(self._batches(events.order(order), at_a_time), sizes)


def matching_users(users: Iterable[Any], kind: pa.DataType) -> pa.Table:
    """Ids as a column `user` of another type, as `ItemIndex` matches them; without those that cannot be in it."""
    if not pa.types.is_integer(kind):
        return pa.table({"user": pa.array([str(name) for name in users], pa.string()).cast(kind)})
    bounds = np.iinfo(kind.to_pandas_dtype())
    numbers = [int(name) for name in users if isinstance(name, int) or INTEGER.fullmatch(name)]
    fitting = [number for number in numbers if bounds.min <= number <= bounds.max]
    return pa.table({"user": pa.array(fitting, kind)})


def by_users(batches: Iterable[pa.RecordBatch], sizes: Iterable[int]) -> Iterator[pa.Table]:
    """Cut rows that are sorted by their column `user` into tables of complete users, `sizes` of them in each.

    The last table may have fewer.
    """
    next_sizes, pending = iter(sizes), pa.table({})
    size = next(next_sizes)
    for batch in batches:
        table = pa.Table.from_batches([batch])
        pending = pa.concat_tables([pending, table]) if len(pending) else table
        starts = _starts(pending["user"])
        done = 0
        while len(starts) - done > size:  # a user is complete where the next one begins
            yield pending[starts[done] : starts[done + size]]
            done, size = done + size, next(next_sizes)
        pending = pending[starts[done] if len(starts) else 0 :]
    if len(pending):
        yield pending


def _starts(users: pa.ChunkedArray) -> NDArray[np.int64]:
    """The index of the first row of each user."""
    column = users.combine_chunks()
    changes = pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return np.flatnonzero(np.concatenate([[True], changes])[: len(column)])
