"""Events in Parquet files, larger than memory perhaps, as blocks of whole users in ascending order. DuckDB sorts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recvae.errors import InvalidDataError, InvalidParameterError, MissingDependencyError, NotEnoughMemoryError
from recvae.frames import check_ids, check_numbers, parquet_parts
from recvae.histories import is_listing
from recvae.ids import ItemIndex
from recvae.rows import check_content

MIB_OF_A_THREAD = 256  # with less, threads that sort get into each other's way
EVENTS_AT_A_TIME = 1 << 18
LISTS_AT_A_TIME = 1 << 12


@dataclass(frozen=True)
class Source:
    """Parquet files of one schema, and which of their columns count.

    lists : whether a row is a user with all items, and not an event
    """

    path: Path
    files: tuple[str, ...]
    user: str
    item: str
    value: str | None
    min_value: float | None
    lists: bool

    def state(self) -> list[dict[str, Any]]:
        """Name, size and time of change of each file: another state is another input."""
        root = self.path.resolve() if self.path.is_dir() else self.path.resolve().parent
        stats = [(str(Path(file).resolve().relative_to(root)), Path(file).stat()) for file in self.files]
        return [{"file": name, "bytes": stat.st_size, "modified": stat.st_mtime_ns} for name, stat in stats]


def find_source(path: str | Path, user: str, item: str, value: str | None, min_value: float | None) -> Source:
    """The Parquet file or folder at `path`, its columns looked at and not yet its events.

    Raises DataNotFoundError, InvalidDataError for another kind of file, a part of another schema, missing columns and
    columns of another kind than ids and numbers, InvalidParameterError for a `value` or `min_value` without use.
    """
    path = Path(path)
    if min_value is not None and value is None:
        raise InvalidParameterError(f"Expected the column of values for min_value={min_value}, got value=None.")
    if not path.is_dir() and path.suffix.lower() != ".parquet":
        raise InvalidDataError(f"Expected a Parquet file (.parquet) or a folder of such, got {path}.")
    parts = parquet_parts(path, [user, item] + ([] if value is None else [value]))
    kinds = {name: parts.schema.field(name).type for name in (user, item)}
    lists = is_listing(kinds[item])
    if lists:
        kinds[item] = kinds[item].value_type
    for name, kind in kinds.items():
        check_ids(kind.value_type if pa.types.is_dictionary(kind) else kind, name)
    if value is not None:
        check_numbers(parts.schema.field(value).type, value)
    if lists and value is not None:
        raise InvalidParameterError(f"Expected no column of values beside lists of items, got value={value!r}.")
    return Source(path, tuple(sorted(parts.files)), user, item, value, min_value, lists)


class OrderedEvents:
    """What DuckDB makes of a source, within `memory_mib` and else in files in `scratch`: to be used in a `with` block.

    Raises MissingDependencyError where DuckDB is not installed. All methods raise InvalidDataError for files that
    cannot be read and NotEnoughMemoryError where neither memory nor disk will do.
    """

    def __init__(self, source: Source, scratch: Path, memory_mib: int):
        self._source, self._memory_mib, self._duckdb = source, memory_mib, _duckdb()
        self._config = {
            "memory_limit": f"{memory_mib}MiB",
            "temp_directory": str(scratch),
            "threads": max(1, min(os.cpu_count() or 1, memory_mib // MIB_OF_A_THREAD)),
            "preserve_insertion_order": False,  # the order is ours
        }

    def __enter__(self) -> Self:
        source, column, number = self._source, self._duckdb.ColumnExpression, self._duckdb.ConstantExpression
        self._connection = self._duckdb.connect(":memory:", config=self._config)
        self._connection.execute("SET enable_progress_bar = false")  # it would be drawn on standard output
        columns = [column(source.user).alias("user"), column(source.item).alias("item")]
        if source.value is not None:
            columns.append(column(source.value).cast("DOUBLE").alias("value"))
        with self._said():
            # relations, which are run when they are asked
            self._rows = self._connection.read_parquet(list(source.files), hive_partitioning=False).select(*columns)
            self._strong = self._rows
            if source.min_value is not None:  # NaN is not weak, and will be refused
                self._strong = self._rows.filter(~(column("value") < number(float(source.min_value))))
            self._events = self._strong
            if source.value is not None:  # zeros are no events
                self._events = self._strong.filter(column("value") != number(0.0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def check(self, index: ItemIndex) -> None:
        """Refuse gaps, values that are no numbers >= 0, and events on none of the items of `index`."""
        with self._said():
            self._check_gaps()
            if self._source.value is not None:
                self._check_values()
            items = "unnest(item)" if self._source.lists else "item"
            names = self._events.select(f"CAST({items} AS VARCHAR) AS name")
            known = self._connection.from_arrow(
                pa.table({"name": pa.array([str(name) for name in index], pa.string())})
            )
            if not names.join(known, "name", "semi").limit(1).fetchall():
                raise InvalidDataError(
                    f"Expected events on some of the {len(index):,} items, such as {next(iter(index))!r}, got none: "
                    f"the items of {self._source.path} are such as {[row[0] for row in names.limit(1).fetchall()]}."
                )

    def count_users(self) -> int:
        """How many users have events."""
        with self._said():
            ((n_users,),) = self._events.select("user").distinct().aggregate("count(*)").fetchall()
        return int(n_users)

    def blocks(self, after: Any, sizes: Iterable[int]) -> Iterator[pa.Table]:
        """Events of the users that come after the user `after`, or of all for None, in blocks as `by_users` cuts them.

        Columns are user, item and, where the source has it, value. In the same source, they are always the same.
        """
        events = self._events
        if after is not None:
            events = events.filter(self._duckdb.ColumnExpression("user") > self._duckdb.ConstantExpression(after))
        # values are added up, and sums of floats depend on the order
        order = '"user"' if self._source.value is None else '"user", "item", "value"'
        with self._said():
            reader = events.order(order).to_arrow_reader(LISTS_AT_A_TIME if self._source.lists else EVENTS_AT_A_TIME)
        return by_users(self._batches(reader), sizes)

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        while True:
            with self._said():
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
            yield batch

    def _check_gaps(self) -> None:
        names = [name for name in ("user", "item", "value") if getattr(self._source, name) is not None]
        counts = ", ".join(f'count(*) - count("{name}")' for name in names)
        inside = "coalesce(sum(len(item) - list_aggregate(item, 'count')), 0)" if self._source.lists else "0"
        ((n_rows, gaps_inside, *gaps),) = self._rows.aggregate(f"count(*), {inside}, {counts}").fetchall()
        if n_rows == 0:
            raise InvalidDataError(f"Expected at least one event, got none in {self._source.path}.")
        for name, n_gaps in [*zip(names, gaps, strict=True), ("item", gaps_inside)]:
            if n_gaps:
                raise InvalidDataError(
                    f"Expected a value in every row of {getattr(self._source, name)!r}, got none in {int(n_gaps):,} of "
                    f"{n_rows:,} rows of {self._source.path}."
                )

    def _check_values(self) -> None:
        # to DuckDB, NaN is more than any number
        extremes = self._strong.aggregate("min(value), max(value), min(value) FILTER (value <> 0)")
        (found,) = extremes.fetchall()
        if found[2] is None:
            floor = "" if self._source.min_value is None else f" and at least {self._source.min_value:g}"
            raise InvalidDataError(
                f"Expected at least one event with a value of more than 0{floor}, got none in {self._source.path}."
            )
        check_content(np.array(found))

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (self._duckdb.Error, pa.ArrowException, OSError) as error:
            reason = str(error).partition("\n")[0]
            if "Out of Memory" in reason:
                raise NotEnoughMemoryError(
                    f"Expected {self._memory_mib} MiB of memory, and room on the disk of the output, to be enough to "
                    f"sort {self._source.path}, got: {reason}; give it more (memory_mib)."
                ) from error
            raise InvalidDataError(f"The events at {self._source.path} cannot be read: {reason}") from error


def by_users(batches: Iterable[pa.RecordBatch], sizes: Iterable[int]) -> Iterator[pa.Table]:
    """Cut rows that are in the order of their column `user` into tables of so many whole users each.

    The last one has as many as are left.
    """
    wanted, held = iter(sizes), pa.table({})
    size = next(wanted)
    for batch in batches:
        table = pa.Table.from_batches([batch])
        held = pa.concat_tables([held, table]) if len(held) else table
        starts = _starts(held["user"])
        done = 0
        while len(starts) - done > size:  # whether a user is whole shows where the next one begins
            yield held[starts[done] : starts[done + size]]
            done, size = done + size, next(wanted)
        held = held[starts[done] if len(starts) else 0 :]
    if len(held):
        yield held


def _starts(users: pa.ChunkedArray) -> NDArray[np.int64]:
    """Where the rows of each user begin."""
    column = users.combine_chunks()
    changes = pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return np.flatnonzero(np.concatenate([[True], changes])[: len(column)])


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise MissingDependencyError(
            'Recommending in parts needs the library DuckDB, which is not installed; run: pip install "recvae[large]"'
        ) from error
    return duckdb
