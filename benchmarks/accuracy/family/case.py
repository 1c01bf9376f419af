"""One model on one split, in a separate process, so that time and memory are measured for it alone."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.family.ials import GRID, run_ials
from recvae.benchmark.grids import models_to_try
from recvae.benchmark.results import json_bytes
from recvae.benchmark.run import METRICS, Task, run_model
from recvae.data.splits import Holdout, Split
from recvae.datasets.card import load_card
from recvae.datasets.load import load_split
from recvae.errors import MissingDependencyError, UnknownUsersError
from recvae.evaluation.evaluate import Evaluation, evaluate
from recvae.models.base.params import flat_params
from recvae.utils.files import write_whole

IALS = "iALS"  # irspack's, which is no model of this package


def run(job: dict[str, Any]) -> None:
    """Choose, fit and evaluate. Writes the values of each user to `job["values"]`, then what was done to `job["done"]`.

    job : {"dataset", "data_home", "split_seed", "users": "test" | "valid", "model", "python": interpreter for iALS,
        "thin": share for training or None, "values": .npz, "done": .json}. For a model that is not available, "done"
        has {"absent": why}.
    """
    protocol = load_card(job["dataset"]).protocol
    metrics, main = list(dict.fromkeys([*METRICS, *protocol.metrics])), protocol.metrics[-1]
    options = {} if job.get("thin") is None else {"split": "per-user", "test_share": 1 - job["thin"]}
    split = load_split(job["dataset"], job["data_home"], seed=job["split_seed"], show_progress=False, **options)
    split = split if job["users"] == "test" else development(split)
    try:
        if job["model"] == IALS:
            evaluation, about = run_ials(Path(job["python"]), split, metrics, main)
            about["peak_memory_mib"] = (
                resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
            )  # Linux counts KiB
        else:
            task = Task(split, metrics, main, range(1), False, lambda _: None)
            runs = run_model(job["model"], models_to_try(job["model"], {}), task)
            evaluation, about = runs.runs[0].evaluation, runs.row(job["model"])
            if split.refit is None:  # else the model has learned from the validation events
                about["valid"] = evaluate(runs.model, split.valid, [main])[main].mean
    except (MissingDependencyError, UnknownUsersError) as error:
        write_whole(Path(job["done"]), json_bytes({"absent": str(error)}))
        return
    about["grid"] = grid(job["model"])
    _write_values(Path(job["values"]), evaluation)
    shape = {"train_users": split.train.n_users, "items": split.train.n_items, "test_users": len(evaluation.users)}
    write_whole(Path(job["done"]), json_bytes(about | {"data": shape}))  # written last: if it exists, the values do


def grid(model: str) -> list[dict[str, Any]]:
    """The settings that a model chooses from, as JSON has them."""
    settings = GRID if model == IALS else [flat_params(instance) for instance in models_to_try(model, {})]
    found: list[dict[str, Any]] = json.loads(json.dumps(settings))
    return found


def development(split: Split) -> Split:
    """A split that chooses by one half of the validation users, and has the other half as test users.

    The real test users are not used. If validation users are training users, as in a `given` split of known users, so
    are the new test users.
    """
    places = np.arange(len(split.valid.users))
    return Split(split.train, _part(split.valid, places[::2]), _part(split.valid, places[1::2]))


def _part(holdout: Holdout, rows: NDArray[np.int64]) -> Holdout:
    known = None if holdout.train_rows is None else holdout.train_rows[rows]
    return replace(
        holdout,
        fold_in=holdout.fold_in[rows],
        held_out=holdout.held_out[rows],
        users=holdout.users[rows],
        train_rows=known,
    )


def _write_values(path: Path, evaluation: Evaluation) -> None:
    part = path.with_suffix(".part.npz")
    arrays: dict[str, Any] = {name: metric.values for name, metric in evaluation.items()}
    np.savez(part, users=evaluation.users.astype(str), **arrays)
    part.replace(path)


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
