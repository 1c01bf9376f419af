"""SLIM: each item predicted by a few others, in a non-negative elastic net (Ning & Karypis 2011)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.models.base import FitRun
from recvae.models.base.params import hyper, parameters
from recvae.models.base.spaces import log
from recvae.models.baselines.neighbours import NeighbourScores
from recvae.models.closed_form import among, gram_to_read, nearest, of_mean_square_1
from recvae.utils.finite import check_fitted

ITEMS = 256  # whose weights are solved for at a time, at most
CELLS = 10_000_000  # of the Gram matrices of these items' neighbours, at most
SWEEPS = 200  # of the coordinate descent, at most
# of a step to a weight's optimum: as G has no negative entries, all weights grow too far in the first whole steps; half
# steps take half the sweeps
RELAXATION = 0.5
TOLERANCE = 1e-3  # change of a weight in a sweep, as a share of the largest one, below which it ends
Array = NDArray[np.float32]


@parameters
class SLIM(NeighbourScores):
    """SLIM: the score of an item is a sparse, non-negative combination of the row's other items.

        minimise  1/2 ||x_j - X w||^2 + l2 / 2 ||w||^2 + l1 sum_i w_i,  w >= 0, w_j = 0       for each item j

    X is the users x items matrix, x_j its column j; the w are the columns of S, and items are scored by x S. Only the
    `neighbours` nearest items of item j by the cosine may have a weight: with as many neighbours as items it is SLIM as
    published. Values are scaled to a mean square of 1 over events, so that the penalties do not depend on their unit.
    Items that no weight leads to have no score and are not recommended.

    References
    ----------
    Ning & Karypis, "SLIM: Sparse Linear Methods for Top-N Recommender Systems", ICDM 2011, equation 4; candidates by
    the cosine as in its section on feature selection. Friedman, Hastie & Tibshirani, "Regularization Paths for
    Generalized Linear Models via Coordinate Descent", Journal of Statistical Software 33, 2010.
    """

    l1: float = hyper(5.0, "penalty on the sum of weights: the larger, the sparser", low=0, search=log(0.1, 50.0))
    l2: float = hyper(100.0, "ridge penalty on the weights", low=0, search=log(3.0, 1000.0))
    neighbours: int = hyper(200, "largest number of items that predict an item", low=1)

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        n_items = rows.shape[1]
        gram = gram_to_read(of_mean_square_1(rows))  # (I, I)
        norms = np.sqrt(gram.diagonal())  # (I,)
        step = max(1, min(ITEMS, CELLS // min(self.neighbours, n_items) ** 2))

        def solved(start: int) -> sparse.csr_matrix:
            """The weights of some items, in columns. -> (I, n)"""
            near = [nearest(gram, item, norms, self.neighbours) for item in range(start, min(start + step, n_items))]
            return _columns(gram, near, self.l1, self.l2)

        from recvae.utils.progress import track  # only a fit needs these
        from recvae.utils.workers import use_workers

        blocks: list[sparse.csr_matrix] = []
        with use_workers() as workers:
            for start in track(range(0, n_items, 4 * step), "solving for items", run.show_progress):
                blocks += workers.map(solved, range(start, min(start + 4 * step, n_items), step))
        weights = sparse.hstack(blocks, format="csr", dtype=np.float32)
        check_fitted(torch.from_numpy(weights.data), "look for huge values in the data")
        return {"similarity_": weights}


def _columns(
    gram: sparse.csr_matrix | Array, near: list[tuple[NDArray[np.integer[Any]], Array]], l1: float, l2: float
) -> sparse.csc_matrix:
    """The weights of n items by their neighbours and what they share with these. -> (I, n)"""
    width = max(len(items) for items, _ in near)
    grams = np.zeros((width, len(near), width), np.float32)  # row k of each item's Gram matrix is in grams[k]
    targets = np.zeros((len(near), width), np.float32)
    grams[range(width), :, range(width)] = 1  # where an item has fewer neighbours
    for index, (items, shared) in enumerate(near):
        grams[: len(items), index, : len(items)] = among(gram, items)
        targets[index, : len(items)] = shared
    weights = elastic_net(torch.from_numpy(grams), torch.from_numpy(targets), l1, l2).numpy()
    found = [weights[index, : len(items)] for index, (items, _) in enumerate(near)]
    columns = sparse.csc_matrix(
        (
            np.concatenate(found),
            np.concatenate([items for items, _ in near]),
            np.cumsum([0, *(len(items) for items, _ in near)]),
        ),
        shape=(gram.shape[0], len(near)),
    )
    columns.eliminate_zeros()
    return columns


def elastic_net(grams: Tensor, targets: Tensor, l1: float, l2: float) -> Tensor:
    """Minimise w^T (G + l2 I) w / 2 - r^T w + l1 sum_k w_k over w >= 0, for B problems at once.

    Parameters
    ----------
    grams : Tensor
        (n, B, n), row k of the G of each problem in grams[k]; diagonals above 0.
    targets : Tensor
        (B, n), the r.

    Returns
    -------
    Tensor
        (B, n).
    """
    diagonals = grams.diagonal(dim1=0, dim2=2).T.contiguous()  # (n, B)
    weights = torch.zeros_like(diagonals)  # (n, B)
    descent = targets - l1  # (B, n), r - l1 - G w: a weight grows where it is above l2 w
    for _ in range(SWEEPS if weights.numel() else 0):
        before = weights.clone()
        for k, gram in enumerate(grams):
            optimum = torch.addcmul(descent[:, k], diagonals[k], weights[k]).div_(diagonals[k] + l2)
            new = torch.lerp(weights[k], optimum, RELAXATION).clamp_(min=0)
            change = new - weights[k]
            if change.any():
                descent.addcmul_(gram, change[:, None], value=-1)
                weights[k] = new
        if (weights - before).abs().max() <= TOLERANCE * weights.max():
            break
    return weights.T.contiguous()
