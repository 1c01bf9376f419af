"""Convert histories of raw ids to rows over the items of a model, and ranked lists back to a table of raw ids.

Used in serving: `read_histories`, `model.recommend`, `ranking_table`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.events import at_least, check_min_value, merge_sorted
from recvae.data.ids import Ids, ItemIndex, id_array, listed
from recvae.data.rows import check_content
from recvae.data.tables.frames import number_ids, read_column, read_numbers
from recvae.data.tables.lists import is_listing
from recvae.data.weighting import Weighting, weighed_events
from recvae.errors import (
    InvalidDataError,
    InvalidParameterError,
    InvalidTypeError,
    MissingDependencyError,
    UnknownNameError,
)

Indices = NDArray[np.int64]
FRAMES = ("pyarrow", "pandas", "polars")


@dataclass(frozen=True)
class UnknownItems:
    """Number of events on items that a model does not know, and up to three of these items, the smallest ids."""

    events: int = 0
    examples: tuple[Any, ...] = ()

    def __add__(self, other: UnknownItems) -> UnknownItems:
        return UnknownItems(self.events + other.events, _examples((*self.examples, *other.examples)))

    def __str__(self) -> str:
        such = f", such as {', '.join(map(repr, self.examples))}," if self.examples else ""
        return f"{self.events:,} events are on items that the model does not know{such} and were left out."


@dataclass(frozen=True, eq=False)
class Histories:
    """Rows for `model.recommend`, with the ids of their users.

    Attributes
    ----------
    users : numpy.ndarray
        (U,) raw ids of the rows.
    rows : scipy.sparse.csr_matrix
        (U, I) float32, canonical: the items that users liked. A row is empty if the model knows none of them.
    unknown : UnknownItems
        The events that are not in `rows` because the model does not know their items.
    seen : scipy.sparse.csr_matrix or None
        (U, I), canonical: items that users have seen but not liked, to be excluded from their lists; None if there
        are none.
    """

    users: Ids
    rows: sparse.csr_matrix
    unknown: UnknownItems
    seen: sparse.csr_matrix | None = None

    def select(self, chosen: Indices) -> Histories:
        """The histories of some users, by their indices; `unknown` stays that of all."""
        seen = None if self.seen is None else self.seen[chosen]
        return Histories(self.users[chosen], self.rows[chosen], self.unknown, seen)


def read_histories(
    histories: Any,
    item_ids: Sequence[Any] | Ids | ItemIndex,
    *,
    user: str = "user",
    item: str = "item",
    value: str | None = None,
    min_value: float | None = None,
    seen: Any = None,
    behavior: str | None = None,
    weights: Mapping[str, float] | None = None,
    unknown_behavior: str = "refuse",
) -> Histories:
    """Convert histories of raw ids to rows over the items of a model.

    Parameters
    ----------
    histories : dict or list or frame
        {user: [item, ...]}; or a list of such lists, whose users are then 0, 1, ...; or a frame (pandas, polars,
        pyarrow) with columns `user`, `item` and, if named, `value`. A frame has a row for each event, or for each user
        with a column of lists of items; its users come in ascending order.
    item_ids : sequence or ItemIndex
        `model.item_ids_`, or an `ItemIndex` of them, to be built once and reused for many requests.
    user : str
        Column of raw ids of users, integers or strings.
    item : str
        Column of raw ids of items, integers or strings.
    value : str or None
        Column of values in a frame.
    min_value : float or None
        Smallest `value` of a liked item. Items with smaller values, or with value 0, count as seen only, unless another
        event of the user has a sufficient value.
    seen : dict or list or frame or None
        Further items that users have seen, in one of the forms of `histories`; a dict or a frame if `histories` names
        its users. Users who appear only here get an empty row, after the others or, if `histories` is a frame, in
        ascending order among them.
    behavior : str or None
        Column of behaviours in a frame, such as view, cart and buy.
    weights : dict or None
        What an event of each behaviour counts, as in `Interactions.from_frame`. An item whose events all weigh 0 was
        seen, but not liked.
    unknown_behavior : str
        Whether to "refuse" or "drop" events of other behaviours.

    Returns
    -------
    Histories
        Rows, their users, and the events on unknown items.

    Raises
    ------
    InvalidTypeError
        If ids are not integers or strings, or are not in lists.
    InvalidDataError
        If columns or cells are missing, or values are not numbers >= 0 (those below `min_value` excepted).
    InvalidParameterError
        If there is a `value` without a frame, or a `min_value` without `value`.

    Notes
    -----
    Ids are matched as by `ItemIndex`. The values of an item that occurs twice in a history are summed, as in
    `Interactions`; it counts once if the model reads values as binary. Unknown items are counted in `unknown` if they
    were liked; unknown items that were only seen are ignored, since they cannot be recommended.
    """
    index = item_ids if isinstance(item_ids, ItemIndex) else ItemIndex(item_ids)
    if value is not None and isinstance(histories, (Mapping, list, tuple)):
        raise InvalidParameterError(f"Expected value={value!r} with a frame only, got {type(histories).__name__}.")
    weighting = Weighting(behavior, weights, unknown_behavior)
    if weighting:
        histories, value = weighed_events(histories, weighting, user, item, value, min_value)
        min_value = None
    if min_value is not None:
        check_min_value(min_value)
        if value is None:
            raise InvalidParameterError(f"Expected the column of values for min_value={min_value}, got value=None.")
    liked = _read(("histories", "the history of user"), histories, index, user, item, value, min_value)
    if seen is None:
        return liked
    if isinstance(seen, (list, tuple)) and not isinstance(histories, (list, tuple)):
        raise InvalidTypeError(
            f"Expected seen as a dict or a frame, which name its users as the histories do, got {type(seen).__name__}."
        )
    seen_only = _read(("seen", "what was seen by user"), seen, index, user, item, None, None)
    return _with_seen(liked, seen_only, ascending=not isinstance(histories, (Mapping, list, tuple)))


def ranking_table(
    users: Sequence[Any] | Ids, ids: NDArray[Any], scores: NDArray[Any], item_ids: Ids, titles: Ids | None = None
) -> pa.Table:
    """Ranked lists as a table: user, rank (from 1), item, score and, if known, title.

    Parameters
    ----------
    users : sequence
        (U,) raw ids.
    ids, scores : numpy.ndarray
        (U, N) or, for one user, (N,), as `model.recommend` returns them; padding is left out of the table.
    item_ids : numpy.ndarray
        Raw ids of the model's items.
    titles : numpy.ndarray
        Titles of these items, if known.

    Returns
    -------
    pyarrow.Table
        One row for each recommended item.

    Raises
    ------
    InvalidDataError
        If shapes do not fit.
    """
    ids, scores = np.atleast_2d(ids), np.atleast_2d(scores)
    if ids.shape != scores.shape or len(ids) != len(users):
        raise InvalidDataError(
            f"Expected ids and scores with a row for each of {len(users)} users, got {ids.shape} and {scores.shape}."
        )
    row, position = np.nonzero(ids >= 0)
    items = ids[row, position]
    columns = {
        "user": _take(users, row),
        "rank": pa.array(position + 1),
        "item": _take(item_ids, items),
        "score": pa.array(scores[row, position]),
    }
    if titles is not None:
        columns["title"] = _take(titles, items)
    return pa.table(columns)


def as_frame(table: pa.Table, like: Any) -> Any:
    """Convert a table to the library of another frame.

    Parameters
    ----------
    table : pyarrow.Table
        Such as one from `ranking_table`.
    like : Any
        A frame of pandas or polars, or anything else.

    Returns
    -------
    pandas.DataFrame or polars.DataFrame or pyarrow.Table
        The same rows; a pyarrow table if `like` is neither of pandas nor of polars.
    """
    libraries = {kind.__module__.partition(".")[0] for kind in type(like).__mro__}
    if "pandas" in libraries:
        return table.to_pandas()
    return sys.modules["polars"].from_arrow(table) if "polars" in libraries else table


def frame_in(library: str, table: pa.Table) -> Any:
    """Convert a table to a frame of a library, "pyarrow", "pandas" or "polars".

    Raises
    ------
    UnknownNameError
        For another library.
    MissingDependencyError
        If the library is not installed.
    """
    if library not in FRAMES:
        raise UnknownNameError.among("library of frames", library, FRAMES)
    if library == "pyarrow":
        return table
    try:
        module = import_module(library)
    except ImportError as error:
        raise MissingDependencyError(
            f"A frame of {library} needs that library, which cannot be loaded ({error}); run: pip install {library}"
        ) from error
    return table.to_pandas() if library == "pandas" else module.from_arrow(table)


def _read(
    names: tuple[str, str],
    events: Any,
    index: ItemIndex,
    user: str,
    item: str,
    value: str | None,
    min_value: float | None,
) -> Histories:
    """Parse events in any supported form. names : names of the argument and of one user's list, for error messages"""
    what, of_user = names
    if isinstance(events, Mapping):
        return _from_lists(of_user, id_array(list(events), "users"), events.values(), index)
    if isinstance(events, (list, tuple)):
        return _from_lists(of_user, np.arange(len(events)), events, index)
    if not any(hasattr(type(events), name) for name in ("columns", "column_names")):
        raise InvalidTypeError(
            f"Expected {what} as a dict {{user: [item, ...]}}, a list of lists or a frame, got {type(events).__name__}."
        )
    return _from_frame(events, index, user, item, value, min_value)


def _with_seen(liked: Histories, seen_only: Histories, ascending: bool) -> Histories:
    """Add the rows of `seen_only` to what users have seen, and append users who only appear there."""
    row_of = ItemIndex(liked.users).positions(seen_only.users)
    others = np.flatnonzero(row_of < 0)
    row_of[others] = len(liked.users) + np.arange(len(others))
    users, order = liked.users, np.arange(len(liked.users))
    if len(others):
        users = _joined(users, seen_only.users[others])
        order = np.argsort(users, kind="stable") if ascending else np.arange(len(users))
    new_row = np.empty(len(users), dtype=np.int64)
    new_row[order] = np.arange(len(users))
    shape = (len(users), liked.rows.shape[1])
    seen = [(row_of, seen_only.rows)] + ([] if liked.seen is None else [(np.arange(len(liked.users)), liked.seen)])
    rows, columns = (
        np.concatenate(parts)
        for parts in zip(*((new_row[of[_row_of_each(cells)]], cells.indices) for of, cells in seen), strict=True)
    )
    rows_liked = liked.rows
    if len(others):
        values = rows_liked.data.astype(np.float64)
        rows_liked = _matrix(new_row[_row_of_each(rows_liked)], rows_liked.indices, values, shape)
    return Histories(users[order], rows_liked, liked.unknown, _matrix(rows, columns, None, shape))


def _joined(users: Ids, others: Ids) -> Ids:
    """Concatenate ids, as their common type."""
    if not len(users) or users.dtype == others.dtype:
        return np.concatenate([users, others]) if len(users) else others
    return id_array([*users.tolist(), *others.tolist()], "users of histories and of seen")


def _row_of_each(cells: sparse.csr_matrix) -> Indices:
    return np.repeat(np.arange(cells.shape[0]), np.diff(cells.indptr))


def _from_lists(of_user: str, users: Ids, lists: Iterable[Any], index: ItemIndex) -> Histories:
    names: list[Any] = []
    lengths = []
    for user, items in zip(users.tolist(), lists, strict=True):
        history = listed(items, f"{of_user} {user!r}")
        names += history
        lengths.append(len(history))
    rows = np.repeat(np.arange(len(lengths)), lengths)
    columns = index.positions(names)
    of_unknown = np.flatnonzero(columns < 0)
    unknown = UnknownItems()
    if len(of_unknown):
        unknown = UnknownItems(len(of_unknown), _examples(names[position] for position in of_unknown))
    return Histories(users, _matrix(rows, columns, None, (len(lengths), len(index))), unknown)


def _from_frame(
    frame: Any, index: ItemIndex, user: str, item: str, value: str | None, min_value: float | None
) -> Histories:
    rows, users = number_ids(read_column(frame, user), user)
    column = read_column(frame, item)
    if is_listing(column.type):
        if value is not None:
            raise InvalidParameterError(f"Expected no column of values next to lists of items, got value={value!r}.")
        rows = np.repeat(rows, pc.list_value_length(column).to_numpy())
        column = read_column(pa.table({item: pc.list_flatten(column)}), item)
    codes, items = number_ids(column, item)
    columns, shape, seen = index.positions(items)[codes], (len(users), len(index)), None
    values = None if value is None else read_numbers(read_column(frame, value), value)
    if values is not None:
        liked = at_least(values, min_value) & (values != 0)  # NaN passes, and is refused next
        check_content(values[liked])
        if not liked.all():
            seen = _only_seen(rows, columns, liked, shape)
            rows, columns, codes, values = rows[liked], columns[liked], codes[liked], values[liked]
    of_unknown = columns < 0
    unknown = UnknownItems(int(of_unknown.sum()), _examples(items[np.unique(codes[of_unknown])].tolist()))
    return Histories(users, _matrix(rows, columns, values, shape), unknown, seen)


def _only_seen(
    rows: Indices, columns: Indices, liked: NDArray[np.bool_], shape: tuple[int, int]
) -> sparse.csr_matrix | None:
    """Known items that users have seen but not liked in any event; None if there are none."""
    cells = rows * shape[1] + columns
    seen_only = ~liked & (columns >= 0)
    seen_only[seen_only] = ~np.isin(cells[seen_only], cells[liked & (columns >= 0)])
    return _matrix(rows[seen_only], columns[seen_only], None, shape) if seen_only.any() else None


def _matrix(
    rows: Indices, columns: Indices, values: NDArray[np.float64] | None, shape: tuple[int, int]
) -> sparse.csr_matrix:
    """Canonical rows of the events on known items; without values, each event counts 1.

    The same result as `merge_events`, without steps of scipy that are too slow for a single request.
    """
    cells = rows * shape[1] + columns
    if len(columns) and columns.min() < 0:
        known = columns >= 0
        cells, values = cells[known], None if values is None else values[known]
    order = cells.argsort(kind="stable")
    cells = cells[order]
    first, sums = merge_sorted(cells, None if values is None else values[order])
    row, column = np.divmod(cells[first], shape[1])
    indptr = row.searchsorted(np.arange(shape[0] + 1))
    index = np.int32 if max(*shape, len(cells)) < 2**31 else np.int64  # as scipy would choose, but faster
    return sparse.csr_matrix((sums, column.astype(index), indptr.astype(index)), shape=shape)


def _examples(names: Iterable[Any]) -> tuple[Any, ...]:
    """The up to three smallest ids, independent of the order of events."""
    return tuple(nsmallest(3, set(names)))


def _take(values: Any, indices: NDArray[Any]) -> pa.Array:
    """Take values at `indices` as an Arrow array; numpy holds strings as objects."""
    values = np.asarray(values)
    return pa.array(values[indices], pa.string() if values.dtype == object else None)
