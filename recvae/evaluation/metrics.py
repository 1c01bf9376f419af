"""Metrics of ranked lists against held-out items, one value per user, and list-level measures over all lists."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.errors import InvalidDataError

Values = NDArray[np.float64]
Hits = NDArray[np.bool_]
Counts = NDArray[np.int64]


def recall(hits: Hits, held: Counts, k: int) -> Values:
    """hits / min(k, held-out): the definition of the VAE papers (Liang et al. 2018, section 4.2)."""
    return hits.sum(1) / np.minimum(k, held)


def recall_full(hits: Hits, held: Counts, k: int) -> Values:
    """hits / held-out: the definition of LightGCN's tables."""
    return hits.sum(1) / held


def precision(hits: Hits, held: Counts, k: int) -> Values:
    """hits / k."""
    return hits.sum(1) / k


def hit_rate(hits: Hits, held: Counts, k: int) -> Values:
    """1 if there is a hit, otherwise 0."""
    return hits.any(1).astype(float)


def mrr(hits: Hits, held: Counts, k: int) -> Values:
    """1 / rank of the first hit, 0 without one."""
    return (hits / _ranks(hits)).max(1, initial=0.0)


def average_precision(hits: Hits, held: Counts, k: int) -> Values:
    """Sum of the precision at each hit / min(k, held-out)."""
    return (hits * hits.cumsum(1) / _ranks(hits)).sum(1) / np.minimum(k, held)


def ndcg(hits: Hits, held: Counts, k: int) -> Values:
    """Sum of 1 / log2(1 + rank) over the hits, divided by that of a list that begins with all held-out items."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    best = np.concatenate([[0.0], discounts.cumsum()])
    users, ranks = np.nonzero(hits)
    # summed in the same order as in `best`, so that a perfect list gets exactly 1 and none gets more
    gained = np.bincount(users, weights=discounts[ranks], minlength=len(hits))
    return gained / best[np.minimum(k, held)]


METRICS: dict[str, Callable[[Hits, Counts, int], Values]] = {
    "recall": recall,
    "recall_full": recall_full,
    "precision": precision,
    "hit_rate": hit_rate,
    "mrr": mrr,
    "map": average_precision,
    "ndcg": ndcg,
}


def find_hits(ranked: NDArray[np.integer], held_out: sparse.csr_matrix) -> Hits:
    """Mask of the ranked ids (U, K), best first and padded with -1, that are held-out items (U, I). -> (U, K)"""
    n_users, n_items = held_out.shape
    if ranked.ndim != 2 or ranked.shape[0] != n_users or ranked.dtype.kind not in "iu":
        raise InvalidDataError(
            f"Expected {n_users} ranked lists of integers, one for each user, got {ranked.dtype} of shape "
            f"{ranked.shape}."
        )
    if ranked.size and ranked.max() >= n_items:
        raise InvalidDataError(f"Expected ranked ids below {n_items}, the number of items, got {ranked.max()}.")
    listed = np.sort(ranked, axis=1)
    if ((listed[:, 1:] == listed[:, :-1]) & (listed[:, 1:] >= 0)).any():
        raise InvalidDataError("Expected each item at most once in a ranked list, got one with repetitions.")
    # key of each (user, item) pair; ascending if the columns of the CSR are sorted
    rows = np.repeat(np.arange(n_users), np.diff(held_out.indptr))
    held = rows * n_items + held_out.indices
    if (held[1:] < held[:-1]).any():
        held = np.sort(held)
    wanted = np.arange(n_users)[:, None] * n_items + ranked
    index = np.minimum(np.searchsorted(held, wanted), max(len(held) - 1, 0))
    return (held[index] == wanted) & (ranked >= 0) if len(held) else np.zeros(ranked.shape, dtype=bool)


def times_listed(ranked: NDArray[np.integer], n_items: int) -> Counts:
    """Number of ranked lists (U, K) that contain each item: the input of all list-level measures. -> (I,)"""
    return np.bincount(ranked[ranked >= 0], minlength=n_items)


def coverage(listed: Counts) -> float:
    """Share of all items that are in at least one list."""
    return float((listed > 0).mean())


def novelty(listed: Counts, item_counts: Counts, n_users: int) -> float:
    """Mean of -log2(share of training users who have the item) over listed items, in bits.

    It is 0 if all listed items are items of all users. An item without users counts as if it had one.

    Parameters
    ----------
    listed : numpy.ndarray
        (I,) number of lists with each item.
    item_counts : numpy.ndarray
        (I,) number of training users with each item.
    n_users : int
        Number of training users.

    Returns
    -------
    float
        NaN if nothing is listed.
    """
    bits = -np.log2(np.maximum(item_counts, 1) / n_users)
    return float(listed @ bits / listed.sum()) if listed.any() else float("nan")


def gini(listed: Counts) -> float:
    """Gini index of the number of lists per item: 0 if all items are listed equally often, near 1 if few are listed."""
    times, n = np.sort(listed), len(listed)
    return float((2 * np.arange(1, n + 1) - n - 1) @ times / (n * times.sum())) if times.any() else float("nan")


def _ranks(hits: Hits) -> NDArray[np.int64]:
    return np.arange(1, hits.shape[1] + 1)
