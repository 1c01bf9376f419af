"""How well models rank against the seconds that they take to train."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmarks.pages.figures.style import BLUE, GREEN, VERMILION, picture

METRIC = "ndcg@100"
KINDS = {
    "autoencoders": (BLUE, ("HybridVAE", "RecVAE", "MultVAE", "MultDAE", "HVamp")),
    "linear, in closed form": (GREEN, ("EASE", "EDLAE")),
    "baselines": (VERMILION, ("ALS", "iALS", "ItemKNN", "Popularity", "BPR", "LMF")),
}
NEAR = (0.3, 0.015)  # decades, metric: nearer points than these have their labels above and below
Point = tuple[float, float]


def plot_family(results: dict[str, Any], path: Path) -> None:
    """NDCG@100 with its standard error against seconds of the fit, on a scale of decades."""
    rows = {row["model"]: row for row in results["models"]}
    places = {name: (row["fit_seconds"], row["metrics"][METRIC]["mean"]) for name, row in rows.items()}
    with picture(path, width=6.8, height=3.8) as (axis,):
        for kind, (color, names) in KINDS.items():
            here = [name for name in names if name in rows]
            if here:
                x, y = zip(*(places[name] for name in here), strict=True)
                error = [rows[name]["metrics"][METRIC]["stderr"] for name in here]
                axis.errorbar(x, y, error, fmt="o", color=color, label=kind, capsize=2)
        for name, place in places.items():
            shift, side = label_side(place, [other for other in places.values() if other != place])
            axis.annotate(name, place, xytext=shift, textcoords="offset points", ha=side, va="center", fontsize=9)
        users = f"{results['tests_of_users']:,} tests of users in {len(results['split_seeds'])} splits"
        axis.set(xscale="log", xlabel="seconds of training, 2 CPU cores", ylabel="NDCG@100")
        axis.set_title(f"{results['dataset']}: {users}")
        axis.margins(x=0.12)
        axis.legend(loc="lower right")


def label_side(place: Point, others: list[Point]) -> tuple[tuple[int, int], str]:
    """Where a label goes, in points from the place: to the right, or away from a near neighbour."""
    near = [y for x, y in others if abs(math.log10(x / place[0])) < NEAR[0] and abs(y - place[1]) < NEAR[1]]
    if not near:
        return (7, 0), "left"
    return ((0, 10), "center") if place[1] >= max(near) else ((0, -10), "center")
