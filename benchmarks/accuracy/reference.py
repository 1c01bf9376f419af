"""The package's MultVAE against the dense textbook implementation, on one split in one run: accuracy and seconds."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.textbook import TextbookMultVAE
from recvae import Evaluation, Metric, MultVAE, OutputOptions, TrainingOptions, evaluate, load_split, paired_bootstrap
from recvae.evaluation.names import DEFAULT_METRICS

# as published, unlike the defaults
AS_PUBLISHED: dict[str, Any] = {
    "dropout": 0.5,
    "output": OutputOptions(item_biases="normal"),
    "training": TrainingOptions(initial_weights="random"),
}


def run_reference(
    dataset: str, data_home: Path | None, seeds: int, textbook_epochs: int = 100, split_seed: int = 98765
) -> dict[str, Any]:
    """Train both in turn with random_state 0 to seeds - 1. -> results for JSON"""
    split = load_split(dataset, data_home, seed=split_seed)
    ours: list[Evaluation] = []
    textbook: list[Evaluation] = []
    seconds: dict[str, list[float]] = {"recvae": [], "textbook": []}
    for seed in range(seeds):
        started = time.perf_counter()
        mine = MultVAE(**AS_PUBLISHED, random_state=seed).fit(split.train, valid=split.valid)
        seconds["recvae"].append(time.perf_counter() - started)
        started = time.perf_counter()
        theirs = TextbookMultVAE(epochs=textbook_epochs, random_state=seed).fit(split.train.matrix, split.valid)
        seconds["textbook"].append(time.perf_counter() - started)
        ours.append(evaluate(mine, split.test, DEFAULT_METRICS))
        textbook.append(evaluate(theirs, split.test, DEFAULT_METRICS))
        print(f"seed {seed}: recvae {ours[-1]['ndcg@100']!r}, textbook {textbook[-1]['ndcg@100']!r}", flush=True)
    return {
        "dataset": dataset,
        "split_seed": split_seed,
        "seeds": seeds,
        "textbook_epochs": textbook_epochs,
        "recvae": _summary(ours, seconds["recvae"]),
        "textbook": _summary(textbook, seconds["textbook"]),
        "difference": asdict(paired_bootstrap(_mean(ours, "ndcg@100"), _mean(textbook, "ndcg@100"))),
    }


def _mean(runs: list[Evaluation], metric: str) -> Metric:
    return Metric(np.mean([run[metric].values for run in runs], axis=0))


def _summary(runs: list[Evaluation], seconds: list[float]) -> dict[str, Any]:
    means = {name: _mean(runs, name) for name in DEFAULT_METRICS}
    return {
        "metrics": {name: metric.summary() for name, metric in means.items()},
        "by_seed": [run["ndcg@100"].mean for run in runs],
        "training_seconds": seconds,
    }
