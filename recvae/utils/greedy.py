"""Greedy choice from ranked lists: caps on categories, maximal marginal relevance, places for some items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.utils.allowed import PAD_ID, PAD_SCORE, Ranking

BLOCK = 1 << 24  # numbers held at a time
BEYOND = -10.0  # below any marginal relevance
DIGITS = 6  # of cosines, so that equal ones are ties on every machine


@dataclass(frozen=True, eq=False)
class Choice:
    """How items are taken from a list, one after the other. Without any of this, they are taken in order.

    Attributes
    ----------
    kinds : ndarray or None
        (I, M), the indices of the categories of each item, padded with -1.
    cap : int
        The largest number of items of one category.
    units : ndarray or None
        (I, K), a vector of unit length (or zeros) for each item: take the item of greatest marginal relevance.
    trade_off : float
        The weight of the score in it; the rest is that of the likeness to an item already taken.
    pool : int or None
        The length of the beginning of the list that it orders, whose scores are scaled to [0, 1]; items after it are
        taken in order once nothing in it can be. None for all of the list.
    favoured : ndarray or None
        (I,), items for which the last places are kept, as long as there are such.
    places : int
        How many.
    """

    kinds: NDArray[np.int64] | None = None
    cap: int = 0
    units: NDArray[np.float32] | None = None
    trade_off: float = 1.0
    pool: int | None = None
    favoured: NDArray[np.bool_] | None = None
    places: int = 0

    def width(self) -> int:
        """Numbers that are held for each item of a list."""
        kinds = 1 if self.kinds is None else self.kinds.shape[1]
        return max(4, kinds + (0 if self.units is None else self.units.shape[1]))

    def positions(
        self, ids: NDArray[np.int64], scores: NDArray[np.float32], N: int, n_ranked: int | None = None
    ) -> NDArray[np.int64]:
        """Choose N items of each list.

        Parameters
        ----------
        ids, scores : ndarray
            (B, L), best first; -1 for no item.
        n_ranked : int or None
            Length of the lists without what follows them, which is favoured, and is taken for kept places only.

        Returns
        -------
        ndarray
            (B, N) positions in the lists, in the order in which they were taken; -1 where nothing was left.
        """
        rows, n_rows, length = np.arange(len(ids)), len(ids), ids.shape[1]
        left, items = ids >= 0, np.maximum(ids, 0)
        ranked = np.arange(length) < (length if n_ranked is None else n_ranked)
        favoured = None if self.favoured is None else left & self.favoured[items]
        taken_favoured = np.zeros(n_rows, dtype=np.int64)
        caps = None if self.kinds is None else _Caps(self.kinds, self.cap, items)
        worth = _Relevance(self, items, scores, left, ranked)
        chosen = np.full((n_rows, N), -1)
        for position in range(min(N, length)):
            free = left & ranked
            if favoured is not None:
                wanted = np.minimum(self.places - taken_favoured, (left & favoured).sum(axis=1))
                forced = wanted >= N - position
                free = np.where(forced[:, None], left & favoured, free)
            best = worth.best(free)
            found = free[rows, best]
            if not found.any():
                break
            chosen[:, position] = np.where(found, best, -1)
            left[rows[found], best[found]] = False
            if favoured is not None:
                taken_favoured += found & favoured[rows, best]
            if caps is not None:
                caps.take(rows[found], best[found], left)
            worth.take(best)
        return chosen


class _Relevance:
    """What an item is worth next to those that were taken: its place in the list, or its marginal relevance."""

    def __init__(
        self,
        choice: Choice,
        items: NDArray[np.int64],
        scores: NDArray[np.float32],
        left: NDArray[np.bool_],
        ranked: NDArray[np.bool_],
    ):
        self._vectors = None if choice.units is None else choice.units[items]  # (B, L, K)
        if self._vectors is None:
            return
        length = items.shape[1]
        self._pool = ranked & (np.arange(length) < (length if choice.pool is None else choice.pool))
        self._relevance = choice.trade_off * to_unit_range(left & self._pool, scores)  # (B, L)
        self._after = BEYOND - np.arange(length)
        self._likeness: NDArray[np.floating] = np.zeros(items.shape)  # the highest cosine with what was taken
        self._weight, self._any = 1 - choice.trade_off, False

    def best(self, free: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The first of the best free positions of each list. (B, L) -> (B,)"""
        if self._vectors is None:
            return free.argmax(axis=1)
        worth = np.where(self._pool, self._relevance - self._weight * self._likeness, self._after)
        return np.where(free, worth, -np.inf).argmax(axis=1)

    def take(self, best: NDArray[np.int64]) -> None:
        """Note that the items at these positions were taken."""
        if self._vectors is None:
            return
        taken = self._vectors[np.arange(len(best)), best]
        cosine = (self._vectors @ taken[:, :, None])[:, :, 0].round(DIGITS)
        self._likeness, self._any = np.maximum(self._likeness, cosine) if self._any else cosine, True


class _Caps:
    """How many items of each category were taken."""

    def __init__(self, kinds: NDArray[np.int64], cap: int, items: NDArray[np.int64]):
        self._kinds, self._cap = kinds[items], cap  # (B, L, M)
        self._counts = np.zeros((len(items), kinds.max(initial=-1) + 2), dtype=np.int64)  # the last one: of no category

    def take(self, rows: NDArray[np.int64], best: NDArray[np.int64], left: NDArray[np.bool_]) -> None:
        """Note what was taken, and remove the items of categories that are full from `left`."""
        kinds = self._kinds[rows, best]  # (n, M)
        self._counts[rows[:, None], kinds] += 1
        full = (self._counts[rows[:, None], kinds] >= self._cap) & (kinds >= 0)
        some = full.any(axis=1)
        rows, kinds = rows[some], np.where(full, kinds, -2)[some]
        for kind in kinds.T:
            left[rows] &= ~(self._kinds[rows] == kind[:, None, None]).any(axis=2)


def chosen_items(ids: NDArray[np.int64], scores: NDArray[np.float32], chosen: NDArray[np.int64]) -> Ranking:
    """The items at chosen positions of lists, and their scores. (B, L), (B, L), (B, N) -> (B, N) each"""
    positions = np.maximum(chosen, 0)
    best = np.where(chosen >= 0, np.take_along_axis(ids, positions, 1), PAD_ID).astype(np.int32)
    return best, np.where(chosen >= 0, np.take_along_axis(scores, positions, 1), np.float32(PAD_SCORE))


def kinds_of(categories: sparse.csr_matrix) -> NDArray[np.int64]:
    """The indices of the categories of each item, padded with -1. (I, C) -> (I, M)"""
    categories = sparse.csr_matrix(categories, copy=True)
    categories.sum_duplicates()
    categories.eliminate_zeros()
    lengths = np.diff(categories.indptr)
    kinds = np.full((len(lengths), max(1, lengths.max(initial=0))), -1, dtype=np.int64)
    kinds[np.arange(kinds.shape[1]) < lengths[:, None]] = categories.indices
    return kinds


def unit_rows(vectors: NDArray[np.generic]) -> NDArray[np.float32]:
    """Vectors scaled to unit length; zero vectors stay zero. -> (I, K)"""
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def to_unit_range(there: NDArray[np.bool_], scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores scaled to [0, 1] in each list, 0 where there is no item. -> (B, L)"""
    values = scores.astype(np.float64)
    low = np.where(there, values, np.inf).min(axis=1, keepdims=True)
    high = np.where(there, values, -np.inf).max(axis=1, keepdims=True)
    return np.divide(values - low, high - low, out=np.zeros_like(values), where=there & (high > low))
