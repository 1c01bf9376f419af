"""Samplers of negatives for the sampled likelihood; their number does not depend on the size of the catalogue.

Each draw is a function of a key: the same key gives the same negatives, on any device, regardless of earlier draws.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recvae.data.batches import Batch, Negatives
from recvae.errors import InvalidDataError, InvalidParameterError, UnknownNameError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
POWER = 0.75  # exponent of counts, as in word2vec: Mikolov et al. 2013
SIZES = 8  # batch sizes whose inclusion probabilities are cached: usually two, the last batch of an epoch is smaller


class Sampler(Protocol):
    """Draws negatives for a batch."""

    def draw(self, batch: Batch, key: int) -> Negatives:
        """Negatives on the device of the batch. `key` is an integer from 0 to 2^128 - 1, a new one for each draw."""
        ...


def make_sampler(kind: str, budget: int, item_counts: Ints, n_users: int, batch_size: int) -> Sampler:
    """A sampler of at most `budget` negatives, one of `SAMPLERS`; for a budget of all items or more, `AllItems`.

    Parameters
    ----------
    item_counts : Ints
        (I,), how many of the `n_users` training users have each item.
    batch_size : int
        Usual number of users in a batch; only "in-batch" uses it, to compute inclusion probabilities ahead.

    Raises
    ------
    UnknownNameError
    InvalidParameterError
    InvalidDataError
        If counts are not integers from 0 to `n_users`.

    Notes
    -----
    All work that grows with the number of items is done here, once.
    """
    if kind not in SAMPLERS:
        raise UnknownNameError.among("sampler of negatives", kind, SAMPLERS)
    for name, value in (("budget", budget), ("n_users", n_users), ("batch_size", batch_size)):
        if value < 1:
            raise InvalidParameterError(f"Expected {name} of 1 or more, got {value!r}.")
    counts = np.asarray(item_counts)
    if counts.ndim != 1 or not len(counts) or counts.dtype.kind not in "iu":
        raise InvalidDataError(
            f"Expected one integer for each item, got an array of {counts.dtype} in shape {counts.shape}."
        )
    if counts.min() < 0 or counts.max() > n_users:
        raise InvalidDataError(
            f"Expected counts of items from 0 to the {n_users} users, got {counts.min()} to {counts.max()}; "
            "count the users that have an item."
        )
    return AllItems(len(counts)) if budget >= len(counts) else SAMPLERS[kind](budget, counts, n_users, batch_size)


class AllItems:
    """All items with weight 1: the sum is exact."""

    def __init__(self, n_items: int):
        self.n_items = n_items

    def draw(self, batch: Batch, key: int) -> Negatives:
        device = batch.items.device
        return Negatives(torch.arange(self.n_items, device=device), torch.ones(self.n_items, device=device))


class Uniform:
    """Stratified sampling: one item from each of C equal parts of the catalogue, each C / I times in expectation."""

    def __init__(self, budget: int, item_counts: Ints, n_users: int, batch_size: int):
        self.n_items, self.budget = len(item_counts), budget

    def draw(self, batch: Batch, key: int) -> Negatives:
        items, times = _spread(self.n_items, self.budget, _random(key))
        return _negatives(items, times * np.float64(self.n_items / self.budget), batch.items)


class ByPopularity:
    """Items from q, proportional to (count + 1)^0.75: stratified, one draw from each of C parts of equal probability.

    An item is drawn C q_i times in expectation, and each draw has weight 1 / (C q_i).
    """

    def __init__(self, budget: int, item_counts: Ints, n_users: int, batch_size: int):
        share = (item_counts + 1.0) ** POWER
        self.budget = budget
        self.expected: Floats = share * (budget / share.sum())  # (I,) C q_i
        self.bounds: Floats = self.expected.cumsum()  # (I,)

    def draw(self, batch: Batch, key: int) -> Negatives:
        points = (np.arange(self.budget) + _random(key).random(self.budget)) * (self.bounds[-1] / self.budget)
        positions = torch.searchsorted(
            torch.from_numpy(self.bounds), torch.from_numpy(points), right=True
        )  # multi-threaded, unlike numpy
        drawn = positions.numpy().clip(max=len(self.bounds) - 1)
        items, times = _distinct(drawn)
        return _negatives(items, times / self.expected[items], batch.items)


class InBatch:
    """The distinct items of the batch itself, weighted by inverse inclusion probability.

    Batches are random. Of the U - 1 other users, c_i have an item that the user does not have; at least one of these is
    among the B - 1 other users of the batch with probability

        P_i = 1 - C(U - 1 - c_i, B - 1) / C(U - 1, B - 1)

    So the sum of f(i) / P_i over the items of the batch that the user does not have is an unbiased estimate of the sum
    of f over all items that the user does not have: the estimator of Horvitz & Thompson 1952. With -log P_i added to
    the logits it is the correction of Bengio & Senecal 2008 and, in batches, of Yi et al. 2019, "Sampling-Bias-
    Corrected Neural Modeling for Large Corpus Item Recommendations", here exact. An item without users
    never occurs, and gets no gradient. If there are more distinct items than the budget, they are sampled as by
    `Uniform`.
    """

    def __init__(self, budget: int, item_counts: Ints, n_users: int, batch_size: int):
        self.budget, self.counts, self.n_users = budget, item_counts, n_users
        self.chances: Callable[[int], Floats] = lru_cache(SIZES)(self._chances)
        self.chances(batch_size)

    def draw(self, batch: Batch, key: int) -> Negatives:
        items = batch.items.unique().cpu().numpy().astype(np.int64)
        if not len(items):
            return _negatives(items, np.ones(0), batch.items)
        # an item of the batch has at least one user, even if its count is 0
        weights = 1 / self.chances(len(batch))[self.counts[items].clip(min=1)]
        if len(items) > self.budget:
            kept, times = _spread(len(items), self.budget, _random(key))
            items, weights = items[kept], weights[kept] * times * (len(items) / self.budget)
        return _negatives(items, weights, batch.items)

    def _chances(self, batch_size: int) -> Floats:
        """P by count c, from 0 to the largest.

        C(n - c, k) / C(n, k) is the product over j < c of 1 - k / (n - j), and 0 from c > n - k on.

        Returns
        -------
        Floats
            (max c + 1,).
        """
        others, companions = self.n_users - 1, min(batch_size, self.n_users) - 1
        if not companions:
            return np.ones(max(2, self.counts.max() + 1))  # no other user: all items of the batch are the user's own
        left = others - np.arange(max(1, self.counts.max()), dtype=np.float64)
        with np.errstate(divide="ignore"):
            of_none = np.log1p(-companions / left.clip(min=companions)).cumsum()  # log of the product
        return np.concatenate([[0.0], -np.expm1(of_none)])


# name -> (budget, item_counts, n_users, batch_size) -> Sampler
SAMPLERS: dict[str, Callable[[int, Ints, int, int], Sampler]] = {
    "uniform": Uniform,
    "popularity": ByPopularity,
    "in-batch": InBatch,
}


def _random(key: int) -> np.random.Generator:
    if not 0 <= key < 1 << 128:
        raise InvalidParameterError(f"Expected a key from 0 to 2^128 - 1, got {key!r}.")
    words = np.array([key & (1 << 64) - 1, key >> 64], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=words))


def _spread(n: int, draws: int, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Draw one number from each of `draws` equal parts of range(n). -> distinct ones, ascending, and their counts"""
    points = (np.arange(draws) + random.random(draws)) * (n / draws)
    return _distinct(points.astype(np.int64).clip(max=n - 1))


def _distinct(drawn: Ints) -> tuple[Ints, Ints]:
    """The distinct numbers of an ascending array, and their counts."""
    first = np.flatnonzero(np.concatenate([[True], drawn[1:] != drawn[:-1]]))
    return drawn[first], np.diff(first, append=len(drawn))


def _negatives(items: Ints, weights: NDArray[np.floating[Any]], like: Tensor) -> Negatives:
    on_host = torch.from_numpy(items), torch.from_numpy(weights.astype(np.float32))
    return Negatives(*(part.to(like.device) for part in on_host))
