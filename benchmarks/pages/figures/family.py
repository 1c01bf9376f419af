"""Figure of ranking accuracy against seconds of training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmarks.pages.figures.style import BLUE, GREEN, VERMILION, picture

METRIC = "ndcg@100"
KINDS = {
    "autoencoders": (BLUE, ("HybridVAE", "RecVAE", "MultVAE", "MultDAE", "HVamp")),
    "linear, in closed form": (GREEN, ("EASE", "EDLAE")),
    "baselines": (
        VERMILION,
        ("ALS", "iALS", "SLIM", "ItemKNN", "P3alpha", "RP3beta", "GFCF", "Popularity", "BPR", "LMF"),
    ),
}
NEAR = (0.5, 0.015)  # decades, metric: closer points have their labels above, below and between
Point = tuple[float, float]


def plot_family(results: dict[str, Any], path: Path) -> None:
    """NDCG@100 with its standard error against seconds of the fit, on a scale of decades."""
    rows = {row["model"]: row for row in results["models"]}
    points = {name: (row["fit_seconds"], row["metrics"][METRIC]["mean"]) for name, row in rows.items()}
    with picture(path, width=6.8, height=5.2) as (axis,):
        for kind, (color, names) in KINDS.items():
            shown = [name for name in names if name in rows]
            if shown:
                x, y = zip(*(points[name] for name in shown), strict=True)
                error = [rows[name]["metrics"][METRIC]["stderr"] for name in shown]
                axis.errorbar(x, y, error, fmt="o", color=color, label=kind, capsize=2)
        for name, point in points.items():
            shift, side = label_side(point, [other for other in points.values() if other != point])
            axis.annotate(name, point, xytext=shift, textcoords="offset points", ha=side, va="center", fontsize=9)
        users = f"{results['tests_of_users']:,} tests of users in {len(results['split_seeds'])} splits"
        axis.set(xscale="log", xlabel="seconds of training", ylabel="NDCG@100")
        axis.set_title(f"{results['dataset']}: {users}")
        axis.margins(x=0.12)
        axis.legend(loc="lower right")


def label_side(place: Point, others: list[Point]) -> tuple[tuple[int, int], str]:
    """Offset of a label in typographic points, and its alignment: to the right, or away from a close neighbour."""
    near = [y for x, y in others if abs(math.log10(x / place[0])) < NEAR[0] and abs(y - place[1]) < NEAR[1]]
    if not near:
        return (7, 0), "left"
    if min(near) < place[1] < max(near):
        return (-6, -6), "right"
    return ((0, 10), "center") if place[1] >= max(near) else ((0, -10), "center")
