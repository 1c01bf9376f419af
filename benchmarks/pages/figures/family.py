"""Figure of ranking accuracy against seconds of training."""

from __future__ import annotations

from collections.abc import Sequence
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
Side = tuple[tuple[int, int], str]
Box = tuple[float, float, float, float]
# offsets of a label in typographic points, and its alignment, the better ones first
SIDES: list[Side] = [((7, 0), "left"), ((-7, 0), "right"), ((0, 12), "center"), ((0, -12), "center")]
SIDES += [((x, y), "left" if x > 0 else "right") for x in (6, -6) for y in (8, -8)]
TEXT, LETTER, DOT = 9, 5.4, 7  # size of the text, width of a letter, width of a dot and half its error bar, in points


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
        users = f"{results['tests_of_users']:,} tests of users in {len(results['split_seeds'])} splits"
        axis.set(xscale="log", xlabel="seconds of training", ylabel="NDCG@100")
        axis.set_title(f"{results['dataset']}: {users}")
        axis.margins(x=0.12)
        axis.legend(loc="lower right")
        axis.figure.draw_without_rendering()  # the scale and the layout are known from now on
        places = axis.transData.transform(list(points.values())) * 72 / axis.figure.dpi
        for (name, point), (shift, side) in zip(points.items(), label_sides(list(points), places), strict=True):
            axis.annotate(name, point, xytext=shift, textcoords="offset points", ha=side, va="center", fontsize=TEXT)


def label_sides(names: Sequence[str], places: Sequence[Sequence[float]]) -> list[Side]:
    """The first of the `SIDES` on which each name meets the fewest dots and names before it. Places are in points."""
    taken: list[Box] = [(x - DOT / 2, y - DOT, x + DOT / 2, y + DOT) for x, y in places]  # by dots, then by names too
    sides = []
    for name, place in zip(names, places, strict=True):
        boxes = [_box(name, place, side) for side in SIDES]
        met = [sum(_meet(box, other) for other in taken) for box in boxes]
        best = met.index(min(met))
        taken.append(boxes[best])
        sides.append(SIDES[best])
    return sides


def _box(name: str, place: Sequence[float], side: Side) -> Box:
    """Left, lower, right and upper edge of a label."""
    (x, y), alignment = side
    width = LETTER * len(name)
    left = place[0] + x - {"left": 0, "center": width / 2, "right": width}[alignment]
    return left, place[1] + y - TEXT / 2, left + width, place[1] + y + TEXT / 2


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
