"""The final table: every model once on each of several splits; finished runs are kept and not repeated."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.family.case import IALS, grid
from benchmarks.accuracy.family.pool import Result, pool
from benchmarks.accuracy.peers import environment
from benchmarks.speed import machine
from recvae.benchmark.grids import GRIDS, model_name
from recvae.datasets.card import load_card
from recvae.errors import InvalidParameterError, TrainingError

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Family:
    """The runs: each of `models` on each split of a data set.

    users : "test", or "valid" for development, which measures on half of the validation users and chooses by the rest
    peers : folder for the environment of iALS; without it, iALS is absent
    work : folder for values per user, to resume from; outside of the repository, because these are personal data
    thin : share of each user's events to learn from, the others are the test; None for the card's own split
    """

    dataset: str
    data_home: Path | None
    split_seeds: Sequence[int]
    models: Sequence[str]
    work: Path
    users: str = "test"
    peers: Path | None = None
    thin: float | None = None

    @property
    def name(self) -> str:
        """Name of the split, in files: that of the data set, and the share of a thin split in percent."""
        return Path(self.dataset).stem + ("" if self.thin is None else f"-thin-{100 * self.thin:g}")

    def place(self, seed: int, model: str, suffix: str) -> Path:
        """The file of one model on one split."""
        return self.work / f"{self.name}-{self.users}-{seed}-{model}{suffix}"


def run_family(family: Family, again: bool = False) -> dict[str, Any]:
    """Run unfinished cases, or all with `again`, each in a separate process. -> pooled results, for JSON

    Raises TrainingError if a process fails; the next run resumes with that one.
    """
    if ROOT in [family.work.resolve(), *family.work.resolve().parents]:
        raise InvalidParameterError(
            f"Expected --work outside of the repository, got {family.work}; it is data of persons."
        )
    family.work.mkdir(parents=True, exist_ok=True)
    pairs = [(seed, model) for seed in family.split_seeds for model in family.models]
    to_run = [(seed, model) for seed, model in pairs if again or not _finished(family, seed, model)]
    absent: dict[str, str] = {}
    python = _python(family, absent) if IALS in [model for _, model in to_run] else ""
    for seed, model in to_run:
        if model in absent:
            continue
        _run(family, seed, model, python)
        about = _about(family, seed, model)
        if "absent" in about:
            absent[model] = about["absent"]
        print(f"split seed {seed}, {model}: {about.get('absent', 'done')}", flush=True)
    return pooled(family, absent)


def pooled(family: Family, absent: dict[str, str]) -> dict[str, Any]:
    """Pool the results of all models that are not absent. -> for JSON, without users and their histories"""
    names = [model for model in family.models if model not in absent]
    if not names:
        raise InvalidParameterError(f"Expected a model that can be run, got none: {absent}.")
    results = {name: [_result(family, seed, name) for seed in family.split_seeds] for name in names}
    metrics = load_card(family.dataset).protocol.metrics
    first = results[names[0]][0].about["data"]
    return {
        "dataset": family.name,
        "measured_on": family.users,
        "split_seeds": list(family.split_seeds),
        "metrics": metrics,
        "first_split": first,
        "machine": machine(),
        "absent": absent,
    } | pool(results, metrics)


def models_of(names: str) -> list[str]:
    """Comma-separated names of models, including iALS, as a list; "all" for all. Raises UnknownNameError."""
    if names.strip().lower() == "all":
        return [*GRIDS, IALS]
    found = [IALS if name.strip().lower() == IALS.lower() else model_name(name) for name in names.split(",")]
    return list(dict.fromkeys(found))


def seeds_of(text: str) -> list[int]:
    """ "101-105" or "1,2,7" as numbers. Raises InvalidParameterError."""
    try:
        ends = [part.partition("-") for part in text.split(",")]
        seeds = [seed for first, _, last in ends for seed in range(int(first), int(last or first) + 1)]
    except ValueError as error:
        raise InvalidParameterError(f"Expected split seeds such as 101-105 or 1,2,7, got {text!r}.") from error
    if not seeds or len(set(seeds)) < len(seeds):
        raise InvalidParameterError(f"Expected split seeds, each once, got {text!r}.")
    return seeds


def _python(family: Family, absent: dict[str, str]) -> str:
    """The interpreter for iALS; if there is none, the reason is added to `absent`."""
    found = (
        "no folder for its environment was given" if family.peers is None else environment("irspack iALS", family.peers)
    )
    if isinstance(found, str):
        absent[IALS] = found
    return str(found)


def _finished(family: Family, seed: int, model: str) -> bool:
    """Whether results exist; a model that was absent counts as unfinished, because it may be available now.

    Raises InvalidParameterError if they were chosen from another grid: a mean over splits needs the same grid.
    """
    about = _about(family, seed, model) if family.place(seed, model, ".json").exists() else {"absent": ""}
    if "absent" not in about and about["grid"] != grid(model):
        raise InvalidParameterError(
            f"Expected {model} on split seed {seed} to have been chosen from today's settings, got others in "
            f"{family.work}; run with --again, or in another folder."
        )
    return "absent" not in about


def _run(family: Family, seed: int, model: str, python: str) -> None:
    values, done = (family.place(seed, model, suffix) for suffix in (".npz", ".json"))
    done.unlink(missing_ok=True)
    home = None if family.data_home is None else str(family.data_home)
    job: dict[str, Any] = {
        "dataset": family.dataset,
        "data_home": home,
        "split_seed": seed,
        "users": family.users,
        "model": model,
    }
    job |= {"thin": family.thin}
    job |= {"python": python, "values": str(values), "done": str(done)}
    run_case(job)


def run_case(job: dict[str, Any]) -> None:
    """Run `benchmarks.accuracy.family.case` in a new process. Raises TrainingError with the last line of its output."""
    command = [sys.executable, "-m", "benchmarks.accuracy.family.case", json.dumps(job)]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if ended.returncode:
        reason = [f"it ended with {ended.returncode}", *ended.stderr.strip().splitlines()][-1]
        raise TrainingError(f"Expected {job['model']} to run on split seed {job['split_seed']}, but: {reason}")


def _about(family: Family, seed: int, model: str) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(family.place(seed, model, ".json").read_text(encoding="utf-8"))
    return about


def _result(family: Family, seed: int, model: str) -> Result:
    with np.load(family.place(seed, model, ".npz")) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    return Result(values.pop("users"), values, _about(family, seed, model))
