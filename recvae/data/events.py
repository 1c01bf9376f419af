"""Single events -> the canonical matrix: weak ones and zeros dropped, repeated pairs merged, nothing odd passed on."""

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

from recvae.data.rows import check_content
from recvae.errors import InvalidDataError, InvalidParameterError, UnknownNameError

Duplicates = Literal["sum", "last"]
Times = NDArray[np.float64]


@dataclass(frozen=True)
class Account:
    """What became of the rows that were read.

    Attributes
    ----------
    rows : int
        How many there were.
    left_out : Mapping[str, int]
        How many of them are not an event of their own, by reason, such as {"of value 0": 400}.
    notes : tuple[str, ...]
        What else is to be known of the reading.
    """

    rows: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def without(self, n: int, reason: str) -> Self:
        """The account with `n` more rows left out, if there are any."""
        return replace(self, left_out=dict(self.left_out) | {reason: self.left_out.get(reason, 0) + n}) if n else self

    def noted(self, *notes: str) -> Self:
        """The account with more notes; empty ones are none."""
        return replace(self, notes=(*self.notes, *filter(None, notes)))

    def __str__(self) -> str:
        """One line, such as "600 rows read, 200 events; left out: 400 of value 0"."""
        n = sum(self.left_out.values())
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
        left_out = [f"left out: {reasons}"] if n else []
        return "; ".join([f"{self.rows:,} rows read, {self.rows - n:,} events", *left_out, *self.notes])


def account_for(values: NDArray[Any], min_value: float | None, duplicates: Duplicates, n_cells: int) -> Account:
    """What became of rows with such values, of which `merge_events` made so many cells."""
    weak = 0 if min_value is None else int((values < min_value).sum())
    zeros = int((values == 0).sum()) if min_value is None or min_value <= 0 else 0
    repeated = "added to an earlier row of the same user and item" if duplicates == "sum" else "followed by a later row"
    return (
        Account(len(values))
        .without(weak, "" if min_value is None else f"below {min_value:g}")
        .without(zeros, "of value 0")
        .without(len(values) - weak - zeros - n_cells, repeated)
    )


def merge_events(
    events: sparse.coo_matrix, min_value: float | None, duplicates: Duplicates, times: Times | None = None
) -> tuple[sparse.csr_matrix, sparse.csr_matrix | None]:
    """One cell for each (user, item) pair that has an event.

    Parameters
    ----------
    times : Times or None
        (E,), when each event was, 0 where that is not known. The last of repeated events is then the latest by time,
        not the last to come.

    Returns
    -------
    tuple[sparse.csr_matrix, sparse.csr_matrix | None]
        Canonical float32 matrix, and the times of its cells in the same structure: of the first, where events repeat,
        so that to a split by time a repetition is nothing new.
    """
    if duplicates not in ("sum", "last"):
        raise UnknownNameError.among("rule for duplicates", duplicates, ("sum", "last"))
    chosen: NDArray[Any] | None = None if min_value is None else _strong(events.data, min_value)
    if times is not None:
        order = np.lexsort((times, times != 0))  # the unknown come first
        chosen = order if chosen is None else order[chosen[order]]
    if chosen is not None:
        events, times = _select(events, chosen), None if times is None else times[chosen]
    check_content(events.data)
    cells = sparse.csr_matrix(_last(events) if duplicates == "last" else events, dtype=np.float32)
    cells.sum_duplicates()
    cells.eliminate_zeros()
    if cells.nnz == 0:
        floor = "" if min_value is None else f" with a value of at least {min_value:g}"
        raise InvalidDataError(f"Expected at least one event{floor}, got a matrix of {cells.shape} without any.")
    return cells, None if times is None else _first(cells, events, times)


def digest_events(ids: Iterable[Iterable[Sequence[Any]]], arrays: Iterable[NDArray[Any]]) -> str:
    """The digest of users and items, each in pieces, and of the arrays of a CSR matrix (int64, int64, float32)."""
    digest = hashlib.blake2b(digest_size=16)
    for pieces in ids:
        for place, piece in enumerate(pieces):
            digest.update("\n".join([*[""] * (place > 0), *map(str, piece)]).encode())
        digest.update(b"\n\n")
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def select_cells(cells: sparse.csr_matrix, chosen: NDArray[np.bool_]) -> sparse.csr_matrix:
    """The cells that a mask over `cells.data` chooses, all rows and columns kept."""
    indptr = np.concatenate([[0], np.cumsum(chosen)])[cells.indptr]
    return sparse.csr_matrix((cells.data[chosen], cells.indices[chosen], indptr), shape=cells.shape)


def check_min_value(min_value: Any) -> None:
    """Refuse what no value can be held against."""
    if not isinstance(min_value, numbers.Real) or math.isnan(min_value):
        raise InvalidParameterError(f"Expected min_value to be a number, got {min_value!r}.")


def _strong(data: NDArray[Any], min_value: float) -> NDArray[np.bool_]:
    check_min_value(min_value)
    return ~(data < min_value)  # NaN stays, to be refused


def _last(events: sparse.coo_matrix) -> sparse.coo_matrix:
    key = events.row.astype(np.int64) * events.shape[1] + events.col
    _, from_end = np.unique(key[::-1], return_index=True)
    return _select(events, len(key) - 1 - from_end)


def _first(cells: sparse.csr_matrix, events: sparse.coo_matrix, times: Times) -> sparse.csr_matrix:
    """The time of each cell's first event of known time, `events` being in the order of their times."""
    row_of = np.repeat(np.arange(cells.shape[0]), np.diff(cells.indptr))
    keys = row_of * cells.shape[1] + cells.indices  # ascending: the cells are in order
    wanted = events.row.astype(np.int64) * cells.shape[1] + events.col
    place = np.minimum(np.searchsorted(keys, wanted), cells.nnz - 1)
    there = np.flatnonzero((keys[place] == wanted) & (times != 0))[::-1]  # the others had a value of zero
    found = np.zeros(cells.nnz)
    found[place[there]] = times[there]  # where places repeat, the last assignment stands: that of the first event
    return sparse.csr_matrix((found, cells.indices, cells.indptr), shape=cells.shape)


def _select(events: sparse.coo_matrix, chosen: NDArray[Any]) -> sparse.coo_matrix:
    return sparse.coo_matrix((events.data[chosen], (events.row[chosen], events.col[chosen])), events.shape)
