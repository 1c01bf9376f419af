"""Training and ranking against other implementations, each case in a separate process."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from benchmarks.accuracy.peers import REQUIREMENTS, SCRIPTS, environment
from benchmarks.speed.engines import ALS_FACTORS, ENGINES
from benchmarks.speed.synthetic import ML_20M, synthetic
from recvae import __version__, load_split

SYNTHETIC = "ml-20m-shape"
BATCHES = (500, 2000)
RANKED = {SYNTHETIC: 10_000, "gowalla": 29_858}  # users, each with a list of 100 items
TIMED_PEERS = ("RecBole MultiVAE", "Cornac VAECF")
STEPS = {"textbook": 6, "textbook-autocast": 6, "float32": 8, "bfloat16": 10}
Case = dict[str, Any]
Save = Callable[[dict[str, Any]], None]  # takes the results so far


def run_speed(rounds: int, save: Save) -> None:
    """Time steps and ranking on random data of ML-20M's shape, interleaved: each case once in each round."""
    matrix = synthetic(*ML_20M)
    cases: list[Case] = [
        {"what": "step", "data": SYNTHETIC, "engine": engine, "batch": batch, "repeats": STEPS[engine]}
        for batch in BATCHES
        for engine in ENGINES
    ]
    cases += [
        {"what": "rank", "data": SYNTHETIC, "engine": engine, "users": RANKED[SYNTHETIC], "repeats": 3}
        for engine in ("recvae", "als")
    ]
    about = machine() | {"data": {SYNTHETIC: [*matrix.shape, matrix.nnz]}, "als_factors": ALS_FACTORS}
    with tempfile.TemporaryDirectory() as folder:
        paths = {SYNTHETIC: write_matrix(Path(folder) / "data.npz", matrix)}
        run_cases(cases, paths, rounds, lambda results: save(about | {"cases": results}))


def run_rounds(rounds: int, home: Path | None, save: Save) -> None:
    """Time RecVAE's rounds on ml-1m, ours and those of dense code, interleaved."""
    matrix = load_split("ml-1m", home).train.matrix
    cases: list[Case] = [
        {"what": "round", "data": "ml-1m", "engine": engine, "batch": 500, "repeats": 3}
        for engine in ("textbook", "float32", "bfloat16")
    ]
    about = machine() | {"data": {"ml-1m": [*matrix.shape, matrix.nnz]}}
    with tempfile.TemporaryDirectory() as folder:
        paths = {"ml-1m": write_matrix(Path(folder) / "data.npz", matrix)}
        run_cases(cases, paths, rounds, lambda results: save(about | {"cases": results}))


def run_epochs(epochs: int, home: Path | None, peers: Path | None, save: Save) -> None:
    """Time epochs on gowalla and ml-1m, ours and other packages', one after the other; and ranking.

    home : folder of data sets; peers : folder of the environments of other packages, which are made if missing
    """
    data = {name: load_split(name, home).train.matrix for name in ("gowalla", "ml-1m")}
    cases: list[Case] = [
        {"what": "epoch", "data": name, "engine": engine, "batch": 500, "repeats": epochs}
        for name in data
        for engine in ("float32", "bfloat16")
    ]
    cases += [
        {"what": "rank", "data": name, "engine": engine, "users": RANKED[name], "repeats": epochs}
        for name in data
        for engine in ("recvae", "als")
        if name in RANKED
    ]
    shapes = {name: [*matrix.shape, matrix.nnz] for name, matrix in data.items()}
    about = machine() | {"data": shapes, "als_factors": ALS_FACTORS}
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: write_matrix(Path(folder) / f"{name}.npz", matrix) for name, matrix in data.items()}
        results = run_cases(cases, paths, 1, lambda results: save(about | {"cases": results, "absent": {}}))
        for others, absent in _peers(paths, epochs, peers):
            save(about | {"cases": results + others, "absent": absent})


def run_cases(cases: list[Case], paths: dict[str, str], rounds: int, save: Callable[[list[Case]], None]) -> list[Case]:
    """Run each case once in each round, in a new process. -> the cases, with their median seconds in each round

    With a single round, they have the seconds of each repeat.
    """
    results = [case | {"seconds": []} for case in cases]
    for number in range(rounds):
        for result, case in zip(results, cases, strict=True):
            found = _in_process([sys.executable, "-m", "benchmarks.speed.case"], case | {"data": paths[case["data"]]})
            result["seconds"] += found["seconds"] if rounds == 1 else [statistics.median(found["seconds"])]
            if "mib" in found:
                result["mib"] = max(result.get("mib", 0.0), found["mib"])
            print(f"round {number + 1}", *case.values(), f"{result['seconds'][-1]:.3f} s", flush=True)
            save([each for each in results if each["seconds"]])
    return results


def _in_process(command: list[str], case: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run([*command, json.dumps(case)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{case} failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peers(paths: dict[str, str], epochs: int, home: Path | None) -> Iterator[tuple[list[Case], dict[str, str]]]:
    """Time epochs of other packages. -> after each run, all results so far, and what is absent, with the reason"""
    results: list[Case] = []
    absent: dict[str, str] = {}
    for peer in TIMED_PEERS:
        script, _ = REQUIREMENTS[peer]
        python = "no folder for its environment was given" if home is None else environment(peer, home)
        for name, path in paths.items():
            if isinstance(python, str):
                absent[peer] = python
                break
            command = [str(python), str(SCRIPTS / script), path, "500", str(epochs)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=tempfile.gettempdir())
            if done.returncode:
                reason = [f"ended with {done.returncode}", *done.stderr.strip().splitlines()][-1]
                absent[f"{peer} on {name}"] = reason.split("/")[-1]
            else:
                seconds = json.loads(done.stdout.splitlines()[-1])["seconds"]
                results.append({"what": "epoch", "data": name, "engine": peer, "batch": 500, "seconds": seconds})
            print(peer, name, done.returncode, flush=True)
            yield results, absent
    yield results, absent


def write_matrix(path: Path, matrix: sparse.csr_matrix) -> str:
    """Write a matrix to the file that the cases read. -> its path"""
    sparse.save_npz(path, sparse.csr_matrix(matrix), compressed=False)
    return str(path)


def machine() -> dict[str, Any]:
    """Versions and hardware on which results were measured."""
    return {
        "recvae": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
    }
