"""Axes and scales that several charts of the page share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

PLAIN = "format(datum.value, datum.value >= 1 ? ',.0f' : '~g')"  # no powers of ten, no prefixes


def flat_axis(title: str, **more: Any) -> alt.Axis:
    """A vertical axis whose title lies flat above it, where it takes no width."""
    flat = {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "end", "titleX": 0, "titleY": -14}
    return alt.Axis(title=title, **(flat | {"tickCount": 6, "domain": False, "ticks": False} | more))


def group_axis(title: str) -> alt.Axis:
    """A label in the middle of each group, its words below each other, so that a phone has room for all."""
    bare = {"grid": False, "ticks": False, "labelAngle": 0, "labelOverlap": False, "labelPadding": 8}
    return alt.Axis(title=title, bandPosition=0.5, labelExpr="split(datum.label, ' ')", **bare)


def steps(values: Sequence[float]) -> list[float]:
    """Ticks of a scale of ratios: powers of ten and, where few of these lie among the values, numbers between."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    digits = (1.0,) if high - low > 3 else (1.0, 2.0, 5.0) if high - low < 3 else (1.0, 3.0)
    return [float(f"{digit}e{power}") for power in range(low, high + 1) for digit in digits]


def room(values: Sequence[float]) -> alt.Scale:
    """As wide as the values, and a little more."""
    rim = 0.03 * (max(values) - min(values) or 1.0)
    return alt.Scale(domain=[min(values) - rim, max(values) + rim], nice=False)


def tight() -> alt.Scale:
    """From the least value to the largest, and no further."""
    return alt.Scale(zero=False, nice=False)
