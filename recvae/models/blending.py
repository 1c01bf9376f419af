"""The weight of a second scorer in a sum of two, calibrated on events that neither was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.events import select_cells
from recvae.evaluation.metrics import find_hits, ndcg
from recvae.utils.topk import BLOCK_BYTES, rank
from recvae.utils.workers import map_pieces

K = 100  # of the NDCG@K by which the weight is chosen
USERS = 500  # whose scores are in memory at a time
MAX_CALIBRATION_USERS = 300  # taken from the training users, if no validation users can be used
PARTS = 5  # of a user's events, one of which is held out
# standard deviation of the weighted second scores / that of the first; with 0 the second do not count
RATIOS = np.concatenate([[0.0], 2.0 ** np.arange(-4, 6.5, 0.5)])
TIE = 1e-9  # relative difference of NDCG up to which weights tie; the one nearest to equal deviations is then taken
# what other data sets have shown counts like 300 rows: they lose .2 % for each square octave that a weight is away from
# the usual one; a weight of 0 is as far as one of half the smallest ratio
PRIOR_ROWS, PRIOR_LOSS = 300, 0.002
POWER_LOSS = 0.25  # and an exponent q of item counts loses a quarter of q^2: 1 % for .2
OCTAVES = np.log2(np.maximum(RATIOS, 2.0**-5))
FEW_RATIOS = 2.0 ** np.arange(-4, 7, 2)
EQUAL = int(np.flatnonzero(RATIOS == 1)[0])

# rows (B, I) -> their scores, (B, I)
ScoreFunction = Callable[[sparse.csr_matrix], Tensor]


class CalibrationUsers(NamedTuple):
    """Users by whom scorers are compared: the events that scorers get, and those that they should recommend.

    No scorer was trained on what is held out, nor on other events of these users unless they are `known`.
    """

    fold_in: sparse.csr_matrix  # (U, I)
    held_out: sparse.csr_matrix  # (U, I)
    known: bool = False  # whether `fold_in` is in the training data

    @classmethod
    def holding_out(cls, rows: sparse.csr_matrix, random: np.random.Generator, times: int = 1) -> CalibrationUsers:
        """Hold out a fifth of each row's events, drawn at random; `times` different fifths, each in a row of its own.

        Five of them hold out each event once: of users with few events, chance decides less than with a single one.
        """
        user = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        dealt = np.lexsort((random.random(rows.nnz), user))  # events of one user after the other, in random order
        part = np.empty(rows.nnz, dtype=np.int64)
        part[dealt] = (np.arange(rows.nnz) - rows.indptr[user]) % PARTS
        fold_in = [select_cells(rows, part != i) for i in range(times)]
        held_out = [select_cells(rows, part == i) for i in range(times)]
        return cls(sparse.vstack(fold_in, format="csr"), sparse.vstack(held_out, format="csr"))

    @classmethod
    def taken_from(cls, rows: sparse.csr_matrix, share: float, seed: int) -> tuple[sparse.csr_matrix, CalibrationUsers]:
        """Split rows into those to learn from, (U', I), and a share of them, drawn at random, as calibration users."""
        random = np.random.default_rng(seed)
        order = random.permutation(np.flatnonzero(np.diff(rows.indptr) > 1))  # a single event cannot be held out
        n_users = min(MAX_CALIBRATION_USERS, math.ceil(share * len(order))) if len(order) > 1 else 0
        learned = np.setdiff1d(np.arange(rows.shape[0]), order[:n_users])
        return rows[learned], cls.holding_out(rows[order[:n_users]], random, PARTS)

    def sample(self, n_users: int, seed: int) -> CalibrationUsers:
        """All of these users, or so many of them, drawn at random."""
        if self.fold_in.shape[0] <= n_users:
            return self
        active = np.flatnonzero(np.diff(self.held_out.indptr))  # others say nothing
        if not len(active):
            active = np.arange(self.fold_in.shape[0])
        chosen = np.sort(active[np.random.default_rng(seed).permutation(len(active))[:n_users]])
        return self._replace(fold_in=self.fold_in[chosen], held_out=self.held_out[chosen])

    @property
    def n_active(self) -> int:
        """The number of rows with held-out events."""
        return int(np.count_nonzero(np.diff(self.held_out.indptr)))

    def blocks(self) -> Iterator[tuple[sparse.csr_matrix, sparse.csr_matrix]]:
        """`fold_in` and `held_out` of some users at a time."""
        for start in range(0, self.fold_in.shape[0], USERS):
            yield self.fold_in[start : start + USERS], self.held_out[start : start + USERS]


def best_weight(
    first: ScoreFunction, second: ScoreFunction, users: CalibrationUsers, rows: sparse.csr_matrix, usual: float
) -> float:
    """The weight w for which the ranking by first + w * second has the best NDCG@100 for the calibration users.

    The grid has powers of sqrt(2), in units of the ratio of the scores' standard deviations. A weight is judged
    together with the two next to it on the grid, and by a prior that counts like `PRIOR_ROWS`, so that chance decides
    less where there are few users: on other data a ratio of `usual` was best. Without calibration users the scores get
    equal standard deviations over `rows`, the training rows.
    """
    unit = ratio_of_deviations(first, second, users.fold_in if users.fold_in.nnz else rows)
    totals = _total_by_ratio(first, second, users, RATIOS * unit)
    padded = np.pad(totals, 1, mode="edge")
    smoothed = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    smoothed -= totals.max() / max(users.n_active, 1) * PRIOR_ROWS * PRIOR_LOSS * (OCTAVES - math.log2(usual)) ** 2
    best = np.flatnonzero(smoothed >= smoothed.max() - TIE * abs(smoothed.max()))  # all, where no item is held out
    return float(RATIOS[best[np.abs(best - EQUAL).argmin()]]) * unit


def best_joint_ndcg(first: ScoreFunction, second: ScoreFunction, users: CalibrationUsers) -> float:
    """NDCG@100 of first + w * second for the calibration users, by the best of a few weights w."""
    unit = ratio_of_deviations(first, second, users.fold_in) if users.fold_in.nnz else 1.0
    return float(_total_by_ratio(first, second, users, FEW_RATIOS * unit).max() / users.n_active)


def _total_by_ratio(
    first: ScoreFunction, second: ScoreFunction, users: CalibrationUsers, weights: NDArray[Any]
) -> NDArray[np.float64]:
    """NDCG@100 of first + w * second, summed over the calibration users. -> (W,)"""
    totals = np.zeros(len(weights))
    for fold_in, held_out in users.blocks():
        first_scores = first(fold_in)
        total = partial(_total, first_scores, second(fold_in).to(first_scores.device), fold_in, held_out)
        # `rank` shares out the blocks of wide scores itself; narrow ones are one block, or just above it
        is_narrow = first_scores.device.type == "cpu" and first_scores.nbytes <= BLOCK_BYTES
        totals += map_pieces(total, weights.tolist()) if is_narrow else [total(weight) for weight in weights.tolist()]
    return totals


def _total(
    first: Tensor, second: Tensor, fold_in: sparse.csr_matrix, held_out: sparse.csr_matrix, weight: float
) -> float:
    """NDCG@100 of first + weight * second, (B, I) each, summed over the users."""
    return float(_ndcg(first + weight * second, fold_in, held_out).sum())


def weighted_sum(first: ScoreFunction, second: ScoreFunction, weight: float, rows: sparse.csr_matrix) -> Tensor:
    """first + weight * second. (B, I) -> (B, I)"""
    scores = first(rows)
    return scores + weight * second(rows).to(scores.device)


def ndcg_by_user(score: ScoreFunction, users: CalibrationUsers) -> NDArray[np.float64]:
    """NDCG@100 of the ranking by one scorer, for each calibration user with held-out items. -> (active users,)"""
    parts = [_ndcg(score(fold_in), fold_in, held_out) for fold_in, held_out in users.blocks()]
    return np.concatenate([np.empty(0), *parts])


def best_power(ndcg: Mapping[float, NDArray[np.float64]]) -> float:
    """The exponent with the best NDCG, by a prior that counts like `PRIOR_ROWS`: on other data 0 was best.

    Parameters
    ----------
    ndcg : mapping
        NDCG by each exponent, (rows,).
    """
    best = max(float(values.sum()) for values in ndcg.values())
    rows = max(len(next(iter(ndcg.values()))), 1)

    def posterior(power: float) -> float:
        return float(ndcg[power].sum()) - best / rows * PRIOR_ROWS * POWER_LOSS * power**2

    return max(sorted(ndcg, key=abs), key=posterior)  # the one nearest to 0, where there is no one to compare by


def hill_climb(objective: Callable[[int], float], n: int) -> int:
    """Climb from the middle of 0 ... n - 1, step by step, to an index whose neighbours are not better.

    The objective is called at most once for each index.
    """
    objective, index = cache(objective), n // 2
    while True:
        best = max((i for i in (index, index - 1, index + 1) if 0 <= i < n), key=objective)
        if best == index:
            return index
        index = best


def ratio_of_deviations(first: ScoreFunction, second: ScoreFunction, rows: sparse.csr_matrix) -> float:
    """Standard deviation of the first scores / that of the second, over users with events; 1 if that is 0."""
    active = rows[np.flatnonzero(np.diff(rows.indptr))[:USERS]]
    first_std, second_std = (float(score(active).std(correction=0)) for score in (first, second))
    return first_std / second_std if second_std > 0 else 1.0


def _ndcg(scores: Tensor, fold_in: sparse.csr_matrix, held_out: sparse.csr_matrix) -> NDArray[np.float64]:
    """NDCG@K of the users who have held-out items. -> (active users,)"""
    ids, _ = rank(lambda _, users: scores[users], fold_in, min(K, fold_in.shape[1]))
    n_held_out: NDArray[Any] = np.diff(held_out.indptr)
    active = n_held_out > 0
    return ndcg(find_hits(ids, held_out)[active], n_held_out[active], K)
