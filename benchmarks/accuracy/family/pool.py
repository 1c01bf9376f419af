"""Results of each (split seed, model) -> means over splits, and differences pooled by user."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recvae.benchmark.grids import BASELINES
from recvae.benchmark.run import best_baseline, paired_tests
from recvae.errors import InvalidDataError
from recvae.evaluation.evaluate import Metric

OPPONENTS = (*BASELINES, "iALS")  # irspack's iALS is no model of this package


@dataclass(frozen=True)
class Result:
    """One model on one split: values of each user by metric, and the description of the run."""

    users: NDArray[np.str_]
    values: Mapping[str, NDArray[np.float64]]
    about: dict[str, Any]


def pool(results: Mapping[str, Sequence[Result]], metrics: Sequence[str]) -> dict[str, Any]:
    """Models by name, each with one result for each split, in the same order. -> for JSON, without users

    A mean is that over splits of the mean over users. A difference is pooled by user: a user who is in the test of
    several splits counts once, with the mean over these splits, so that the bootstrap resamples users, who are
    independent of each other, and not their tests, which are not. The standard error is that of the same values.

    metrics : the last one is tested
    Raises InvalidDataError where models were not tested on the same users.
    """
    _check(results)
    found = {name: by_user(each, metrics[-1]) for name, each in results.items()}
    best = best_baseline(found, OPPONENTS)
    targets = _targets(results)
    rows = [
        _row(name, each, metrics)
        | {"seconds_to_best_baseline": [seconds_to(result.about, t) for result, t in zip(each, targets, strict=True)]}
        | {"paired_tests": paired_tests(name, found, best, OPPONENTS)}
        for name, each in results.items()
    ]
    first = next(iter(results.values()))
    return {
        "best_baseline": best,
        "tests_of_users": sum(len(result.users) for result in first),
        "users": len(next(iter(found.values())).values),
        "models": rows,
    }


def by_user(results: Sequence[Result], metric: str) -> Metric:
    """The mean of each user's values over the splits whose test has the user."""
    users, place = np.unique(np.concatenate([result.users for result in results]), return_inverse=True)
    values = np.concatenate([result.values[metric] for result in results])
    return Metric(np.bincount(place, values) / np.bincount(place), users)


def seconds_to(about: Mapping[str, Any], target: float | None) -> float | None:
    """Seconds of a fit until validation users are ranked at least as well as `target`; None if they never are.

    about : a description of a run, with the records of its epochs if the model has any. All time outside of epochs,
        such as that for a linear path and for weights of a sum, counts before the first one.
    """
    if target is None:
        return None
    epochs = about.get("history") or []
    seconds = float(about["fit_seconds"]) - sum(epoch["seconds"] for epoch in epochs)
    for epoch in epochs:
        seconds += epoch["seconds"]
        if epoch["valid"] is not None and epoch["valid"] >= target:
            return seconds
    return float(about["fit_seconds"]) if not epochs and about.get("valid", -1) >= target else None


def _targets(results: Mapping[str, Sequence[Result]]) -> list[float | None]:
    """For each split the best metric of a baseline on validation users; None where none was measured."""
    splits = zip(*(each for name, each in results.items() if name in OPPONENTS), strict=True)
    found = [[result.about["valid"] for result in split if result.about.get("valid") is not None] for split in splits]
    return [max(metrics, default=None) for metrics in found] or [None] * len(next(iter(results.values())))


def _row(name: str, results: Sequence[Result], metrics: Sequence[str]) -> dict[str, Any]:
    abouts = [result.about for result in results]
    return {
        "model": name,
        "metrics": {metric: _summary(results, metric) for metric in metrics},
        "parameters": [about["parameters"] for about in abouts],
        "settings_tried": max(about["settings_tried"] for about in abouts),
        **{key: statistics.median(about[key] for about in abouts) for key in ("choice_seconds", "fit_seconds")},
        "users_ranked_per_second": statistics.median(about["users_ranked_per_second"] for about in abouts),
        "peak_memory_mib": max(about["peak_memory_mib"] for about in abouts),
    }


def _summary(results: Sequence[Result], metric: str) -> dict[str, Any]:
    by_split = [float(result.values[metric].mean()) for result in results]
    return {"mean": statistics.fmean(by_split), "stderr": by_user(results, metric).stderr, "by_split": by_split}


def _check(results: Mapping[str, Sequence[Result]]) -> None:
    (first, reference), *others = results.items()
    for name, each in others:
        same = [np.array_equal(a.users, b.users) for a, b in zip(reference, each, strict=True)]
        if not all(same):
            raise InvalidDataError(
                f"Expected {name} to be tested on the users of {first}, got others; run both once more, with --again."
            )
