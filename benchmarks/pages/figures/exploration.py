"""Figure of the cost and gain of exploration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.latent.exploration import COVERAGE, NDCG, RECALL
from benchmarks.pages.figures.style import COLORS, picture

NEAR = 0.17  # inches between two points that have labels, at least


def plot_exploration(results: dict[str, Any], path: Path) -> None:
    """Accuracy against coverage, a curve for each model, its points labelled by strength."""
    with picture(path, columns=2, width=8) as axes:
        for axis, metric in zip(axes, (RECALL, NDCG), strict=True):
            points: list[tuple[float, tuple[float, float]]] = []
            for (name, found), color in zip(results["models"].items(), COLORS, strict=False):
                x, y = (found[key]["mean"] for key in (COVERAGE, metric))
                axis.plot(x, y, "o-", color=color, label=name)
                points += zip(results["strengths"], zip(x, y, strict=True), strict=True)
            axis.set(title=f"{metric} by strength", xlabel="share of the catalogue in lists of 20", ylim=(0, None))
            axis.legend()
            _label(axis, points)


def _label(axis: Any, points: Sequence[tuple[float, tuple[float, float]]]) -> None:
    """Write its strength next to each point, unless the point is too near one that has a label already."""
    labelled: list[tuple[float, float]] = []
    for strength, point in points:
        place = tuple(axis.transData.transform(point))
        if all(math.dist(place, other) >= NEAR * axis.figure.dpi for other in labelled):
            axis.annotate(f"{strength:g}", point, xytext=(4, 4), textcoords="offset points", fontsize=8)
            labelled.append(place)
