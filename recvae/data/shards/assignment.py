"""Assignment of users and items for shards: the filters of `Interactions`, and the strong split."""

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
    """Part of each user (dropped, training, validation, test) and column of each item of the cells.

    Attributes
    ----------
    parts : NDArray[np.int8]
        (users of the cells,) DROPPED, TRAIN, VALID or TEST.
    columns : NDArray[np.int32]
        (items of the cells,) column of each item, -1 if it is dropped.
    counts : NDArray[np.int64]
        (columns,) number of training users of each item.
    lengths : NDArray[np.int64]
        (users of the cells,) number of cells of each user on frequent items, before items without training users are
        dropped.
    """

    parts: NDArray[np.int8]
    columns: NDArray[np.int32]
    counts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def assign(
    cells: Cells,
    min_user: int,
    min_item: int,
    heldout_users: int | None,
    seed: int,
    test_share: float,
    k_core: bool = False,
) -> Assignment:
    """Assign users and items as `Interactions.filter` and `strong_split` do.

    Drops items with fewer than `min_item` cells, then users with fewer than `min_user` of the remaining cells, again
    and again if `k_core`, then items without a training user.

    Raises
    ------
    InvalidDataError
        If no events are left, or nothing would be held out.
    InvalidParameterError
        If no training users would be left.
    """
    frequent = cells.counts >= max(min_item, 1)
    lengths = cells.lengths if frequent.all() else _lengths(cells, frequent)
    while k_core:
        counts = _counts(cells, lengths >= max(min_user, 1))
        within = frequent & (counts >= max(min_item, 1))
        if (within == frequent).all():
            break
        frequent, lengths = within, _lengths(cells, within)
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
    """Number of cells of each user on the items of a mask."""
    lengths = np.zeros_like(cells.lengths)
    for users, columns, _ in cells.blocks():
        ends = np.concatenate([[0], np.cumsum(items[columns])])
        lengths[users] = np.diff(ends[cells.starts[users.start : users.stop + 1] - cells.starts[users.start]])
    return lengths


def _counts(cells: Cells, users: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number of users of a mask with each item."""
    counts = np.zeros_like(cells.counts)
    for block, columns, _ in cells.blocks():
        counts += np.bincount(columns[np.repeat(users[block], cells.lengths[block])], minlength=len(counts))
    return counts
