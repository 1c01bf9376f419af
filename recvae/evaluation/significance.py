"""Significance of differences between models over the same users: paired bootstrap and Holm's adjustment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recvae.errors import InvalidDataError, InvalidParameterError
from recvae.evaluation.evaluate import Metric


@dataclass(frozen=True)
class PairedTest:
    """Result of a paired test.

    Attributes
    ----------
    difference : float
        Mean difference over users.
    low, high : float
        95 % confidence interval of the difference.
    p_value : float
        Two-sided p-value of the hypothesis of no difference.
    """

    difference: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(a: Metric, b: Metric, resamples: int = 10_000, seed: int = 0) -> PairedTest:
    """Two-sided paired bootstrap of mean(a) - mean(b) over the same users.

    The p-value is the share of resamples whose mean, centred on zero, is at least as large in absolute value as the
    observed difference; both counts include the observed one.

    Parameters
    ----------
    a, b : Metric
        The same metric of two models, over the same users.
    resamples : int
        Number of bootstrap resamples.
    seed : int
        Seed of the resampling.

    Returns
    -------
    PairedTest
        Difference, interval and p-value.

    Raises
    ------
    InvalidDataError
        If a and b are over different users, or there are fewer than two users.

    References
    ----------
    Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 16.
    """
    has_ids = a.users is not None and b.users is not None
    if len(a.values) != len(b.values) or (has_ids and not np.array_equal(a.users, b.users)):  # type: ignore[arg-type]
        raise InvalidDataError(f"Expected results over the same users, got {len(a.values)} and {len(b.values)} others.")
    differences = a.values - b.values
    if len(differences) < 2 or not np.isfinite(differences).all():
        raise InvalidDataError(f"Expected numbers for at least two users, got {differences}.")
    mean = float(differences.mean())
    if np.ptp(differences) == 0:  # all differences are equal: every resample is the same
        return PairedTest(mean, mean, mean, 1.0 if mean == 0 else 1 / (resamples + 1))
    from scipy import stats  # half a second, which a command that draws nothing need not spend

    drawn = stats.bootstrap(
        (differences,), np.mean, n_resamples=resamples, batch=256, method="percentile", rng=np.random.default_rng(seed)
    )
    # with a tolerance: ties with the observed difference count, whatever the order of summation
    extreme = np.abs(drawn.bootstrap_distribution - mean) >= abs(mean) * (1 - 1e-12)
    p_value = float((extreme.sum() + 1) / (resamples + 1))
    return PairedTest(mean, float(drawn.confidence_interval.low), float(drawn.confidence_interval.high), p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several tests, to bound the probability of any false rejection (family-wise error).

    The smallest of m is multiplied by m, the next by m - 1 and so on; an adjusted value is never below that of a
    smaller p-value, nor above 1.

    Parameters
    ----------
    p_values : sequence of float
        One p-value for each test.

    Returns
    -------
    list[float]
        Adjusted p-values, in the same order.

    Raises
    ------
    InvalidParameterError
        If one is not a number from 0 to 1.

    References
    ----------
    Holm 1979, "A simple sequentially rejective multiple test procedure" (step-down).
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise InvalidParameterError(f"Expected p-values, numbers from 0 to 1, got {p_values!r}.")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(p[order] * np.arange(len(p), 0, -1), 1.0))
    return [float(value) for value in adjusted]
