"""Cold items: a tenth of the catalogue is kept out of training and added by genres and years.

Compared with chance, the overlap of genres with a user's history, and the same model trained with these items.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from recvae import Holdout, HybridVAE, Interactions, MultVAE, Recommender, load_split
from recvae.evaluation.evaluate import Metric, evaluate_ranker
from recvae.utils.topk import rank

HIDDEN = 0.1  # of the items
MODELS = (MultVAE, HybridVAE)
AMONG_COLD, AMONG_ALL, EVERYTHING = "recall@20 among the new", "recall@100 among all", "ndcg@100 of everything"
AUC = "AUC among the new"
Array = NDArray[Any]


class Cold(NamedTuple):
    """Training rows and test users; the last columns are the hidden items."""

    train: Interactions
    n_old: int
    new: Holdout  # folded in: old items only; held out: all hidden items of the users
    everything: Holdout  # the same users; held out: all items that are not folded in


def run_cold(dataset: str, home: Path | None, split_seed: int, save: Callable[[dict[str, Any]], None]) -> None:
    """Measure how each method ranks the hidden items, for test users who have at least one."""
    cold = hide(dataset, home, split_seed)
    n_users, results = int((np.diff(cold.new.held_out.indptr) > 0).sum()), {}
    about = {"dataset": dataset, "split_seed": split_seed, "new_items": cold.train.n_items - cold.n_old}
    about |= {"old_items": cold.n_old, "test_users": n_users, "events": int(cold.new.held_out.nnz)}
    for way, scores, seconds in _ways(cold):
        results[way] = measured(cold, scores) | {"seconds": seconds}
        print(f"{way}: " + ", ".join(f"{name} {value}" for name, value in results[way].items()), flush=True)
        save(about | {"ways": results})


def hide(dataset: str, home: Path | None, split_seed: int) -> Cold:
    """Move a tenth of the items, drawn by `RandomState(0)`, to the end, and hold out the test users' events on them."""
    split = load_split(dataset, home, seed=split_seed)
    n_items = split.train.n_items
    order = np.random.RandomState(0).permutation(n_items)
    n_old = n_items - int(HIDDEN * n_items)
    order = np.concatenate([np.sort(order[:n_old]), np.sort(order[n_old:])])
    train = split.train.select_items(order)
    test = split.test.over(train.item_ids)
    fold_in, held_out = test.fold_in, test.held_out
    seen = _only(fold_in, np.arange(n_items) < n_old)
    new = _only((fold_in + held_out).tocsr(), np.arange(n_items) >= n_old)
    some = np.flatnonzero(np.diff(new.indptr))
    everything = (fold_in + held_out - seen).tocsr()[some]
    everything.eliminate_zeros()
    users, counts = test.users[some], np.zeros(n_items, int)
    hidden, left = (
        replace(test, fold_in=seen[some], held_out=part, users=users, item_counts=counts)
        for part in (new[some], everything)
    )
    return Cold(train, n_old, hidden, left)


def features(data: Interactions) -> sparse.csr_matrix:
    """Features of items: genres as 0 and 1, and the year, interpolated between the two nearest decades. -> (I, F)"""
    genres, titles = data.genres, data.titles
    if genres is None or titles is None:
        raise ValueError(f"Expected data with titles and genres, got {data}.")
    names = sorted({name for genre in genres for name in genre.split("|")})
    of_genre = np.array([[name in genre.split("|") for name in names] for genre in genres], dtype=float)
    years = [re.search(r"\((\d{4})\)\s*$", title) for title in titles]
    decades = np.arange(1910, 2021, 10)
    near = [np.zeros(len(decades)) if y is None else np.clip(1 - abs(int(y[1]) - decades) / 10, 0, 1) for y in years]
    return sparse.csr_matrix(np.hstack([of_genre, near]))


def measured(cold: Cold, scores: Array) -> dict[str, float]:
    """Means of the metrics over users, for scores (U, I)."""
    n_new = cold.train.n_items - cold.n_old
    among_new = np.where(np.arange(cold.train.n_items) < cold.n_old, -np.inf, scores).astype(np.float32)
    ids, _ = rank(lambda _, places: torch.from_numpy(among_new[places].copy()), cold.new.fold_in, n_new)
    found = {AUC: Metric(_auc(ids, cold.new.held_out, n_new)).mean}
    for name, holdout, table, metric in (
        (AMONG_COLD, cold.new, among_new, "recall@20"),
        (AMONG_ALL, cold.new, scores, "recall@100"),
        (EVERYTHING, cold.everything, scores, "ndcg@100"),
    ):
        found[name] = evaluate_ranker(_ranker(table), holdout, [metric])[metric].mean
    return found


def _ways(cold: Cold) -> Iterator[tuple[str, Array, float]]:
    """Name of each method, its scores for the test users, and the seconds that adding the new items took."""
    rows, train = cold.new.fold_in, cold.train
    random = np.random.default_rng(0)
    yield "chance", random.random(rows.shape), 0.0
    known = features(train)
    n_genres = known.shape[1] - 12
    for way, part in (("overlap of genres", known[:, :n_genres]), ("overlap of genres and years", known)):
        yield way, _overlap(rows, part), 0.0
    old = train.select_items(np.arange(cold.n_old))
    for make in MODELS:
        model: Recommender = make(random_state=0).fit(old, show_progress=False)
        started = time.perf_counter()
        assert train.titles is not None
        model.add_items(known, item_ids=train.item_ids[cold.n_old :], titles=train.titles[cold.n_old :])
        yield f"{make.__name__}, add_items", model.score(rows), time.perf_counter() - started
    for make in MODELS:
        started = time.perf_counter()
        model = make(random_state=0).fit(train, show_progress=False)
        yield f"{make.__name__}, trained with them", model.score(rows), time.perf_counter() - started


def _overlap(rows: sparse.csr_matrix, part: sparse.csr_matrix) -> Array:
    """Cosine between the summed features of a user's items and the features of each item. -> (U, I)"""
    taste, unit = (rows @ part).toarray(), part.toarray()
    for side in (taste, unit):
        side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12)
    overlap: Array = taste @ unit.T
    return overlap


def _ranker(scores: Array) -> Callable[[Array, sparse.csr_matrix, int], Array]:
    table = torch.from_numpy(scores.astype(np.float32))

    def ranker(users: Array, rows: sparse.csr_matrix, N: int) -> Array:
        chosen = table[torch.from_numpy(users)]
        return rank(lambda _, places: chosen[places], rows, N)[0]

    return ranker


def _auc(ids: Array, wanted: sparse.csr_matrix, n_new: int) -> Array:
    """Area under the ROC curve: share of pairs (new item of the user, other new item) in the right order. -> (U,)"""
    hits = np.take_along_axis(wanted.toarray() > 0, ids, axis=1)  # (U, n_new), all of them are ranked
    n_held = hits.sum(1)
    before = (np.cumsum(~hits, axis=1) * hits).sum(1)  # misses that come before a hit
    auc: Array = 1 - before / np.maximum(n_held * (n_new - n_held), 1)
    return auc


def _only(rows: sparse.csr_matrix, columns: NDArray[np.bool_]) -> sparse.csr_matrix:
    kept = (rows @ sparse.diags(columns.astype(np.float32))).tocsr()
    kept.eliminate_zeros()
    kept.sort_indices()
    return kept
