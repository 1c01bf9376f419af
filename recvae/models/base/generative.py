"""Methods based on a distribution over z: posteriors, exploration, synthetic users, anomaly scores."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.errors import InvalidDataError, InvalidParameterError, NotSupportedError, UnknownNameError
from recvae.utils.checks import check_integer
from recvae.utils.topk import BLOCK_BYTES

if TYPE_CHECKING:
    from recvae.models.base import Recommender

Latent = Literal["prior", "aggregate"]
LATENTS: tuple[str, ...] = get_args(Latent)
MIN_TEMPERATURE = 1e-3
MAX_NUMBER = 1e6  # upper limit of `temperature` and `explore`
BLOCK = 2048  # rows encoded at a time
MAX_REFERENCE = 10_000  # upper limit of the reference rows of `anomaly_score`
NEAREST = 200  # number of reference rows, nearest in number of items, that a row is compared with
MIN_UNIT = 1e-3  # nats; lower limit of the scale that a term is divided by, if reference rows are all alike


class Encoding(NamedTuple):
    """q(z | x) = N(mean, diag(exp(logvar))) of B users.

    For a model with two latent levels, z1 and z2 are concatenated, and z2 is at its mean.

    Attributes
    ----------
    mean, logvar : numpy.ndarray
        (B, K) float32.
    """

    mean: NDArray[np.float32]  # (B, K)
    logvar: NDArray[np.float32]  # (B, K)


class Explored(NamedTuple):
    """The result of `recommend` with `explore`: ranked items, with the uncertainty of each score.

    Attributes
    ----------
    ids : numpy.ndarray
        int32, of the items, padded with -1.
    scores : numpy.ndarray
        float32, at the draw z.
    spread : numpy.ndarray
        float32, the standard deviation of each score over the posterior q(z | x), whatever the value of `explore`; 0
        for padding. Exact if logits are linear in z (RecVAE, HybridVAE, MultVAE without hidden layers), otherwise over
        32 draws.
    """

    ids: NDArray[np.int32]  # (N,) or (B, N)
    scores: NDArray[np.float32]
    spread: NDArray[np.float32]


class Exploration(NamedTuple):
    """The strength of exploration, in standard deviations of the posterior, and the generators of the noise."""

    strength: float
    of_users: np.random.Generator
    of_spread: np.random.Generator


def encode(model: Recommender, user_items: Any) -> Encoding:
    """See `Recommender.encode`."""
    rows = model._rows(user_items)
    blocks = [model._posterior(rows[start : start + BLOCK]) for start in range(0, max(1, rows.shape[0]), BLOCK)]
    return Encoding(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def exploration(model: Recommender, explore: Any, random_state: Any) -> Exploration | None:
    """The exploration that `recommend` was asked for, or None. Raises NotSupportedError, InvalidParameterError."""
    if explore is None:
        return None
    random = generator(random_state)
    if not model._defines("_explorer"):
        raise NotSupportedError(
            f"{type(model).__name__} cannot explore: it has no distribution over a latent space; expected "
            f"explore=None, got {explore!r}."
        )
    return Exploration(check_number("explore", explore, 0), *random.spawn(2))


def sample_users(
    model: Recommender, n: int, latent: str, user_items: Any, temperature: float, random_state: int | None
) -> sparse.csr_matrix:
    """See `Recommender.sample_users`."""
    n, temperature = check_integer("n", n, 1), check_number("temperature", temperature, MIN_TEMPERATURE)
    if latent not in LATENTS:
        raise UnknownNameError.among("latent", latent, LATENTS)
    of_rows, of_users, of_items = generator(random_state).spawn(3)
    rows, active = _active_rows(model, "user_items", user_items, "sample_users")
    users = active[of_rows.integers(len(active), size=n)]
    step = max(1, BLOCK_BYTES // (4 * model.n_items_))
    blocks = [
        model._sample(rows[users[start : start + step]], latent, temperature, of_users, of_items)
        for start in range(0, n, step)
    ]
    return sparse.vstack(blocks, format="csr")


def anomaly_score(model: Recommender, user_items: Any, reference: Any) -> NDArray[np.float64]:
    """See `Recommender.anomaly_score`."""
    rows = model._rows(user_items)
    others, active = _active_rows(model, "reference", reference, "anomaly_score")
    others = others[active[:: -(-len(active) // MAX_REFERENCE)]]
    sizes, scores = np.diff(rows.indptr), np.zeros(rows.shape[0])
    nonempty = np.flatnonzero(sizes)
    terms, other_terms = elbo_terms(model, rows[nonempty]), elbo_terms(model, others)  # (B, 2), (U, 2)
    deviations = standardized(terms, other_terms, sizes[nonempty], np.diff(others.indptr))
    deviations[:, 0] = np.maximum(deviations[:, 0], 0)  # a reconstruction better than usual is not an anomaly
    scores[nonempty] = np.sqrt((deviations**2).sum(1))
    return scores


def elbo_terms(model: Recommender, rows: sparse.csr_matrix) -> NDArray[np.float64]:
    """The two terms of the ELBO of rows with events, block by block. -> (B, 2)"""
    starts = range(0, rows.shape[0], BLOCK)
    return np.concatenate([np.zeros((0, 2)), *(model._elbo_terms(rows[start : start + BLOCK]) for start in starts)])


def _active_rows(
    model: Recommender, name: str, user_items: Any, verb: str
) -> tuple[sparse.csr_matrix, NDArray[np.int64]]:
    """The given rows, by default the training rows, and the indices of those with events."""
    rows = model._training_rows(f"{verb}, as {name}") if user_items is None else model._rows(user_items)
    active = np.flatnonzero(np.diff(rows.indptr))
    if not len(active):
        raise InvalidDataError(f"Expected rows with events as {name}, got {rows.shape[0]} without any.")
    return rows, active


def standardized(
    values: NDArray[np.float64], others: NDArray[np.float64], sizes: NDArray[Any], sizes_of_others: NDArray[Any]
) -> NDArray[np.float64]:
    """Values minus the medians of the `NEAREST` others nearest in size, divided by 1.4826 times their MAD.

    Parameters
    ----------
    values : NDArray[np.float64]
        (B, T).
    others : NDArray[np.float64]
        (U, T) with U >= 1.
    sizes : NDArray[Any]
        (B,).
    sizes_of_others : NDArray[Any]
        (U,).

    Returns
    -------
    NDArray[np.float64]
        (B, T).
    """
    order = np.argsort(sizes_of_others, kind="stable")
    others, sorted_sizes = others[order], sizes_of_others[order]
    kinds, kind_of = np.unique(sizes, return_inverse=True)
    middle = (np.searchsorted(sorted_sizes, kinds) + np.searchsorted(sorted_sizes, kinds, side="right")) // 2
    starts = np.clip(middle - NEAREST // 2, 0, max(0, len(others) - NEAREST))
    medians, units = (np.empty((len(kinds), values.shape[1])) for _ in range(2))
    for row, start in enumerate(starts):
        near = others[start : start + NEAREST]
        medians[row] = np.median(near, axis=0)
        units[row] = 1.4826 * np.median(np.abs(near - medians[row]), axis=0)
    return (values - medians[kind_of]) / np.maximum(units, MIN_UNIT)[kind_of]


def check_number(name: str, value: Any, low: float) -> float:
    """`value` as a float, checked to be from `low` to MAX_NUMBER. Raises InvalidParameterError."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not low <= float(value) <= MAX_NUMBER:
        raise InvalidParameterError(f"Expected {name} to be a number from {low:g} to {MAX_NUMBER:,.0f}, got {value!r}.")
    return float(value)


def generator(random_state: Any) -> np.random.Generator:
    """A generator from a seed; None draws a seed. Raises InvalidParameterError."""
    seed = None if random_state is None else check_integer("random_state", random_state, 0, 2**32 - 1)
    return np.random.default_rng(seed)
