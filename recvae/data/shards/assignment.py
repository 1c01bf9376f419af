"""Which users and items are kept, and who is trained on: the filters of `Interactions`, and the strong split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recvae.data.shards.cells import Cells
from recvae.data.splits.strong import check_enough, draw_users
from recvae.errors import InvalidDataError

DROPPED, TRAIN, VALID, TEST = range(4)


@dataclass(frozen=True)
class Assignment:
    """What each user and each item of the cells is used for.

    Attributes
    ----------
    parts : NDArray[np.int8]
        For each user of the cells DROPPED, TRAIN, VALID or TEST.
    columns : NDArray[np.int32]
        For each item of the cells its column, -1 if it is dropped.
    counts : NDArray[np.int64]
        How many training users have the item of each column.
    lengths : NDArray[np.int64]
        How many cells each user keeps, if a training user, before the vocabulary is known.
    """

    parts: NDArray[np.int8]
    columns: NDArray[np.int32]
    counts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def assign(
    cells: Cells, min_user: int, min_item: int, heldout_users: int | None, seed: int, test_share: float
) -> Assignment:
    """Assign users and items as `Interactions.filter` and `strong_split` do.

    Items with fewer than `min_item` cells go, users with fewer than `min_user` of those that remain, and items that
    no training user has.

    Raises
    ------
    InvalidDataError
        Where nothing is left, or would be held out.
    InvalidParameterError
        Where no training user would be.
    """
    frequent = cells.counts >= max(min_item, 1)
    lengths = cells.lengths if frequent.all() else _lengths(cells, frequent)
    active = np.flatnonzero(lengths >= max(min_user, 1))
    if not len(active):
        raise InvalidDataError(
            f"No events are left: expected users with at least {max(min_user, 1)} events on items with at least "
            f"{max(min_item, 1)}; lower min_user or min_item."
        )
    parts = np.zeros(len(lengths), dtype=np.int8)
    if heldout_users is None:
        parts[active] = TRAIN
    else:
        for part, rows in enumerate(draw_users(len(active), heldout_users, seed), TRAIN):
            parts[active[rows]] = part
    counts = np.where(frequent, cells.counts if (parts == TRAIN).all() else _counts(cells, parts == TRAIN), 0)
    known = counts > 0
    if heldout_users is not None:
        lengths_known = _lengths(cells, known)
        for purpose, part in (("validation", VALID), ("test", TEST)):
            check_enough(purpose, lengths_known[parts == part], test_share)
    columns = np.where(known, np.cumsum(known) - 1, -1).astype(np.int32)
    return Assignment(parts, columns, counts[known], lengths)


def _lengths(cells: Cells, items: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many cells on some of the items each user has."""
    lengths = np.zeros_like(cells.lengths)
    for users, columns, _ in cells.blocks():
        ends = np.concatenate([[0], np.cumsum(items[columns])])
        lengths[users] = np.diff(ends[cells.starts[users.start : users.stop + 1] - cells.starts[users.start]])
    return lengths


def _counts(cells: Cells, users: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many of some users have each item."""
    counts = np.zeros_like(cells.counts)
    for block, columns, _ in cells.blocks():
        counts += np.bincount(columns[np.repeat(users[block], cells.lengths[block])], minlength=len(counts))
    return counts
