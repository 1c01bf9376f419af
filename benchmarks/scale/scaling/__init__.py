"""How a step's time and memory grow with items, users, events, candidates and ranks, beside what is foretold."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.scale.scaling.check import foretold
from benchmarks.speed import Save, machine

Point = dict[str, Any]
ROOT = Path(__file__).parents[3]
TIMEOUT_S = 120.0  # of a point; the slowest takes some 20 s
BASE: Point = {
    "items": 100_000,
    "users": 5_000,
    "length": 100,
    "candidates": 4096,
    "batch": 500,
    "width": 128,
    "ranks": 1,
    "share": "users",
    "budget": 1.5,
}
EXACT: Point = {"candidates": None, "budget": 3.0}
# what is varied -> the settings, beside BASE; `fit` marks those that the rates of the machine are fitted to
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
SMALLER = {"items": 100, "users": 20, "length": 5, "candidates": 100, "batch": 10, "width": 16, "budget": 50}


def points(quick: bool) -> list[Point]:
    """The points to measure; `quick` ones are so small that only that they run can be seen."""
    every = [BASE | point for point in POINTS]
    return [point | _smaller(point) for point in every] if quick else every


def _smaller(point: Point) -> Point:
    return {name: type(point[name])(point[name] / part) for name, part in SMALLER.items() if point[name] is not None}


def run_scaling(quick: bool, save: Save) -> dict[str, Any]:
    """Each point in processes of its own, saved as soon as it is measured. -> results for JSON

    A point that fails, or for which there is no room, is recorded as such, and the others go on.
    """
    results: dict[str, Any] = machine() | {
        "threads": 1,
        "cores": os.cpu_count(),
        "memory_gib": psutil.virtual_memory().total / 2**30,
        "quick": quick,
        "load": [],  # of other work, before each group of points: processes that run or wait
        "points": [],
    }
    for group in _groups(points(quick), quick):
        results["load"].append(_others())
        for point, found in zip(group, measured(group), strict=True):
            results["points"].append(point | found)
            print(
                *(f"{name} {point[name]}" for name in ("law", "items", "users", "length", "candidates", "ranks")),
                end=": ",
            )
            print(_said(found), flush=True)
        save(results)
    results = foretold(results)
    save(results)
    return results


def _others() -> float:
    """Cores' worth of work that the machine does meanwhile, looked at for a moment."""
    return psutil.cpu_percent(0.3) / 100 * (os.cpu_count() or 1)


def _said(found: dict[str, Any]) -> str:
    if "seconds" not in found:
        return str(found.get("refused") or found["failed"])
    own, wall = (1000 * min(found[name]) for name in ("cpu_seconds", "seconds"))
    return f"{own:,.0f} of {wall:,.0f} ms, {found['peak_mib']:,.0f} MiB"


def _groups(all_points: list[Point], quick: bool) -> Iterator[list[Point]]:
    """Those that share processes: none; or, quickly, all of as many ranks."""
    if not quick:
        yield from ([point] for point in all_points)
        return
    for ranks in sorted({point["ranks"] for point in all_points}):
        yield [point for point in all_points if point["ranks"] == ranks]


def measured(group: list[Point]) -> list[dict[str, Any]]:
    """What processes of as many ranks as the points ask for find; or, if twice they did not end well, that."""
    found = _tried(group)
    return _tried(group) if "failed" in found[0] else found


def _tried(group: list[Point]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.scale.scaling.case", json.dumps(group)]
    size, port = group[0]["ranks"], _free_port()
    ranks = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=_environment(rank, size, port),
        )
        for rank in range(size)
    ]
    ended = time.monotonic() + TIMEOUT_S
    try:
        said = [rank.communicate(timeout=max(1.0, ended - time.monotonic())) for rank in ranks]
    except subprocess.TimeoutExpired:
        return [{"failed": f"not done after {TIMEOUT_S:.0f} s"}] * len(group)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    wrong = [error for rank, (_, error) in zip(ranks, said, strict=True) if rank.returncode]
    if wrong:
        return [{"failed": (wrong[0].strip().splitlines() or ["killed"])[-1]}] * len(group)
    found: list[dict[str, Any]] = json.loads(said[0][0].splitlines()[-1])
    return found


def _environment(rank: int, size: int, port: int) -> dict[str, str]:
    """That of a rank, with one thread; alone, there is no communicator."""
    own = dict(os.environ) | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if size == 1:
        return own
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    return own | {name: str(value) for name, value in numbers.items()} | {"MASTER_ADDR": "localhost"}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port: int = found.getsockname()[1]
        return port
