"""Lists that explore: ranked at a place drawn from what a model believes of a user, not at its mean."""

from __future__ import annotations

import numbers
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.errors import InvalidParameterError, NotSupportedError
from recvae.models.base.abilities import absence, hook
from recvae.models.base.base import Model
from recvae.utils.checks import check_integer
from recvae.utils.topk import Scorer

LARGEST = 1e6
POSTERIOR = "distribution over a latent space"


class Explored(NamedTuple):
    """Lists as `recommend` gives them, and how unsure the model is of each score.

    Attributes
    ----------
    spread : NDArray[np.float32]
        The standard deviation of a score over the posterior q(z | x) in full, whatever the strength of the draw; 0
        where the list is padded. Exact where logits are linear in z (RecVAE, HybridVAE, MultVAE without hidden layers),
        else that of 32 draws.
    """

    ids: NDArray[np.int32]  # (N,) or (B, N)
    scores: NDArray[np.float32]
    spread: NDArray[np.float32]


class Exploration(NamedTuple):
    """How far to go from the mean, and by which noise."""

    strength: float
    of_users: np.random.Generator
    of_spread: np.random.Generator


class Explores(Model):
    """What a model needs for `recommend` to explore."""

    @hook(POSTERIOR)
    def _explorer(self, strength: float, random: np.random.Generator) -> Scorer:
        """What scores rows at z = mu + strength * sigma * eps, one eps for each; it is asked for users in order."""
        raise NotImplementedError

    @hook(POSTERIOR)
    def _spread(
        self, rows: sparse.csr_matrix, ids: NDArray[np.int32], random: np.random.Generator
    ) -> NDArray[np.float32]:
        """Standard deviations of the scores of some items for each row, 0 for id -1. ids : (B, N) -> (B, N)"""
        raise NotImplementedError

    def _exploration(self, explore: Any, random_state: Any) -> Exploration | None:
        """What `recommend` was asked for; None for the plain lists. Raises NotSupportedError, InvalidParameterError."""
        if explore is None:
            return None
        random = generator(random_state)
        absent = absence(type(self), "_explorer")
        if absent is not None:
            raise NotSupportedError(
                f"{type(self).__name__} cannot explore: it has no {absent}; expected explore=None, got {explore!r}."
            )
        return Exploration(check_number("explore", explore, 0), *random.spawn(2))


def check_number(name: str, value: Any, low: float) -> float:
    """`value` as a float, of no less than `low` and no more than LARGEST. Raises InvalidParameterError."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not low <= float(value) <= LARGEST:
        raise InvalidParameterError(f"Expected {name} to be a number from {low:g} to {LARGEST:,.0f}, got {value!r}.")
    return float(value)


def generator(random_state: Any) -> np.random.Generator:
    """A generator of its own from a seed; None draws one. Raises InvalidParameterError."""
    seed = None if random_state is None else check_integer("random_state", random_state, 0, 2**32 - 1)
    return np.random.default_rng(seed)
