"""Figure of the cost and gain of exploration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.latent.exploration import COVERAGE, NDCG, RECALL
from benchmarks.pages.figures.style import COLORS, picture


def plot_exploration(results: dict[str, Any], path: Path) -> None:
    """Accuracy against coverage, a curve for each model, its points labelled by strength."""
    with picture(path, columns=2, width=8) as axes:
        for axis, metric in zip(axes, (RECALL, NDCG), strict=True):
            for (name, found), color in zip(results["models"].items(), COLORS, strict=False):
                x, y = (found[key]["mean"] for key in (COVERAGE, metric))
                axis.plot(x, y, "o-", color=color, label=name)
                for strength, *point in zip(results["strengths"], x, y, strict=True):
                    if strength >= 1:  # the others are too near each other for a label
                        axis.annotate(f"{strength:g}", point, xytext=(4, 4), textcoords="offset points", fontsize=8)
            axis.set(title=f"{metric} by strength", xlabel="share of the catalogue in lists of 20", ylim=(0, None))
            axis.legend()
