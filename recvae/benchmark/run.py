"""A benchmark: one data set, one split, every model scored by one evaluator -> a dictionary that JSON can hold."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from recvae.benchmark.examples import user_examples
from recvae.benchmark.grids import BASELINES, SAMPLE, model_names, models_to_try
from recvae.benchmark.inspection import active_units, has_tsne, item_map
from recvae.benchmark.results import FORMAT
from recvae.data.names import SPLIT_FOLDER
from recvae.data.splits import SPLIT_SEED, Split
from recvae.datasets.card import Protocol, load_card
from recvae.datasets.load import load_split, resolve_split
from recvae.datasets.sample import make_sample
from recvae.errors import MissingDependencyError, UnknownUsersError
from recvae.evaluation.breakdown import Groups, break_down, make_groups
from recvae.evaluation.evaluate import Evaluation, Metric, evaluate, evaluate_ranker
from recvae.evaluation.significance import holm, paired_bootstrap
from recvae.models.base import Recommender
from recvae.models.base.params import flat_params
from recvae.training.state import best_epoch
from recvae.tuning.selection import Choice, choose, fit_split
from recvae.utils.memory import PeakMemory
from recvae.utils.topk import rank

METRICS = (
    "recall@20",
    "recall@50",
    "ndcg@10",
    "ndcg@20",
    "ndcg@100",
    "recall_full@20",
    "precision@10",
    "map@10",
    "mrr@10",
    "hit_rate@10",
)


KEEP_SECONDS = 60.0  # at least, between two calls with the results so far: their tests are computed again each time


@dataclass(frozen=True)
class Task:
    """The split, metrics and seeds, which are the same for all models of a benchmark."""

    split: Split
    metrics: list[str]
    main_metric: str  # settings are chosen by it, and models compared by its paired tests
    seeds: range
    show_progress: bool
    log: Callable[[str], None]


@dataclass
class Run:
    """One model fitted and evaluated once."""

    model: Any
    evaluation: Evaluation
    fit_seconds: float
    peak_mib: float


@dataclass
class Runs:
    """One model fitted and evaluated with each seed, after one choice of settings."""

    runs: list[Run]
    choice: Choice

    @property
    def model(self) -> Any:
        """The model of the first seed."""
        return self.runs[0].model

    @property
    def averaged(self) -> dict[str, Metric]:
        """Metrics whose per-user values are means over the runs."""
        evaluations = [run.evaluation for run in self.runs]
        users = evaluations[0].users
        return {
            n: Metric(np.mean([evaluation[n].values for evaluation in evaluations], axis=0), users)
            for n in evaluations[0]
        }

    def row(self, name: str) -> dict[str, Any]:
        """The JSON of the model."""
        first, averaged = self.runs[0], self.averaged
        history = getattr(first.model, "history_", None)
        return {
            "model": name,
            "parameters": flat_params(first.model),
            "settings_tried": self.choice.settings_tried,
            "choice_seconds": self.choice.seconds,
            "metrics": _summary(averaged),
            "by_seed": {metric: [run.evaluation[metric].mean for run in self.runs] for metric in averaged},
            "lists": first.evaluation.lists,
            "fit_seconds": float(np.median([run.fit_seconds for run in self.runs])),
            "users_ranked_per_second": len(first.evaluation.users)
            / float(np.median([run.evaluation.seconds for run in self.runs])),
            "peak_memory_mib": max(run.peak_mib for run in self.runs),
            "history": None if history is None else [asdict(epoch) for epoch in history],
            "best_epoch": best_epoch(history).epoch if history else None,
        }


def run_benchmark(
    dataset: str = "sample",
    data_home: str | Path | None = None,
    models: Sequence[str | type[Recommender]] | None = None,
    seeds: int = 1,
    first_seed: int = 0,
    split: str | None = None,
    split_seed: int = SPLIT_SEED,
    split_options: dict[str, Any] | None = None,
    params: dict[str, str] | None = None,
    examples: int = 3,
    show_progress: bool = True,
    log: Callable[[str], None] = lambda line: None,
    keep: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Fit and evaluate `models` on one split of `dataset`, each with as many random_states, from `first_seed` on.

    `models` are names, classes of your own, also as text "module:Class", or None or "all" for all that the package
    has. `dataset` may also be the folder of a split. The split is that of the data set's card, or another one, as
    in `load_split`. `params` are hyper-parameters, as text, for all settings of the models that have them. Metrics are
    averaged over seeds for each user first: the standard error is that over users. Each model is tested against every
    one of `BASELINES`, with p-values adjusted for their number; one of these against the best of them.
    The best baseline is chosen on the test users, in the baselines' favour. Models of libraries that are not installed,
    and those that cannot score the split's users, are reported as absent. The histories and recommendations of
    `examples` test users and a map of items by title are part of the results; ask for 0 where the data may not be
    passed on, and neither is. `log` receives a line at each step, and `keep` the results of the models that are done,
    after a model, at most once a minute. What the results hold: `recvae.benchmark.results`.

    Raises
    ------
    UnknownNameError
        If a data set or model does not exist.
    RecvaeError
        Any error of loading and fitting.
    """
    names = model_names(models)
    presets = SAMPLE if dataset == "sample" else {}
    to_try = {name: models_to_try(name, params or {}, presets) for name in names}
    card = load_card(dataset)
    split_options = split_options or {}
    kind, options = resolve_split(card.protocol, split, split_seed, split_options)
    own_split = (kind, options) == resolve_split(card.protocol, None, SPLIT_SEED, {})
    data = load_split(card, data_home, split=split, seed=split_seed, show_progress=show_progress, **split_options)
    if kind == SPLIT_FOLDER:
        kind, options = "strong" if data.refit is None else "given", {"folder": dataset}
    metrics = list(dict.fromkeys([*METRICS, *card.protocol.metrics]))
    main_metric, seed_range = card.protocol.metrics[-1], range(first_seed, first_seed + seeds)
    task = Task(data, metrics, main_metric, seed_range, show_progress, log)
    if data.train.account is not None and data.train.account.left_out:
        log(f"{dataset}: {data.train.account}")
    log(f"{dataset}, {kind} split: trained on {data.train!r}; {data.test!r}")
    about = {
        "format": FORMAT,
        "dataset": dataset,
        "title": card.title,
        "command": None,
        "settings": _settings(task, card.protocol, kind, options)
        | {"sized_for_sample": [name for name in names if name in presets]},
        "versions": _versions(),
        "published": card.published if own_split else {},
    }
    known_truth = dataset == "sample" and kind == "strong"
    runs: dict[str, Runs] = {}
    absent: dict[str, str] = {}
    kept = time.monotonic()
    for name in names:
        try:
            runs[name] = run_model(name, to_try[name], task)
        except (MissingDependencyError, UnknownUsersError) as error:
            if name == names[-1] and not runs:
                raise  # no model has run
            absent[name] = str(error)
            log(f"{name}: absent. {error}")
        if runs and name != names[-1] and time.monotonic() - kept >= KEEP_SECONDS:
            keep(about | _results(runs, absent, task, examples, known_truth))
            kept = time.monotonic()
    return about | _results(runs, absent, task, examples, known_truth)


def _results(
    runs: dict[str, Runs], absent: dict[str, str], task: Task, examples: int, known_truth: bool
) -> dict[str, Any]:
    """The JSON of the models that are done."""
    main_metrics = {name: model_runs.averaged[task.main_metric] for name, model_runs in runs.items()}
    best = best_baseline(main_metrics)
    groups = make_groups(task.split.test)
    models = {name: model_runs.model for name, model_runs in runs.items()}
    return {
        "best_baseline": best,
        "models": _rows(runs, main_metrics, best, groups, task, known_truth),
        "groups": groups.about,
        "absent": absent,
        "examples": user_examples(task.split, models, examples),
        "item_map": _item_map(runs, main_metrics, task) if examples else None,
    }


def _rows(
    runs: dict[str, Runs],
    main_metrics: dict[str, Metric],
    best: str | None,
    groups: Groups,
    task: Task,
    known_truth: bool,
) -> list[dict[str, Any]]:
    """The JSON of each model, and of the oracle where the true preferences are known."""
    test, metric = task.split.test, task.main_metric
    rows = [
        model_runs.row(name)
        | {"paired_tests": paired_tests(name, main_metrics, best)}
        | {"active_units": active_units(model_runs.model, test.fold_in)}
        | break_down([run.evaluation for run in model_runs.runs], groups, metric)
        for name, model_runs in runs.items()
    ]
    if known_truth:
        oracle = _oracle(task.split, task.metrics)
        measured = {"model": "oracle", "metrics": _summary(dict(oracle)), "lists": oracle.lists}
        rows.append(measured | break_down([oracle], groups, metric))
    return rows


def run_model(name: str, settings_to_try: list[Recommender], task: Task) -> Runs:
    """Choose settings on validation users, then fit and evaluate with each seed. Raises what fitting raises."""
    runs: list[Run] = []
    choice = choose(settings_to_try, task.split, task.main_metric, task.show_progress)
    for seed in task.seeds:
        seeded = {"random_state": seed} if "random_state" in choice.params else {}
        model = type(settings_to_try[0])(**choice.params | seeded)
        with PeakMemory() as memory:
            started = time.perf_counter()
            model = fit_split(model, task.split, task.show_progress)
            fit_seconds = time.perf_counter() - started
            evaluation = evaluate(
                model, task.split.test, task.metrics, show_progress=task.show_progress, keep_lists=True
            )
        runs.append(Run(model, evaluation, fit_seconds, memory.mib))
        metric_text = f"{task.main_metric} {evaluation[task.main_metric].mean:.4f}"
        task.log(f"{name}, seed {seed}: {metric_text}, {fit_seconds:.1f} s of training")
        if not seeded:
            break  # another seed would give the same model
    return Runs(runs, choice)


def best_baseline(metrics: Mapping[str, Metric], baselines: Sequence[str] = BASELINES) -> str | None:
    """The name of the baseline with the highest mean; None without any."""
    means = {name: metric.mean for name, metric in metrics.items() if name in baselines}
    return max(means, key=means.__getitem__) if means else None


def paired_tests(
    name: str, metrics: Mapping[str, Metric], best: str | None, baselines: Sequence[str] = BASELINES
) -> dict[str, dict[str, float]]:
    """Test a model against every one of `baselines`; one of these only against the `best` of them.

    `p_holm` is the p-value adjusted for the number of these tests.

    Returns
    -------
    dict[str, dict[str, float]]
        Paired bootstrap by name, for JSON.
    """
    rivals = [other for other in metrics if other in baselines and other != name]
    if name in baselines:
        rivals = [other for other in rivals if other == best]
    tests = {other: asdict(paired_bootstrap(metrics[name], metrics[other])) for other in rivals}
    adjusted = holm([test["p_value"] for test in tests.values()])
    return {other: test | {"p_holm": p} for (other, test), p in zip(tests.items(), adjusted, strict=True)}


def _summary(metrics: dict[str, Metric]) -> dict[str, dict[str, float]]:
    return {name: metric.summary() for name, metric in metrics.items()}


def _oracle(split: Split, metrics: Sequence[str]) -> Evaluation:
    """The best possible result on the sample: a ranking by the true preferences of each test user."""
    truth = make_sample()
    rows = np.searchsorted(truth.interactions.user_ids, split.test.users)
    columns = np.searchsorted(truth.interactions.item_ids, split.items)
    weights = truth.log_weights[np.ix_(rows, columns)]

    def ranker(users: NDArray[np.int64], fold_in: sparse.csr_matrix, N: int) -> NDArray[np.int32]:
        return rank(lambda _, block: torch.from_numpy(weights[users[block]]), fold_in, N)[0]

    return evaluate_ranker(ranker, split.test, metrics, keep_lists=True)


def _item_map(runs: dict[str, Runs], metrics: dict[str, Metric], task: Task) -> dict[str, Any] | None:
    """The map of items by the best network; None if there is no network."""
    networks = [name for name, model_runs in runs.items() if hasattr(model_runs.model, "network_")]
    if not networks:
        return None
    best = max(networks, key=lambda name: metrics[name].mean)
    if not has_tsne():
        task.log('The map of items is by principal components; for t-SNE: pip install "recvae[map]"')
    return item_map(best, runs[best].model, task.split.train)


def _settings(task: Task, protocol: Protocol, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    split = task.split
    trained = split.train if split.refit is None else split.refit
    return {
        "protocol": msgspec.structs.asdict(protocol),
        "split": {"kind": kind} | options,
        "metrics": protocol.metrics,
        "seeds": list(task.seeds),
        "train_users": trained.n_users,
        "train_events": trained.n_events,
        "items": trained.n_items,
        "test_users": len(split.test.users),
        "test_users_dropped": split.test.dropped,
        "validation_users": len(split.valid.users),
    }


def _versions() -> dict[str, str]:
    libraries = ("recvae", "torch", "numpy", "scipy", "implicit")
    installed = {}
    for library in libraries:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[library] = importlib.metadata.version(library)
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "torch_threads": str(torch.get_num_threads()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    } | installed
