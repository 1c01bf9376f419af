"""How much a second voice counts beside a first, learned from users whom neither has seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.events import select_cells
from recvae.evaluation.metrics import find_hits, ndcg
from recvae.utils.topk import rank

K = 100  # of the NDCG@K by which the weight is chosen
USERS = 500  # whose scores are held at a time
SHARES = 2.0 ** np.arange(-4, 4.5, 0.5)  # of the first voice's spread that the second's may have
EVEN = len(SHARES) // 2  # both spread alike

# rows (B, I) -> their scores, (B, I)
Voice = Callable[[sparse.csr_matrix], Tensor]


class Strangers(NamedTuple):
    """Users whom no voice has learned from: what is seen of them, and what they are to be recommended."""

    fold_in: sparse.csr_matrix  # (U, I)
    held_out: sparse.csr_matrix  # (U, I)

    @classmethod
    def hiding(cls, rows: sparse.csr_matrix, share: float, random: np.random.Generator) -> Strangers:
        """With a share of their events hidden at random."""
        hidden = random.random(rows.nnz) < share
        return cls(select_cells(rows, ~hidden), select_cells(rows, hidden))

    def blocks(self) -> Iterator[tuple[sparse.csr_matrix, sparse.csr_matrix]]:
        """Some users at a time."""
        for start in range(0, self.fold_in.shape[0], USERS):
            yield self.fold_in[start : start + USERS], self.held_out[start : start + USERS]


def best_weight(first: Voice, second: Voice, strangers: Strangers, rows: sparse.csr_matrix) -> float:
    """The weight w for which the ranking by first + w * second finds most of what is hidden: by NDCG@100.

    Weights are tried on a grid of powers of two, in units of the ratio of both voices' standard deviations. A weight
    counts with those beside it, so that few users do not decide by chance. Where there is no stranger to ask, both
    spread alike over `rows`, those that the voices have learned from.
    """
    unit = _unit(first, second, strangers.fold_in if strangers.fold_in.nnz else rows)
    found = np.zeros(len(SHARES))
    for seen, wanted in strangers.blocks():
        one = first(seen)
        other = second(seen).to(one.device)
        for place, share in enumerate(SHARES):
            found[place] += _found(one + float(share) * unit * other, seen, wanted)
    padded = np.pad(found, 1, mode="edge")
    smooth = padded[:-2] + padded[1:-1] + padded[2:]
    best = int(smooth.argmax()) if found.any() else EVEN
    return float(SHARES[best]) * unit


def quality(voice: Voice, strangers: Strangers) -> float:
    """How much of what is hidden the ranking by one voice finds: NDCG@100, summed over users."""
    return sum(_found(voice(rows), rows, wanted) for rows, wanted in strangers.blocks())


def _unit(first: Voice, second: Voice, rows: sparse.csr_matrix) -> float:
    """The ratio of both voices' standard deviations over users who have something; 1 where the second has none."""
    some = rows[np.flatnonzero(np.diff(rows.indptr))[:USERS]]
    one, other = (float(voice(some).std(correction=0)) for voice in (first, second))
    return one / other if other > 0 else 1.0


def climb(height: Callable[[int], float], n: int) -> int:
    """A place in 0 ... n - 1 whose neighbours are not higher, found by steps up from the middle."""
    here = n // 2
    while True:
        best = max((place for place in (here, here - 1, here + 1) if 0 <= place < n), key=height)
        if best == here:
            return here
        here = best


def _found(scores: Tensor, rows: sparse.csr_matrix, wanted: sparse.csr_matrix) -> float:
    """NDCG@K summed over the users who have something to be found."""
    ids, _ = rank(lambda _, places: scores[places], rows, min(K, rows.shape[1]))
    n_held: NDArray[Any] = np.diff(wanted.indptr)
    some = n_held > 0
    return float(ndcg(find_hits(ids, wanted)[some], n_held[some], K).sum())
