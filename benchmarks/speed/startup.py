"""Seconds until a command has answered, and what an environment takes on disk, by distribution."""

from __future__ import annotations

import importlib.metadata
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages.markdown import markdown
from benchmarks.speed import machine
from recvae import EASE, Interactions
from recvae.errors import InvalidParameterError

USERS, ITEMS, EVENTS = 200, 100, 15  # of the small file: 15 events of each user
LARGEST = 10  # distributions that are listed
RECVAE = ("-m", "recvae")
# what is timed: the arguments of Python; FOLDER has a model and a file of events
COMMANDS = {
    "python": ("-c", "pass"),
    "import recvae": ("-c", "import recvae"),
    "recvae --help": (*RECVAE, "--help"),
    "recvae train --help": (*RECVAE, "train", "--help"),
    "recvae datasets": (*RECVAE, "datasets"),
    "recvae recommend": (
        *(*RECVAE, "recommend", "FOLDER/ease.recvae", "--input", "FOLDER/events.csv", "--out", "FOLDER/top10.csv"),
    ),
    "import torch": ("-c", "import torch"),  # for comparison
}
Results = dict[str, Any]


def run_startup(rounds: int, venv: Path | None, save: Callable[[Results], None]) -> Results:
    """Time each command once in each of `rounds`, in turns, after one that is not counted. -> for JSON

    `ratio` is the median over rounds of the wall seconds, divided by those of an empty Python in the same round; a busy
    machine slows both. With `venv`, its size is part of the results.
    """
    if rounds < 5:
        raise InvalidParameterError(f"Expected at least 5 rounds, for a median, got {rounds}.")
    with tempfile.TemporaryDirectory() as folder:
        _write_inputs(Path(folder))
        runs = [_round(Path(folder)) for _ in range(rounds + 1)][1:]
    cases = {
        name: {
            "wall_s": statistics.median(run[name][0] for run in runs),
            "cpu_s": statistics.median(run[name][1] for run in runs),
            "ratio": statistics.median(run[name][0] / run["python"][0] for run in runs),
        }
        for name in COMMANDS
    }
    results = machine() | {"rounds": rounds, "cases": cases}
    if venv is not None:
        results["installation"] = sizes(venv)
    save(results)
    return results


def _write_inputs(folder: Path) -> None:
    """A small file of events, and an EASE fitted on it."""
    random = np.random.default_rng(0)
    lines = [f"{user},{item}" for user in range(USERS) for item in random.choice(ITEMS, EVENTS, replace=False)]
    (folder / "events.csv").write_text("\n".join(["user,item", *lines]) + "\n", encoding="utf-8")
    EASE().fit(Interactions.read(folder / "events.csv")).save(folder / "ease.recvae")


def _round(folder: Path) -> dict[str, tuple[float, float]]:
    """Run each command once. -> wall and CPU seconds of the whole process, by command"""
    seconds = {}
    for name, arguments in COMMANDS.items():
        command = [sys.executable, *(argument.replace("FOLDER", str(folder)) for argument in arguments)]
        used, started = _cpu(), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds[name] = time.perf_counter() - started, _cpu() - used
    return seconds


def _cpu() -> float:
    """CPU seconds of all processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def sizes(venv: Path) -> Results:
    """Bytes on disk of a virtual environment, and of its largest distributions, compiled modules included.

    Raises
    ------
    InvalidParameterError
        If the folder is no virtual environment.
    """
    folders = [str(path) for path in venv.glob("lib*/python*/site-packages") if not path.parent.parent.is_symlink()]
    if not folders:
        raise InvalidParameterError(f"Expected a virtual environment, with site-packages, in {venv}; make one first.")
    by_name = {
        distribution.metadata["Name"]: _on_disk(
            Path(str(distribution.locate_file(file))) for file in distribution.files or ()
        )
        for distribution in importlib.metadata.distributions(path=folders)
    }
    largest = sorted(by_name.items(), key=lambda pair: -pair[1])[:LARGEST]
    total = _on_disk(Path(folder) / name for folder, _, names in os.walk(venv) for name in names)
    return {"bytes": total, "distributions": len(by_name), "largest": dict(largest)}


def _on_disk(files: Iterable[Path]) -> int:
    """Bytes that files take on disk, with the compiled form of modules; each file once, missing ones not."""
    listed = set(files)
    listed |= {Path(cache_from_source(str(file))) for file in listed if file.suffix == ".py"}
    return sum(512 * file.lstat().st_blocks for file in listed if file.is_file() or file.is_symlink())


def startup_table(results: Results) -> str:
    """Seconds of the commands, as Markdown."""
    rows = [["command", "s", "CPU s", "times an empty Python"]]
    for name, case in results["cases"].items():
        rows.append([f"`{name}`", f"{case['wall_s']:.2f}", f"{case['cpu_s']:.2f}", f"{case['ratio']:.1f}"])
    return markdown(rows)


def installation_table(results: Results) -> str:
    """The largest distributions of the environment, as Markdown."""
    found = results["installation"]
    rows = [["distribution", "MB"], *([name, f"{size / 1e6:,.0f}"] for name, size in found["largest"].items())]
    return markdown([*rows, [f"all {found['distributions']}, and Python's own files", f"{found['bytes'] / 1e6:,.0f}"]])


def show(results: Results) -> str:
    """The tables, for the terminal."""
    tables = [startup_table(results)]
    if "installation" in results:
        tables.append(installation_table(results))
    return "\n\n".join(tables)
