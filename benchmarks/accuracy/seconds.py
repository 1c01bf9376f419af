"""Seconds of a fit by the defaults and its accuracy on validation users, with this code or another checkout's.

For changes that make fits faster: `--compare` says whether accuracy is lower than before, paired by users and seeds.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

import recvae
from recvae.errors import InvalidDataError

SCRIPT = Path(__file__).with_name("seconds_fit.py")
COMMON = ("dataset", "model", "metric", "users")  # what two results that are compared have in common


def run_seconds(
    dataset: str,
    home: Path | None,
    model: str,
    seeds: int,
    tree: Path | None,
    save: Callable[[dict[str, Any]], None],
    params: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Fit a model with each of the seeds 0, 1, ..., each in a new process. -> for JSON

    tree : a checkout, whose code is used; without it, this one's. params : hyper-parameters other than the defaults
    """
    checkout = Path(recvae.__file__).parents[1] if tree is None else tree.resolve()
    about: dict[str, Any] = {"dataset": dataset, "model": model, "params": params or {}}
    fits: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    for seed in range(seeds):
        case = about | {"home": None if home is None else str(home), "seed": seed}
        found = _in_process(checkout, case)
        shared = {name: found.pop(name) for name in ("metric", "threads", "users")}
        fits.append({"seed": seed} | found)
        results = about | shared | {"fits": fits}
        save(results)
        shown = f"{found['seconds']:.1f} s, {found['cpu_seconds']:.1f} s of CPU"
        print(f"{model} on {dataset}, seed {seed}: {shown}, {shared['metric']} {found['mean']:.4f}", flush=True)
    return results


def _in_process(checkout: Path, case: dict[str, Any]) -> dict[str, Any]:
    """What the script prints in a process that imports recvae from a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, "-P", str(SCRIPT), json.dumps(case)]  # -P: its folder is not on the path
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit("Expected a fit, and its process failed; see its error above.")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not Path(found.pop("from")).is_relative_to(checkout):
        raise SystemExit(f"Expected recvae in the checkout {checkout}, and it was imported from elsewhere.")
    return found


def compare_seconds(before: Path, after: Path) -> dict[str, Any]:
    """Compare two results of `run_seconds` over the same users and seeds. -> for JSON

    Raises
    ------
    InvalidDataError
        If they are of another data set, model, metric, users or seeds.
    """
    old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
    for name in COMMON:
        if old[name] != new[name]:
            what = "other users" if name == "users" else f"{old[name]} and {new[name]}"
            raise InvalidDataError(f"Expected the same {name} in both files, got {what}; measure one of them again.")
    seeds = [[fit["seed"] for fit in side["fits"]] for side in (old, new)]
    if seeds[0] != seeds[1]:
        raise InvalidDataError(f"Expected the same seeds in both files, got {seeds[0]} and {seeds[1]}; measure again.")
    values = [np.array([fit["values"] for fit in side["fits"]]) for side in (old, new)]
    differences = values[1] - values[0]
    mean, half = mean_and_half_width(differences)
    result = {name: old[name] for name in ("dataset", "model", "metric")} | {"seeds": seeds[0]}
    result |= {"users": differences.shape[1], "before": float(values[0].mean()), "after": float(values[1].mean())}
    result |= {"difference": mean, "low": mean - half, "high": mean + half}
    result["difference_by_seed"] = [float(each) for each in differences.mean(axis=1)]
    for what in ("seconds", "cpu_seconds"):
        sides = [[fit[what] for fit in side["fits"]] for side in (old, new)]
        ratio = statistics.median(b / a for a, b in zip(*sides, strict=True))
        result[what] = dict(zip(("before", "after"), map(statistics.median, sides), strict=True)) | {"ratio": ratio}
    return result


def mean_and_half_width(differences: NDArray[np.float64]) -> tuple[float, float]:
    """The mean of differences (seeds, users), and half the width of its 95 % confidence interval.

    Users and seeds are both random: another user would differ with all seeds, another seed for all users. The variance
    of the mean is that of the two-way random effects model, but at least that over users; the degrees of freedom are
    Satterthwaite's.

    References
    ----------
    Searle, Casella & McCulloch 1992, "Variance Components", chapter 4.
    """
    n_seeds, n_users = differences.shape
    mean = float(differences.mean())
    by_seed, by_user = differences.mean(axis=1), differences.mean(axis=0)
    rest = differences - by_seed[:, None] - by_user + mean
    squares = {"user": n_seeds * float(by_user.var(ddof=1)), "seed": 0.0, "rest": 0.0}
    free = {"user": n_users - 1, "seed": max(n_seeds - 1, 1), "rest": max((n_seeds - 1) * (n_users - 1), 1)}
    if n_seeds > 1:
        squares["seed"] = n_users * float(by_seed.var(ddof=1))
        squares["rest"] = float((rest**2).sum()) / free["rest"]
    total = squares["user"] + squares["seed"] - squares["rest"]
    if total <= squares["user"]:
        total, squares = squares["user"], {"user": squares["user"]}
    if total == 0:
        return mean, 0.0
    degrees = total**2 / sum(square**2 / free[name] for name, square in squares.items())
    return mean, float(stats.t.ppf(0.975, degrees)) * math.sqrt(total / (n_seeds * n_users))


def compared(result: dict[str, Any]) -> str:
    """A comparison in words."""
    figures = f"{result['before']:.4f} before, {result['after']:.4f} after"
    interval = f"{result['difference']:+.4f} ({result['low']:+.4f} to {result['high']:+.4f})"
    by_seed = zip(result["seeds"], result["difference_by_seed"], strict=True)
    lines = [
        f"{result['model']} on {result['dataset']}, {result['users']:,} users",
        f"{result['metric']}: {figures}, difference {interval}",
        ", ".join(f"seed {seed} {each:+.4f}" for seed, each in by_seed),
    ]
    for what, name in (("seconds", "s"), ("cpu_seconds", "s of CPU")):
        row = result[what]
        lines.append(f"{row['before']:.1f} {name} before, {row['after']:.1f} after, ratio {row['ratio']:.3f}")
    return "\n".join(lines)
