"""What a split is: training interactions, and users from whom something is hidden."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.interactions import Ids, Interactions

SPLIT_SEED = 98765  # that of Liang et al. 2018


@dataclass(frozen=True, eq=False)
class Holdout:
    """Users to evaluate on: what a model sees of them, and what it is to find.

    fold_in, held_out : csr_matrix (users, items), disjoint
    users : raw ids of the rows
    dropped : how many users were left out because nothing of theirs was held out, or seen
    item_counts, n_train : how many of the n_train training users have each item, for novelty
    train_rows : the row of each user in training, where they are training users; else None
    """

    fold_in: sparse.csr_matrix
    held_out: sparse.csr_matrix
    users: Ids
    dropped: int
    item_counts: NDArray[np.int64]
    n_train: int
    train_rows: NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        return (
            f"Holdout({len(self.users):,} users, {self.fold_in.nnz:,} events folded in, {self.held_out.nnz:,} held out)"
        )


@dataclass(frozen=True)
class Split:
    """Training interactions, validation and test users over one vocabulary, `items` (raw ids of the columns).

    refit : where validation events are those of training users, these and `train` together: what a model is fitted on
        once more after all choices are made, before the test. None where validation users are others.
    """

    train: Interactions
    valid: Holdout
    test: Holdout
    refit: Interactions | None = None

    @property
    def items(self) -> Ids:
        return self.train.item_ids
