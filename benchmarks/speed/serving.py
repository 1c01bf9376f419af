"""Latency of ten recommendations for one user: raw ids in, raw ids out, with a model loaded from its file."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages.markdown import markdown
from benchmarks.speed import machine
from benchmarks.speed.synthetic import synthetic
from recvae import HybridVAE, Interactions, MultVAE, Recommender, RecVAE, load

USERS, ITEMS, EVENTS = 5_000, 20_000, 250_000
MODELS: dict[str, Recommender] = {
    "MultVAE": MultVAE(epochs=1, random_state=0),
    "RecVAE": RecVAE(epochs=1, random_state=0),
    "HybridVAE": HybridVAE(epochs=1, random_state=0, l2=300.0),
}


def serving_table(results: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    rows = [["one person, ten items of 20,000", "half of the calls within, ms", "95 % within, ms"]]
    return markdown(
        rows + [[case["model"], f"{case['p50_ms']:.1f}", f"{case['p95_ms']:.1f}"] for case in results["cases"]]
    )


def run_serving(calls: int) -> dict[str, Any]:
    """Milliseconds of single calls of `recommend_for` by models of their default size, fitted in one epoch.

    Latency does not depend on how long the model was trained.
    """
    names = np.array([f"item-{item}" for item in range(ITEMS)], dtype=object)
    data = Interactions.from_matrix(synthetic(USERS, ITEMS, EVENTS), item_ids=names)
    histories = [names[data.matrix[user].indices].tolist() for user in range(calls)]
    cases = []
    for name, model in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            model.fit(data, show_progress=False).save(Path(folder) / "model")
            loaded = load(Path(folder) / "model")
        loaded.recommend_for(histories[:1])  # makes the index of ids
        seconds = []
        for history in histories:
            started = time.perf_counter()
            loaded.recommend_for([history], N=10)
            seconds.append(time.perf_counter() - started)
        p50, p95 = (1000 * float(np.quantile(seconds, share)) for share in (0.5, 0.95))
        cases.append({"model": name, "p50_ms": p50, "p95_ms": p95})
    return machine() | {"items": ITEMS, "calls": calls, "N": 10, "cases": cases}
