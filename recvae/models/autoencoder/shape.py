"""Defaults that follow from the shape of the data. What they rest on is in docs/models.md, "Defaults and the data"."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from recvae.data.shards import Shards
from recvae.models.base.params import hyper

FEW_ITEMS = 2_000  # with so few, one pass that trains both parts ranks as well as four in turns
FEW_EVENTS = 100  # of an item: with fewer, data are sparse, and networks overfit that are trained as on dense data
FILTERED_EVENTS = 20  # of an item, from which the singular vectors of a low-pass filter are known well enough
# on sparse data, dropout falls linearly between these numbers of events of a user
SPARSE_EVENTS, DENSE_EVENTS = 20, 50
SPARSE_DROPOUT, DENSE_DROPOUT = 0.8, 0.5
WIDE_CATALOGUE = 25_000  # items from which z has more dimensions in a network that starts from singular vectors
LATENT_DIM, WIDE_LATENT_DIM = 200, 512
PAPER_GAMMA = 0.005  # RecVAE's weight of the KL term for each event of a user
# usual standard deviation of the weighted scores of HybridVAE's linear path / that of the network's: least and most
LINEAR_RATIO, DENSE_LINEAR_RATIO = 1 / 8, 1 / 2
MEAN_KL_WEIGHT = 0.2  # of a user with the mean number of events, at least: Mult-VAE's cap, in data of all lengths


class Shape(NamedTuple):
    """Numbers of users, items and events of the training data."""

    users: int
    items: int
    events: int

    @classmethod
    def of(cls, rows: sparse.csr_matrix | Shards) -> Shape:
        """The shape of a matrix (U, I), or of shards."""
        users, items = rows.shape
        return cls(users, items, int(rows.nnz))

    @property
    def is_sparse(self) -> bool:
        """Whether items have few events."""
        return self.events < FEW_EVENTS * self.items

    @property
    def is_thin(self) -> bool:
        """Whether items have few events, and users too."""
        return self.is_sparse and self.events < SPARSE_EVENTS * self.users

    def dropout(self) -> float:
        """Share of a user's events to hide in training: on sparse data, more where users have fewer events."""
        if not self.is_sparse:
            return DENSE_DROPOUT
        events = self.events / max(self.users, 1)
        return float(np.interp(events, (SPARSE_EVENTS, DENSE_EVENTS), (SPARSE_DROPOUT, DENSE_DROPOUT)))

    def gamma(self) -> float:
        """RecVAE's weight of the KL term for each event of a user: higher where users have few events."""
        return max(PAPER_GAMMA, MEAN_KL_WEIGHT * self.users / max(self.events, 1))

    def linear_ratio(self) -> float:
        """Usual deviation of HybridVAE's linear scores / that of its network's: more where more pairs are events."""
        if self.is_thin:
            return LINEAR_RATIO
        density = self.events / max(self.users * self.items, 1)
        return min(max(2 * math.sqrt(density), LINEAR_RATIO), DENSE_LINEAR_RATIO)

    @property
    def suits_low_pass(self) -> bool:
        """Whether items have enough events for a low-pass filter in HybridVAE's linear path to rank better."""
        return self.events >= FILTERED_EVENTS * self.items and not self.is_thin

    @property
    def is_wide(self) -> bool:
        """Whether there are many items."""
        return self.items >= WIDE_CATALOGUE

    @property
    def suits_a_filter(self) -> bool:
        """Whether a network of tanh layers may start as a spectral filter, which overfits thin data."""
        return self.items > FEW_ITEMS and not self.is_thin

    def trains_jointly(self) -> bool:
        """Whether RecVAE's encoder and decoder are better trained at once than in turns."""
        return self.items <= FEW_ITEMS or self.is_sparse


def latent_dim_option() -> Any:
    """The hyper-parameter `latent_dim` of a network: None is that of the catalogue's width."""
    return hyper(
        None,
        f"dimension of z; None is {LATENT_DIM}, or {WIDE_LATENT_DIM} from spectral initial weights with at least "
        f"{WIDE_CATALOGUE:,} items",
        low=1,
        kind=int,
        optional=True,
        search=[None, 64, 100, 200, 350, 512],
    )


def dropout_option(when: str) -> Any:
    """The hyper-parameter `dropout` of a network: None is that of the data's shape. when : "in training" """
    return hyper(
        None,
        f"share of a user's events hidden from the encoder {when}; None is {DENSE_DROPOUT:g}, and up to "
        f"{SPARSE_DROPOUT:g} on sparse data, where users have fewer than {DENSE_EVENTS} events and items fewer than "
        f"{FEW_EVENTS}",
        low=0,
        high=0.99,
        kind=float,
        optional=True,
        search=[None, 0.35, 0.5, 0.65, 0.8],
    )
