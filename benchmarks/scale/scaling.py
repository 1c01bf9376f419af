"""Time and memory of a training step against items, users, events, candidates and ranks, next to a cost model.

Each point is measured in separate processes, so that peak memory and threads are those of this point: run as a script,
this module measures one point; under torchrun, as one of several ranks.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from scipy import sparse

import recvae
from benchmarks.pages.markdown import markdown
from benchmarks.scale.cost_model import Point, fit, measured_seconds, predicted_seconds
from benchmarks.speed import Save, machine
from recvae import MultVAE, TrainingOptions
from recvae.distributed.communicator import Communicator
from recvae.errors import NotEnoughMemoryError
from recvae.nn.layers import in_bfloat16
from recvae.training.callbacks import Callback
from recvae.utils.memory import PeakMemory

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 180.0  # of a point
STEPS = 30  # at least, of a point with the sampled likelihood; other points have one epoch, whose steps take longer
WARM_UP = 2  # steps that are not counted
SKEW = 0.9
PROBE = 1 << 22  # numbers in an all-reduce
BASE: Point = {
    "items": 100_000,
    "users": 5_000,
    "length": 100,
    "candidates": 4096,
    "batch": 500,
    "width": 128,
    "ranks": 1,
    "share": "users",  # of a batch, which is data parallel; "items" is tensor parallel
}
EXACT: Point = {"candidates": None}
# what is varied -> settings that differ from BASE; `fit` marks the points to which the cost model is fitted
POINTS: list[Point] = [
    {"law": "items", "items": 10_000, "fit": True},
    {"law": "items", "items": 30_000},
    {"law": "items", "fit": True},
    {"law": "items", "items": 300_000},
    {"law": "items", "items": 1_000_000, "fit": True},
    {"law": "items", "items": 10_000, "fit": True} | EXACT,
    {"law": "items", "items": 30_000} | EXACT,
    {"law": "items", "fit": True} | EXACT,
    {"law": "items", "items": 300_000} | EXACT,
    {"law": "users", "users": 10_000},
    {"law": "users", "users": 40_000},
    {"law": "users", "users": 160_000},
    {"law": "events of a user", "length": 25},
    {"law": "events of a user", "length": 400, "fit": True},
    {"law": "events of a user", "items": 30_000, "length": 25} | EXACT,
    {"law": "events of a user", "items": 30_000, "length": 400, "fit": True} | EXACT,
    {"law": "candidates", "candidates": 1_024},
    {"law": "candidates", "candidates": 16_384, "fit": True},
    {"law": "ranks", "ranks": 2},
    {"law": "ranks", "items": 30_000, "ranks": 2} | EXACT,
    {"law": "ranks", "items": 30_000, "ranks": 2, "share": "items"} | EXACT,
    {"law": "ranks", "ranks": 2, "share": "items"} | EXACT,
]
SMALLER = {"items": 100, "users": 20, "length": 5, "candidates": 100, "batch": 10, "width": 16}
RATES = {
    "bfloat16": (1e9, "billion operations a second in bfloat16"),
    "float32": (1e9, "billion operations a second in float32"),
    "table_bytes": (1e9, "GB/s of tables, measured by a copy"),
    "row_bytes": (1e9, "GB/s of single rows"),
    "sent_bytes": (1e9, "GB/s between ranks, measured by an all-reduce"),
    "steps": (1e3, "thousand steps a second with nothing in them"),
}


def run_scaling(quick: bool, save: Save) -> dict[str, Any]:
    """Measure each point, and save the results after each. -> results for JSON

    A point that fails, or that does not fit in memory, is recorded as such, and the others are measured. With `quick`
    the points are tiny, as a smoke test.
    """
    results: dict[str, Any] = machine() | {"threads": 1, "cores": os.cpu_count(), "quick": quick}
    results |= {"load": [], "points": []}  # load: number of cores busy with other work, before each point
    for settings in POINTS:
        point = BASE | settings
        if quick:
            point |= {name: max(1, point[name] // by) for name, by in SMALLER.items() if point[name] is not None}
        results["load"].append(psutil.cpu_percent(0.3) / 100 * (os.cpu_count() or 1))
        results["points"].append(point | measure(point))
        print(*_law(results["points"][-1], {}), sep=" | ", flush=True)
        save(results)
    return results


def measure(point: Point) -> dict[str, Any]:
    """Measure a point in new processes. -> its figures, or {"failed": why}"""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(point["ranks"])]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, *(launcher if point["ranks"] > 1 else []), "-m", "benchmarks.scale.scaling"]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                [*command, json.dumps(point), str(out)],
                cwd=ROOT,
                env=os.environ | threads,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {TIMEOUT_S:.0f} s"}
        if done.returncode:
            return {"failed": (done.stderr.strip().splitlines() or ["killed"])[-1]}
        result: dict[str, Any] = json.loads(out.read_text())
        return result


def figures(point: Point, communicator: Communicator) -> dict[str, Any]:
    """Measure a point in this process, as one of the ranks. -> for JSON"""
    _fit(point | {"items": 50, "users": 40, "length": 5, "batch": 20, "width": 4})  # so that libraries are warmed up
    before = psutil.Process().memory_info().rss
    rows = zipf(point["users"], point["items"], point["length"])
    result = {"events": rows.nnz, "bfloat16": in_bfloat16("auto", communicator.device)}
    result["streamed_per_second"] = _copied()
    if communicator.size > 1:
        result["sent_per_second"] = _sent(communicator)
    try:
        with PeakMemory() as peak:
            model, steps = _fit(point, rows)
    except NotEnoughMemoryError as error:
        return result | {"refused": str(error)}
    result |= {"plan_mib": model.plan_.memory.peak / 2**20, "peak_mib": peak.mib - before / 2**20}
    return result | {"seconds": steps.seconds[WARM_UP:], "cpu_seconds": steps.cpu_seconds[WARM_UP:]}


class StepTimes(Callback):
    """Elapsed and CPU seconds of each step, including reading its batch, except for the first step of an epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self._last = (0.0, 0.0)

    def on_step_end(self, epoch: int, step: int) -> None:
        now = time.perf_counter(), time.thread_time()
        if step > 1:
            self.seconds.append(now[0] - self._last[0])
            self.cpu_seconds.append(now[1] - self._last[1])
        self._last = now


def _fit(point: Point, rows: sparse.csr_matrix | None = None) -> tuple[MultVAE, StepTimes]:
    exact, steps = point["candidates"] is None, StepTimes()
    rows = zipf(point["users"], point["items"], point["length"]) if rows is None else rows
    model = MultVAE(
        hidden_dims=(point["width"],),
        latent_dim=point["width"],
        batch_size=point["batch"],
        epochs=1 if exact else -(-STEPS * point["batch"] // point["users"]),
        random_state=0,
        device="cpu",
        training=TrainingOptions(
            impl="chunked" if exact else "sampled",
            num_negatives=point["candidates"] or 1,
            parallel="tensor" if point["share"] == "items" else "data",
        ),
    )
    return model.fit(rows, show_progress=False, callbacks=[steps]), steps


def zipf(n_users: int, n_items: int, length: int, seed: int = 0) -> sparse.csr_matrix:
    """Users with `length` draws of items each, the item of rank r in proportion to (10 + r)^-0.9, without repeats."""
    random = np.random.default_rng(seed)
    bounds = np.cumsum((10.0 + np.arange(n_items)) ** -SKEW)
    items = np.searchsorted(bounds, random.random(n_users * length, dtype=np.float32) * bounds[-1])
    names = random.permutation(n_items).astype(np.int32)  # so that the index of an item does not follow its rank
    chosen = names[items.clip(max=n_items - 1)]
    ends = np.arange(0, n_users * length + 1, length)
    rows = sparse.csr_matrix((np.ones(len(chosen), np.float32), chosen, ends), (n_users, n_items))
    rows.sum_duplicates()
    rows.data[:] = 1
    return rows


def _copied() -> float:
    """Bytes per second that a copy reads and writes."""
    source, target = torch.ones(2, 4 * PROBE)  # larger than caches
    return 2 * source.nbytes / _median_seconds(lambda: target.copy_(source), 9)


def _sent(communicator: Communicator) -> float:
    """Bytes per second that a rank sends in an all-reduce."""
    tensor = torch.zeros(PROBE)
    sent = 2 * (communicator.size - 1) / communicator.size * tensor.nbytes
    return sent / _median_seconds(lambda: communicator.all_reduce(tensor), 5)


def _median_seconds(work: Callable[[], object], times: int) -> float:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def laws_table(results: dict[str, Any]) -> str:
    """Each measured point next to what the plan and the cost model predict, as Markdown."""
    head = ["varied", "likelihood", "ranks", "items", "users", "events of a user", "candidates"]
    rows = [[*head, "a step, ms", "on a core", "by the model", "peak, MiB", "by the plan"]]
    rates = fit(_measured(results))
    return markdown(rows + [_law(point, rates) for point in results["points"]])


def check_table(results: dict[str, Any]) -> str:
    """Predicted over measured: the least, the median and the most of several points, as Markdown."""
    points = _measured(results)
    rates = fit(points)
    fitted = [point for point in points if point.get("fit")]
    other = [point for point in points if not point.get("fit") and point["ranks"] == 1]
    ranks = [point for point in points if point["ranks"] > 1]
    rows = [["predicted / measured", "points", "least", "median", "most"]]
    for name, some in (("points fitted to", fitted), ("other points of one rank", other), ("two ranks", ranks)):
        ratios = [predicted_seconds(point, rates) / measured_seconds(point) for point in some]
        rows.append(_ratios(f"a step's time, {name}", ratios))
    large = [point for point in points if point["peak_mib"] > 20]  # below, mostly libraries
    rows.append(_ratios("peak memory, by the plan", [point["plan_mib"] / point["peak_mib"] for point in large]))
    return markdown(rows)


def rates_table(results: dict[str, Any]) -> str:
    """The rates of one core, as Markdown."""
    rates, rows = fit(_measured(results)), [["a core does", ""]]
    for kind, (unit, text) in RATES.items():
        rows.append([text, f"{rates[kind] / unit:,.3g}" if kind in rates else "no cost was seen"])
    load = results["load"]
    busy = f"{statistics.median(load):.1f} (up to {max(load):.1f}) of {results['cores']}"
    return markdown([*rows, ["cores that other work kept busy meanwhile", busy]])


def _measured(results: dict[str, Any]) -> list[Point]:
    return [point for point in results["points"] if "seconds" in point]


def _law(point: Point, rates: dict[str, float]) -> list[str]:
    exact, tensor_parallel = point["candidates"] is None, point["share"] == "items"
    ranks = f"{point['ranks']}, {'tensor' if tensor_parallel else 'data'} parallel" if point["ranks"] > 1 else "1"
    sizes = [f"{point[name]:,}" for name in ("items", "users", "length")]
    row = [point["law"], "chunked" if exact else "sampled", ranks, *sizes, "" if exact else f"{point['candidates']:,}"]
    if "seconds" not in point:
        return [*row, "failed" if "failed" in point else "does not fit", *[""] * 4]
    seconds = [min(point["seconds"]), min(point["cpu_seconds"]), predicted_seconds(point, rates)]
    return [*row, *(f"{1000 * s:,.0f}" for s in seconds), *(f"{point[name]:,.0f}" for name in ("peak_mib", "plan_mib"))]


def _ratios(name: str, ratios: list[float]) -> list[str]:
    if not ratios:
        return [name, "0", "", "", ""]
    return [name, str(len(ratios)), *(f"{r:.2f}" for r in (min(ratios), statistics.median(ratios), max(ratios)))]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with recvae.joined("cpu", timeout_s=120) as ranks:
        found = figures(json.loads(sys.argv[1]), ranks)
        if ranks.is_main_process:
            Path(sys.argv[2]).write_text(json.dumps(found))
