"""Random data with given numbers of users, items and events, for speed and memory only: users have no tastes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

ML_20M = (116_677, 20_108, 8_500_000)  # training users, items, events


def synthetic(n_users: int, n_items: int, n_events: int, seed: int = 0) -> sparse.csr_matrix:
    """A binary matrix with log-normal users and Zipf items, with exactly `n_events` events. -> (n_users, n_items) CSR

    Activity is exp(N(0, 1)), at least one event and at most a quarter of the items; the item of rank r is drawn with
    weight 1 / (10 + r), each at most once by a user.
    """
    most = n_items // 4
    if not n_users <= n_events <= n_users * most:
        raise ValueError(f"Expected {n_users} to {n_users * most} events, one to {most} of a user, got {n_events}.")
    random = np.random.default_rng(seed)
    activity = random.lognormal(0, 1, n_users)
    lengths = _lengths(activity / activity.sum() * n_events, n_events, most)
    cumulative = np.cumsum(1 / (10 + np.arange(n_items)))
    names = random.permutation(n_items)  # so that the index of an item does not follow its rank
    complete: list[NDArray[np.int64]] = []
    cells = np.empty(0, dtype=np.int64)  # user * n_items + item, of users who still lack events
    missing = lengths
    while missing.any():  # draw again for users who drew items that they have
        users = np.repeat(np.arange(n_users), missing)
        ranks = np.searchsorted(cumulative, random.random(len(users)) * cumulative[-1])
        cells = np.union1d(cells, users * n_items + names[ranks])
        had = np.bincount(cells // n_items, minlength=n_users)
        missing = np.where(had > 0, lengths - had, 0)
        lacks = missing[cells // n_items] > 0
        complete.append(cells[~lacks])
        cells = cells[lacks]
    items = np.sort(np.concatenate(complete)) % n_items
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return sparse.csr_matrix((np.ones(len(items), dtype=np.float32), items, indptr), (n_users, n_items))


def _lengths(wanted: NDArray[np.float64], total: int, most: int) -> NDArray[np.int64]:
    """Integers near `wanted`, from 1 to `most`, that sum to `total`."""
    lengths = np.clip(wanted.astype(np.int64), 1, most)
    while (left := total - int(lengths.sum())) != 0:
        room = np.flatnonzero(lengths < most if left > 0 else lengths > 1)
        lengths[room[np.argsort(-wanted[room], kind="stable")][: abs(left)]] += np.sign(left)
    return lengths
