"""The sampled likelihood against the exact one: accuracy on test users, and time to the best of the exact one."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages.markdown import markdown
from benchmarks.speed import machine
from recvae import MultVAE, evaluate, load_split, paired_bootstrap
from recvae.data.splits import Split
from recvae.evaluation.evaluate import Metric
from recvae.models.base.params import file_keys, parameters, with_params
from recvae.training.callbacks import Callback, Epoch
from recvae.utils.files import write_whole

METRICS = ("recall@20", "ndcg@20", "ndcg@100")
# by data set: numbers of candidates, about a quarter of the items or less, and a quarter of that; HELD_OUT is the
# number of held-out users, for validation and again for the test
BUDGETS = {"ml-1m": (1024, 256), "ml-10m-implicit": (2048, 512), "gowalla": (4096, 1024)}
HELD_OUT = {"ml-1m": 600, "ml-10m-implicit": 5000, "gowalla": 2000}
DEFAULT = "popularity"
PAPER = {"item_biases": "normal"}  # settings of the exact likelihood; the default is "popularity"
ALIKE = {"learning_rate": 3e-3, "item_biases": "popularity"}  # settings of the sampled likelihood's tables


@parameters
class Watched(MultVAE):
    """A Mult-VAE that is validated by the metric of the curves."""

    validation_metric = "ndcg@20"


class Curve(Callback):
    """NDCG@20 on validation users against seconds of training, without validation."""

    def __init__(self) -> None:
        self.points: list[dict[str, float | None]] = []
        self.seconds = 0.0

    def on_epoch_end(self, epoch: Epoch) -> None:
        self.seconds += self.users / (epoch.users_per_second or 1)
        self.points.append({"seconds": self.seconds, "cpu": time.process_time(), "valid": epoch.valid})

    def on_fit_start(self, start: Any) -> None:
        self.users = start.users


def cases_of(dataset: str, samplers: Sequence[str]) -> list[dict[str, Any]]:
    """Cases: the exact likelihood with the paper's learning rate and initial biases; the default sampler with the
    larger and the smaller budget, other samplers with the larger; the exact one with the rate and the initial biases
    of the sampled one.
    """
    large, small = BUDGETS.get(dataset, (4096, 1024))
    both = [(DEFAULT, large), (DEFAULT, small), *((sampler, large) for sampler in samplers if sampler != DEFAULT)]
    chosen = [{"impl": "sampled", "sampler": sampler, "candidates": budget} for sampler, budget in both]
    return [{"impl": "chunked"} | PAPER, *chosen, {"impl": "chunked"} | ALIKE]


def run_sampled(
    dataset: str, data_home: Path | None, work: Path | None, epochs: int, samplers: Sequence[str]
) -> dict[str, Any]:
    """Run each case, or read it from `work`. -> results for JSON, without values of single users

    The split is strong on all data sets, even if their published split is another. Item embeddings are random at first,
    as they are by default where the likelihood is sampled, beyond 200,000 items.
    """
    split = load_split(dataset, data_home, split="strong", heldout_users=HELD_OUT.get(dataset, 600))
    found = []
    for settings in cases_of(dataset, samplers):
        name = "-".join(str(value) for value in settings.values())
        place = None if work is None else work / f"{dataset}-{name}.json"
        if place is not None and place.exists():
            case = json.loads(place.read_text())
        else:
            case = _case(split, settings, epochs)
            if place is not None:
                write_whole(place, json.dumps(case).encode())
        print(f"{dataset}, {name}: {case['means']}, {case['curve'][-1]['seconds']:.0f} s", flush=True)
        found.append(case)
    exact = found[0]
    best = max(point["valid"] for point in exact["curve"])
    return machine() | {
        "dataset": dataset,
        "sizes": [split.train.n_users, split.train.n_items, split.train.n_events],
        "test_users": len(exact["users"]["ndcg@100"]),
        "epochs": epochs,
        "cases": [_shown(case, exact, best) for case in found],
    }


def _case(split: Split, settings: dict[str, Any], epochs: int) -> dict[str, Any]:
    curve = Curve()
    known = {key: name for name, key in file_keys(Watched).items()}  # settings are flat, as in the results
    flat = {"epochs": epochs, "random_state": 0, "initial_weights": "random"} | settings
    model = with_params(Watched(), {known[key]: value for key, value in flat.items()})
    model.fit(split.train, show_progress=False, valid=split.valid, callbacks=[curve])
    result = evaluate(model, split.test, METRICS)
    return {
        "settings": settings,
        "means": {name: result[name].mean for name in METRICS},
        "errors": {name: result[name].stderr for name in METRICS},
        "users": {name: result[name].values.tolist() for name in METRICS},
        "curve": curve.points,
    }


def _shown(case: dict[str, Any], exact: dict[str, Any], best: float) -> dict[str, Any]:
    by_user, of_exact = (Metric(np.array(each["users"]["ndcg@100"])) for each in (case, exact))
    test = paired_bootstrap(by_user, of_exact)
    reached = [point["seconds"] for point in case["curve"] if point["valid"] >= best]
    share = case["means"]["ndcg@100"] / exact["means"]["ndcg@100"] - 1
    rest = {name: value for name, value in case.items() if name != "users"}
    return rest | {
        "share": share,
        "difference": [test.difference, test.low, test.high],
        "seconds": case["curve"][-1]["seconds"],
        "seconds_to_best_of_exact": reached[0] if reached else None,
    }


def sampled_table(*results: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    rows = [["", "items", "likelihood", "NDCG@100", "difference to chunked", "training", "to exact's best NDCG@20"]]
    for result in results:
        for case in result["cases"]:
            low, high = (f"{bound:+.4f}" for bound in case["difference"][1:])
            less = f"{case['share']:+.1%} ({low} to {high})" if case is not result["cases"][0] else ""
            to_best = case["seconds_to_best_of_exact"]
            rows.append(
                [
                    result["dataset"],
                    f"{result['sizes'][1]:,}",
                    _name(case["settings"]),
                    f"{case['means']['ndcg@100']:.4f} ± {case['errors']['ndcg@100']:.4f}",
                    less,
                    f"{case['seconds']:,.0f} s",
                    "not reached" if to_best is None else f"{to_best:,.0f} s",
                ]
            )
    return markdown(rows)


def _name(settings: dict[str, Any]) -> str:
    if settings["impl"] == "sampled":
        return f"{settings['sampler']}, {settings['candidates']:,}"
    return "exact, with the rate and the first biases of sampled tables" if "learning_rate" in settings else "exact"
