"""Strong generalisation: the users that a model is tested on were not there when it was trained."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError
from recvae.events import select_cells
from recvae.interactions import Interactions
from recvae.params import check_share, check_whole
from recvae.split.holdout import SPLIT_SEED, Holdout, Split


def strong_split(data: Interactions, heldout_users: int, seed: int = SPLIT_SEED, test_share: float = 0.2) -> Split:
    """Strong generalisation as in Liang et al. 2018: training, validation and test users are disjoint.

    Of the users, permuted by `RandomState(seed)`, the last `heldout_users` are for test, as many before them for
    validation. The vocabulary is the items of the training users. Of each held-out user with at least five events in
    it `int(test_share * n)` are held out and the others folded in; users left with nothing to predict are dropped
    and counted. The draws follow the authors' preprocessing, so that seed 98765 on ML-20M gives the paper's users.

    Raises InvalidParameterError where no training user would be left.
    """
    if not isinstance(data, Interactions):
        raise InvalidTypeError(f"Expected Interactions, got {type(data).__name__}; see Interactions.from_matrix.")
    heldout_users, seed = check_whole("heldout_users", heldout_users, 1), check_whole("seed", seed, 0, 2**32 - 1)
    if data.n_users <= 2 * heldout_users:
        raise InvalidParameterError(
            f"Expected more than {2 * heldout_users} users for {heldout_users} validation and {heldout_users} test "
            f"users, got {data.n_users}; ask for {(data.n_users - 1) // 2} held-out users or fewer."
        )
    test_share = check_share("test_share", test_share)
    order = np.argsort(data.user_ids, kind="stable")[np.random.RandomState(seed).permutation(data.n_users)]
    train = data.select_users(np.sort(order[: -2 * heldout_users]))
    counts = np.bincount(train.matrix.indices, minlength=train.n_items)
    vocabulary = np.flatnonzero(counts)
    if not len(vocabulary):
        raise InvalidDataError(f"Expected training users with events, got {train.n_users} without any.")
    vocabulary = vocabulary[np.argsort(data.item_ids[vocabulary], kind="stable")]
    data, train, counts = data.select_items(vocabulary), train.select_items(vocabulary), counts[vocabulary]
    valid_rows, test_rows = order[-2 * heldout_users : -heldout_users], order[-heldout_users:]
    valid = _holdout(data, valid_rows, test_share, seed, counts, train.n_users)
    return Split(train, valid, _holdout(data, test_rows, test_share, seed, counts, train.n_users))


def _holdout(
    data: Interactions, rows: NDArray[Any], test_share: float, seed: int, counts: NDArray[np.int64], n_train: int
) -> Holdout:
    rows = rows[np.argsort(data.user_ids[rows], kind="stable")]
    matrix = data.matrix[rows]
    matrix.sort_indices()
    held = _draw(matrix.indptr, test_share, np.random.RandomState(seed))
    fold_in, held_out = select_cells(matrix, ~held), select_cells(matrix, held)
    some = np.flatnonzero(np.diff(held_out.indptr))
    return Holdout(
        fold_in=fold_in[some],
        held_out=held_out[some],
        users=data.user_ids[rows][some],
        dropped=len(rows) - len(some),
        item_counts=counts,
        n_train=n_train,
    )


def _draw(indptr: NDArray[Any], test_share: float, random: np.random.RandomState) -> NDArray[np.bool_]:
    """For each event, whether it is held out: int(test_share * n) of each user with n >= 5 events."""
    held = np.zeros(indptr[-1], dtype=bool)
    for start, stop in itertools.pairwise(indptr):
        if stop - start >= 5:
            size = int(test_share * (stop - start))
            held[start + random.choice(stop - start, size=size, replace=False)] = True
    return held
