"""Detection of bots planted among real users, by `anomaly_score`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from benchmarks.latent import MODELS, training_rows, whole_rows
from recvae import load_split
from recvae.models.autoencoder.variational import Variational
from recvae.models.base.generative import elbo_terms, standardized

SHARE = 0.01  # bots for each real user
PLANTINGS = 100  # repetitions among held-out users; among training users, once, because each needs a fit
Values = NDArray[np.float64]


def run_anomaly(dataset: str, home: Path | None, save: Callable[[dict[str, Any]], None]) -> None:
    """AUROC of bots of each kind, among users who were not in training and among training users."""
    split = load_split(dataset, home)
    train = training_rows(split)
    held_out = sparse.vstack([whole_rows(h, split.train.values) for h in (split.valid, split.test)], format="csr")
    results: dict[str, Any] = {
        "dataset": dataset,
        "training_users": train.shape[0],
        "held_out_users": held_out.shape[0],
        "share": SHARE,
        "plantings": PLANTINGS,
        "models": {},
    }
    for name, make in MODELS.items():
        model = make(random_state=0).fit(train, show_progress=False)
        found = {"held-out users": among_held_out(model, train, held_out)}
        results["models"][name] = found
        save(results)
        found["training users"] = among_training(make(random_state=0), train)
        print(name, found, flush=True)
        save(results)


def among_held_out(
    model: Variational, train: sparse.csr_matrix, held_out: sparse.csr_matrix
) -> dict[str, dict[str, float]]:
    """Mean AUROC over plantings among users who were not in training, by kind of bot and by score."""
    random = np.random.default_rng(0)
    n = round(SHARE * held_out.shape[0])
    kinds = bots(n * PLANTINGS, train, np.diff(held_out.indptr), random)
    kinds["copies of training users"] = kinds.pop("copies")
    kinds["copies of held-out users"] = held_out[random.integers(held_out.shape[0], size=n * PLANTINGS)]
    real = _scores(model, train, held_out)
    found: dict[str, dict[str, float]] = {}
    for kind, rows in kinds.items():
        planted = _scores(model, train, rows)
        found[kind] = {
            by: float(np.mean([auroc(part, real[by]) for part in np.split(planted[by], PLANTINGS)])) for by in real
        }
    return found


def among_training(model: Variational, train: sparse.csr_matrix) -> dict[str, dict[str, float]]:
    """AUROC by kind and by score if bots of all kinds are among the training rows, which are also the reference."""
    n = round(SHARE * train.shape[0])
    kinds = bots(n, train, np.diff(train.indptr), np.random.default_rng(1))
    rows = sparse.vstack([train, *kinds.values()], format="csr")
    found = _scores(model.fit(rows, show_progress=False), rows, rows)
    real, planted = train.shape[0], {by: np.split(values[train.shape[0] :], len(kinds)) for by, values in found.items()}
    return {
        kind: {by: auroc(planted[by][place], values[:real]) for by, values in found.items()}
        for place, kind in enumerate(kinds)
    }


def bots(
    n: int, users: sparse.csr_matrix, sizes: NDArray[Any], random: np.random.Generator
) -> dict[str, sparse.csr_matrix]:
    """Baskets of bots by kind, as large as real users': random items, items by popularity, copies of real users."""
    popularity = np.bincount(users.indices, minlength=users.shape[1]) + 1e-9
    return {
        "random": _baskets(random.choice(sizes, n), np.ones(users.shape[1]), random),
        "popular": _baskets(random.choice(sizes, n), popularity, random),
        "copies": users[random.integers(users.shape[0], size=n)],
    }


def auroc(odd: Values, usual: Values) -> float:
    """Area under the ROC curve: how often an odd value is above a usual one, ties counted as half."""
    return float(stats.mannwhitneyu(odd, usual).statistic / (len(odd) * len(usual)))


def _baskets(sizes: NDArray[Any], weights: NDArray[Any], random: np.random.Generator) -> sparse.csr_matrix:
    """Items without replacement, with probability proportional to their weights. -> (len(sizes), I)"""
    p = weights / weights.sum()
    items = np.concatenate([np.sort(random.choice(len(p), size, replace=False, p=p)) for size in sizes])
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    return sparse.csr_matrix((np.ones(len(items), np.float32), items, indptr), shape=(len(sizes), len(p)))


def _scores(model: Variational, reference: sparse.csr_matrix, rows: sparse.csr_matrix) -> dict[str, Values]:
    """Scores by which users can be ranked as anomalous, by name."""
    sizes, of_reference = np.diff(rows.indptr), np.diff(reference.indptr)
    terms, usual = elbo_terms(model, rows), elbo_terms(model, reference)
    elbo, usual_elbo = terms[:, 0] + terms[:, 1] / sizes, usual[:, 0] + usual[:, 1] / of_reference
    alone = np.column_stack([terms[:, 0], elbo]), np.column_stack([usual[:, 0], usual_elbo])
    reconstruction, whole = standardized(*alone, sizes, of_reference).T
    return {
        "anomaly_score": model.anomaly_score(rows),
        "reconstruction alone": reconstruction,
        "the ELBO as a sum": whole,
        "number of items": sizes.astype(np.float64),
    }
