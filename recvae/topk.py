"""Scores -> mask -> exact top-k, in blocks of users. The one path by which every model of the package ranks items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.errors import InvalidDataError

PAD_ID = -1
PAD_SCORE = float(np.finfo(np.float32).min)  # -FLT_MAX, as implicit pads

# (rows, where they are in what is ranked) -> scores
Scorer = Callable[[sparse.csr_matrix, slice], Tensor]
Ranking = tuple[NDArray[np.int32], NDArray[np.float32]]


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best columns of each row, exactly: by descending score, equal scores by ascending column.

    scores : (B, I) float32 without NaN. Returns (ids, scores), both (B, min(k, I)). Columns of score -inf come last,
    in no particular order.
    """
    k = min(k, scores.shape[1])
    values, ids = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    if values.isnan().any():  # topk ranks NaN first, so a look at the top is a look at all
        raise InvalidDataError("Expected scores that are numbers, got NaN; the model's weights are damaged.")
    # topk breaks ties as it likes. Rows where the k-th value also stands outside of the list choose anew ...
    last, ids = values[:, k - 1 : k], ids[:, :k]
    undecided = ((values[:, k:] == last) & (last > -torch.inf)).nonzero()[:, 0]
    if len(undecided):
        ids[undecided] = _first_of_the_best(scores[undecided], last[undecided], k)
    # ... and then each list is put in order: columns ascending, then a stable sort by score.
    ids = ids.sort(dim=1).values
    values, order = scores.gather(1, ids).sort(dim=1, descending=True, stable=True)
    return ids.gather(1, order), values


def rank(
    score: Scorer,
    user_items: sparse.csr_matrix,
    N: int,
    *,
    filter_seen: bool = True,
    allowed: NDArray[np.bool_] | None = None,
    block_bytes: int = 64 << 20,
) -> Ranking:
    """Rank items for each row of `user_items` (U, I) without ever holding U x I scores.

    score : rows (B, I) and their places in `user_items` -> scores (B, I), called on blocks that keep to `block_bytes`
    filter_seen : leave out the items that a row has
    allowed : (I,) bool, the items that may be ranked at all; None for all
    Returns ids (U, N) int32 and scores (U, N) float32, padded with -1 and -FLT_MAX where there is nothing more to give.
    """
    n_users, n_items = user_items.shape
    ids = np.full((n_users, N), PAD_ID, dtype=np.int32)
    values = np.full((n_users, N), PAD_SCORE, dtype=np.float32)
    step = max(1, block_bytes // (4 * n_items))
    for start in range(0, n_users, step):
        places = slice(start, start + step)
        rows = user_items[places]
        block = score(rows, places)
        if filter_seen:
            block[_coordinates(rows, block.device)] = -torch.inf
        if allowed is not None:
            block[:, torch.from_numpy(~allowed).to(block.device)] = -torch.inf
        best, best_values = (part.cpu().numpy() for part in top_k(block, N))
        real = best_values > -np.inf
        ids[places, : best.shape[1]] = np.where(real, best, PAD_ID)
        values[places, : best.shape[1]] = np.where(real, best_values, PAD_SCORE)
    return ids, values


def _first_of_the_best(scores: Tensor, last: Tensor, k: int) -> Tensor:
    """Columns above the k-th value `last` (B, 1), then the first of those that equal it. -> (B, k), ascending"""
    above, tied = scores > last, scores == last
    room = k - above.sum(1, keepdim=True)
    chosen = above | (tied & (tied.cumsum(1) <= room))
    return chosen.nonzero()[:, 1].view(-1, k)


def _coordinates(rows: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    row_of = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    return torch.from_numpy(row_of).to(device), torch.from_numpy(rows.indices).long().to(device)
