"""How much a second voice counts beside a first, learned from users whom neither has seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.events import select_cells
from recvae.metrics import find_hits, ndcg
from recvae.topk import rank

K = 100  # of the NDCG@K by which the weight is chosen
USERS = 500  # whose scores are held at a time
SHARES = 2.0 ** np.arange(-4, 4.5, 0.5)  # of the first voice's spread that the second's may have
EVEN = len(SHARES) // 2  # both spread alike

# rows (B, I) -> the scores of both voices, (B, I) each
Voices = Callable[[sparse.csr_matrix], tuple[Tensor, Tensor]]


def best_weight(voices: Voices, fold_in: sparse.csr_matrix, held_out: sparse.csr_matrix) -> float:
    """The weight w for which the ranking by first + w * second finds most of what was held out: by NDCG@100.

    Weights are tried on a grid of powers of two, in units of the ratio of both voices' standard deviations. A weight
    counts with those beside it, so that few users do not decide by chance; without any user both spread alike.
    """
    found, unit = np.zeros(len(SHARES)), 1.0
    for start in range(0, fold_in.shape[0], USERS):
        rows, wanted = fold_in[start : start + USERS], held_out[start : start + USERS]
        first, second = voices(rows)
        if start == 0:
            unit = float(first.std() / second.std().clamp(min=1e-12))
        for place, share in enumerate(SHARES):
            found[place] += _found(first + float(share) * unit * second, rows, wanted)
    padded = np.pad(found, 1, mode="edge")
    smooth = padded[:-2] + padded[1:-1] + padded[2:]
    best = int(smooth.argmax()) if found.any() else EVEN
    return float(SHARES[best]) * unit


def hide(
    rows: sparse.csr_matrix, share: float, random: np.random.Generator
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """A share of the events of rows, at random, apart from the others. -> (fold_in, held_out)"""
    hidden = random.random(rows.nnz) < share
    return select_cells(rows, ~hidden), select_cells(rows, hidden)


def _found(scores: Tensor, rows: sparse.csr_matrix, wanted: sparse.csr_matrix) -> float:
    """NDCG@K summed over the users who have something to be found."""
    ids, _ = rank(lambda _, places: scores[places], rows, min(K, rows.shape[1]))
    n_held: NDArray[Any] = np.diff(wanted.indptr)
    some = n_held > 0
    return float(ndcg(find_hits(ids, wanted)[some], n_held[some], K).sum())
