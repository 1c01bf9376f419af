"""The penalty and the exponents of a HybridVAE's linear path: those that rank best for calibration users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from recvae.models.blending import CalibrationUsers, best_power, hill_climb, ndcg_by_user
from recvae.models.closed_form import READ, is_sparse, solution_path, with_item_power
from recvae.models.edlae import EDLAE

# values to choose from for l2=None: 3, 6, 10, 18, 30, ... 30,000
PENALTIES = (*(step * 10.0**power for power in range(4) for step in (3, 6, 10, 18)), 30_000.0)
USER_POWERS, ITEM_POWERS = (0.3, 0.5), (-0.2, -0.1, 0.0, 0.1, 0.2, 0.4)  # and for user_power=None, item_power=None
COMPARING_ROWS, COMPARING_SHARE = 2_500, 0.15  # rows to compare penalties by, at most; of the training users
# most popular items, by which paths are compared. In the dense form a solution takes the cube of their number; on wide
# catalogues, where the sparse form is used, the most popular ones prefer other penalties and exponents than all do
COMPARED, COMPARED_SPARSE = 2_000, 50_000
FEW_NEIGHBOURS = 100  # of an item in the sparse form, in paths that are only for a choice
USUAL_USER_POWER = 0.5  # by which penalties are compared, where there are several to choose from

Path = Callable[[float, float, float], EDLAE]  # penalty, user exponent, item exponent -> an unfitted linear path
Solution: TypeAlias = torch.Tensor | sparse.csr_matrix


def choices(
    l2: float | None, user_power: float | None, item_power: float | None
) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
    """Penalties, exponents of users, and exponents of items to choose from: those that are given, if any."""
    penalties = PENALTIES if l2 is None else (l2,)
    user_powers = USER_POWERS if user_power is None else (user_power,)
    return penalties, user_powers, ITEM_POWERS if item_power is None else (item_power,)


def next_lower(l2: float) -> float:
    """The penalty below one of those to choose from."""
    return PENALTIES[max(PENALTIES.index(l2) - 1, 0)]


def chosen_linear(
    path: Path,
    penalties: Sequence[float],
    user_powers: Sequence[float],
    item_powers: Sequence[float],
    rows: sparse.csr_matrix,
    users: CalibrationUsers,
    seed: int,
    say: Callable[[str], None],
) -> EDLAE:
    """The linear path with the penalty and the exponents that rank best for calibration users, unfitted.

    Unless these are training users, further users of the rows are added to them, so that chance decides less. First
    penalties are tried by a hill climb, then exponents of users with this penalty, then exponents of items, which need
    no new solution. In the sparse form paths are compared with fewer neighbours, in the dense form by the most popular
    items alone.

    Parameters
    ----------
    penalties, user_powers, item_powers : sequence of float
        To choose from. Penalties are compared with the usual exponents, or the only ones.
    rows : csr_matrix
        (U, I), to solve from.
    seed : int
        By which further users are drawn.
    say : callable
        Called with what is being tried.
    """
    if len(penalties) == len(user_powers) == len(item_powers) == 1:
        return path(*penalties, *user_powers, *item_powers)
    user_power = user_powers[0] if len(user_powers) == 1 else USUAL_USER_POWER
    item_power = item_powers[0] if len(item_powers) == 1 else 0.0
    trial = path(penalties[0], user_power, 0.0)
    in_sparse_form = is_sparse(trial.form, rows.shape[1])
    rows, users = _comparison(rows, users, seed, COMPARED_SPARSE if in_sparse_form else COMPARED)

    def solutions(power: float, *l2: float) -> list[Callable[[], Solution]]:
        models = [path(penalty, power, 0.0) for penalty in l2]
        return solution_path(models, rows, in_sparse_form, fewer_neighbours(trial.neighbours))

    def ndcg_with(solution: Solution, power: float) -> NDArray[np.float64]:
        trial.weights_ = with_item_power(solution, rows, power)
        return ndcg_by_user(trial._score, users)

    best: dict[float, tuple[Solution, NDArray[np.float64]]] = {}  # by exponent of users, with its NDCG by user

    def total_ndcg(power: float, solve: Callable[[], Solution]) -> float:
        solution = solve()
        ndcg = ndcg_with(solution, item_power)
        if power not in best or ndcg.sum() > best[power][1].sum():
            best[power] = solution, ndcg
        return float(ndcg.sum())

    def ndcg_at(i: int) -> float:
        say(f"penalty {penalties[i]:g}")
        return total_ndcg(user_power, by_penalty[i])

    say(f"{len(penalties)} penalties")
    by_penalty = solutions(user_power, *penalties)
    l2 = penalties[hill_climb(ndcg_at, len(penalties))]
    by_penalty.clear()
    for power in user_powers:
        if power != user_power:
            say(f"exponent {power:g} of users")
            total_ndcg(power, *solutions(power, l2))
    user_power = max(best, key=lambda power: float(best[power][1].sum()))
    say("exponents of items")
    solution, ndcg = best[user_power]
    by_item_power = {power: ndcg if power == item_power else ndcg_with(solution, power) for power in item_powers}
    return path(l2, user_power, best_power(by_item_power))


def fewer_neighbours(neighbours: int) -> int:
    """Neighbours of an item in a path that is only for a choice."""
    return min(neighbours, FEW_NEIGHBOURS)


def bytes_to_choose(n_penalties: int, n_user_powers: int, n_items: int, neighbours: int, in_sparse_form: bool) -> int:
    """Bytes that a choice takes."""
    kept = n_user_powers - 1  # solutions with other exponents of users than the usual one
    if not in_sparse_form:
        return (16 + 4 * kept) * min(n_items, COMPARED) ** 2  # three matrices of weights, and a Gram matrix
    few = min(n_items, COMPARED_SPARSE)
    gram = 4 * few**2 if few <= READ else 0
    # all penalties share indices
    return 4 * (n_penalties + 7 + 2 * kept) * few * min(fewer_neighbours(neighbours), few) + gram


def bytes_to_solve(n_items: int, neighbours: int, in_sparse_form: bool, scaled: bool) -> tuple[int, int]:
    """Bytes of a linear path's weights, and what solving for them takes; scaled : whether an item exponent does it"""
    if in_sparse_form:
        weights = 8 * n_items * min(neighbours, n_items)
        return weights, 3 * weights  # the sparse matrix is concatenated from parts
    weights = 4 * n_items**2
    return weights, 2 * weights if scaled else weights  # a scaled copy


def _comparison(
    rows: sparse.csr_matrix, users: CalibrationUsers, seed: int, n_items: int
) -> tuple[sparse.csr_matrix, CalibrationUsers]:
    """Rows to solve for trial weights from, and users to compare these by, over the most popular items.

    Rows are taken for the comparison where users are few, but none where these are known: then the training data are as
    they will be.
    """
    if rows.shape[1] > n_items:
        popular = _most_popular(rows, n_items)
        rows = rows[:, popular]
        users = users._replace(fold_in=users.fold_in[:, popular], held_out=users.held_out[:, popular])
    n_more = min(COMPARING_ROWS - users.fold_in.shape[0], int(COMPARING_SHARE * rows.shape[0]))
    if users.known or n_more <= 0:
        return rows, users
    random = np.random.default_rng((seed, 1))
    order = random.permutation(rows.shape[0])
    more = CalibrationUsers.holding_out(rows[order[:n_more]], random)
    fold_in = sparse.vstack([users.fold_in, more.fold_in], format="csr")
    held_out = sparse.vstack([users.held_out, more.held_out], format="csr")
    return rows[np.sort(order[n_more:])], CalibrationUsers(fold_in, held_out)


def _most_popular(rows: sparse.csr_matrix, n: int) -> NDArray[np.int64]:
    """The n items with the most users, ascending; those of equal number in the order of the columns. -> (n,)"""
    users = np.bincount(rows.indices, minlength=rows.shape[1])
    return np.sort(np.argsort(-users, kind="stable")[:n])
