"""Synthetic users: accuracy on real users of a model trained on them only; similarity to real users."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.latent import MODELS, training_rows, whole_rows
from recvae import evaluate, load_split
from recvae.models.base.generative import Latent

METRIC = "ndcg@100"
TEMPERATURES = (1.0,)
LATENTS: tuple[Latent, ...] = ("prior", "aggregate")
BLOCK = 512  # rows


def run_generation(dataset: str, home: Path | None, save: Callable[[dict[str, Any]], None]) -> None:
    """Sample as many synthetic users as training users, from each latent; train and test a model on them."""
    split = load_split(dataset, home)
    train = training_rows(split)
    held_out = sparse.vstack([whole_rows(h, split.train.values) for h in (split.valid, split.test)], format="csr")
    results: dict[str, Any] = {
        "dataset": dataset,
        "users": train.shape[0],
        "nearest": {"held-out users": summary(nearest(held_out, train))},
        "models": {},
    }
    for name, make in MODELS.items():
        teacher = make(random_state=0).fit(train, show_progress=False)
        real = evaluate(teacher, split.test, [METRIC])[METRIC].mean
        results["models"][name] = {"real": {METRIC: real}}
        for temperature in TEMPERATURES:
            for latent in LATENTS:
                rows = teacher.sample_users(train.shape[0], latent, temperature=temperature, random_state=0)
                taught = make(random_state=0).fit(rows, show_progress=False)
                value = evaluate(taught, split.test, [METRIC])[METRIC].mean
                found = {METRIC: value, "share": value / real, "nearest": summary(nearest(rows, train))}
                results["models"][name][f"{latent}, temperature {temperature:g}"] = found
                print(name, latent, temperature, found, flush=True)
                save(results)


def nearest(rows: sparse.csr_matrix, users: sparse.csr_matrix) -> NDArray[np.float64]:
    """Jaccard index of each row with the most similar user. (B, I), (U, I) -> (B,)"""
    best = np.zeros(rows.shape[0])
    sizes, of_users = np.diff(rows.indptr), np.diff(users.indptr)
    ones = (sparse.csr_matrix((np.ones_like(m.data), m.indices, m.indptr), shape=m.shape) for m in (rows, users))
    some, all_users = ones
    for start in range(0, rows.shape[0], BLOCK):
        block = slice(start, start + BLOCK)
        common = (some[block] @ all_users.T).toarray()  # (b, U)
        best[block] = (common / np.maximum(1, sizes[block, None] + of_users - common)).max(1)
    return best


def summary(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean, 99th percentile and maximum."""
    return {"mean": float(values.mean()), "p99": float(np.quantile(values, 0.99)), "max": float(values.max())}
