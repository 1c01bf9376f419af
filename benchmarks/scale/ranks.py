"""One model trained by one, two and four processes: differences of weights and losses, and resuming a stopped run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import recvae
from benchmarks.pages.markdown import markdown
from benchmarks.speed import machine
from recvae.models.base.params import parameters, with_params
from recvae.nn import VAE
from recvae.training.callbacks import Callback

SETTINGS: dict[str, Any] = {"hidden_dims": (128,), "latent_dim": 64, "batch_size": 500, "random_state": 0}
LONG, SHORT = 5, 2  # epochs of ten steps, in float64 and in float32
# how the likelihood is computed, and how ranks train together
CASES: dict[str, dict[str, Any]] = {
    "reference": {"training__impl": "reference"},
    "chunked": {"training__impl": "chunked"},
    "chunked, tensor parallel": {"training__impl": "chunked", "training__parallel": "tensor"},
    "sampled": {"training__impl": "sampled", "training__num_negatives": 500},
}
# old names of cases, in results recorded earlier
RENAMED = {"dense": "reference", "exact": "chunked", "exact, items shared out": "chunked, tensor parallel"}


@parameters
class Precise(recvae.MultVAE):
    """A Mult-VAE in float64."""

    def _untrained(self, n_items: int, seed: int) -> VAE:
        return super()._untrained(n_items, seed).double()


class StopError(Exception):
    """Raised to stop a run on purpose."""


class StopAt(Callback):
    """Ends a run in the middle of an epoch."""

    def on_step_end(self, epoch: int, step: int) -> None:
        if (epoch, step) == (3, 5):
            raise StopError


def run_ranks(data_home: Path | None) -> dict[str, Any]:
    """Train with each number of processes, one after the other. -> for JSON"""
    with tempfile.TemporaryDirectory() as folder:
        for size in (1, 2, 4):
            _start(size, "all", folder, data_home)
        outcomes = {size: torch.load(f"{folder}/{size}.pt", weights_only=True) for size in (1, 2, 4)}
        _start(4, "stop", folder, data_home, ends_well=False)
        _start(2, "go on", folder, data_home)
        resumed_run = torch.load(f"{folder}/gone-on.pt", weights_only=True)
    cases = [
        {"ranks": size, "case": name, "precision": precision} | _apart(outcomes[1][key], outcomes[size][key])
        for size in (2, 4)
        for key in outcomes[1]
        for name, precision in [key.rsplit(", ", 1)]
    ]
    resumed = {what: _apart(outcomes[1]["chunked, float64"], resumed_run[what]) for what in resumed_run}
    return machine() | {"settings": SETTINGS, "epochs": [LONG, SHORT], "cases": cases, "4 to 2 ranks": resumed}


def _start(size: int, what: str, place: str, data_home: Path | None, ends_well: bool = True) -> None:
    command = [sys.executable, "-m", "benchmarks.scale.ranks", what, place, str(data_home or ""), str(size)]
    if size > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
        command = [sys.executable, *launcher, *command[1:]]
    started = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if (done.returncode == 0) != ends_well:
        raise SystemExit(f"Expected {what} on {size} ranks to end otherwise:\n{done.stderr[-3000:]}")
    print(f"{what} on {size}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


def rank(what: str, place: str, home: str, size: str) -> None:
    """Run one process of a launch: fit all cases, or stop a training, or resume it."""
    split = recvae.load_split("ml-1m", home or None)
    with recvae.joined("cpu") as communicator:
        found: dict[str, dict[str, Any]] = {}
        if what == "all":
            for name, case in CASES.items():
                found[f"{name}, float64"] = _fit(with_params(Precise(**SETTINGS, epochs=LONG), case), split)
                single = with_params(
                    recvae.MultVAE(**SETTINGS, epochs=SHORT), case | {"training__precision": "float32"}
                )
                found[f"{name}, float32"] = _fit(single, split)
        elif what == "stop":
            keep = recvae.Checkpoint(f"{place}/kept", minutes=0)
            Precise(**SETTINGS, epochs=LONG, training=recvae.TrainingOptions(impl="chunked")).fit(
                split.train, False, callbacks=[StopAt()], checkpoint=keep
            )
        else:
            model = Precise(**SETTINGS, epochs=LONG, training=recvae.TrainingOptions(impl="chunked"))
            found["users"] = _fit(model, split, checkpoint=f"{place}/kept")
        if communicator.is_main_process:
            torch.save(found, f"{place}/{'gone-on' if what == 'go on' else size}.pt")


def _fit(model: recvae.MultVAE, split: recvae.Split, **options: Any) -> dict[str, Any]:
    model.fit(split.train, False, **options)
    weights = torch.cat([parameter.detach().flatten() for parameter in model.network_.parameters()])
    return {"weights": weights, "losses": [epoch.loss for epoch in model.history_]}


def _apart(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Differences: the largest of a weight, the norm over all weights relative to theirs, the largest relative loss."""
    first, second = one["weights"].double(), other["weights"].double()
    losses = np.array(one["losses"]), np.array(other["losses"])
    return {
        "weights": float((first - second).abs().max()),
        "weights_relative": float((first - second).norm() / first.norm()),
        "losses_relative": float(np.abs(losses[1] / losses[0] - 1).max()),
    }


def ranks_table(results: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    rows = [["processes", "likelihood", "precision", "weights, largest difference", "relative", "loss, relative"]]
    for case in results["cases"]:
        figures = [f"{case[name]:.1e}" for name in ("weights", "weights_relative", "losses_relative")]
        name = RENAMED.get(case["case"], case["case"])
        rows.append([str(case["ranks"]), name, case["precision"], *figures])
    resumed_run = results["4 to 2 ranks"]["users"]
    figures = [f"{resumed_run[name]:.1e}" for name in ("weights", "weights_relative", "losses_relative")]
    rows.append(["4, stopped, then 2", "chunked", "float64", *figures])
    return markdown(rows)


if __name__ == "__main__":
    rank(*sys.argv[1:])
