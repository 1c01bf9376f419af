"""P3alpha and RP3beta: random walks item -> user -> item on the graph of events."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from recvae.models.base import FitRun
from recvae.models.base.params import hyper, parameters
from recvae.models.base.spaces import integers, uniform
from recvae.models.baselines.neighbours import NeighbourScores
from recvae.utils.finite import check_fitted

BLOCK = 512  # items whose walks are computed at a time
Array = NDArray[np.float32]


@parameters
class P3alpha(NeighbourScores):
    """P3alpha: transition probabilities of a walk of three steps, to the power of alpha.

        p_iu = x_ui / sum_v x_vi,  p_uj = x_ui / sum_j x_uj         from an item to a user, from a user to an item
        W_ij = sum_u p_iu^alpha p_uj^alpha,  W_ii = 0

    X is the users x items matrix. Items are scored by x W: the walk starts at one of the row's items. With alpha = 1
    these are probabilities of where the walk ends, up to the choice of the first item. Items that no kept walk reaches
    have no score and are not recommended.

    Of W, the K largest entries in each row are kept, scaled to a sum of 1 if `normalize`, and of these the K largest in
    each column: few items lead to a popular one, as to any other.

    References
    ----------
    Cooper, Lee, Radinsky & Siantos, "Random Walks in Recommender Systems: Exact Computation and Simulations", WWW 2014.
    What is kept of W, and the scaling of rows, are as in the evaluation framework of Ferrari Dacrema, Boglio, Cremonesi
    & Jannach, "A Troubling Analysis of Reproducibility and Progress in Recommender Systems Research", TOIS 2021.
    """

    alpha: float = hyper(1.0, "exponent of the transition probabilities", low=0, high=2, search=uniform(0.1, 2.0))
    K: int = hyper(100, "neighbours kept for each item, in rows and in columns", low=1, search=integers(5, 1000))
    normalize: bool = hyper(True, "whether the kept weights of an item are scaled to a sum of 1", search=[True, False])

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        to_users = _probabilities(rows.T.tocsr(), self.alpha)  # (I, U)
        to_items = _probabilities(rows, self.alpha)  # (U, I)
        to_items.data *= self._penalty(rows)[to_items.indices]  # the same as the columns of W
        walks = largest_products(to_users, to_items, self.K, run.show_progress)
        if self.normalize:
            walks = _probabilities(walks, 1.0)
        walks = largest_of_rows(walks.T.tocsr(), self.K).T.tocsr()  # the K largest in each column
        check_fitted(torch.from_numpy(walks.data), "look for huge values in the data")
        return {"similarity_": walks}

    def _penalty(self, rows: sparse.csr_matrix) -> Array:
        """Factors of the items at which walks end. (U, I) -> (I,)"""
        return np.ones(rows.shape[1], np.float32)


@parameters
class RP3beta(P3alpha):
    """RP3beta: P3alpha with a penalty for popular items.

        W_ij = (sum_u p_iu^alpha p_uj^alpha) / n_j^beta,  W_ii = 0

    n_j is the number of users who have item j; the rest is as in P3alpha, which is beta = 0.

    References
    ----------
    Paudel, Christoffel, Newell & Bernstein, "Updatable, Accurate, Diverse, and Scalable Recommendations for Interactive
    Applications", ACM Transactions on Interactive Intelligent Systems 7, 2017.
    """

    beta: float = hyper(0.3, "exponent of the penalty for popular items", low=0, high=2, search=uniform(0.0, 1.0))

    def _penalty(self, rows: sparse.csr_matrix) -> Array:
        return np.maximum(rows.getnnz(axis=0), 1).astype(np.float32) ** np.float32(-self.beta)


def _probabilities(matrix: sparse.csr_matrix, power: float) -> sparse.csr_matrix:
    """Entries divided by the sum of their row, to this power. (A, B) -> (A, B)"""
    sums = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    data = (matrix.data / np.repeat(sums, np.diff(matrix.indptr))) ** power
    return sparse.csr_matrix((data.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)


def largest_products(
    left: sparse.csr_matrix, right: sparse.csr_matrix, k: int, show_progress: bool = False
) -> sparse.csr_matrix:
    """The k largest entries in each row of left @ right, without its diagonal; of equal ones the first.

    Rows are computed in blocks, so that no more of the product than this is in memory.

    Parameters
    ----------
    left, right : csr_matrix
        (I, U) and (U, I), with entries >= 0.
    k : int
        Entries to keep in a row.

    Returns
    -------
    csr_matrix
        (I, I).
    """
    from recvae.utils.progress import track  # only a fit needs these
    from recvae.utils.workers import use_workers

    def products(start: int) -> sparse.csr_matrix:
        block = left[start : start + BLOCK] @ right
        item_of = np.repeat(np.arange(start, start + block.shape[0]), np.diff(block.indptr))
        block.data[block.indices == item_of] = 0
        return largest_of_rows(block, k)

    blocks: list[sparse.csr_matrix] = []
    with use_workers() as workers:
        for start in track(range(0, left.shape[0], 4 * BLOCK), "walking from items", show_progress):
            blocks += workers.map(products, range(start, min(start + 4 * BLOCK, left.shape[0]), BLOCK))
    return sparse.vstack(blocks, format="csr")


def largest_of_rows(matrix: sparse.csr_matrix, k: int) -> sparse.csr_matrix:
    """The k largest entries > 0 in each row; of equal ones the first. (A, B) -> (A, B)"""
    matrix.sort_indices()
    values, kept = matrix.data, matrix.data > 0
    for row in np.flatnonzero(np.diff(matrix.indptr) > k):
        cells = slice(matrix.indptr[row], matrix.indptr[row + 1])
        least = np.partition(values[cells], -k)[-k]
        kept[cells] &= values[cells] >= least
        surplus = np.count_nonzero(kept[cells]) - k
        if surplus > 0:  # the last of those that are equal to the least
            kept[cells][np.flatnonzero(values[cells] == least)[-surplus:]] = False
    row_of = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row_of[kept], minlength=matrix.shape[0]))])
    return sparse.csr_matrix((values[kept], matrix.indices[kept], indptr), shape=matrix.shape)
