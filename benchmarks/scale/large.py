"""An epoch with a million items, from shards on disk: time, memory, and steps against those with fewer items."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import torch
from scipy import sparse

from benchmarks.pages.markdown import markdown
from benchmarks.speed import machine
from recvae import MultVAE, TrainingOptions, evaluate
from recvae.data.shards import Shards
from recvae.evaluation.evaluate import evaluate_ranker
from recvae.nn.layers import reuse_workspace
from recvae.training.callbacks import Callback
from recvae.training.trainer import rows_on_device
from recvae.utils.memory import PeakMemory
from recvae.utils.topk import rank

SETTINGS: dict[str, Any] = {"hidden_dims": (128,), "latent_dim": 128, "batch_size": 500, "random_state": 0}
SAMPLED = TrainingOptions(impl="sampled")  # also where the chunked one would do, so that steps are comparable
WIDTHS = ((128, 128), (600, 200))  # of hidden and latent layers; the second are those of the paper
ROUNDS, STEPS = 25, 10  # rounds, and steps of each size in a round


class Steps(Callback):
    """The time at which each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, epoch: int, step: int) -> None:
        self.times.append(time.perf_counter())


def run_large(folders: list[Path]) -> dict[str, Any]:
    """Train an epoch on each folder of shards, in separate processes, then interleaved steps. On the first, largest,
    one also an epoch with the paper's widths, and dense steps with both. -> for JSON"""
    epochs = [_apart("epoch", folder, WIDTHS[0]) for folder in folders] + [_apart("epoch", folders[0], WIDTHS[1])]
    turns, shards = _apart("turns", *folders), Shards(folders[0])
    sizes = {"sizes": [*shards.shape, shards.nnz], "available_mib": psutil.virtual_memory().available / 2**20}
    steps = [sizes | {"widths": widths} | _apart("dense", folders[0], widths) for widths in WIDTHS]
    return machine() | {"settings": SETTINGS | {"impl": "sampled"}, "epochs": epochs, "turns": turns, "dense": steps}


def epoch(folder: str, widths: tuple[int, int]) -> dict[str, Any]:
    """Train for one epoch. -> time, memory, and NDCG@100 of the validation users"""
    shards, steps = Shards(folder), Steps()
    model = MultVAE(**SETTINGS | {"hidden_dims": widths[:1], "latent_dim": widths[1], "epochs": 1}, training=SAMPLED)
    planned = model.plan(shards)
    started = time.perf_counter()
    with PeakMemory() as peak:
        model.fit(shards, show_progress=False, callbacks=[steps])
    seconds = time.perf_counter() - started
    each = [b - a for a, b in zip(steps.times[:-1], steps.times[1:], strict=True)]
    result: dict[str, Any] = {"sizes": [*shards.shape, shards.nnz], "widths": widths, "impl": planned.impl}
    result |= {"seconds": seconds, "median_step": statistics.median(each), "peak_mib": peak.mib}
    result |= {"plan_mib": planned.memory.peak / 2**20, "plan_seconds": planned.seconds_per_epoch}
    ndcg = evaluate(model, shards.valid, ["ndcg@100"])["ndcg@100"].mean
    return result | {"loss": model.history_[0].loss, "ndcg@100": ndcg, "by_popularity": _by_popularity(shards)}


def _by_popularity(shards: Shards) -> float:
    """NDCG@100 of the list of the most popular items."""
    counts = torch.tensor(shards.item_counts, dtype=torch.float32)

    def ranker(_: Any, rows: sparse.csr_matrix, N: int) -> Any:
        return rank(lambda block, _: counts.repeat(block.shape[0], 1), rows, N)[0]

    return evaluate_ranker(ranker, shards.valid, ["ndcg@100"])["ndcg@100"].mean


def turns(*folders: str) -> dict[str, Any]:
    """Interleave steps of each size, so that other work on the machine affects all alike. -> seconds of a step"""
    runs = [_stepper(folder) for folder in folders]
    seconds: list[list[float]] = [[] for _ in runs]
    with reuse_workspace():  # as in an epoch, whose steps reuse their buffers
        for round_ in range(ROUNDS + 2):
            for run, found in zip(runs, seconds, strict=True):
                started = time.perf_counter()
                run(STEPS)
                if round_ > 1:  # the first two are warm-up
                    found.append((time.perf_counter() - started) / STEPS)
    ratios = [first / second for first, second in zip(*seconds[:2], strict=True)]
    return {
        "seconds": [statistics.median(found) for found in seconds],
        "ratio": statistics.median(ratios),
        "all": seconds,
    }


def dense(folder: str, widths: tuple[int, int]) -> dict[str, Any]:
    """Run the textbook's step on dense rows, within the available memory. -> outcome, peak memory, seconds"""
    shards, room = Shards(folder), psutil.virtual_memory().available
    resource.setrlimit(resource.RLIMIT_AS, (room, room))  # fail here, rather than have the system kill another process
    started = time.perf_counter()
    try:
        with PeakMemory() as peak:
            _textbook_steps(shards, widths)
        outcome = "done"
    except (RuntimeError, MemoryError) as error:
        outcome = str(error).splitlines()[0][:200] or type(error).__name__
    return {"outcome": outcome, "peak_mib": peak.mib, "seconds": time.perf_counter() - started}


def _textbook_steps(shards: Shards, widths: tuple[int, int]) -> None:
    from benchmarks.accuracy.textbook import TextbookMultVAE

    model = TextbookMultVAE(hidden_dim=widths[0], latent_dim=widths[1])
    _, optimizer = model.build(shards.n_items)
    for start in (0, SETTINGS["batch_size"]):  # Adam's moments exist from the second step on
        model.step(shards.rows(start, start + SETTINGS["batch_size"]), optimizer, 0.1)


def _stepper(folder: str) -> Callable[[int], None]:
    shards = Shards(folder)
    model = MultVAE(**SETTINGS, training=SAMPLED)
    trainer = model.trainer(shards)
    batches = rows_on_device(shards, trainer.state.device).batches_of(0, SETTINGS["batch_size"])

    def run(n: int) -> None:
        with trainer.in_pass():
            for batch in islice(batches, n):
                trainer.step(batch, 0.1)

    return run


def _apart(what: str, *arguments: Any) -> dict[str, Any]:
    """Call a function of this module in a new process. -> its result, or {"outcome": why not}"""
    given = [str(argument) if isinstance(argument, Path) else argument for argument in arguments]
    script = f"import json; from benchmarks.scale.large import {what}; print(json.dumps({what}(*{given!r})))"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {"outcome": f"the process ended with status {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(what, *given, {name: value for name, value in found.items() if name != "all"}, file=sys.stderr, flush=True)
    return found


def large_table(results: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    rows = [
        ["likelihood", "layers", "items", "epoch", "peak", "by the plan", "step, in turns", "NDCG@100 (popularity's)"]
    ]
    turns = [f"{seconds * 1000:.0f} ms" for seconds in results["turns"]["seconds"]]
    for number, found in enumerate(results["epochs"]):
        planned = f"{found['plan_mib'] / 1024:.1f} GiB, {found['plan_seconds']:,.0f} s"
        times = [f"{found['seconds']:,.0f} s", f"{found['peak_mib'] / 1024:.1f} GiB", planned]
        in_turns = turns[number] if number < len(turns) else ""
        ndcg = f"{found['ndcg@100']:.4f} ({found['by_popularity']:.4f})"
        rows.append([found["impl"], *_data_of(found), *times, in_turns, ndcg])
    for found in results["dense"]:
        fits = found["outcome"] == "done"
        peak = f"{found['peak_mib'] / 1024:.1f} GiB" if fits else f"beyond {found['available_mib'] / 1024:.1f} GiB"
        rows.append(["dense, textbook", *_data_of(found), "" if fits else _refusal(found["outcome"]), peak, "", "", ""])
    return markdown(rows)


def _refusal(outcome: str) -> str:
    return "out of memory" if "allocate memory" in outcome or outcome == "MemoryError" else outcome


def _data_of(found: dict[str, Any]) -> list[str]:
    return [", ".join(map(str, found["widths"])), f"{found['sizes'][1]:,}"]
