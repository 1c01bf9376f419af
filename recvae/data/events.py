"""Single events -> the canonical matrix: one cell for each (user, item) pair, and an account of the rows left out.

The rules, for all inputs: events below `min_value` and of value 0 do not count; the values of repeated pairs are
summed in float64, or in the type that they came in, and stored as float32.
"""

from __future__ import annotations

import hashlib
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.rows import canonical, check_content
from recvae.errors import InvalidDataError, InvalidParameterError, UnknownNameError

Duplicates = Literal["sum", "last"]
Times = NDArray[np.float64]


@dataclass(frozen=True)
class Account:
    """Account of the rows that were read: how many became events, and why the others did not.

    Attributes
    ----------
    rows : int
        Number of rows read.
    left_out : Mapping[str, int]
        How many of them did not become an event, by reason, such as {"of value 0": 400}.
    notes : tuple[str, ...]
        Remarks on how the rows were read.
    """

    rows: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def without(self, n: int, reason: str) -> Self:
        """The account with `n` more rows left out, if there are any."""
        return replace(self, left_out=dict(self.left_out) | {reason: self.left_out.get(reason, 0) + n}) if n else self

    def preceded_by(self, left_out: Mapping[str, int], notes: Iterable[str]) -> Self:
        """The account with rows that the reader of the file has left out, and its notes, before the others."""
        rows = self.rows + sum(left_out.values())
        return replace(self, rows=rows, left_out=dict(left_out) | dict(self.left_out), notes=(*notes, *self.notes))

    def noted(self, *notes: str) -> Self:
        """The account with more notes; empty ones are skipped."""
        return replace(self, notes=(*self.notes, *filter(None, notes)))

    def __str__(self) -> str:
        """One line, such as "600 rows read, 200 events; left out: 400 of value 0"."""
        n = sum(self.left_out.values())
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
        left_out = [f"left out: {reasons}"] if n else []
        return "; ".join([f"{self.rows:,} rows read, {self.rows - n:,} events", *left_out, *self.notes])


def account_for(values: NDArray[Any], min_value: float | None, duplicates: Duplicates, n_cells: int) -> Account:
    """Account of rows with these values, after `merge_events` has merged them into `n_cells` cells."""
    below = 0 if min_value is None else int((values < min_value).sum())
    zeros = int((values == 0).sum()) if min_value is None or min_value <= 0 else 0
    repeated = "added to an earlier row of the same user and item" if duplicates == "sum" else "followed by a later row"
    return (
        Account(len(values))
        .without(below, "" if min_value is None else f"below {min_value:g}")
        .without(zeros, "of value 0")
        .without(len(values) - below - zeros - n_cells, repeated)
    )


def merge_events(
    events: sparse.coo_matrix, min_value: float | None, duplicates: Duplicates, times: Times | None = None
) -> tuple[sparse.csr_matrix, sparse.csr_matrix | None]:
    """Merge events into one cell for each (user, item) pair.

    Parameters
    ----------
    events : sparse.coo_matrix
        (users, items), with one entry per event.
    min_value : float or None
        Events of a smaller value are dropped.
    duplicates : Duplicates
        "sum" adds up the values of a repeated pair, "last" keeps the last one.
    times : Times or None
        (E,) time of each event, 0 if unknown. "last" then keeps the latest event by time, not the last in the table.

    Returns
    -------
    tuple[sparse.csr_matrix, sparse.csr_matrix | None]
        Canonical float32 matrix, and the times of its cells in the same structure: of repeated events the first, so
        that a temporal split does not take a repetition for a new event.
    """
    if duplicates not in ("sum", "last"):
        raise UnknownNameError.among("rule for duplicates", duplicates, ("sum", "last"))
    selected: NDArray[Any] | None = None
    if min_value is not None:
        check_min_value(min_value)
        selected = at_least(events.data, min_value)
    if times is not None:
        order = np.lexsort((times, times != 0))  # unknown times come first
        selected = order if selected is None else order[selected[order]]
    if selected is not None:
        events, times = _select(events, selected), None if times is None else times[selected]
    check_content(events.data)
    cells = canonical(_last(events) if duplicates == "last" else events)
    if cells.nnz == 0:
        floor = "" if min_value is None else f" with a value of at least {min_value:g}"
        raise InvalidDataError(f"Expected at least one event{floor}, got a matrix of {cells.shape} without any.")
    return cells, None if times is None else _first(cells, events, times)


def at_least(values: NDArray[Any], min_value: float | None) -> NDArray[np.bool_]:
    """Mask of values that are not below `min_value`; it includes NaN, which is refused later."""
    return np.ones(len(values), dtype=bool) if min_value is None else ~(values < min_value)


def merge_sorted(
    cells: NDArray[np.int64], values: NDArray[np.float64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Merge events that are sorted by cell, as `merge_events` does: for requests and for blocks of events.

    Parameters
    ----------
    cells : NDArray[np.int64]
        (E,) ascending keys of the (user, item) pairs.
    values : NDArray[np.float64] or None
        (E,) values of the events; 1 each if None.

    Returns
    -------
    tuple[NDArray[np.int64], NDArray[np.float32]]
        The index of the first event of each cell, and the sum of its values, added up in float64 in their order.
    """
    # start of each run of equal cells, and the end of the last
    bounds = np.flatnonzero(np.concatenate([[True], cells[1:] != cells[:-1], [True]])[: len(cells) + 1])
    first = bounds[:-1]
    sums = np.diff(bounds) if values is None else np.add.reduceat(values, first)
    return first, sums.astype(np.float32)


def digest_events(ids: Iterable[Iterable[Sequence[Any]]], arrays: Iterable[NDArray[Any]]) -> str:
    """Hexadecimal digest of user and item ids, in chunks, and of the arrays of a CSR matrix (int64, int64, float32)."""
    digest = hashlib.blake2b(digest_size=16)
    for pieces in ids:
        for number, piece in enumerate(pieces):
            digest.update("\n".join([*[""] * (number > 0), *map(str, piece)]).encode())
        digest.update(b"\n\n")
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def select_cells(cells: sparse.csr_matrix, chosen: NDArray[np.bool_]) -> sparse.csr_matrix:
    """Select cells by a mask over `cells.data`; the shape stays the same."""
    indptr = np.concatenate([[0], np.cumsum(chosen)])[cells.indptr]
    return sparse.csr_matrix((cells.data[chosen], cells.indices[chosen], indptr), shape=cells.shape)


def check_min_value(min_value: Any) -> None:
    """Raise InvalidParameterError unless it is a real number."""
    if not isinstance(min_value, numbers.Real) or math.isnan(min_value):
        raise InvalidParameterError(f"Expected min_value to be a number, got {min_value!r}.")


def _last(events: sparse.coo_matrix) -> sparse.coo_matrix:
    """The last event of each pair."""
    key = events.row.astype(np.int64) * events.shape[1] + events.col
    _, from_end = np.unique(key[::-1], return_index=True)
    return _select(events, len(key) - 1 - from_end)


def _first(cells: sparse.csr_matrix, events: sparse.coo_matrix, times: Times) -> sparse.csr_matrix:
    """The time of each cell's first event of known time; `events` are in the order of their times."""
    row_of = np.repeat(np.arange(cells.shape[0]), np.diff(cells.indptr))
    keys = row_of * cells.shape[1] + cells.indices  # ascending: the cells are in order
    event_keys = events.row.astype(np.int64) * cells.shape[1] + events.col
    index = np.minimum(np.searchsorted(keys, event_keys), cells.nnz - 1)
    known = np.flatnonzero((keys[index] == event_keys) & (times != 0))[::-1]  # cells of value zero were dropped
    first = np.zeros(cells.nnz)
    first[index[known]] = times[known]  # the last assignment to an index wins: that of the first event
    return sparse.csr_matrix((first, cells.indices, cells.indptr), shape=cells.shape)


def _select(events: sparse.coo_matrix, kept: NDArray[Any]) -> sparse.coo_matrix:
    return sparse.coo_matrix((events.data[kept], (events.row[kept], events.col[kept])), events.shape)
