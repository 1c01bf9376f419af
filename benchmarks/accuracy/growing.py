"""Growing catalogues: `partial_fit` on later rows, compared with no update and with a new fit on all rows.

The first fit sees half of the training users and four fifths of the items, drawn at random.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae import Holdout, HybridVAE, Interactions, MultVAE, Recommender, load_split
from recvae.evaluation.evaluate import evaluate_ranker

NEW_ITEMS, FIRST_USERS = 0.2, 0.5
MODELS = (MultVAE, HybridVAE)
EPOCHS = (0, None, 20)  # of `partial_fit` on the new rows; None is the default


class Growth(NamedTuple):
    """The first data, the later data, both together, and the test; the last items are the new ones."""

    first: Interactions
    later: Interactions
    both: Interactions
    test: Holdout


def run_growing(dataset: str, home: Path | None, split_seed: int, save: Callable[[dict[str, Any]], None]) -> None:
    """Measure each method: NDCG@100 of test users on all items, on new and on old ones, and seconds."""
    growth = grow(dataset, home, split_seed)
    sizes = {"first": growth.first, "later": growth.later}
    about: dict[str, Any] = {"dataset": dataset, "split_seed": split_seed}
    about |= {name: {"users": d.n_users, "items": d.n_items, "events": d.n_events} for name, d in sizes.items()}
    results: dict[str, Any] = {}
    for way, model, seconds in _ways(growth):
        results[way] = _measured(growth, model) | {"seconds": seconds}
        print(f"{way}: {results[way]}", flush=True)
        save(about | {"ways": results})


def grow(dataset: str, home: Path | None, split_seed: int) -> Growth:
    """Divide the training rows into first and later, with items and users drawn by `RandomState(0)`."""
    split = load_split(dataset, home, seed=split_seed)
    train, n_items, random = split.train, split.train.n_items, np.random.RandomState(0)
    order = random.permutation(n_items)
    n_old = n_items - int(NEW_ITEMS * n_items)
    order = np.concatenate([np.sort(order[:n_old]), np.sort(order[n_old:])])
    users = random.permutation(train.n_users)
    n_first = int(FIRST_USERS * len(users))
    train = train.select_items(order)
    first = train.select_users(np.sort(users[:n_first]))
    later = train.select_users(np.sort(users[n_first:]))
    old = first.select_items(np.arange(n_old))
    seen = sparse.csr_matrix((old.matrix.data, old.matrix.indices, old.matrix.indptr), shape=first.matrix.shape)
    both = Interactions.from_matrix(sparse.vstack([seen, later.matrix]), item_ids=train.item_ids)
    return Growth(old, later, both, split.test.over(train.item_ids))


def _ways(growth: Growth) -> Iterator[tuple[str, Recommender, float]]:
    """Name of each method, its model, and the seconds that the update took."""
    for make in MODELS:
        name, started = make.__name__, time.perf_counter()
        base = make(random_state=0).fit(growth.first, show_progress=False)
        yield f"{name}, no update", base, time.perf_counter() - started
        for epochs in EPOCHS:
            model, started = copy.deepcopy(base), time.perf_counter()
            model.partial_fit(growth.later, epochs=epochs, show_progress=False)
            epochs_text = "the default" if epochs is None else str(epochs)
            yield f"{name}, partial_fit on the later, epochs {epochs_text}", model, time.perf_counter() - started
        model, started = copy.deepcopy(base), time.perf_counter()
        model.partial_fit(growth.both, show_progress=False)
        yield f"{name}, partial_fit on both", model, time.perf_counter() - started
        started = time.perf_counter()
        yield (
            f"{name}, new fit on both",
            make(random_state=0).fit(growth.both, show_progress=False),
            time.perf_counter() - started,
        )


def _measured(growth: Growth, model: Recommender) -> dict[str, float]:
    """NDCG@100 with all held-out items, only the new ones, or only the old ones; any item may be recommended."""
    n_items, n_old = growth.later.n_items, growth.first.n_items

    def ranker(_: NDArray[Any], rows: sparse.csr_matrix, N: int) -> NDArray[Any]:
        known = rows[:, : model.n_items_].tocsr()  # a model without the new items does not see them either
        return model.recommend(np.arange(rows.shape[0]), known, N=N)[0]

    columns = {"all": np.ones(n_items), "new": np.arange(n_items) >= n_old, "old": np.arange(n_items) < n_old}
    found: dict[str, float] = {}
    for name, chosen in columns.items():
        held_out = (growth.test.held_out @ sparse.diags(chosen.astype(np.float32))).tocsr()
        held_out.eliminate_zeros()
        result = evaluate_ranker(ranker, replace(growth.test, held_out=held_out), ["ndcg@100"])["ndcg@100"]
        found |= {name: result.mean, f"{name}, stderr": result.stderr}
    return found
