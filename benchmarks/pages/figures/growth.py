"""How time and memory of training grow with the size of the data."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pages.figures.style import BLUE, GREY, picture
from benchmarks.speed.tables import in_all


def plot_growth(results: dict[str, Any], path: Path) -> None:
    """Seconds against items and against users, and memory against items, each with the line from 0 to the largest."""
    steps = [case for case in results["cases"] if case["what"] == "step"]
    epochs = [case for case in results["cases"] if case["what"] == "epoch"]
    panels: tuple[tuple[str, str, list[dict[str, Any]], Callable[[dict[str, Any]], float]], ...] = (
        ("a step of 500 users, ms", "items", steps, lambda case: 1e3 * statistics.median(case["seconds"])),
        ("an epoch, s", "users", epochs, lambda case: statistics.median(case["seconds"])),
        ("memory without the data, MiB", "items", steps, in_all),
    )
    with picture(path, columns=3, width=9) as axes:
        for axis, (title, size, cases, value) in zip(axes, panels, strict=True):
            sizes, values = [case[size] for case in cases], [value(case) for case in cases]
            axis.plot(sizes, values, "o-", color=BLUE, label="measured")
            axis.plot([0, sizes[-1]], [0, values[-1]], ":", color=GREY, label="in proportion")
            axis.set(title=title, xlabel=size, xlim=(0, None), ylim=(0, None))
            axis.set_xticks([0, sizes[-1] / 2, sizes[-1]], ["0", f"{sizes[-1] / 2:,.0f}", f"{sizes[-1]:,.0f}"])
            axis.legend()
