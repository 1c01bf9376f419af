"""What users did, in raw ids -> rows over a model's items; and ranked places back to a table of raw ids.

This is the way in and out of a model that serves: `read_histories`, `model.recommend`, `ranking_table`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError
from recvae.frames import number_ids, read_column, read_numbers
from recvae.ids import Ids, ItemIndex, id_array, listed
from recvae.rows import check_content

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Unknown:
    """Events on items that a model does not know: how many, and the first of these items, in order of their ids."""

    events: int = 0
    examples: tuple[Any, ...] = ()

    def __add__(self, other: Unknown) -> Unknown:
        return Unknown(self.events + other.events, _examples((*self.examples, *other.examples)))

    def __str__(self) -> str:
        such = f", such as {', '.join(map(repr, self.examples))}," if self.examples else ""
        return f"{self.events:,} events are on items that the model does not know{such} and were left out."


@dataclass(frozen=True, eq=False)
class Histories:
    """Rows for `model.recommend`, and whose they are.

    users : (U,) raw ids of the rows
    rows : csr_matrix (U, I) float32, canonical; empty for a user none of whose items is known
    unknown : the events that are not in `rows`
    """

    users: Ids
    rows: sparse.csr_matrix
    unknown: Unknown


def read_histories(
    histories: Any,
    item_ids: Sequence[Any] | Ids | ItemIndex,
    *,
    user: str = "user",
    item: str = "item",
    value: str | None = None,
) -> Histories:
    """Raw ids of what users did -> rows over the items of a model.

    histories : {user: [item, ...]}, or a list of such lists, whose users are then 0, 1, ..., or a frame (pandas,
        polars, pyarrow) with columns `user`, `item` and, where it is named, `value`. A frame has a row for each event,
        or for each user with a column of lists of items; its users come in ascending order.
    item_ids : `model.item_ids_`, or an ItemIndex of them, which is built once where requests are many

    Ids are matched as by `ItemIndex`. An item that stands twice in a history is added up, as in `Interactions`, and
    counts once where the model reads values as binary. Items that are not known are counted in `unknown`.

    Raises InvalidTypeError for ids that are no whole numbers or strings and for what is no list of them,
    InvalidDataError for gaps, missing columns and values that are no numbers >= 0.
    """
    index = item_ids if isinstance(item_ids, ItemIndex) else ItemIndex(item_ids)
    if value is not None and isinstance(histories, (Mapping, list, tuple)):
        raise InvalidParameterError(f"Expected value={value!r} with a frame only, got {type(histories).__name__}.")
    if isinstance(histories, Mapping):
        return _from_lists(id_array(list(histories), "users"), histories.values(), index)
    if isinstance(histories, (list, tuple)):
        return _from_lists(np.arange(len(histories)), histories, index)
    if not any(hasattr(type(histories), name) for name in ("columns", "column_names")):
        raise InvalidTypeError(
            f"Expected histories as a dict {{user: [item, ...]}}, a list of lists or a frame, got "
            f"{type(histories).__name__}."
        )
    return _from_frame(histories, index, user, item, value)


def ranking_table(
    users: Sequence[Any] | Ids, ids: NDArray[Any], scores: NDArray[Any], item_ids: Ids, titles: Ids | None = None
) -> pa.Table:
    """Ranked lists as a table: user, rank (from 1), item, score and, where known, title.

    users : (U,) raw ids
    ids, scores : (U, N) or, for one user, (N,), as `model.recommend` gives them; padding has no row in the table
    item_ids, titles : raw ids and titles of the model's items

    Raises InvalidDataError where shapes do not fit.
    """
    ids, scores = np.atleast_2d(ids), np.atleast_2d(scores)
    if ids.shape != scores.shape or len(ids) != len(users):
        raise InvalidDataError(
            f"Expected ids and scores with a row for each of {len(users)} users, got {ids.shape} and {scores.shape}."
        )
    row, place = np.nonzero(ids >= 0)
    items = ids[row, place]
    columns = {
        "user": _take(users, row),
        "rank": pa.array(place + 1),
        "item": _take(item_ids, items),
        "score": pa.array(scores[row, place]),
    }
    if titles is not None:
        columns["title"] = _take(titles, items)
    return pa.table(columns)


def as_frame(table: pa.Table, like: Any) -> Any:
    """The table as the kind of frame that `like` is: pandas, polars, else a pyarrow table."""
    libraries = {kind.__module__.partition(".")[0] for kind in type(like).__mro__}
    if "pandas" in libraries:
        return table.to_pandas()
    return sys.modules["polars"].from_arrow(table) if "polars" in libraries else table


def _from_lists(users: Ids, lists: Iterable[Any], index: ItemIndex) -> Histories:
    names: list[Any] = []
    lengths = []
    for user, items in zip(users.tolist(), lists, strict=True):
        mine = listed(items, f"the history of user {user!r}")
        names += mine
        lengths.append(len(mine))
    rows = np.repeat(np.arange(len(lengths)), lengths)
    places = index.places(names)
    strange = np.flatnonzero(places < 0)
    unknown = Unknown(len(strange), _examples(names[place] for place in strange)) if len(strange) else Unknown()
    return Histories(users, _matrix(rows, places, None, (len(lengths), len(index))), unknown)


def _from_frame(frame: Any, index: ItemIndex, user: str, item: str, value: str | None) -> Histories:
    rows, users = number_ids(read_column(frame, user), user)
    column = read_column(frame, item)
    if is_listing(column.type):
        if value is not None:
            raise InvalidParameterError(f"Expected no column of values beside lists of items, got value={value!r}.")
        rows = np.repeat(rows, pc.list_value_length(column).to_numpy())
        column = read_column(pa.table({item: pc.list_flatten(column)}), item)
    codes, items = number_ids(column, item)
    found = index.places(items)
    values = None if value is None else read_numbers(read_column(frame, value), value)
    if values is not None:
        check_content(values)
    unknown = Unknown(int((found[codes] < 0).sum()), _examples(items[found < 0].tolist()))
    return Histories(users, _matrix(rows, found[codes], values, (len(users), len(index))), unknown)


def is_listing(kind: pa.DataType) -> bool:
    """Whether each entry of an Arrow column is a list."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _matrix(
    rows: Places, places: Places, values: NDArray[np.float64] | None, shape: tuple[int, int]
) -> sparse.csr_matrix:
    """Canonical rows of the events whose place is known, each of value 1 where there are no values.

    As `recvae.events.merge_events` makes them, in the time that a request has.
    """
    cells = rows * shape[1] + places
    if len(places) and places.min() < 0:
        known = places >= 0
        cells, values = cells[known], None if values is None else values[known]
    order = cells.argsort(kind="stable")
    cells = cells[order]
    # where the events of each cell begin, and where the last end
    bounds = np.flatnonzero(np.concatenate([[True], cells[1:] != cells[:-1], [True]])[: len(cells) + 1])
    first, sums = bounds[:-1], bounds[1:] - bounds[:-1]
    if values is not None:
        sums = np.add.reduceat(values[order], first)
        first, sums = first[sums > 0], sums[sums > 0]
    row, column = np.divmod(cells[first], shape[1])
    indptr = row.searchsorted(np.arange(shape[0] + 1))
    index = np.int32 if max(*shape, len(cells)) < 2**31 else np.int64  # scipy's own choice, which takes it longer
    return sparse.csr_matrix((sums.astype(np.float32), column.astype(index), indptr.astype(index)), shape=shape)


def _examples(names: Iterable[Any]) -> tuple[Any, ...]:
    """Three at most, the same whatever the order."""
    return tuple(nsmallest(3, set(names)))


def _take(values: Any, places: NDArray[Any]) -> pa.Array:
    """Some of `values`, of the type that all of them have: texts are objects."""
    values = np.asarray(values)
    return pa.array(values[places], pa.string() if values.dtype == object else None)
