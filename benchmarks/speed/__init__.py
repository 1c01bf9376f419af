"""Training and ranking beside other implementations: each case in a process of its own, all in one run, in turns."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from benchmarks.peers import REQUIREMENTS, SCRIPTS, environment
from benchmarks.speed.engines import ALS_FACTORS, ENGINES
from benchmarks.synthetic import ML_20M, synthetic
from recvae import __version__, load_split

SYNTHETIC = "ml-20m-shape"
BATCHES = (500, 2000)
RANKED = {SYNTHETIC: 10_000, "gowalla": 29_858}  # users, whose 100 best items are listed
STEPS = {"textbook": 6, "float32": 8, "bfloat16": 10}


def run_speed(rounds: int, epochs: int, home: Path | None, peers: Path | None) -> dict[str, Any]:
    """Steps and ranking `rounds` times in turns, then epochs on real data, ours and the peers'. -> for JSON

    home : where gowalla and ml-1m are; peers : where the environments of other packages are, or are to be made
    """
    with tempfile.TemporaryDirectory() as folder:
        data = {SYNTHETIC: synthetic(*ML_20M)} | _real(home)
        paths = {name: write_matrix(Path(folder) / f"{name}.npz", matrix) for name, matrix in data.items()}
        cases = [
            {"what": "step", "data": SYNTHETIC, "engine": engine, "batch": batch, "repeats": STEPS[engine]}
            for batch in BATCHES
            for engine in ENGINES
        ]
        cases += [
            {"what": "rank", "data": SYNTHETIC, "engine": engine, "users": RANKED[SYNTHETIC], "repeats": 3}
            for engine in ("recvae", "als")
        ]
        results = run_cases(cases, paths, rounds)
        real = [name for name in data if name != SYNTHETIC]
        cases = [
            {"what": "epoch", "data": name, "engine": engine, "batch": 500, "repeats": epochs}
            for name in real
            for engine in ("float32", "bfloat16")
        ]
        cases += [
            {"what": "rank", "data": name, "engine": "recvae", "users": RANKED[name], "repeats": epochs}
            for name in real
            if name in RANKED
        ]
        results += run_cases(cases, paths, 1)
        others, absent = _peers({name: paths[name] for name in real}, epochs, peers)
    shapes = {name: [*matrix.shape, matrix.nnz] for name, matrix in data.items()}
    return machine() | {"data": shapes, "als_factors": ALS_FACTORS, "cases": results + others, "absent": absent}


def run_cases(cases: list[dict[str, Any]], paths: dict[str, str], rounds: int) -> list[dict[str, Any]]:
    """Each case once in each round, in a new process. -> the cases with their median seconds by round"""
    results = [case | {"seconds": []} for case in cases]
    for number in range(rounds):
        for result, case in zip(results, cases, strict=True):
            found = _in_process([sys.executable, "-m", "benchmarks.speed.case"], case | {"data": paths[case["data"]]})
            one_round = rounds == 1  # then what is repeated within it counts
            result["seconds"] += found["seconds"] if one_round else [statistics.median(found["seconds"])]
            if "mib" in found:
                result["mib"] = max(result.get("mib", 0.0), found["mib"])
            print(f"round {number + 1}", *case.values(), f"{result['seconds'][-1]:.3f} s", flush=True)
    return results


def _in_process(command: list[str], case: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run([*command, json.dumps(case)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{case} failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peers(paths: dict[str, str], epochs: int, home: Path | None) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Epochs of other packages on real data; and which could not be had, and why."""
    results: list[dict[str, Any]] = []
    absent: dict[str, str] = {}
    for peer, (script, _) in REQUIREMENTS.items():
        python = "no folder for its environment was given" if home is None else environment(peer, home)
        if isinstance(python, str):
            absent[peer] = python
            continue
        for name, path in paths.items():
            command = [str(python), str(SCRIPTS / script), path, "500", str(epochs)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=tempfile.gettempdir())
            if done.returncode:
                absent[peer] = done.stderr.strip().splitlines()[-1].split("/")[-1]
                break
            seconds = json.loads(done.stdout.splitlines()[-1])["seconds"]
            results.append({"what": "epoch", "data": name, "engine": peer, "batch": 500, "seconds": seconds})
            print(peer, name, seconds, flush=True)
    return results, absent


def _real(home: Path | None) -> dict[str, sparse.csr_matrix]:
    """Training rows of gowalla and ml-1m, where they are to be found."""
    if home is None and "RECVAE_DATA" not in os.environ:
        return {}
    return {name: load_split(name, home).train.matrix for name in ("gowalla", "ml-1m")}


def write_matrix(path: Path, matrix: sparse.csr_matrix) -> str:
    """As the cases read it. -> its path"""
    sparse.save_npz(path, sparse.csr_matrix(matrix), compressed=False)
    return str(path)


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "recvae": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
    }
