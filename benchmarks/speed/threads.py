"""Threads: fits and ranking on one and on all cores, alone, next to a busy process, and with a share of a core."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.pages.markdown import markdown
from benchmarks.speed import machine, write_matrix
from benchmarks.speed.synthetic import ML_20M, synthetic
from recvae import load_split
from recvae.errors import UnknownNameError

# another process: products in one thread, on one core or on any, all the time or two seconds on and two off
NEIGHBOUR = """
import os, sys, time
import numpy as np
core, pause = sys.argv[1], float(sys.argv[2])
if core:
    os.sched_setaffinity(0, {int(core)})
a = np.ones((512, 512), dtype=np.float32)
a @ a
print("busy", flush=True)
started = time.monotonic()
while True:
    a @ a
    if pause and time.monotonic() - started > pause:
        time.sleep(pause)
        started = time.monotonic()
"""
SCRIPT = Path(__file__).with_name("threads_case.py")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
EPOCHS = {"MultVAE": 10, "RecVAE": 3, "HybridVAE": 2}
RANKED = 10_000
PERIOD = "100000"  # microseconds
Case = dict[str, Any]

# rows of the result: what stands next to the process, and which two cases make its ratio, the first over the second
ONE, ALL, QUOTA, AFTER, TOGETHER = "one thread", "default", "quota", "one after the other", "together"
SITUATIONS: dict[str, tuple[str, str, str]] = {
    "quiet": ("", ONE, ALL),
    "neighbour on a core": ("pinned", ALL, ONE),
    "neighbour on any core": ("unpinned", ALL, ONE),
    "neighbour that comes and goes": ("comes and goes", ALL, ONE),
    "two fits": ("", TOGETHER, AFTER),
    "quota of a core": ("", QUOTA, ONE),
}
RANKINGS = {"quiet": "", "neighbour on a core": "pinned"}


def rows() -> list[dict[str, Any]]:
    """What is measured: names, neighbours, and the two cases of each ratio."""
    found = []
    for model in EPOCHS:
        for situation, (neighbour, *cases) in SITUATIONS.items():
            found.append({"name": f"{model}, {situation}", "model": model, "neighbour": neighbour, "cases": cases})
    for situation, neighbour in RANKINGS.items():
        found.append({"name": f"ranking, {situation}", "neighbour": neighbour, "cases": ["als", "recvae"]})
    return found


def run_threads(
    home: Path | None,
    rounds: int,
    only: Sequence[str],
    save: Callable[[dict[str, Any]], None],
    quick: bool = False,
) -> dict[str, Any]:
    """Measure each row once in each round, its two cases in alternating order. -> for JSON

    only : names of rows, or their beginnings. quick : tiny data, to see that all works
    """
    chosen = [row for row in rows() if not only or any(row["name"].startswith(name) for name in only)]
    if not chosen:
        raise UnknownNameError.among("row", only[0], [row["name"] for row in rows()])
    results: dict[str, Any] = machine() | {"load": os.getloadavg()[0], "epochs": EPOCHS, "quick": quick}
    measured = [row | {"seconds": {case: [] for case in row["cases"]}, "digests": {}} for row in chosen]
    with tempfile.TemporaryDirectory() as folder, one_core() as (limited, how):
        results["quota_by"] = how
        paths = _data(Path(folder), home, chosen, quick)
        for number in range(rounds):
            for row in measured:
                for name in row["cases"][:: 1 if number % 2 else -1]:
                    found = _measure(row, name, paths, limited, quick)
                    row["seconds"][name].append(found["seconds"])
                    row["digests"].setdefault(name, []).extend(found["digests"])
                    print(f"round {number + 1}", row["name"], name, f"{found['seconds']:.3f} s", flush=True)
            save(results | _summary(measured))
    return results | _summary(measured)


def _data(folder: Path, home: Path | None, chosen: list[dict[str, Any]], quick: bool) -> dict[str, str]:
    """The files of the data that the rows need: of fits, and of ranking."""
    paths = {}
    if any("model" in row for row in chosen):
        matrix = synthetic(300, 200, 3000) if quick else load_split("ml-1m", home).train.matrix
        paths["fit"] = write_matrix(folder / "fit.npz", matrix)
    if any("model" not in row for row in chosen):
        paths["rank"] = write_matrix(folder / "rank.npz", synthetic(*((300, 200, 3000) if quick else ML_20M)))
    return paths


def _measure(row: dict[str, Any], name: str, paths: dict[str, str], limited: list[str], quick: bool) -> dict[str, Any]:
    """One case: its processes get ready, the neighbour begins, they start on a signal. -> seconds, digests"""
    if "model" in row:
        epochs = 1 if quick else EPOCHS[row["model"]]
        case: Case = {"what": "fit", "data": paths["fit"], "model": row["model"], "epochs": epochs}
    else:
        case = {"what": "rank", "data": paths["rank"], "engine": name, "users": 100 if quick else RANKED}
    threads = 1 if name == ONE else None
    n = 2 if name in (TOGETHER, AFTER) else 1
    processes = [_start(case, threads, limited if name == QUOTA else []) for _ in range(n)]
    try:
        with neighbour(row["neighbour"]):
            started = time.perf_counter()
            if name == TOGETHER:
                for process in processes:
                    _go(process)
                found = [_result(process) for process in processes]
            else:
                found = [_result(_go(process)) for process in processes]
            seconds = time.perf_counter() - started
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    # of two fits all the time counts, of others that of the work
    return {
        "seconds": seconds if n == 2 else found[0]["seconds"],
        "digests": [each["digest"] for each in found if "digest" in each],
    }


def _start(case: Case, threads: int | None, prefix: list[str]) -> subprocess.Popen[str]:
    """Start the process of a case, and wait until it is ready."""
    environment = {name: value for name, value in os.environ.items() if name not in THREADS}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    environment["PYTHONPATH"] = os.pathsep.join([str(SCRIPT.parents[2]), *filter(None, [os.getenv("PYTHONPATH")])])
    command = [*prefix, sys.executable, "-P", str(SCRIPT), json.dumps(case)]  # a script, which starts sooner
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if _line(process) != "ready":
        process.kill()
        raise SystemExit(f"Expected the process of {case} to get ready, and it ended; see its error above.")
    return process


def _go(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    print(file=process.stdin, flush=True)
    return process


def _result(process: subprocess.Popen[str]) -> dict[str, Any]:
    line = _line(process)
    if not line:
        raise SystemExit("Expected figures from a process, and it ended; see its error above.")
    found: dict[str, Any] = json.loads(line)
    return found


def _line(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip() if process.stdout else ""


@contextmanager
def neighbour(kind: str) -> Iterator[None]:
    """Another busy process: "pinned" to the last core, "unpinned" or one that "comes and goes"; "" for none."""
    if not kind:
        yield
        return
    core = str(max(os.sched_getaffinity(0))) if kind == "pinned" else ""
    command = [sys.executable, "-c", NEIGHBOUR, core, "2" if kind == "comes and goes" else "0"]
    environment = os.environ | dict.fromkeys(THREADS, "1")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        _line(process)
        yield
    finally:
        process.kill()
        process.communicate()


@contextmanager
def one_core() -> Iterator[tuple[list[str], str]]:
    """A command before another one that limits it to the time of one core, and how it does so.

    By a control group with a quota, which is removed at the end; where none can be made, by affinity to one core.
    """
    group = _limited_group()
    if group is None:
        yield ["taskset", "-c", str(min(os.sched_getaffinity(0)))], "taskset"
        return
    try:
        yield ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")], "control group"
    finally:
        group.rmdir()


def _limited_group() -> Path | None:
    """A new control group with a quota of one core, of version 1 or 2; None where none can be made."""
    for parent in (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")):
        group = parent / f"recvae-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
            if (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_period_us").write_text(PERIOD, encoding="ascii")
                (group / "cpu.cfs_quota_us").write_text(PERIOD, encoding="ascii")
                return group
            if (group / "cpu.max").exists():
                (group / "cpu.max").write_text(f"{PERIOD} {PERIOD}", encoding="ascii")
                return group
        with suppress(OSError):
            group.rmdir()
    return None


def _summary(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows with the ratio of each round and their median; whether all fits of a model have the same weights."""
    digests: dict[str, set[str]] = {}
    for row in measured:
        if "model" in row:
            digests.setdefault(row["model"], set()).update(*row["digests"].values())
    rows_ = []
    for row in measured:
        above, below = (row["seconds"][case] for case in row["cases"])
        ratios = [a / b for a, b in zip(above, below, strict=True)]
        rows_.append(row | {"ratios": ratios, "ratio": statistics.median(ratios)})
    return {"rows": rows_, "same_weights": {model: len(found) == 1 for model, found in digests.items()}}


def threads_table(results: dict[str, Any]) -> str:
    """Medians of seconds and of the rounds' ratios, as Markdown."""
    table = [["", "", "s", "", "s", "ratio"]]
    for row in results["rows"]:
        cells = [row["name"]]
        for case in row["cases"]:
            cells += [case, f"{statistics.median(row['seconds'][case]):.2f}"]
        table.append([*cells, f"{row['ratio']:.2f}"])
    same = [f"{model} {'the same' if equal else 'different'}" for model, equal in results["same_weights"].items()]
    weights = f"\n\nWeights of all fits, bit for bit: {', '.join(same)}." if same else ""
    return f"{markdown(table)}{weights}"
