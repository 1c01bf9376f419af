"""One style for all figures: small SVG files, legible on light and dark pages, and for colour-blind readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Draw = Callable[[dict[str, Any], Path], None]
# of Okabe & Ito 2008, those that stand out from white and from black
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9"
COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
GREY = "#7a7a7a"  # text and axes: 4 : 1 against white and against a dark page alike
SETTINGS: Any = {
    "svg.hashsalt": "recvae",  # so that equal figures give equal files
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.labelcolor": GREY,
    "lines.markersize": 4,
} | dict.fromkeys(
    ["text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"], GREY
)


@contextmanager
def picture(path: Path, columns: int = 1, width: float = 6.4, height: float = 3.2) -> Iterator[list[Any]]:
    """Axes side by side to draw on; what was drawn is then written to `path`. Sizes are in inches."""
    from matplotlib import pyplot

    with pyplot.rc_context(SETTINGS):
        figure, axes = pyplot.subplots(1, columns, figsize=(width, height), layout="constrained", squeeze=False)
        yield list(axes[0])
        figure.savefig(path, transparent=True, metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"]))
        pyplot.close(figure)
