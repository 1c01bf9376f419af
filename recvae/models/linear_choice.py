"""The penalty and the item exponent of a HybridVAE's linear path: those that rank best for calibration users."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from recvae.models.blending import CalibrationUsers, hill_climb, ndcg_by_user, nearest_to_zero
from recvae.models.closed_form import is_sparse, solution_path, with_item_power
from recvae.models.edlae import EDLAE

COMPARING_ROWS, COMPARING_SHARE = 2_500, 0.15  # rows to compare penalties by, at most; of the training users
COMPARED = 2_000  # most popular items, by which penalties are compared
FEW_NEIGHBOURS = 100  # of an item in the sparse form, in paths that are only for a choice

Path = Callable[[float, float], EDLAE]  # penalty, item exponent -> an unfitted linear path


def chosen_linear(
    path: Path,
    penalties: Sequence[float],
    powers: Sequence[float],
    rows: sparse.csr_matrix,
    users: CalibrationUsers,
    seed: int,
    say: Callable[[str], None],
) -> EDLAE:
    """The linear path with the penalty and the item exponent that rank best for calibration users, unfitted.

    Further users of the rows are added to them, so that chance decides less. Penalties are tried by a hill climb, and
    then exponents, which need no new solution: the one nearest to 0 that is not clearly behind the best. All are
    compared by the most popular items alone, and in the sparse form with fewer neighbours.

    Parameters
    ----------
    penalties, powers : sequence of float
        To choose from. Where there are several penalties, they are compared with exponent 0, or the only one.
    rows : csr_matrix
        (U, I), to solve from.
    seed : int
        By which further users are drawn.
    say : callable
        Called with what is being tried.
    """
    if len(penalties) == len(powers) == 1:
        return path(*penalties, *powers)
    models = [path(l2, 0.0) for l2 in penalties]
    trial = models[0]
    in_sparse_form = is_sparse(trial.form, rows.shape[1])
    rows, users = _comparison(rows, users, seed)
    say(f"{len(penalties)} penalties")
    solutions = solution_path(models, rows, in_sparse_form, fewer_neighbours(trial.neighbours))

    def ndcg_with(solution: torch.Tensor | sparse.csr_matrix, power: float) -> NDArray[np.float64]:
        trial.weights_ = with_item_power(solution, rows, power)
        return ndcg_by_user(trial._score, users)

    def ndcg_at(i: int) -> float:
        say(f"penalty {penalties[i]:g}")
        return float(ndcg_with(solutions[i](), powers[0] if len(powers) == 1 else 0.0).sum())

    best = hill_climb(ndcg_at, len(penalties))
    solution = solutions[best]()
    return path(penalties[best], nearest_to_zero({power: ndcg_with(solution, power) for power in powers}))


def fewer_neighbours(neighbours: int) -> int:
    """Neighbours of an item in a path that is only for a choice."""
    return min(neighbours, FEW_NEIGHBOURS)


def bytes_to_choose(n_penalties: int, n_items: int, neighbours: int, in_sparse_form: bool) -> int:
    """Bytes that a choice takes."""
    few = min(n_items, COMPARED)
    if not in_sparse_form:
        return 12 * few**2  # two matrices of weights, and a Gram matrix
    # all penalties share indices
    return 4 * (n_penalties + 5) * few * min(fewer_neighbours(neighbours), few) + 4 * few**2


def _comparison(
    rows: sparse.csr_matrix, users: CalibrationUsers, seed: int
) -> tuple[sparse.csr_matrix, CalibrationUsers]:
    """Rows to solve for trial weights from, and users to compare these by, over the most popular items."""
    if rows.shape[1] > COMPARED:
        popular = _most_popular(rows, COMPARED)
        rows = rows[:, popular]
        users = CalibrationUsers(users.fold_in[:, popular], users.held_out[:, popular])
    n_more = min(COMPARING_ROWS - users.fold_in.shape[0], int(COMPARING_SHARE * rows.shape[0]))
    if n_more <= 0:
        return rows, users
    random = np.random.default_rng((seed, 1))
    order = random.permutation(rows.shape[0])
    more = CalibrationUsers.holding_out(rows[order[:n_more]], random)
    both = (sparse.vstack(pair, format="csr") for pair in zip(users, more, strict=True))
    return rows[np.sort(order[n_more:])], CalibrationUsers(*both)


def _most_popular(rows: sparse.csr_matrix, n: int) -> NDArray[np.int64]:
    """The n items with the most users, ascending; those of equal number in the order of the columns. -> (n,)"""
    users = np.bincount(rows.indices, minlength=rows.shape[1])
    return np.sort(np.argsort(-users, kind="stable")[:n])
