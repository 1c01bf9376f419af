"""The pictures of the guide, drawn from the recorded results into docs/figures/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.pages.figures.elbo import plot_plane, plot_rate, plot_samples, plot_training, plot_walk
from benchmarks.pages.figures.exploration import plot_exploration
from benchmarks.pages.figures.family import plot_family
from benchmarks.pages.figures.growth import plot_growth
from benchmarks.pages.figures.style import Draw

FOLDER = Path(__file__).parents[3] / "docs" / "figures"

# name of the figure -> name of the results, function that draws it
FIGURES: dict[str, tuple[str, Draw]] = {
    "family-ml-1m": ("family-ml-1m", plot_family),
    "growth": ("growth", plot_growth),
    "exploration": ("exploration-ml-1m", plot_exploration),
    "elbo-training": ("elbo-ml-1m", plot_training),
    "elbo-rate": ("elbo-ml-1m", plot_rate),
    "elbo-plane": ("elbo-ml-1m", plot_plane),
    "elbo-samples": ("elbo-ml-1m", plot_samples),
    "elbo-walk": ("elbo-ml-1m", plot_walk),
}


def draw_figures(results: Path, folder: Path = FOLDER) -> list[Path]:
    """Draw each picture from the results in `results`. -> the files"""
    drawn = []
    for name, (source, draw) in FIGURES.items():
        found: dict[str, Any] = json.loads((results / f"{source}.json").read_text(encoding="utf-8"))
        drawn.append(folder / f"{name}.svg")
        draw(found, drawn[-1])
    return drawn
