"""Which users and items stay, and who is trained on: the filters of `Interactions`, and the strong split."""

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
    """What becomes of the cells.

    Attributes
    ----------
    parts : NDArray[np.int8]
        For each user of the cells DROPPED, TRAIN, VALID or TEST.
    columns : NDArray[np.int32]
        For each item of the cells its column, -1 where it is gone.
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
    """As `Interactions.filter` and `strong_split` choose.

    Items with fewer than `min_item` cells go, users with fewer than `min_user` of those that remain, and items that
    no training user has.

    Raises
    ------
    InvalidDataError
        Where nothing is left, or would be held out.
    InvalidParameterError
        Where no training user would be.
    """
    strong = cells.counts >= max(min_item, 1)
    lengths = cells.lengths if strong.all() else _lengths(cells, strong)
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
        for part, places in enumerate(draw_users(len(active), heldout_users, seed), TRAIN):
            parts[active[places]] = part
    counts = np.where(strong, cells.counts if (parts == TRAIN).all() else _counts(cells, parts == TRAIN), 0)
    known = counts > 0
    if heldout_users is not None:
        lengths_known = _lengths(cells, known)
        for purpose, part in (("validation", VALID), ("test", TEST)):
            check_enough(purpose, lengths_known[parts == part], test_share)
    columns = np.where(known, np.cumsum(known) - 1, -1).astype(np.int32)
    return Assignment(parts, columns, counts[known], lengths)


def _lengths(cells: Cells, items: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many cells on some of the items each user has."""
    found = np.zeros_like(cells.lengths)
    for users, places, _ in cells.blocks():
        ends = np.concatenate([[0], np.cumsum(items[places])])
        found[users] = np.diff(ends[cells.starts[users.start : users.stop + 1] - cells.starts[users.start]])
    return found


def _counts(cells: Cells, users: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many of some users have each item."""
    found = np.zeros_like(cells.counts)
    for block, places, _ in cells.blocks():
        found += np.bincount(places[np.repeat(users[block], cells.lengths[block])], minlength=len(found))
    return found
