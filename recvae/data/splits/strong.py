"""Strong generalisation: validation and test users are not training users."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.events import select_cells
from recvae.data.interactions import Ids, Interactions
from recvae.data.names import SPLIT_SEED
from recvae.data.splits.holdout import Holdout, Split
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError
from recvae.utils.checks import check_fraction, check_integer


def strong_split(data: Interactions, heldout_users: int, seed: int = SPLIT_SEED, test_share: float = 0.2) -> Split:
    """Strong generalisation as in Liang et al. 2018: training, validation and test users are disjoint.

    Users are permuted by `RandomState(seed)`; the last `heldout_users` are test users, and as many before them
    validation users. The items are those of the training users. Of the n >= 5 events of a held-out user on these
    items, `int(test_share * n)` are held out and the others folded in; users without held-out events are dropped and
    counted. The draws follow the authors' preprocessing: seed 98765 on ML-20M gives the paper's users.

    Parameters
    ----------
    data : Interactions
        All events.
    heldout_users : int
        Number of validation users, and of test users.
    seed : int
        Seed of the permutation and of the draws of held-out events.
    test_share : float
        Share of a held-out user's events to predict, in (0, 1).

    Returns
    -------
    Split
        Without `refit`.

    Raises
    ------
    InvalidParameterError
        If no training user would be left.
    InvalidDataError
        If all validation users or all test users would be dropped.
    """
    if not isinstance(data, Interactions):
        raise InvalidTypeError(f"Expected Interactions, got {type(data).__name__}; see Interactions.from_matrix.")
    drawn = draw_users(data.n_users, heldout_users, seed)
    test_share = check_fraction("test_share", test_share)
    ascending = np.argsort(data.user_ids, kind="stable")
    train = data.select_users(np.sort(ascending[drawn[0]]))
    counts = np.bincount(train.matrix.indices, minlength=train.n_items)
    vocabulary = np.flatnonzero(counts)
    if not len(vocabulary):
        raise InvalidDataError(f"Expected training users with events, got {train.n_users} without any.")
    vocabulary = vocabulary[np.argsort(data.item_ids[vocabulary], kind="stable")]
    data, train, counts = data.select_items(vocabulary), train.select_items(vocabulary), counts[vocabulary]
    training = {"item_counts": counts, "n_train": train.n_users, "item_ids": train.item_ids}
    valid, test = (
        hold_out(data.matrix[rows], data.user_ids[rows], test_share, seed, purpose, **training)
        for purpose, rows in (("validation", ascending[drawn[1]]), ("test", ascending[drawn[2]]))
    )
    return Split(train, valid, test)


def draw_users(n_users: int, heldout_users: int, seed: int) -> tuple[NDArray[np.int64], ...]:
    """Draw the training, validation and test users, as indices of the users in ascending order of raw id.

    Returns
    -------
    tuple[NDArray[np.int64], ...]
        Sorted indices of training, validation and test users.

    Raises
    ------
    InvalidParameterError
        If no training users would be left.
    """
    heldout_users, seed = check_integer("heldout_users", heldout_users, 1), check_integer("seed", seed, 0, 2**32 - 1)
    if n_users <= 2 * heldout_users:
        raise InvalidParameterError(
            f"Expected more than {2 * heldout_users} users for {heldout_users} validation and {heldout_users} test "
            f"users, got {n_users}; ask for {(n_users - 1) // 2} held-out users or fewer."
        )
    order = np.random.RandomState(seed).permutation(n_users)
    return tuple(map(np.sort, np.split(order, [n_users - 2 * heldout_users, n_users - heldout_users])))


def hold_out(
    matrix: sparse.csr_matrix, users: Ids, test_share: float, seed: int, purpose: str, **training: Any
) -> Holdout:
    """Hold out events of users who are not training users.

    Parameters
    ----------
    matrix, users
        Rows (users, items) and their raw ids, in ascending order of these.
    purpose : str
        "validation" or "test", for error messages.
    **training : Any
        Fields of `Holdout` on the training data: item_counts, n_train, item_ids.

    Raises
    ------
    InvalidDataError
        If no user has enough events.
    """
    enough = check_enough(purpose, np.diff(matrix.indptr), test_share)
    matrix.sort_indices()
    held = _draw(matrix.indptr, test_share, np.random.RandomState(seed))
    fold_in, held_out = select_cells(matrix, ~held), select_cells(matrix, held)
    some = np.flatnonzero(np.diff(held_out.indptr))
    return Holdout(
        fold_in=fold_in[some],
        held_out=held_out[some],
        users=users[some],
        dropped=len(users) - len(some),
        reason=f"they have fewer than {enough} events on items of the training users",
        **training,
    )


def check_enough(purpose: str, lengths: NDArray[np.integer], test_share: float) -> int:
    """Smallest number of events of a user of which at least one is held out.

    Parameters
    ----------
    lengths : NDArray[np.integer]
        (users,) number of events of each user on items of the training users.

    Raises
    ------
    InvalidDataError
        If no user has so many.
    """
    enough = max(5, math.floor(1 / test_share))
    while int(test_share * enough) < 1:
        enough += 1
    most = int(lengths.max(initial=0))
    if most < enough:
        raise InvalidDataError(
            f"Expected {purpose} users with at least {enough} events on items of the training users, of which "
            f"{test_share:g} are held out, got {len(lengths):,} users, of whom none has more than {most}; keep out "
            f"more users, or take another split, such as per-user or leave-last."
        )
    return enough


def _draw(indptr: NDArray[Any], test_share: float, random: np.random.RandomState) -> NDArray[np.bool_]:
    """Draw a mask of held-out events: int(test_share * n) of each user with n >= 5 events."""
    held = np.zeros(indptr[-1], dtype=bool)
    for start, stop in itertools.pairwise(indptr):
        if stop - start >= 5:
            size = int(test_share * (stop - start))
            held[start + random.choice(stop - start, size=size, replace=False)] = True
    return held
