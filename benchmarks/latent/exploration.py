"""Cost and gain of exploration: accuracy of lists against their coverage of the catalogue, by strength."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latent import MODELS
from recvae import Holdout, evaluate, load_split
from recvae.models.autoencoder.variational import Variational

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
DRAWS = 5
RECALL, NDCG, COVERAGE = "recall@20", "ndcg@100", "coverage@20"


def run_exploration(dataset: str, home: Path | None, save: Callable[[dict[str, Any]], None]) -> None:
    """Means over draws, and their standard deviation, on the test users."""
    split = load_split(dataset, home)
    results: dict[str, Any] = {"dataset": dataset, "draws": DRAWS, "strengths": list(STRENGTHS), "models": {}}
    for name, make in MODELS.items():
        model = make(random_state=0).fit(split.train, show_progress=False, valid=split.valid)
        found: dict[str, dict[str, list[float]]] = {key: {"mean": [], "std": []} for key in (RECALL, NDCG, COVERAGE)}
        results["models"][name] = found
        for strength in STRENGTHS:
            values = [measured(model, split.test, strength, seed) for seed in range(DRAWS if strength else 1)]
            for key, curve in found.items():
                each = [value[key] for value in values]
                curve["mean"].append(float(np.mean(each)))
                curve["std"].append(float(np.std(each)))
            print(name, strength, {key: curve["mean"][-1] for key, curve in found.items()}, flush=True)
        save(results)


def measured(model: Variational, holdout: Holdout, strength: float, seed: int) -> dict[str, float]:
    """Accuracy, and the share of the catalogue in at least one list of 20, with one draw for each user."""
    explorer = Explorer(model, strength, seed)
    short, long = evaluate(explorer, holdout, [RECALL]), evaluate(explorer, holdout, [NDCG])
    return {RECALL: short[RECALL].mean, NDCG: long[NDCG].mean, COVERAGE: short.lists["coverage"]}


class Explorer:
    """Adapter for the evaluator: recommends with exploration."""

    def __init__(self, model: Variational, strength: float, seed: int):
        self.model, self.strength, self.seed = model, strength, seed

    def recommend(self, userid: Any, user_items: Any, N: int = 10) -> tuple[Any, Any]:
        ids, scores, _ = self.model.recommend(userid, user_items, N, explore=self.strength, random_state=self.seed)
        return ids, scores
