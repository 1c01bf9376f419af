"""Evaluation of any recommender: metrics per user with mean and standard error, and list-level measures."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.histories import frame_in
from recvae.data.rows import check_rows
from recvae.data.splits import Holdout
from recvae.data.splits.holdout import item_order
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError
from recvae.evaluation.candidates import Candidates, Ranker, find_candidates
from recvae.evaluation.metrics import METRICS, coverage, find_hits, gini, novelty, times_listed
from recvae.evaluation.names import DEFAULT_METRICS, parse_metric
from recvae.utils.checks import check_integer
from recvae.utils.progress import track
from recvae.utils.topk import PAD_ID, PAD_SCORE


class Recommends(Protocol):
    """Protocol of models for `evaluate`: a method `recommend` with the signature of implicit."""

    @property
    def recommend(self) -> Callable[..., tuple[Any, Any]]: ...


@dataclass(frozen=True, eq=False)
class Metric:
    """Values of one metric over the evaluated users.

    Attributes
    ----------
    values : numpy.ndarray
        (U,) value for each user.
    users : numpy.ndarray or None
        (U,) raw ids of the users.
    """

    values: NDArray[np.float64]
    users: NDArray[Any] | None = None

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def stderr(self) -> float:
        """Standard error of the mean over users."""
        return float(self.values.std(ddof=1) / np.sqrt(len(self.values))) if len(self.values) > 1 else float("nan")

    def summary(self) -> dict[str, float]:
        """Mean and standard error, for results in JSON."""
        return {"mean": self.mean, "stderr": self.stderr}

    def __repr__(self) -> str:
        return f"{self.mean:.4f} ± {self.stderr:.4f} ({len(self.values)} users)"


class Lists(dict[str, float]):
    """List-level measures by name."""

    def __missing__(self, name: str) -> float:
        if not self:
            raise InvalidDataError(
                f"Expected a ranking of all items for {name}, got one of candidates; evaluate without these."
            )
        if name == "novelty":
            raise InvalidDataError(
                "Expected item_counts and n_train in the holdout for novelty, got a holdout without; give "
                "Holdout(..., item_counts=, n_train=)."
            )
        raise KeyError(name)


@dataclass(frozen=True, eq=False)
class Evaluation(Mapping[str, Metric]):
    """Metrics by name, as in `result["ndcg@100"].mean`.

    Attributes
    ----------
    metrics : dict[str, Metric]
        The metrics that were asked for.
    users : numpy.ndarray
        Raw ids of the evaluated users.
    excluded : int
        Number of users without held-out items, who are not evaluated.
    lists : dict[str, float]
        Coverage, novelty and Gini index of the lists cut at the largest k; no novelty if the holdout lacks
        `item_counts` or `n_train`.
    seconds : float
        Time spent on ranking.
    ranked : numpy.ndarray or None
        (users, largest k) int32 columns of the holdout, padded with -1; only with `keep_lists=True`.
    protocol : str
        What was ranked, if not all items.
    """

    metrics: dict[str, Metric]
    users: NDArray[Any]
    excluded: int
    lists: dict[str, float]
    seconds: float
    ranked: NDArray[np.int32] | None = None
    protocol: str = ""

    def __getitem__(self, name: str) -> Metric:
        if name not in self.metrics:
            raise KeyError(f"{name}: the metrics are {', '.join(self.metrics)}")
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def frame(self, library: str = "pyarrow", *, per_user: bool = False) -> Any:
        """The metrics as a table.

        Parameters
        ----------
        library : str
            "pyarrow", "pandas" or "polars".
        per_user : bool
            Whether to give the value of each user instead of the means.

        Returns
        -------
        pyarrow.Table or pandas.DataFrame or polars.DataFrame
            A row for each metric with columns metric, mean, stderr and users; or, by user, a row for each user with
            a column user and one for each metric.

        Raises
        ------
        UnknownNameError
            For another library.
        MissingDependencyError
            If the library is not installed.
        """
        if per_user:
            columns: dict[str, Any] = {"user": self.users.tolist()}
            return frame_in(library, pa.table(columns | {name: metric.values for name, metric in self.items()}))
        means = [metric.summary() for metric in self.values()]
        columns = {"metric": list(self), "mean": [m["mean"] for m in means], "stderr": [m["stderr"] for m in means]}
        return frame_in(library, pa.table(columns | {"users": [len(metric.values) for metric in self.values()]}))

    def __repr__(self) -> str:
        lines = [f"{name:>16}  {metric!r}" for name, metric in self.metrics.items()]
        return "\n".join([*lines, *([self.protocol] if self.protocol else [])])


def evaluate(
    model: Recommends,
    holdout: Holdout,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    block_users: int = 4000,
    show_progress: bool = False,
    keep_lists: bool = False,
    candidates: Any = None,
    sampled_negatives: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a model with implicit's `recommend` on a holdout, by its ranking of the items that are not folded in.

    The model scores each user's fold-in row: `recalculate_user=True` is passed if its `recommend` takes it, because
    implicit's ALS would look up stored factors otherwise. A model that cannot fold in (implicit's BPR and LMF) is
    called with the rows of the users in training, if the holdout has `train_rows`. Items with the padding score do
    not count as recommended. Users without held-out items are excluded, and counted.

    Parameters
    ----------
    model : object
        Anything with a method `recommend(userid, user_items, N)` that returns ids and scores.
    holdout : Holdout
        Such as `split.test`. If model and holdout both have ids of their items, columns are matched by them; otherwise
        only shapes are compared.
    metrics : sequence of str
        Names with cut-offs, such as "recall@20"; see `recvae.evaluation.metrics`.
    block_users : int
        Number of users in each call of the model.
    show_progress : bool
        Show a progress bar.
    keep_lists : bool
        Keep the lists as `ranked` in the result: 4 bytes for each user and position.
    candidates : dict or list or frame or scipy.sparse.csr_matrix or None
        The only items to rank for each user, instead of all: raw ids as in `recommend_for`, such as {user: [item,
        ...]}, or the stored cells of a matrix of the holdout's shape. Held-out items that are no candidates count as
        missed. Names of metrics then end in "(given candidates)".
    sampled_negatives : int or None
        Rank the held-out items of each user among so many items, drawn at random from those that are neither folded in
        nor held out. Only for comparison with figures of that kind: such metrics may order models wrongly (Krichene &
        Rendle 2020). Names of metrics then end in "(100 sampled negatives)".
    seed : int
        Seed of these draws.

    Returns
    -------
    Evaluation
        Values per user of each metric, and list-level measures; none of these if only candidates are ranked.

    Raises
    ------
    InvalidTypeError
        If the model cannot score users it was not trained on, and the holdout has no `train_rows`.
    InvalidDataError
        If the holdout is over other items than the model's, no user has anything held out, or users have no candidates.
    """
    _check_holdout(holdout)
    ranked_only = find_candidates(holdout, candidates, sampled_negatives, seed)
    only = None
    if hasattr(model, "_snapshot"):  # models of this package: one state for all users, even if refitted meanwhile
        model = model._snapshot()
        if ranked_only is not None:
            only, ranked_only = ranked_only.rows, replace(ranked_only, direct=True)
    known, order = holdout.train_rows, item_order(holdout.item_ids, getattr(model, "item_ids_", None))
    fold_in = {"recalculate_user": True} if "recalculate_user" in inspect.signature(model.recommend).parameters else {}

    def ranker(indices: NDArray[np.int64], rows: sparse.csr_matrix, N: int) -> NDArray[np.integer]:
        users = indices if known is None else known[indices]
        rows = rows if order is None else check_rows(rows[:, order])
        items: dict[str, Any] = {}
        if only is not None:
            items["items"] = only[indices] if order is None else check_rows(only[indices][:, order])
        try:
            ids, scores = model.recommend(users, rows, N=N, **fold_in, **items)
        except NotImplementedError as error:
            if known is None:
                raise InvalidTypeError(
                    f"Expected a model that can score held-out users, got {type(model).__name__}, which cannot: {error}"
                ) from error
            ids, scores = model.recommend(users, rows, N=N, **items)
        ids = np.where(np.asarray(scores) > PAD_SCORE, ids, PAD_ID)
        return ids if order is None else np.where(ids >= 0, order[ids], PAD_ID)

    return evaluate_ranker(
        ranker,
        holdout,
        metrics,
        block_users=block_users,
        show_progress=show_progress,
        keep_lists=keep_lists,
        candidates=ranked_only,
    )


def evaluate_ranker(
    ranker: Ranker,
    holdout: Holdout,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    block_users: int = 4000,
    show_progress: bool = False,
    keep_lists: bool = False,
    candidates: Candidates | None = None,
) -> Evaluation:
    """As `evaluate`, for a function (row indices in the holdout, fold-in rows, N) -> ids (rows, N), padded with -1."""
    parsed = {name: parse_metric(name) for name in ([metrics] if isinstance(metrics, str) else metrics)}
    if not parsed:
        raise InvalidParameterError("Expected at least one metric, such as ndcg@100, got none.")
    block_users = check_integer("block_users", block_users, 1)
    fold_in, held_out = _check_holdout(holdout)
    n_held, n_items = np.diff(held_out.indptr).astype(np.int64), held_out.shape[1]
    users = np.flatnonzero(n_held)
    if len(users) == 0:
        raise InvalidDataError("Expected users with held-out items, got none; there is nothing to evaluate.")
    N = min(max(k for _, k in parsed.values()), n_items)
    if candidates is not None:
        ranker, block_users = candidates.within(ranker), candidates.block_users(block_users)
    values = {name: np.empty(len(users)) for name in parsed}
    listed, seconds = np.zeros(n_items, dtype=np.int64), 0.0
    kept = np.full((len(users), N), PAD_ID, dtype=np.int32) if keep_lists else None
    for start in track(range(0, len(users), block_users), "evaluating", show_progress):
        block = users[start : start + block_users]
        started = time.perf_counter()
        ranked = np.asarray(ranker(block, fold_in[block], N))
        seconds += time.perf_counter() - started
        hits = find_hits(ranked, held_out[block])
        listed += times_listed(ranked[:, :N], n_items)
        if kept is not None:
            kept[start : start + block_users, : ranked.shape[1]] = ranked[:, :N]
        for name, (base, k) in parsed.items():
            values[name][start : start + block_users] = METRICS[base](hits[:, :k], n_held[block], k)
    lists = _lists(listed, holdout) if candidates is None else Lists()
    mark, protocol = ("", "") if candidates is None else (f" ({candidates.label})", candidates.protocol)
    measured = {f"{name}{mark}": Metric(per_user, holdout.users[users]) for name, per_user in values.items()}
    return Evaluation(measured, holdout.users[users], len(n_held) - len(users), lists, seconds, kept, protocol)


def _lists(listed: NDArray[np.int64], holdout: Holdout) -> Lists:
    lists = Lists(coverage=coverage(listed))
    if holdout.item_counts is not None and holdout.n_train is not None:
        lists["novelty"] = novelty(listed, holdout.item_counts, holdout.n_train)
    lists["gini"] = gini(listed)
    return lists


def _check_holdout(holdout: Holdout) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    if not isinstance(holdout, Holdout):
        raise InvalidTypeError(f"Expected a Holdout such as split.test, got {type(holdout).__name__}.")
    fold_in, held_out = check_rows(holdout.fold_in), check_rows(holdout.held_out)
    if fold_in.shape != held_out.shape:
        raise InvalidDataError(f"Expected fold_in and held_out of one shape, got {fold_in.shape} and {held_out.shape}.")
    return fold_in, held_out
