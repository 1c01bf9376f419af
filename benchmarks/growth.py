"""How time and memory of training grow with items and with users: steps and epochs on data of the same make."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.speed import Save, machine, run_cases, write_matrix
from benchmarks.speed.tables import in_all
from benchmarks.synthetic import synthetic

ITEMS = (5_000, 10_000, 20_000, 40_000, 80_000, 160_000)
USERS = (10_000, 20_000, 40_000, 80_000, 160_000)
PER_USER = 50  # events
ENGINE = "bfloat16"


def run_growth(repeats: int, save: Save) -> None:
    """Steps of 500 of 10,000 users at each number of items, epochs of each number of users at 20,000 items."""
    shapes = [("step", 10_000, items) for items in ITEMS] + [("epoch", users, 20_000) for users in USERS]
    results: list[dict[str, Any]] = []
    for what, n_users, n_items in shapes:
        with tempfile.TemporaryDirectory() as folder:
            paths = {"data": write_matrix(Path(folder) / "data.npz", synthetic(n_users, n_items, PER_USER * n_users))}
            case = {"what": what, "data": "data", "engine": ENGINE, "batch": 500, "repeats": repeats}
            (result,) = run_cases([case], paths, 1, lambda _: None)
        results.append(result | {"users": n_users, "items": n_items})
        save(machine() | {"events_per_user": PER_USER, "cases": results})


def plot(results: dict[str, Any], path: Path) -> None:
    """Seconds against items and against users, and memory against items, each beside the line through the largest."""
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "recvae", "svg.fonttype": "none"})  # the same figures, the same small file
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    steps = [case for case in results["cases"] if case["what"] == "step"]
    epochs = [case for case in results["cases"] if case["what"] == "epoch"]
    panels: tuple[tuple[str, str, list[dict[str, Any]], Callable[[dict[str, Any]], float]], ...] = (
        ("a step of 500 users, ms", "items", steps, lambda case: 1e3 * statistics.median(case["seconds"])),
        ("an epoch, s", "users", epochs, lambda case: statistics.median(case["seconds"])),
        ("memory without the data, MiB", "items", steps, in_all),
    )
    for axis, (title, size, cases, value) in zip(axes, panels, strict=True):
        sizes, values = [case[size] for case in cases], [value(case) for case in cases]
        axis.plot(sizes, values, "o-", color="#0072b2", label="measured")
        axis.plot([0, sizes[-1]], [0, values[-1]], ":", color="#888888", label="in proportion")
        axis.set(title=title, xlabel=size, xlim=(0, None), ylim=(0, None))
        axis.set_xticks([0, sizes[-1] / 2, sizes[-1]], ["0", f"{sizes[-1] / 2:,.0f}", f"{sizes[-1]:,.0f}"])
        axis.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
