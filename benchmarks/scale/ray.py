"""Recommending to very many users on Ray against one process: seconds, memory of all processes, an actor killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet

from benchmarks.pages.markdown import markdown
from benchmarks.scale.bulk import write_drawn
from benchmarks.speed import machine
from recvae import MultVAE, load_dataset
from recvae.utils.folder import SCRATCH

N = 10
ACTORS = 2


@dataclass
class Watched:
    """A finished command: seconds, and the peak memory of it and its children together, in MiB.

    killed_after : parts that were written when an actor was killed; None if none was
    """

    seconds: float
    peak_mib: float
    killed_after: int | None


def run_ray(home: Path | None, n_users: int, users_per_part: int | None, work: Path | None) -> dict[str, Any]:
    """Users drawn from ml-1m's, by one process, by Ray, and by Ray with an actor killed on the way. -> JSON

    work : folder on a disk with room for input and output; the system's by default
    """
    data = load_dataset("ml-1m", home)
    each = users_per_part or max(1, min(50_000, n_users // 8))
    with tempfile.TemporaryDirectory(dir=work) as folder:
        place = Path(folder)
        MultVAE(epochs=3, random_state=0).fit(data).save(place / "model")
        sizes = write_drawn(place / "events.parquet", data, n_users)
        on_ray = ["--engine", "ray", "--actors", str(ACTORS)]
        ways = {"one process": ([], False), "Ray": (on_ray, False), "Ray, an actor killed on the way": (on_ray, True)}
        runs = []
        for number, (way, (flags, kills)) in enumerate(ways.items()):
            out = place / str(number)
            watched = _watch(_start(place, out, each, flags), out, max(1, n_users // each // 4) if kills else None)
            runs.append({"way": way} | vars(watched) | unlike(place / "0", out))
        same_bytes = _names(place / "1") == _names(place / "2")
    return (
        machine()
        | sizes
        | {"N": N, "actors": ACTORS, "users_per_part": each, "runs": runs, "killed_run_same_bytes": same_bytes}
    )


def ray_table(results: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    rows = [[f"{results['users']:,} users, {results['events']:,} events", "s", "users/s", "peak, MiB", "other lists"]]
    for run in results["runs"]:
        rate, others = results["users"] / run["seconds"], f"{run['users_unlike']:,} users"
        other = "" if run["way"] == "one process" else others
        rows.append([run["way"], f"{run['seconds']:,.0f}", f"{rate:,.0f}", f"{run['peak_mib']:,.0f}", other])
    return markdown(rows)


def unlike(folder: Path, other: Path) -> dict[str, float]:
    """Number of users whose lists differ between two folders, and the largest relative differences of scores.

    Scores are compared rank by rank: where items swapped ranks because their scores are nearly equal, the scores at
    each rank still are.
    """
    first, second = (_lists(each) for each in (folder, other))
    if not first["user"].equals(second["user"]) or not first["rank"].equals(second["rank"]):
        raise SystemExit("Expected lists of the same length for the same users.")
    differs = first["item"].to_numpy() != second["item"].to_numpy()
    scores, other_scores = (each["score"].to_numpy().astype(np.float64) for each in (first, second))
    gaps = np.abs(scores - other_scores) / np.maximum(np.abs(scores), 1e-9)
    return {
        "users_unlike": len(np.unique(first["user"].to_numpy()[differs])),
        "largest_score_gap": float(gaps.max()),
        "largest_score_gap_where_unlike": float(gaps[differs].max(initial=0.0)),
    }


def _lists(folder: Path) -> pa.Table:
    table = pyarrow.parquet.read_table(folder, columns=["user", "rank", "item", "score"])
    return table.sort_by([("user", "ascending"), ("rank", "ascending")]).combine_chunks()


def _names(folder: Path) -> list[str]:
    """Lines of the manifest, which has the checksum of each part."""
    return (folder / "_manifest.json").read_text(encoding="utf-8").splitlines()


def _start(place: Path, out: Path, users_per_part: int, flags: list[str]) -> subprocess.Popen[bytes]:
    arguments = ["recommend", str(place / "model"), "--input", str(place / "events.parquet"), "-N", str(N)]
    arguments += ["--out", f"{out}/", "--users-per-part", str(users_per_part), *flags]
    return subprocess.Popen([sys.executable, "-m", "recvae", *arguments], stdout=sys.stderr)


def _watch(process: subprocess.Popen[bytes], out: Path, kill_at: int | None) -> Watched:
    """Wait for a command; kill an actor once `kill_at` parts are written."""
    started, peak, killed_after = time.perf_counter(), 0.0, None
    while process.poll() is None:
        family = _family(process.pid)
        peak = max(peak, sum(_own_mib(each) for each in family))
        n_parts = len(list((out / SCRATCH / "parts").glob("*.parquet")))
        if kill_at is not None and killed_after is None and n_parts >= kill_at:
            killed_after = n_parts if _kill_one(family) else None
        time.sleep(0.1)
    if process.returncode != 0:
        raise SystemExit(f"Expected the command to end well, got status {process.returncode}.")
    if kill_at is not None and killed_after is None:
        raise SystemExit("Expected to kill an actor before the end: take more parts.")
    return Watched(time.perf_counter() - started, peak, killed_after)


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _own_mib(process: psutil.Process) -> float:
    """Resident memory in MiB; shared memory, such as Ray's object store, is divided among the processes (PSS)."""
    try:
        return process.memory_full_info().pss / 2**20
    except psutil.Error:
        return 0.0


def _kill_one(family: list[psutil.Process]) -> bool:
    for process in family:
        try:
            if "PartActor" in " ".join(process.cmdline()):
                os.kill(process.pid, signal.SIGKILL)
                return True
        except (psutil.Error, ProcessLookupError):
            continue
    return False
