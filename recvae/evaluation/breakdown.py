"""Breakdown of accuracy: by list length, by activity of users and popularity of items, by item and by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.histories import frame_in
from recvae.data.ids import ItemIndex, id_array
from recvae.data.rows import check_rows
from recvae.data.splits import Holdout
from recvae.errors import InvalidDataError, InvalidParameterError
from recvae.evaluation.evaluate import Evaluation, Metric
from recvae.evaluation.metrics import find_hits, recall
from recvae.utils.checks import check_integer

N_GROUPS = 5
LONGEST = 100  # largest k of the recall curve
TOP = 20  # list length for `by_popularity` and `listed`


@dataclass(frozen=True)
class Groups:
    """Groups of evaluated users by number of fold-in items, and of items by number of training users.

    Attributes
    ----------
    held_out : sparse.csr_matrix
        (U, I) held-out events of the evaluated users.
    activity : NDArray[np.int64]
        (U,) group of each user, in order of increasing activity; groups have about equal numbers of users.
    popularity : NDArray[np.int64]
        (I,) group of each item, in order of decreasing popularity; groups have about equal numbers of training events.
    about : dict
        Sizes and limits of the groups, for reports in JSON.
    """

    held_out: sparse.csr_matrix
    activity: NDArray[np.int64]
    popularity: NDArray[np.int64]
    about: dict[str, list[dict[str, int]]]


def make_groups(holdout: Holdout) -> Groups:
    """Group the users of a holdout who have held-out items, and all items.

    Raises
    ------
    InvalidDataError
        For a holdout without item_counts.
    """
    counts = holdout.item_counts
    if counts is None:
        raise InvalidDataError(
            "Expected item_counts in the holdout for groups of items by popularity, got a holdout without; give "
            "Holdout(..., item_counts=)."
        )
    held_out, fold_in = check_rows(holdout.held_out), check_rows(holdout.fold_in)
    users = np.flatnonzero(np.diff(held_out.indptr))
    held_out, sizes = held_out[users], np.diff(fold_in.indptr)[users]
    edges = np.unique(np.quantile(sizes, np.arange(1, N_GROUPS) / N_GROUPS))
    activity = np.searchsorted(edges, sizes, side="left")  # users with the same number of items share a group
    activity = np.unique(activity, return_inverse=True)[1]
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]  # events of the items that are more popular
    popularity = np.empty(len(counts), dtype=np.int64)
    popularity[order] = np.minimum(before * N_GROUPS // max(1, counts.sum()), N_GROUPS - 1)
    popularity = np.unique(popularity, return_inverse=True)[1]
    held_in = np.bincount(popularity[held_out.indices], minlength=popularity.max() + 1)
    about = {
        "activity": [{"users": n} | limits for n, limits in _described(activity, sizes)],
        "popularity": [
            {"items": n, "held_out": int(held)} | limits
            for (n, limits), held in zip(_described(popularity, counts), held_in, strict=True)
        ],
    }
    return Groups(held_out, activity, popularity, about)


def break_down(evaluations: Sequence[Evaluation], groups: Groups, metric: str) -> dict[str, Any]:
    """Break down the accuracy of a model: means over its evaluations, with standard errors over users, for JSON.

    Parameters
    ----------
    evaluations : Sequence[Evaluation]
        Evaluations over the same users, with their lists (`keep_lists=True`).
    groups : Groups
        Those of the holdout.
    metric : str
        The metric for groups of users.

    Returns
    -------
    dict[str, Any]
        recall_curve: recall@k for k = 1, 2, ... up to `LONGEST` or the length of the lists.
        by_activity: `metric` for each group of users.
        by_popularity: for each group of items, the share of its held-out events found in the first `TOP` positions.
        listed: share of the first `TOP` positions that go to each group of items.

    Raises
    ------
    InvalidDataError
        For evaluations without lists.
    """
    lists = [evaluation.ranked for evaluation in evaluations if evaluation.ranked is not None]
    if not lists or len(lists) < len(evaluations):
        raise InvalidDataError("Expected evaluations with their lists; evaluate with keep_lists=True.")
    hits = [find_hits(ranked, groups.held_out) for ranked in lists]
    n_held = np.diff(groups.held_out.indptr).astype(np.int64)
    lengths = range(1, min(LONGEST, lists[0].shape[1]) + 1)
    curve = [np.mean([recall(hit[:, :k], n_held, k) for hit in hits], axis=0) for k in lengths]
    values = np.mean([evaluation[metric].values for evaluation in evaluations], axis=0)
    by_activity = [values[groups.activity == group] for group in range(groups.activity.max() + 1)]
    hits_by_group = np.mean(
        [_top_by_group(ranked, hit, groups.popularity) for ranked, hit in zip(lists, hits, strict=True)], axis=0
    )
    of_users = np.arange(len(n_held)).repeat(n_held)
    wanted = _counts(of_users, groups.popularity[groups.held_out.indices], hits_by_group.shape)
    listed = np.mean([_top_by_group(ranked, ranked >= 0, groups.popularity).sum(0) for ranked in lists], axis=0)
    return {
        "recall_curve": [Metric(values).summary() for values in curve],
        "by_activity": [Metric(values).summary() for values in by_activity],
        "by_popularity": _ratios(hits_by_group, wanted),
        "listed": (listed / max(1.0, listed.sum())).tolist(),
    }


def by_item(evaluation: Evaluation, holdout: Holdout, k: int = TOP, library: str = "pyarrow") -> Any:
    """How each item was found and listed.

    Parameters
    ----------
    evaluation : Evaluation
        With its lists (`keep_lists=True`).
    holdout : Holdout
        What was evaluated on.
    k : int
        Number of ranks that count; at most the largest k of the evaluation's metrics.
    library : str
        "pyarrow", "pandas" or "polars".

    Returns
    -------
    pyarrow.Table or pandas.DataFrame or polars.DataFrame
        A row for each item of the holdout: item, held_out (number of users of whom it is held out), hits (of them, how
        many have it among the first k), recall (hits / held_out, null if nothing is held out), listed (number of all
        users who have it among the first k).

    Raises
    ------
    InvalidDataError
        For an evaluation without lists, or of another holdout.
    InvalidParameterError
        For a k beyond the lists.
    """
    ranked, hits, held_out = _listed(evaluation, holdout, k)
    n_items = held_out.shape[1]
    held, hit, listed = (
        np.bincount(items, minlength=n_items) for items in (held_out.indices, ranked[hits], ranked[ranked >= 0])
    )
    recalls = pa.array(hit / np.maximum(held, 1), mask=held == 0)
    columns = {"item": _item_ids(holdout).tolist(), "held_out": held, "hits": hit, "recall": recalls, "listed": listed}
    return frame_in(library, pa.table(columns))


def by_item_group(evaluation: Evaluation, holdout: Holdout, groups: Any, k: int = TOP, library: str = "pyarrow") -> Any:
    """How the items of each group were found and listed.

    Parameters
    ----------
    evaluation : Evaluation
        As in `by_item`.
    holdout : Holdout
        As in `by_item`.
    groups : Mapping or sequence
        Label of each item, by raw id, or in the order of the holdout's columns.
    k : int
        As in `by_item`.
    library : str
        As in `by_item`.

    Returns
    -------
    pyarrow.Table or pandas.DataFrame or polars.DataFrame
        A row for each label, in ascending order: group, items, held_out, hits, recall (hits / held_out) with stderr
        over users, listed (share of the first k ranks of all lists).

    Raises
    ------
    RecvaeError
        As `by_item`; InvalidDataError for items without a label.
    """
    ranked, hits, held_out = _listed(evaluation, holdout, k)
    labels, group = _labels(groups, _item_ids(holdout), "item")
    of_users = np.arange(held_out.shape[0]).repeat(np.diff(held_out.indptr))
    wanted = _counts(of_users, group[held_out.indices], (held_out.shape[0], len(labels)))
    found = _by_group(ranked, hits, group, len(labels))
    listed = _by_group(ranked, ranked >= 0, group, len(labels)).sum(0)
    with np.errstate(invalid="ignore"):
        ratios = _ratios(found, wanted)
    columns = {
        "group": labels,
        "items": np.bincount(group, minlength=len(labels)),
        "held_out": wanted.sum(0).astype(np.int64),
        "hits": found.sum(0).astype(np.int64),
        "recall": pa.array([ratio["mean"] for ratio in ratios], from_pandas=True),
        "stderr": pa.array([ratio["stderr"] for ratio in ratios], from_pandas=True),
        "listed": listed / max(1.0, listed.sum()),
    }
    return frame_in(library, pa.table(columns))


def by_user_group(evaluation: Evaluation, groups: Any, library: str = "pyarrow") -> Any:
    """The metrics of each group of users.

    Parameters
    ----------
    evaluation : Evaluation
        Of any metrics.
    groups : Mapping or sequence
        Label of each user, by raw id, or in the order of `evaluation.users`.
    library : str
        "pyarrow", "pandas" or "polars".

    Returns
    -------
    pyarrow.Table or pandas.DataFrame or polars.DataFrame
        A row for each label and metric: group, metric, mean, stderr, users. The standard error of one user is null.

    Raises
    ------
    InvalidDataError
        For users without a label.
    """
    labels, group = _labels(groups, evaluation.users, "user")
    rows = [
        {"group": label, "metric": name} | Metric(values).summary() | {"users": len(values)}
        for number, label in enumerate(labels)
        for name, values in ((name, metric.values[group == number]) for name, metric in evaluation.items())
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return frame_in(library, pa.table(columns | {"stderr": pa.array(columns["stderr"], from_pandas=True)}))


def _listed(
    evaluation: Evaluation, holdout: Holdout, k: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_], sparse.csr_matrix]:
    """The first k ranks of the evaluated users, which of them are hits, and the held-out events of these users."""
    if evaluation.ranked is None:
        raise InvalidDataError("Expected an evaluation with its lists; evaluate with keep_lists=True.")
    held_out = check_rows(holdout.held_out)
    users = np.flatnonzero(np.diff(held_out.indptr))
    if not np.array_equal(holdout.users[users], evaluation.users):
        raise InvalidDataError("Expected the holdout of the evaluation, got one of other users.")
    if check_integer("k", k, 1) > evaluation.ranked.shape[1] < held_out.shape[1]:
        raise InvalidParameterError(
            f"Expected k of at most {evaluation.ranked.shape[1]}, the length of the lists, got {k}; evaluate a metric "
            f"such as recall@{k}."
        )
    ranked = evaluation.ranked[:, :k]
    return ranked, find_hits(ranked, held_out[users]), held_out[users]


def _item_ids(holdout: Holdout) -> NDArray[Any]:
    return np.arange(holdout.held_out.shape[1]) if holdout.item_ids is None else holdout.item_ids


def _labels(groups: Any, ids: NDArray[Any], what: str) -> tuple[list[Any], NDArray[np.int64]]:
    """The distinct labels in ascending order, and the number of the label of each id. Ids match as by `ItemIndex`."""
    if isinstance(groups, Mapping):
        index = ItemIndex(id_array(list(groups), f"{what}s of groups")).positions(ids)
        if (index < 0).any():
            raise InvalidDataError(f"Expected a group for each {what}, got none for {ids[index < 0].tolist()[0]!r}.")
        values = list(groups.values())
        of_ids = [values[position] for position in index.tolist()]
    else:
        of_ids = np.asarray(groups).tolist()
        if not isinstance(of_ids, list) or len(of_ids) != len(ids):
            raise InvalidDataError(f"Expected a group for each of {len(ids):,} {what}s, got {np.shape(groups)}.")
    try:
        labels = sorted(set(of_ids))
    except TypeError as error:
        raise InvalidDataError(f"Expected labels of groups of one kind, got others: {error}.") from error
    number = {label: index for index, label in enumerate(labels)}
    return labels, np.array([number[label] for label in of_ids], dtype=np.int64)


def _described(group: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[tuple[int, dict[str, int]]]:
    """Number of members of each group, with their smallest and largest size."""
    members = [sizes[group == number] for number in range(group.max() + 1)]
    return [(len(inside), {"least": int(inside.min()), "most": int(inside.max())}) for inside in members]


def _top_by_group(
    ranked: NDArray[np.int32], chosen: NDArray[np.bool_], popularity: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Number of chosen items among the first `TOP` ranks, by user and group of items. -> (U, G)"""
    return _by_group(ranked[:, :TOP], chosen[:, :TOP], popularity, int(popularity.max()) + 1)


def _by_group(
    ranked: NDArray[np.int32], chosen: NDArray[np.bool_], group: NDArray[np.int64], n_groups: int
) -> NDArray[np.float64]:
    """Number of chosen items, by user and group of items. -> (U, G)"""
    users, ranks = np.nonzero(chosen)
    return _counts(users, group[ranked[users, ranks]], (len(ranked), n_groups))


def _counts(users: NDArray[np.int64], groups: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Number of occurrences of each (user, group) pair. -> (U, G)"""
    cells = np.bincount(users * shape[1] + groups, minlength=shape[0] * shape[1])
    return cells.reshape(shape).astype(np.float64)


def _ratios(hits_by_group: NDArray[np.float64], wanted: NDArray[np.float64]) -> list[dict[str, float]]:
    """Ratio of the sums over users, and its error by the delta method (Cochran 1977, section 2.11). (U, G) each

    NaN for a group of which nothing is held out.
    """
    n, total = len(hits_by_group), np.where(wanted.any(0), wanted.sum(0), np.nan)
    ratio = hits_by_group.sum(0) / total
    errors = np.sqrt(((hits_by_group - ratio * wanted) ** 2).sum(0) * n / max(1, n - 1)) / total
    return [
        {"mean": float(mean), "stderr": float(error) if n > 1 else float("nan")}
        for mean, error in zip(ratio, errors, strict=True)
    ]
