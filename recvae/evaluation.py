"""One evaluator for every recommender: per-user values with mean and error, list-level measures, and a paired test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from recvae.errors import InvalidDataError, InvalidParameterError
from recvae.metrics import METRICS, coverage, find_hits, gini, novelty, parse_metric
from recvae.progress import track
from recvae.split import Holdout
from recvae.topk import PAD_ID, PAD_SCORE

DEFAULT_METRICS = ("recall@20", "recall@50", "ndcg@100")


class Recommends(Protocol):
    """What `evaluate` needs: `recommend` as implicit has it."""

    def recommend(self, userid: Any, user_items: Any, N: int = 10) -> tuple[Any, Any]: ...


@dataclass(frozen=True, eq=False)
class Metric:
    """One metric: a value for each evaluated user, in the order of `Evaluation.users`."""

    values: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def stderr(self) -> float:
        """Standard error of the mean over users."""
        return float(self.values.std(ddof=1) / np.sqrt(len(self.values))) if len(self.values) > 1 else float("nan")

    def __repr__(self) -> str:
        return f"{self.mean:.4f} ± {self.stderr:.4f} ({len(self.values)} users)"


@dataclass(frozen=True, eq=False)
class Evaluation(Mapping[str, Metric]):
    """Metrics by name, as in `result["ndcg@100"].mean`.

    users : raw ids of the users evaluated; excluded : how many had nothing held out
    lists : coverage, novelty and gini of the lists cut at the largest k
    seconds : time spent ranking
    """

    metrics: dict[str, Metric]
    users: NDArray[Any]
    excluded: int
    lists: dict[str, float]
    seconds: float

    def __getitem__(self, name: str) -> Metric:
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def __repr__(self) -> str:
        return "\n".join(f"{name:>16}  {metric!r}" for name, metric in self.metrics.items())


def evaluate(
    model: Recommends,
    holdout: Holdout,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    block_users: int = 1000,
    show_progress: bool = False,
) -> Evaluation:
    """Score any object with implicit's `recommend` on held-out users, by its ranking of the items not folded in.

    Each user's fold-in row is what the model sees (`recalculate_user=True` where a model, as implicit's ALS, would
    otherwise look the user up). Items that come back with the padding score are not counted as recommended. Users
    with nothing held out are excluded and counted. Memory is bounded by `block_users` lists, never users x items.
    """

    def recommend(userids: NDArray[np.int64], rows: sparse.csr_matrix, N: int) -> NDArray[np.integer]:
        ids, scores = model.recommend(userids, rows, N=N, recalculate_user=True)  # type: ignore[call-arg]
        return np.where(np.asarray(scores) > PAD_SCORE, ids, PAD_ID)

    return evaluate_ranker(recommend, holdout, metrics, block_users=block_users, show_progress=show_progress)


def evaluate_ranker(
    ranker: Callable[[NDArray[np.int64], sparse.csr_matrix, int], NDArray[np.integer]],
    holdout: Holdout,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    block_users: int = 1000,
    show_progress: bool = False,
) -> Evaluation:
    """As `evaluate`, for a function (positions of the users, fold-in rows, N) -> ids (rows, N), padded with -1."""
    parsed = {name: parse_metric(name) for name in metrics}
    if not parsed:
        raise InvalidParameterError("Expected at least one metric, such as ndcg@100, got none.")
    n_held = np.diff(holdout.held_out.indptr).astype(np.int64)
    users = np.flatnonzero(n_held)
    if len(users) == 0:
        raise InvalidDataError("Expected users with held-out items, got none; there is nothing to evaluate.")
    n_items = holdout.held_out.shape[1]
    N = min(max(k for _, k in parsed.values()), n_items)
    ranked = np.full((len(users), N), PAD_ID, dtype=np.int64)
    started = time.perf_counter()
    for start in track(range(0, len(users), block_users), "evaluating", show_progress):
        block = users[start : start + block_users]
        ids = ranker(block, holdout.fold_in[block], N)[:, :N]
        ranked[start : start + block_users, : ids.shape[1]] = ids
    seconds = time.perf_counter() - started
    hits = find_hits(ranked, holdout.held_out[users])
    measured = {name: Metric(METRICS[base](hits[:, :k], n_held[users], k)) for name, (base, k) in parsed.items()}
    lists = {
        "coverage": coverage(ranked, n_items),
        "novelty": novelty(ranked, holdout.item_counts, holdout.n_train),
        "gini": gini(ranked, n_items),
    }
    return Evaluation(measured, holdout.users[users], len(n_held) - len(users), lists, seconds)


@dataclass(frozen=True)
class PairedTest:
    """Mean difference over users with its 95 % interval, and the two-sided p-value of no difference."""

    difference: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(a: Metric, b: Metric, resamples: int = 10_000, seed: int = 0) -> PairedTest:
    """Two-sided paired bootstrap of mean(a) - mean(b) over the same users (Efron & Tibshirani 1993, chapter 16).

    The p-value is the share of resamples, centred on zero, whose mean differs at least as much as the one observed.
    Raises InvalidDataError where a and b are not over the same number of users.
    """
    if len(a.values) != len(b.values):
        raise InvalidDataError(
            f"Expected results over the same users, got {len(a.values)} and {len(b.values)} of them."
        )
    differences = a.values - b.values
    mean = float(differences.mean())
    if np.ptp(differences) == 0:  # nothing to resample
        return PairedTest(mean, mean, mean, 1.0 if mean == 0 else 1 / (resamples + 1))
    drawn = stats.bootstrap(
        (differences,), np.mean, n_resamples=resamples, batch=256, method="percentile", rng=np.random.default_rng(seed)
    )
    # a hair of tolerance: resamples equal to the observed difference count, whatever the order of summation
    extreme = np.abs(drawn.bootstrap_distribution - mean) >= abs(mean) * (1 - 1e-12)
    p_value = float((extreme.sum() + 1) / (resamples + 1))
    return PairedTest(mean, float(drawn.confidence_interval.low), float(drawn.confidence_interval.high), p_value)
