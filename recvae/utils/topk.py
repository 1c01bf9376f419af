"""Scores -> mask -> exact top-k, in blocks of users. Every model of the package ranks items by these functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recvae.errors import InvalidDataError
from recvae.utils.allowed import PAD_ID as PAD_ID
from recvae.utils.allowed import PAD_SCORE as PAD_SCORE
from recvae.utils.allowed import Allowed as Allowed
from recvae.utils.allowed import Ranking as Ranking
from recvae.utils.memory import require_memory

BLOCK_BYTES = 20 << 20  # of scores in memory at a time


class Rough(NamedTuple):
    """Low-precision scores for screening, and the functions by which the best are computed exactly."""

    scores: Tensor  # (B, I), rough
    within: Callable[[Tensor], Tensor]  # k-th best rough score (B, 1) -> lower bound of the rough scores to consider
    exact: Callable[[Tensor, Tensor], Tensor]  # rows, columns of some cells, ordered by row -> their exact scores


# (rows, their slice of all rows) -> scores
Scorer = Callable[[sparse.csr_matrix, slice], Tensor | Rough]


def top_k(scores: Tensor | Rough, k: int) -> tuple[Tensor, Tensor]:
    """The k best columns of each row, exactly: by descending score, equal scores by ascending column.

    Parameters
    ----------
    scores : Tensor or Rough
        (B, I) floats without NaN and inf.
    k : int
        Length of the lists.

    Returns
    -------
    tuple[Tensor, Tensor]
        (ids, scores), both (B, min(k, I)). Items with a score of -inf are left out: shorter lists end in id -1, -inf.

    Notes
    -----
    Columns are split into more than k disjoint groups. At least k columns reach the k-th best of the maxima of these
    groups, and apart from ties few others do: only these are sorted. Of low-precision scores, all columns that may be
    among the k best, by their error bounds, are scored exactly and sorted.
    """
    rough = scores if isinstance(scores, Rough) else None
    scores = scores.scores if isinstance(scores, Rough) else scores
    k = min(k, scores.shape[1])
    if k == 0:
        return torch.empty(len(scores), 0, dtype=torch.int64), scores.new_empty(len(scores), 0)
    least = _group_maxima(scores, 3 * k).topk(k, dim=1).values[:, -1:]
    if rough is not None:
        least = rough.within(least)
    rows, ids = _reached(scores, least.clamp(min=torch.finfo(scores.dtype).min))  # -inf is in no list
    exact_scores = scores[rows, ids] if rough is None else rough.exact(rows, ids)
    counts = rows.bincount(minlength=len(scores))
    if len(rows) and int(counts.max()) > 8 * k:  # rows in which very many are equal: each cell by itself
        order = exact_scores.argsort(descending=True, stable=True)
        order = order[rows[order].argsort(stable=True)]
        order = order[_within_rows(rows, counts) < k]
        rows, ids, exact_scores = rows[order], ids[order], exact_scores[order]
        counts = counts.clamp(max=k)
    width = max(k, int(counts.max())) if len(counts) else k
    columns = _within_rows(rows, counts)
    padded = exact_scores.new_full((len(scores), width), -torch.inf)
    padded[rows, columns] = exact_scores
    ids_of = ids.new_full((len(scores), width), PAD_ID)
    ids_of[rows, columns] = ids
    best, order = padded.sort(dim=1, descending=True, stable=True)
    return ids_of.gather(1, order[:, :k]), best[:, :k]


def _group_maxima(scores: Tensor, n_groups: int) -> Tensor:
    """Maxima of at least `n_groups` disjoint groups of columns, or of each column if there are fewer; no NaN or inf."""
    maxima, odd_columns = scores, []
    while maxima.shape[1] >= 2 * n_groups:  # pairwise maxima of both halves of the columns
        half = maxima.shape[1] // 2
        odd_columns.append(maxima[:, 2 * half :])
        maxima = torch.maximum(maxima[:, :half], maxima[:, half : 2 * half])
    maxima = torch.cat([maxima, *odd_columns], dim=1)
    if not (maxima < torch.inf).all():  # NaN compares false
        raise InvalidDataError("Expected scores that are finite, got NaN or inf; the model's weights are damaged.")
    return maxima


def _within_rows(rows: Tensor, counts: Tensor) -> Tensor:
    """The position of each cell within its row, for cells ordered by row."""
    return torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]


def rank(
    score: Scorer,
    user_items: sparse.csr_matrix,
    N: int,
    *,
    filter_seen: bool = True,
    allowed: Allowed = Allowed(),  # noqa: B008 (a tuple)
    block_bytes: int = BLOCK_BYTES,
    parallel: bool = True,
) -> Ranking:
    """Rank items for each row of `user_items` (U, I) without ever holding U x I scores.

    Parameters
    ----------
    score : Scorer
        Rows (B, I) and their slice of `user_items` -> scores (B, I), called on blocks of at most `block_bytes`. Scores
        may be of low precision (`Rough`); the lists are still those of the exact ones.
    filter_seen : bool
        Exclude the items of the row itself, except those that `allowed` calls repeatable.
    allowed : Allowed
        The items that may be ranked at all, or for some users.
    parallel : bool
        Whether several cores may compute blocks at the same time, each in one thread; False for a scorer that has to
        see them in order.

    Returns
    -------
    Ranking
        Ids (U, N) int32 and scores (U, N) float32, padded with -1 and -FLT_MAX where there is nothing more to give.
    """
    n_users, n_items = user_items.shape
    require_memory(8 * n_users * N, f"lists of {N:,} for {n_users:,} users", "a smaller N, or fewer users at a time")
    ids = np.full((n_users, N), PAD_ID, dtype=np.int32)
    values = np.full((n_users, N), PAD_SCORE, dtype=np.float32)

    def rank_block(start: int) -> None:
        users = slice(start, start + step)
        rows = user_items[users]
        scores = score(rows, users)
        block = scores.scores if isinstance(scores, Rough) else (scores := scores.contiguous())
        device = block.device
        allowed.apply(block, users, rows if filter_seen else None, lambda index: torch.from_numpy(index).to(device))
        best, best_values = (part.cpu().numpy() for part in top_k(scores, N))
        ids[users, : best.shape[1]] = best
        values[users, : best.shape[1]] = np.where(best_values > -np.inf, best_values, PAD_SCORE)

    step = _step(block_bytes // (4 * max(1, n_items)))
    starts = range(0, n_users, step)
    if len(starts) > 1 and parallel and not torch.cuda.is_initialized():  # on a GPU, one block of scores at a time
        from recvae.utils.workers import use_workers  # only several blocks need it

        with use_workers() as workers:
            workers.map(rank_block, starts)
    else:
        for start in starts:
            rank_block(start)
    return ids, values


def _step(rows: int) -> int:
    """`rows`, rounded down to a multiple of 64 if above it: matrix kernels compute whole groups of rows."""
    return rows - rows % 64 if rows > 64 else max(1, rows)


def _reached(scores: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of scores that are `least` (B, 1) or better, in order."""
    if scores.device.type != "cpu":
        return tuple((scores >= least).nonzero().T)
    # numpy is several times as fast as torch here; bfloat16 is compared by the sign of the difference
    rough = scores.dtype == torch.bfloat16
    least = torch.where(least == 0, -0.0, least)  # -0.0 - 0.0 is -0.0, whose sign bit would count as below
    if rough:
        reached = (scores - least).view(torch.int16).numpy() >= 0
    else:
        reached = np.greater_equal(scores.numpy(), least.numpy())
    cells = torch.from_numpy(np.flatnonzero(reached))
    return cells // scores.shape[1], cells % scores.shape[1]
