"""A training that is killed at random moments and resumed: are the weights those of an uninterrupted run?"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages.markdown import markdown
from benchmarks.speed import machine
from recvae.training.checkpoint import KIND
from recvae.utils.folder import Written, load_manifest

# a checkpoint is written after each step, so that many kills interrupt a write
TRAIN = """
import hashlib, sys
import recvae
name, home, folder = sys.argv[1:]
split = recvae.load_split("ml-1m", home or None)
plain = recvae.TrainingOptions(precision="float32")
sampled = recvae.TrainingOptions(precision="float32", impl="sampled", num_negatives=500)
settings = {"epochs": 3, "random_state": 0, "training": sampled if name == "MultVAE sampled" else plain}
if name == "MultVAE sampled":
    model = recvae.MultVAE(**settings, hidden_dims=(64,), latent_dim=32)
elif name == "RecVAE":
    model = recvae.RecVAE(**settings | {"epochs": 1}, hidden_dim=64, latent_dim=32)
else:
    model = recvae.MultVAE(**settings, hidden_dims=(64,), latent_dim=32)
print("ready", flush=True)
keep = recvae.Checkpoint(folder, minutes=0) if folder else None
model.fit(split.train, False, valid=split.valid, checkpoint=keep)
digest = hashlib.sha256()
for parameter in model.network_.parameters():
    digest.update(parameter.detach().contiguous().numpy().tobytes())
print(digest.hexdigest())
"""
MODELS = ("MultVAE", "MultVAE sampled", "RecVAE")


def run_resume(data_home: Path | None, kills: int, seed: int = 0) -> dict[str, Any]:
    """Kill `kills` runs, of the models in turn, and resume each. -> for JSON"""
    random, home = np.random.default_rng(seed), str(data_home or "")
    unbroken = {name: _unbroken(name, home) for name in MODELS}
    cases: list[dict[str, Any]] = []
    while len(cases) < kills:
        name = MODELS[len(cases) % len(MODELS)]
        after = random.uniform(0.02, 0.98) * unbroken[name]["seconds"]
        case = _killed(name, home, after, unbroken[name]["digest"])
        print(case, file=sys.stderr, flush=True)
        if case["status"]:  # 0 if the run had finished before the kill
            cases.append(case)
    return machine() | {"unbroken": unbroken, "cases": cases, "equal": sum(case["equal"] for case in cases)}


def _start(name: str, home: str, folder: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TRAIN, name, home, folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # "ready": the fit is about to begin
    return process


def _unbroken(name: str, home: str) -> dict[str, Any]:
    """Run without a kill. -> seconds, of a run with checkpoints; digest of the weights, of one without"""
    with tempfile.TemporaryDirectory() as folder:
        process, started = _start(name, home, folder), time.perf_counter()
        checkpointed = process.communicate()[0].strip()
        seconds = time.perf_counter() - started
    digest = _start(name, home, "").communicate()[0].strip()
    if digest != checkpointed or not digest:
        raise SystemExit("Expected a run that is kept to give the weights of one that is not.")
    return {"digest": digest, "seconds": seconds}


def _killed(name: str, home: str, after: float, expected: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        process = _start(name, home, folder)
        time.sleep(after)
        process.kill()
        process.communicate()
        checkpoint = Path(folder) / "network"
        manifest = load_manifest(checkpoint, KIND, Written)
        whole = manifest is None or all(part.is_whole(checkpoint) for part in manifest.parts)
        at = None if manifest is None or not manifest.parts else [manifest.facts["epoch"], manifest.facts["step"]]
        digest = _start(name, home, folder).communicate()[0].strip()
    return {
        "model": name,
        "after": after,
        "status": process.returncode,
        "at": at,
        "whole": whole,
        "equal": digest == expected,
    }


def resume_table(results: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    rows = [["", "kills", "torn files", "the unbroken run's weights"]]
    for name in MODELS:
        mine = [case for case in results["cases"] if case["model"] == name]
        counts = (len(mine), sum(not case["whole"] for case in mine))
        rows.append([name, *map(str, counts), f"{sum(case['equal'] for case in mine)} of {len(mine)}"])
    return markdown(rows)
