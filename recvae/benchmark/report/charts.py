"""The charts of the page in Vega-Lite, made by Altair. Colours and fonts come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from recvae.benchmark.report.view import Look

CONFIG: dict[str, Any] = {
    "aria": False,  # the page says in words what a chart shows
    "background": "transparent",
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "domainColor": "currentColor",
        "tickColor": "currentColor",
        "gridColor": "currentColor",
        "gridOpacity": 0.14,
        "domainOpacity": 0.4,
        "tickOpacity": 0.4,
        "labelFontSize": 13,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelOverlap": True,
        "labelLimit": 200,
    },
    "text": {"color": "currentColor", "fontSize": 13},
    "rule": {"color": "currentColor"},
}
# format of tick labels: plain numbers, without powers of ten or SI prefixes
PLAIN = "format(datum.value, datum.value >= 1 ? ',.0f' : '~g')"
Rows = Sequence[dict[str, Any]]
Spec = dict[str, Any]


def dots(rows: Rows, looks: Sequence[Look], title: str) -> Spec:
    """Means with intervals, a line for each name. rows : name, mean, low, high"""
    names = [look.name for look in looks]
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("name:N", sort=names, axis=alt.Axis(title=None, grid=False, domain=False, ticks=False))
    )
    x = alt.X("mean:Q", scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(title=title, tickCount=5))
    tips = [alt.Tooltip("name:N", title="model"), *_interval_tips(title)]
    bars = base.mark_rule(strokeWidth=2, tooltip=True).encode(
        x=alt.X("low:Q", title=title), x2="high:Q", color=_colour(looks), tooltip=tips
    )
    points = base.mark_point(size=90, filled=True, opacity=1).encode(
        x=x, color=_colour(looks), shape=_shape(looks), tooltip=tips
    )
    return _spec(bars + points, 34 * len(rows) + 10)


def against(rows: Rows, looks: Sequence[Look], title: str, y_title: str, tip: alt.Tooltip) -> Spec:
    """Accuracy against a cost, on a logarithmic scale. rows : name, cost, mean, low, high"""
    base = alt.Chart(_data(rows)).encode(
        x=alt.X(
            "cost:Q",
            scale=alt.Scale(type="log", nice=False, padding=16),
            axis=alt.Axis(title=title, values=_ticks([row["cost"] for row in rows]), labelExpr=PLAIN),
        ),
        color=_colour(looks),
        tooltip=[alt.Tooltip("name:N", title="model"), tip, *_interval_tips(y_title)],
    )
    rules = base.mark_rule(strokeWidth=2).encode(y=_y("low", y_title), y2="high:Q")
    points = base.mark_point(size=130, filled=True, opacity=1).encode(y=_y("mean", y_title), shape=_shape(looks))
    return _spec(rules + points, 320)


def curves(rows: Rows, looks: Sequence[Look], x: str, y: str, y_format: str, height: int = 320) -> Spec:
    """A line for each name; hovering shows the values of all at one x.

    Parameters
    ----------
    rows : Rows
        name, x, y, and kept: whether the point gets a mark.
    """
    names = [look.name for look in looks]
    base = alt.Chart(_data(rows)).encode(
        x=alt.X("x:Q", axis=alt.Axis(title=x, tickMinStep=1, tickCount=8), scale=_tight_scale())
    )
    lines = base.mark_line(strokeWidth=2).encode(y=_y("y", y), color=_colour(looks), strokeDash=_dash(looks))
    nearest = alt.selection_point(nearest=True, on="pointerover", fields=["x"], empty=False, clear="pointerout")
    values = (
        base.transform_pivot("name", value="y", groupby=["x"])
        .mark_rule(strokeWidth=1)
        .encode(
            opacity=alt.when(nearest).then(alt.value(0.5)).otherwise(alt.value(0)),
            tooltip=[
                alt.Tooltip("x:Q", title=x),
                *(alt.Tooltip(f"{_escaped(name)}:Q", title=name, format=y_format) for name in names),
            ],
        )
        .add_params(nearest)
    )
    kept = [row for row in rows if row["kept"]]
    if not kept:
        return _spec(lines + values, height)
    marks = (
        alt.Chart(_data(kept))
        .mark_point(size=90, filled=True, opacity=1)
        .encode(x=alt.X("x:Q", title=x), y=_y("y", y), color=_colour(looks), shape=_shape(looks))
    )
    return _spec(lines + marks + values, height)


def by_group(rows: Rows, groups: Sequence[str], looks: Sequence[Look], x: str, y: str) -> Spec:
    """Means with intervals, the models next to each other in each group. rows : name, group, size, mean, low, high"""
    base = alt.Chart(_data(rows)).encode(
        x=alt.X(
            "group:N",
            sort=list(groups),
            scale=alt.Scale(paddingInner=0, paddingOuter=0),
            axis=_group_axis(x),
        ),
        xOffset=alt.XOffset("name:N", sort=[look.name for look in looks], scale=alt.Scale(paddingOuter=1)),
        color=_colour(looks),
        tooltip=[
            alt.Tooltip("name:N", title="model"),
            alt.Tooltip("group:N", title=x),
            alt.Tooltip("size:N", title="of"),
            *_interval_tips(y),
        ],
    )
    rules = base.mark_rule(strokeWidth=2).encode(y=_y("low", y), y2="high:Q")
    points = base.mark_point(size=70, filled=True, opacity=1).encode(y=_y("mean", y), shape=_shape(looks))
    between = (
        alt.Chart(_data([{"group": group} for group in groups[1:]]))
        .mark_rule(opacity=0.15)
        .encode(x=alt.X("group:N", sort=list(groups), bandPosition=0))
    )
    return _spec(rules + points + between, 340)


def shares(rows: Rows, names: Sequence[str], looks: Sequence[Look]) -> Spec:
    """Stacked shares, a bar for each name. rows : name, group, place (order in the bar), share"""
    bars = (
        alt.Chart(_data(rows))
        .mark_bar(stroke="var(--page)", strokeWidth=1.5)
        .encode(
            y=alt.Y("name:N", sort=list(names), axis=alt.Axis(title=None, domain=False, ticks=False)),
            x=alt.X(
                "share:Q",
                stack="normalize",
                axis=alt.Axis(title="share of places", format="%", values=[0, 0.25, 0.5, 0.75, 1]),
            ),
            color=_colour(looks, "group"),
            order=alt.Order("place:Q"),
            tooltip=[
                alt.Tooltip("name:N", title="model"),
                alt.Tooltip("group:N", title="items"),
                alt.Tooltip("share:Q", format=".1%"),
            ],
        )
    )
    return _spec(bars, 32 * len(names) + 10)


def bars(rows: Rows, looks: Sequence[Look], title: str, number_format: str) -> Spec:
    """A number for each name, written next to its bar. rows : name, value"""
    percent = {"format": "%"} if number_format.endswith("%") else {}
    names = [look.name for look in looks]
    largest = max(row["value"] for row in rows)
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("name:N", sort=names, axis=alt.Axis(title=None, domain=False, ticks=False)),
        x=alt.X(
            "value:Q",
            scale=alt.Scale(domain=[0, 1.16 * largest or 1], nice=False),
            axis=alt.Axis(title=title, tickCount=4, grid=False, **percent),
        ),
        tooltip=[alt.Tooltip("name:N", title="model"), alt.Tooltip("value:Q", title=title, format=number_format)],
    )
    rectangles = base.mark_bar(height={"band": 0.62}).encode(color=_colour(looks))
    numbers = base.mark_text(align="left", dx=5).encode(text=alt.Text("value:Q", format=number_format))
    return _spec(rectangles + numbers, 32 * len(rows) + 10)


def spectrum(rows: Rows, looks: Sequence[Look], threshold: float) -> Spec:
    """Variances by rank, on a logarithmic scale, and the line above which units are active. rows : name, x, y"""
    base = alt.Chart(_data(rows))
    variances = [threshold, *(row["y"] for row in rows)]
    scale = alt.Scale(type="log", domain=[min(variances) / 2, max(variances) * 1.5], nice=False)
    axis = _flat_axis("variance of the unit over users", values=_ticks(variances), labelExpr=PLAIN)
    y = alt.Y("y:Q", scale=scale, axis=axis)
    lines = base.mark_line(strokeWidth=2.5, tooltip=True).encode(
        x=alt.X("x:Q", axis=alt.Axis(title="latent units, the most active first"), scale=_tight_scale()),
        y=y,
        color=_colour(looks),
        strokeDash=_dash(looks),
        tooltip=[alt.Tooltip("name:N", title="model")],
    )
    limit = alt.Chart(_data([{"y": threshold}])).mark_rule(strokeDash=[3, 3], opacity=0.7).encode(y="y:Q")
    label = (
        alt.Chart(_data([{"y": threshold, "text": "active above this line"}]))
        .mark_text(align="left", baseline="bottom", dx=6, dy=-3, x=0)
        .encode(y="y:Q", text="text:N")
    )
    return _spec(lines + limit + label, 320)


def points(rows: Rows, looks: Sequence[Look], controls: str) -> Spec:
    """The map of the items.

    rows : x, y, title, genres, users, group
    controls : CSS selector of the element that gets the menu of groups
    """
    names = [look.name for look in looks]
    group = alt.param(
        name="group",
        value=None,
        bind=alt.binding_select(options=[None, *names], labels=["all", *names], name="Show ", element=controls),
    )
    axis = alt.Axis(labels=False, ticks=False, grid=False, domain=False, title=None)
    x, y = (_padded_scale([row[key] for row in rows]) for key in ("x", "y"))
    points = (
        alt.Chart(_data(rows))
        .mark_point(filled=True, stroke="var(--page)", strokeWidth=0.5)
        .encode(
            x=alt.X("x:Q", axis=axis, scale=x),
            y=alt.Y("y:Q", axis=axis, scale=y),
            color=_colour(looks, "group"),
            shape=_shape(looks, "group"),
            size=alt.Size("users:Q", scale=alt.Scale(type="sqrt", range=[22, 170]), legend=None),
            opacity=alt.when("group === null || datum.group === group")
            .then(alt.value(0.85))
            .otherwise(alt.value(0.06)),
            tooltip=[
                alt.Tooltip("title:N"),
                alt.Tooltip("genres:N"),
                alt.Tooltip("users:Q", title="training users", format=","),
            ],
        )
        .add_params(group)
    )
    return _spec(points, 560)


def _flat_axis(title: str, **more: Any) -> alt.Axis:
    """A vertical axis with its title above it, where it takes no width."""
    flat = {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "end", "titleX": 0, "titleY": -14}
    return alt.Axis(title=title, **(flat | {"tickCount": 6, "domain": False, "ticks": False} | more))


def _group_axis(title: str) -> alt.Axis:
    """An axis with a label in the middle of each group, one word per line, so that all fit on a phone."""
    bare = {"grid": False, "ticks": False, "labelAngle": 0, "labelOverlap": False, "labelPadding": 8}
    return alt.Axis(title=title, bandPosition=0.5, labelExpr="split(datum.label, ' ')", **bare)


def _ticks(values: Sequence[float]) -> list[float]:
    """Ticks of a logarithmic scale: powers of ten and, if the values span few of these, numbers in between."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    digits = (1.0,) if high - low > 3 else (1.0, 2.0, 5.0) if high - low < 3 else (1.0, 3.0)
    return [float(f"{digit}e{power}") for power in range(low, high + 1) for digit in digits]


def _padded_scale(values: Sequence[float]) -> alt.Scale:
    """A scale from the least value to the largest, with a margin."""
    margin = 0.03 * (max(values) - min(values) or 1.0)
    return alt.Scale(domain=[min(values) - margin, max(values) + margin], nice=False)


def _tight_scale() -> alt.Scale:
    """A scale from the least value to the largest."""
    return alt.Scale(zero=False, nice=False)


def _data(rows: Rows) -> alt.Data:
    return alt.Data(values=list(rows))


def _spec(chart: Any, height: int) -> Spec:
    """The specification of a chart that is as wide as its element of the page."""
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    sized = chart.properties(width="container", height=height, autosize=fit)
    spec: Spec = sized.to_dict(validate=False)
    sized.validate(_without_rows(spec))  # of rows, the schema says little, and takes most of the time
    return spec | {"config": CONFIG, "padding": {"left": 2, "right": 8, "top": 6, "bottom": 4}}


def _without_rows(spec: Any) -> Any:
    """A copy of a specification whose data are empty."""
    if isinstance(spec, list):
        return [_without_rows(part) for part in spec]
    if not isinstance(spec, dict):
        return spec
    return {name: {"values": []} if name == "data" else _without_rows(part) for name, part in spec.items()}


def _y(field: str, title: str) -> alt.Y:
    return alt.Y(f"{field}:Q", scale=alt.Scale(zero=False), axis=_flat_axis(title))


def _interval_tips(title: str) -> list[alt.Tooltip]:
    """Mean and interval in a tooltip."""
    return [
        alt.Tooltip("mean:Q", title=title, format=".4f"),
        alt.Tooltip("low:Q", title="95 % from", format=".4f"),
        alt.Tooltip("high:Q", title="to", format=".4f"),
    ]


def _colour(looks: Sequence[Look], field: str = "name") -> alt.Color:
    scale = alt.Scale(domain=[look.name for look in looks], range=[look.colour for look in looks])
    return alt.Color(f"{field}:N", scale=scale, legend=None)


def _shape(looks: Sequence[Look], field: str = "name") -> alt.Shape:
    scale = alt.Scale(domain=[look.name for look in looks], range=[look.shape for look in looks])
    return alt.Shape(f"{field}:N", scale=scale, legend=None)


def _dash(looks: Sequence[Look]) -> alt.StrokeDash:
    scale = alt.Scale(domain=[look.name for look in looks], range=[list(look.dash) for look in looks])
    return alt.StrokeDash("name:N", scale=scale, legend=None)


def _escaped(name: str) -> str:
    """A name escaped for use as a field of Vega-Lite, where dots, brackets, colons and quotes are special."""
    return "".join(f"\\{letter}" if letter in ".[]:\\'\"" else letter for letter in name)
