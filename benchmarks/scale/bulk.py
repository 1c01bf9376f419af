"""Recommending to very many users from Parquet to Parquet: seconds, peak memory, and a run that is killed half-way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from scipy import sparse

from benchmarks.pages.markdown import markdown
from benchmarks.scale.measured import COMMAND
from benchmarks.speed import machine
from benchmarks.speed.synthetic import ML_20M, synthetic
from recvae import Interactions, MultVAE, load_dataset

CHUNK = 10_000  # users written at a time
WIDE = 20_000  # items
N = 10


def run_bulk(
    home: Path | None, n_users: int, n_wide_users: int, users_per_part: int | None, work: Path | None
) -> dict[str, Any]:
    """Users drawn from ml-1m's, and random ones with a wide catalogue, each with a MultVAE. -> results for JSON

    work : folder on a disk with room for input, output and temporary files of the sort; the system's by default
    """
    data = load_dataset("ml-1m", home)
    drawn = _case(data, 3, partial(write_drawn, data=data, n_users=n_users), users_per_part, work)
    wide = synthetic(n_wide_users, WIDE, round(n_wide_users * ML_20M[2] / ML_20M[0]))
    few = Interactions.from_matrix(wide[:CHUNK])
    random = _case(few, 1, partial(write_rows, parts=chunks(wide)), users_per_part, work)
    names = ("users drawn from those of ml-1m", "random users at a wide catalogue")
    cases = [{"what": name} | case for name, case in zip(names, (drawn, random), strict=True)]
    return machine() | {"N": N, "cases": cases}


def bulk_table(results: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    head = ["", "users", "items", "events", "s", "users/s", "peak, MiB", "resumed after a kill"]
    rows = [head]
    for case in results["cases"]:
        sizes = [f"{case[name]:,}" for name in ("users", "items", "events")]
        cost = [f"{case[name]:,.0f}" for name in ("seconds", "users_per_second")]
        peak = f"{max(case['peak_mib'], case['rest_peak_mib']):,.0f}"
        again = f"{'the same' if case['equal'] else 'another'} output, {case['rest_seconds']:,.0f} s more"
        rows.append([case["what"], *sizes, *cost, peak, again])
    return markdown(rows)


def _case(
    train: Interactions,
    epochs: int,
    write: Callable[[Path], dict[str, int]],
    users_per_part: int | None,
    work: Path | None,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=work) as folder:
        place = Path(folder)
        MultVAE(epochs=epochs, random_state=0).fit(train).save(place / "model")
        sizes = write(place / "events.parquet")
        each = users_per_part or max(1, min(50_000, sizes["users"] // 8))
        return sizes | {"items": train.n_items} | _measure(place, sizes["users"], each)


def chunks(rows: sparse.csr_matrix) -> Iterator[sparse.csr_matrix]:
    """Blocks of CHUNK rows."""
    return (rows[start : start + CHUNK] for start in range(0, rows.shape[0], CHUNK))


def write_drawn(path: Path, data: Interactions, n_users: int, seed: int = 0) -> dict[str, int]:
    """Write new users, each with a random half or more of the events of a real one. -> sizes"""
    random = np.random.default_rng(seed)

    def drawn() -> Iterator[sparse.csr_matrix]:
        for start in range(0, n_users, CHUNK):
            rows = data.matrix[random.integers(0, data.n_users, min(CHUNK, n_users - start))]
            share = np.repeat(random.uniform(0.5, 1, rows.shape[0]), np.diff(rows.indptr))
            kept = random.random(rows.nnz) < share
            kept[rows.indptr[:-1]] = True  # no user is left without events
            indptr = np.concatenate([[0], np.cumsum(kept)])[rows.indptr]
            yield sparse.csr_matrix((rows.data[kept], rows.indices[kept], indptr), rows.shape)

    return write_rows(path, drawn(), data.item_ids)


def write_rows(path: Path, parts: Iterator[sparse.csr_matrix], item_ids: Any = None, seed: int = 1) -> dict[str, int]:
    """Write events to Parquet, shuffled within each part; ids of users are scattered. -> sizes"""
    random = np.random.default_rng(seed)
    n_users = n_events = 0
    with pyarrow.parquet.ParquetWriter(path, pa.schema({"user": pa.int64(), "item": pa.int64()})) as writer:
        for rows in parts:
            order = random.permutation(rows.nnz)
            users = np.repeat(n_users + np.arange(rows.shape[0]), np.diff(rows.indptr))[order]
            items = rows.indices[order] if item_ids is None else item_ids[rows.indices[order]]
            # an odd multiplier permutes 32-bit integers
            names = (users * 2_654_435_761) % 2**32
            writer.write_table(pa.table({"user": names, "item": np.asarray(items, dtype=np.int64)}))
            n_users, n_events = n_users + rows.shape[0], n_events + rows.nnz
    return {"users": n_users, "events": n_events, "input_mib": path.stat().st_size >> 20}


def _measure(place: Path, n_users: int, users_per_part: int) -> dict[str, Any]:
    """Measure an uninterrupted run, and one that is killed half-way and resumed."""
    n_parts = -(-n_users // users_per_part)
    whole, broken = place / "whole", place / "broken"
    first = _finish(_start(place, whole, users_per_part))
    killed = _start(place, broken, users_per_part)
    n_there = _kill_after(killed, broken, max(1, n_parts // 2))
    rest = _finish(_start(place, broken, users_per_part))
    digests, others = _digests(whole), _digests(broken)
    size = sum((whole / name).stat().st_size for name in digests)
    return {
        "users_per_part": users_per_part,
        "parts": n_parts,
        "output_mib": size >> 20,
        "seconds": first["seconds"],
        "users_per_second": n_users / first["seconds"],
        "peak_mib": first["peak_mib"],
        "killed_after_parts": n_there,
        "rest_seconds": rest["seconds"],
        "rest_peak_mib": rest["peak_mib"],
        "equal": digests == others and len(digests) == n_parts + 1,
    }


def _start(place: Path, out: Path, users_per_part: int) -> subprocess.Popen[str]:
    arguments = ["recommend", str(place / "model"), "--input", str(place / "events.parquet"), "-N", str(N)]
    arguments += ["--out", f"{out}/", "--users-per-part", str(users_per_part)]
    return subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> dict[str, float]:
    printed, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"Expected the command to end well, got status {process.returncode}.")
    found: dict[str, float] = json.loads(printed)
    return found


def _kill_after(process: subprocess.Popen[str], out: Path, n_parts: int) -> int:
    """Kill the process once `n_parts` parts are written. -> number of parts after the kill"""
    while process.poll() is None and len(list(out.glob("part-*"))) < n_parts:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise SystemExit("Expected to kill the command before its end: take more parts.")
    process.communicate()
    return len(list(out.glob("part-*")))


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
