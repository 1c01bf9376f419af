"""Breakdown of accuracy: recall at each list length, accuracy by activity of users and by popularity of items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.rows import check_rows
from recvae.data.splits import Holdout
from recvae.errors import InvalidDataError
from recvae.evaluation.evaluate import Evaluation, Metric
from recvae.evaluation.metrics import find_hits, recall

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
    """

    held_out: sparse.csr_matrix
    activity: NDArray[np.int64]
    popularity: NDArray[np.int64]
    about: dict[str, list[dict[str, int]]]  # sizes and limits of the groups, for reports in JSON


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
        [_by_group(ranked, hit, groups.popularity) for ranked, hit in zip(lists, hits, strict=True)], axis=0
    )
    of_users = np.arange(len(n_held)).repeat(n_held)
    wanted = _counts(of_users, groups.popularity[groups.held_out.indices], hits_by_group.shape)
    listed = np.mean([_by_group(ranked, ranked >= 0, groups.popularity).sum(0) for ranked in lists], axis=0)
    return {
        "recall_curve": [Metric(values).summary() for values in curve],
        "by_activity": [Metric(values).summary() for values in by_activity],
        "by_popularity": _ratios(hits_by_group, wanted),
        "listed": (listed / max(1.0, listed.sum())).tolist(),
    }


def _described(group: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[tuple[int, dict[str, int]]]:
    """Number of members of each group, with their smallest and largest size."""
    members = [sizes[group == number] for number in range(group.max() + 1)]
    return [(len(inside), {"least": int(inside.min()), "most": int(inside.max())}) for inside in members]


def _by_group(
    ranked: NDArray[np.int32], chosen: NDArray[np.bool_], popularity: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Number of chosen items among the first `TOP` ranks, by user and group of items. -> (U, G)"""
    users, ranks = np.nonzero(chosen[:, :TOP])
    return _counts(users, popularity[ranked[users, ranks]], (len(ranked), int(popularity.max()) + 1))


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
