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
CLEAR, CLEAR_USERS = 3.0, 10  # standard errors of a mean over so many users, from which data overrule the prior
MOST_DEVIATION = 5.0  # of a user's scores, as a multiple of the median over users

# rows (B, I) -> their scores, (B, I)
ScoreFunction = Callable[[sparse.csr_matrix], Tensor]


class CalibrationUsers(NamedTuple):
    """Users by whom scorers are compared: the events that scorers get, and those that they should recommend.

    No scorer was trained on what is held out, nor on other events of these users unless they are `known`.
    """

    fold_in: sparse.csr_matrix  # (U, I)
    held_out: sparse.csr_matrix  # (U, I)
    known: bool = False  # whether `fold_in` is in the training data
    times: int = 1  # rows of each user: those of all users, and then again

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
        return cls(sparse.vstack(fold_in, format="csr"), sparse.vstack(held_out, format="csr"), times=times)

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
        return self._replace(fold_in=self.fold_in[chosen], held_out=self.held_out[chosen], times=1)

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

    The grid has powers of sqrt(2), in units of the ratio of the scores' deviations. A weight is judged together with
    the two next to it on the grid, and by a prior that counts like `PRIOR_ROWS`, so that chance decides less where
    there are few users: on other data a ratio of `usual` was best. The prior is left out where another weight is better
    by `CLEAR` standard errors. Without calibration users the scores get equal deviations over `rows`, the training
    rows.
    """
    unit = ratio_of_deviations(first, second, users.fold_in if users.fold_in.nnz else rows)
    padded = np.pad(_ndcg_by_weight(first, second, users, RATIOS * unit), ((1, 1), (0, 0)), mode="edge")
    smoothed = (padded[:-2] + padded[1:-1] + padded[2:]) / 3  # (W, users)
    likelihood = smoothed.sum(axis=1)
    prior = padded.sum(axis=1).max() / max(users.n_active, 1) * PRIOR_ROWS * PRIOR_LOSS
    best = _best(likelihood - prior * (OCTAVES - math.log2(usual)) ** 2)
    by_data = _best(likelihood)
    if _is_clear(smoothed[by_data] - smoothed[best]):
        best = by_data
    return float(RATIOS[best]) * unit


def _best(objective: NDArray[np.float64]) -> int:
    """Index of the best weight; of several, as all are where no item is held out, the nearest to equal deviations."""
    best = np.flatnonzero(objective >= objective.max() - TIE * abs(objective.max()))
    return int(best[np.abs(best - EQUAL).argmin()])


def _is_clear(gain: NDArray[np.float64]) -> bool:
    """Whether the mean of users' gains, (users,), is above 0 beyond chance."""
    return len(gain) >= CLEAR_USERS and gain.sum() > CLEAR * gain.std(ddof=1) * math.sqrt(len(gain))


def best_joint_ndcg(first: ScoreFunction, second: ScoreFunction, users: CalibrationUsers) -> float:
    """NDCG@100 of first + w * second for the calibration users, by the best of a few weights w."""
    unit = ratio_of_deviations(first, second, users.fold_in) if users.fold_in.nnz else 1.0
    totals = _ndcg_by_weight(first, second, users, FEW_RATIOS * unit).sum(axis=1)
    return float(totals.max() / users.n_active)


def _ndcg_by_weight(
    first: ScoreFunction, second: ScoreFunction, users: CalibrationUsers, weights: NDArray[Any]
) -> NDArray[np.float64]:
    """NDCG@100 of first + w * second for each calibration user, summed over the rows of a user. -> (W, users)"""
    blocks = []
    for fold_in, held_out in users.blocks():
        first_scores = first(fold_in)
        by_user = partial(_sum_ndcg, first_scores, second(fold_in).to(first_scores.device), fold_in, held_out)
        # `rank` shares out the blocks of wide scores itself; narrow ones are one block, or just above it
        is_narrow = first_scores.device.type == "cpu" and first_scores.nbytes <= BLOCK_BYTES
        values = weights.tolist()
        blocks.append(np.stack(map_pieces(by_user, values) if is_narrow else [by_user(weight) for weight in values]))
    by_row = np.concatenate(blocks, axis=1) if blocks else np.zeros((len(weights), 0))
    return by_row.reshape(len(weights), users.times, -1).sum(axis=1)


def _sum_ndcg(
    first: Tensor, second: Tensor, fold_in: sparse.csr_matrix, held_out: sparse.csr_matrix, weight: float
) -> NDArray[np.float64]:
    """NDCG@100 of first + weight * second, (B, I) each; 0 for users without held-out items. -> (B,)"""
    ndcg = np.zeros(fold_in.shape[0])
    ndcg[np.diff(held_out.indptr) > 0] = _ndcg(first + weight * second, fold_in, held_out)
    return ndcg


def weighted_sum(first: ScoreFunction, second: ScoreFunction, weight: float, rows: sparse.csr_matrix) -> Tensor:
    """first + weight * second. (B, I) -> (B, I)"""
    scores = first(rows)
    return scores + weight * second(rows).to(scores.device)


def ndcg_by_user(score: ScoreFunction, users: CalibrationUsers) -> NDArray[np.float64]:
    """NDCG@100 of the ranking by one scorer, for each calibration user with held-out items. -> (active users,)"""

    def of_block(block: tuple[sparse.csr_matrix, sparse.csr_matrix]) -> NDArray[np.float64]:
        fold_in, held_out = block
        return _ndcg(score(fold_in), fold_in, held_out)

    return np.concatenate([np.empty(0), *map_pieces(of_block, list(users.blocks()))])


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
    """Standard deviation of the first scores / that of the second, over users with events; 1 if either is 0."""
    active = rows[np.flatnonzero(np.diff(rows.indptr))[:USERS]]
    return (_deviation(first(active)) / (_deviation(second(active)) or 1.0)) or 1.0


def _deviation(scores: Tensor) -> float:
    """Root mean square over users of the standard deviations of their scores, (B, I).

    That of a user with counts of thousands is counted as `MOST_DEVIATION` times the median one.
    """
    by_user = scores.std(dim=1, correction=0)
    by_user = by_user[by_user > 0]
    if not len(by_user):
        return 0.0
    return float(by_user.clamp(max=MOST_DEVIATION * float(by_user.median())).square().mean().sqrt())


def _ndcg(scores: Tensor, fold_in: sparse.csr_matrix, held_out: sparse.csr_matrix) -> NDArray[np.float64]:
    """NDCG@K of the users who have held-out items. -> (active users,)"""
    ids, _ = rank(lambda _, users: scores[users], fold_in, min(K, fold_in.shape[1]))
    n_held_out: NDArray[Any] = np.diff(held_out.indptr)
    active = n_held_out > 0
    return ndcg(find_hits(ids, held_out)[active], n_held_out[active], K)
