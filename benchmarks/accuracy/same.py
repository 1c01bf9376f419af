"""Two checkouts: the same seed gives the same weights and lists bit for bit, and each reads the other's files.

For changes that must not change results, such as a refactoring. Tasks on the sample are timed in turns by two living
processes, which a noisy machine disturbs alike; `paired` compares seconds on real data.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("same_fits.py")
RANKS = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def run_same(before: Path, after: Path, threads: int = 1, turns: int = 25) -> dict[str, Any]:
    """Fit every model in both checkouts, load each other's files, compare digests and seconds. -> for JSON"""
    sides = {"before": before.resolve(), "after": after.resolve()}
    with tempfile.TemporaryDirectory() as name:
        folders = {side: Path(name, side) for side in sides}
        for folder in folders.values():
            folder.mkdir()
        fits = {side: _digests(sides[side], [str(SCRIPT), "fit", str(folders[side])], threads) for side in sides}
        read = {
            f"{reader} reads {writer}": _digests(sides[reader], [str(SCRIPT), "load", str(folders[writer])], threads)
            for reader, writer in (("before", "after"), ("after", "before"))
        }
        ranks = {side: _digests(sides[side], [*RANKS, str(SCRIPT), "ranks"], threads) for side in sides}
    rows = {what: fits["after"].get(what) == digest for what, digest in fits["before"].items()}
    rows |= {what: ranks["after"].get(what) == digest for what, digest in ranks["before"].items()}
    for direction, digests in read.items():
        rows |= {f"{direction}: {what}": fits["before"][what] == digest for what, digest in digests.items()}
    different = [what for what, same in rows.items() if not same]
    ratios = seconds_in_turns(sides, threads, turns)
    return {"threads": threads, "compared": len(rows), "different": different, "turns": turns, "seconds": ratios}


def seconds_in_turns(sides: dict[str, Path], threads: int, turns: int) -> dict[str, dict[str, float]]:
    """Each task by both sides, in turns the one first or the other. -> medians of seconds, and of the turns' ratios"""
    processes = {side: _start(checkout, [str(SCRIPT), "seconds"], threads) for side, checkout in sides.items()}
    tasks, _ = (json.loads(_line(process)) for process in processes.values())  # both have the same
    rows: dict[str, dict[str, float]] = {}
    for task in tasks if turns else ():
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(turns):
            for side in list(sides)[:: 1 if turn % 2 else -1]:
                print(task, file=processes[side].stdin, flush=True)
                seconds[side].append(float(_line(processes[side])))
        pairs = zip(seconds["before"], seconds["after"], strict=True)
        ratio = statistics.median(after / before for before, after in pairs)
        rows[task] = {side: statistics.median(values) for side, values in seconds.items()} | {"ratio": ratio}
    for process in processes.values():
        process.communicate()  # closes its input, and so ends it
    return rows


def _start(checkout: Path, arguments: list[str], threads: int) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads)}
    pipe, command = subprocess.PIPE, [sys.executable, *arguments]
    return subprocess.Popen(command, env=environment, cwd=checkout, stdin=pipe, stdout=pipe, text=True)


def _line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise SystemExit("Expected a line from a process that times tasks, and it ended; see its error above.")
    return line


def _digests(checkout: Path, arguments: list[str], threads: int) -> dict[str, str]:
    """Digests that the script prints in a process that imports recvae from a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True)
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not Path(printed["from"]).is_relative_to(checkout):
        raise SystemExit(f"Expected recvae in the checkout {checkout}, and it was imported from elsewhere.")
    digests: dict[str, str] = printed["digests"]
    return digests
