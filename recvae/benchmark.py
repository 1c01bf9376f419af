"""The main job: one data set, one split, every model scored by one evaluator -> a dictionary that JSON can hold."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from recvae.baselines import ALS, ItemKNN, Popularity
from recvae.cards import Protocol, load_card
from recvae.datasets import load_dataset
from recvae.errors import MissingDependencyError, UnknownNameError
from recvae.evaluation import Evaluation, Metric, evaluate, evaluate_ranker, paired_bootstrap
from recvae.memory import PeakMemory
from recvae.models import MultDAE, MultVAE
from recvae.params import get_params
from recvae.progress import track
from recvae.recommender import Recommender
from recvae.sample import make_sample
from recvae.split import Holdout, Split, strong_split
from recvae.topk import rank

# name -> settings to choose from on validation users; one is no choice
CANDIDATES: dict[str, list[Recommender]] = {
    "MultVAE": [MultVAE()],
    "MultDAE": [MultDAE()],
    "ALS": [
        ALS(factors=factors, regularization=regularization, alpha=alpha)
        for factors in (64, 128)
        for regularization, alpha in ((10.0, 3.0), (30.0, 3.0), (100.0, 10.0))
    ],
    "ItemKNN": [ItemKNN(weighting=weighting, K=K) for weighting in ("cosine", "tfidf", "bm25") for K in (20, 100)],
    "Popularity": [Popularity()],
}
BASELINES = ("ALS", "ItemKNN", "Popularity")
METRICS = (
    "recall@20",
    "recall@50",
    "ndcg@10",
    "ndcg@100",
    "recall_full@20",
    "precision@10",
    "map@10",
    "mrr@10",
    "hit_rate@10",
)
MAIN_METRIC = "ndcg@100"


@dataclass
class Run:
    """One model fitted and evaluated once."""

    model: Any
    evaluation: Evaluation
    fit_seconds: float
    peak_mib: float


def run_benchmark(
    dataset: str = "sample",
    data_home: str | Path | None = None,
    models: Sequence[str] | None = None,
    seeds: int = 1,
    split_seed: int = 98765,
    examples: int = 3,
    show_progress: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Fit and evaluate `models` on one split of `dataset`, each with random_state 0 ... seeds - 1 where it has one.

    Metrics are averaged over seeds for each user first: the standard error is that over users. Models of libraries
    that are not installed are reported as absent. The histories and recommendations of `examples` test users are
    part of the results; leave them out where the data may not be passed on. `log` receives a line at each step.

    Raises UnknownNameError for a data set or model that does not exist, and what loading and fitting raise.
    """
    names = [known_model(name) for name in models or CANDIDATES]
    protocol = load_card(dataset).protocol
    data = load_dataset(dataset, data_home, show_progress=show_progress)
    split = strong_split(data, protocol.heldout_users, split_seed)
    log(f"{dataset}: {data!r}")
    log(f"{split.train.n_users:,} training users x {split.train.n_items:,} items; {split.test!r}")
    runs: dict[str, list[Run]] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            runs[name] = _run_seeds(name, split, seeds, show_progress, log)
        except MissingDependencyError as error:
            absent[name] = str(error)
            log(f"{name}: absent. {error}")
    averaged = {name: _average(done) for name, done in runs.items()}
    rivals = {name: averaged[name][MAIN_METRIC].mean for name in BASELINES if name in averaged}
    rival = max(rivals, key=rivals.__getitem__) if rivals else None
    rows = [_row(name, runs[name], averaged[name], rival, averaged) for name in runs]
    oracle = _oracle(split) if dataset == "sample" else None
    if oracle is not None:
        rows.append({"model": "oracle", "metrics": _summary(dict(oracle)), "lists": oracle.lists})
    return {
        "format": 1,
        "dataset": dataset,
        "settings": _settings(split, protocol, split_seed, seeds),
        "versions": _versions(),
        "best_baseline": rival,
        "models": rows,
        "absent": absent,
        "examples": _examples(split, {name: done[0].model for name, done in runs.items()}, examples),
    }


def known_model(name: str) -> str:
    """The name as `CANDIDATES` has it, whatever its capitals. Raises UnknownNameError."""
    found = {known.lower(): known for known in CANDIDATES}.get(name.strip().lower())
    if found is None:
        raise UnknownNameError.among("model", name, CANDIDATES)
    return found


def _run_seeds(name: str, split: Split, seeds: int, show_progress: bool, log: Callable[[str], None]) -> list[Run]:
    runs = []
    settings = _choose(CANDIDATES[name], split, show_progress)
    for seed in range(seeds):
        seeded = {"random_state": seed} if "random_state" in settings else {}
        model = type(CANDIDATES[name][0])(**settings | seeded)
        with PeakMemory() as memory:
            started = time.perf_counter()
            model.fit(split.train, show_progress=show_progress, valid=split.valid)
            fit_seconds = time.perf_counter() - started
            evaluation = evaluate(model, split.test, METRICS, show_progress=show_progress)
        runs.append(Run(model, evaluation, fit_seconds, memory.mib))
        log(f"{name}, seed {seed}: {MAIN_METRIC} {evaluation[MAIN_METRIC].mean:.4f}, {fit_seconds:.1f} s of training")
        if not seeded:
            break  # another seed would give the same model
    return runs


def _choose(candidates: list[Recommender], split: Split, show_progress: bool) -> dict[str, Any]:
    """The settings that do best on the validation users."""
    if len(candidates) == 1:
        return get_params(candidates[0])
    scores = []
    for candidate in track(candidates, f"choosing among {len(candidates)} settings", show_progress):
        settings = get_params(candidate)
        trial = type(candidate)(**settings | ({"random_state": 0} if "random_state" in settings else {}))
        trial.fit(split.train, show_progress=False)
        scores.append(evaluate(trial, split.valid, [MAIN_METRIC])[MAIN_METRIC].mean)
    return get_params(candidates[int(np.argmax(scores))])


def _average(runs: list[Run]) -> dict[str, Metric]:
    """Metrics whose per-user values are means over the runs."""
    return {name: Metric(np.mean([run.evaluation[name].values for run in runs], axis=0)) for name in METRICS}


def _row(name: str, runs: list[Run], averaged: dict[str, Metric], rival: str | None, everyone: Any) -> dict[str, Any]:
    test = None
    if rival not in (None, name):
        test = {"against": rival} | asdict(paired_bootstrap(averaged[MAIN_METRIC], everyone[rival][MAIN_METRIC]))
    by_seed = [run.evaluation[MAIN_METRIC].mean for run in runs]
    seconds = float(np.median([run.evaluation.seconds for run in runs]))
    history = getattr(runs[0].model, "history_", None)
    return {
        "model": name,
        "parameters": get_params(runs[0].model),
        "settings_tried": len(CANDIDATES[name]),
        "metrics": _summary(averaged),
        "by_seed": by_seed,
        "lists": runs[0].evaluation.lists,
        "fit_seconds": float(np.median([run.fit_seconds for run in runs])),
        "users_ranked_per_second": len(runs[0].evaluation.users) / seconds,
        "peak_memory_mib": max(run.peak_mib for run in runs),
        "paired_test": test,
        "history": None if history is None else [asdict(epoch) for epoch in history],
    }


def _summary(metrics: dict[str, Metric]) -> dict[str, dict[str, float]]:
    return {name: {"mean": metric.mean, "stderr": metric.stderr} for name, metric in metrics.items()}


def _oracle(split: Split) -> Evaluation:
    """The best that anyone could reach on the sample: a ranking by the true preferences of each test user."""
    truth = make_sample()
    rows = np.searchsorted(truth.interactions.user_ids, split.test.users)
    columns = np.searchsorted(truth.interactions.item_ids, split.items)
    weights = truth.log_weights[np.ix_(rows, columns)]

    def ranker(users: NDArray[np.int64], fold_in: sparse.csr_matrix, N: int) -> NDArray[np.int32]:
        return rank(lambda _: torch.from_numpy(weights[users]), fold_in, N, block_bytes=4 * weights.size)[0]

    return evaluate_ranker(ranker, split.test, METRICS)


def _examples(split: Split, models: dict[str, Recommender], n_users: int, N: int = 10) -> list[dict[str, Any]]:
    """Histories, held-out items and recommendations of a few test users, by title where titles are known."""
    test: Holdout = split.test
    names = _labels(split)
    rows = np.linspace(0, len(test.users) - 1, min(n_users, len(test.users))).astype(int)
    ranked = {name: model.recommend(rows, test.fold_in[rows], N=N)[0] for name, model in models.items()}
    return [
        {
            "user": str(test.users[row]),
            "history": [names[item] for item in test.fold_in[row].indices],
            "held_out": [names[item] for item in test.held_out[row].indices],
            "recommended": {name: [names[item] for item in ids[place] if item >= 0] for name, ids in ranked.items()},
        }
        for place, row in enumerate(rows)
    ]


def _labels(split: Split) -> list[str]:
    """What to call each item: title and genres, else the raw id."""
    titles, genres = split.train.titles, split.train.genres
    names = [str(name) for name in (split.items if titles is None else titles)]
    return names if genres is None else [f"{name} [{genre}]" for name, genre in zip(names, genres, strict=True)]


def _settings(split: Split, protocol: Protocol, split_seed: int, seeds: int) -> dict[str, Any]:
    return {
        "protocol": asdict(protocol),
        "split_seed": split_seed,
        "seeds": seeds,
        "train_users": split.train.n_users,
        "train_events": split.train.n_events,
        "items": split.train.n_items,
        "test_users": len(split.test.users),
        "test_users_dropped": split.test.dropped,
        "validation_users": len(split.valid.users),
    }


def _versions() -> dict[str, str]:
    libraries = ("recvae", "torch", "numpy", "scipy", "implicit")
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "torch_threads": str(torch.get_num_threads()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    } | {name: found[name] for name in libraries if name in found}
