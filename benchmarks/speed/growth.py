"""How time and memory of training grow with items and users: steps and epochs on data of one distribution."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.speed import Save, machine, run_cases, write_matrix
from benchmarks.speed.synthetic import synthetic

ITEMS = (5_000, 10_000, 20_000, 40_000, 80_000, 160_000)
USERS = (10_000, 20_000, 40_000, 80_000, 160_000)
PER_USER = 50  # events
ENGINE = "bfloat16"


def run_growth(repeats: int, save: Save) -> None:
    """Time steps of 500 out of 10,000 users for each number of items, and epochs of each number of users on 20,000
    items."""
    shapes = [("step", 10_000, items) for items in ITEMS] + [("epoch", users, 20_000) for users in USERS]
    results: list[dict[str, Any]] = []
    for what, n_users, n_items in shapes:
        with tempfile.TemporaryDirectory() as folder:
            paths = {"data": write_matrix(Path(folder) / "data.npz", synthetic(n_users, n_items, PER_USER * n_users))}
            case = {"what": what, "data": "data", "engine": ENGINE, "batch": 500, "repeats": repeats}
            (result,) = run_cases([case], paths, 1, lambda _: None)
        results.append(result | {"users": n_users, "items": n_items})
        save(machine() | {"events_per_user": PER_USER, "cases": results})
