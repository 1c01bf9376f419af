"""Charts of accuracy, overall, by user and item group and against cost, and of the recommended items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from recvae.benchmark.report import charts
from recvae.benchmark.report.view import (
    ORACLE,
    AbsentError,
    Chart,
    Interval,
    Look,
    Table,
    View,
    columns_of,
    interval,
    metric_name,
    seconds_text,
)
from recvae.benchmark.results import number
from recvae.evaluation.breakdown import TOP


def accuracy(view: View) -> list[Chart]:
    """The means of the main metric with their intervals."""
    rows = [view.chart_row(name) for name in view.rows]
    title = metric_name(view.main)
    return [
        Chart(
            "accuracy",
            f"{title} with 95 % intervals",
            "Each mark is a model's mean over the test users, further right is better; the line through it is the 95 % "
            "interval, within which the mean over very many users is likely to lie.",
            f"{title} of {len(rows)} models, from {rows[0]['name']} with {rows[0]['mean']:.4f} down to "
            f"{rows[-1]['name']} with {rows[-1]['mean']:.4f}.",
            charts.dots(rows, [view.looks[name] for name in view.rows], title),
            Table(
                ["model", title, "95 % from", "to"],
                [[row["name"], *(f"{row[key]:.4f}" for key in ("mean", "low", "high"))] for row in rows],
            ),
            [],
        )
    ]


def costs(view: View) -> list[Chart]:
    """Accuracy against training time, and against users ranked per second."""
    return [
        _cost(
            view,
            "training",
            "fit_seconds",
            "Accuracy and time of training",
            "seconds of training",
            "Higher is more accurate, further left is trained sooner: the best place is the upper left corner.",
            ("training", seconds_text),
            alt.Tooltip("cost:Q", title="training, s", format=",.2f"),
        ),
        _cost(
            view,
            "throughput",
            "users_ranked_per_second",
            "Accuracy and speed of ranking",
            "users ranked in a second",
            "Higher is more accurate, further right is faster: the best place is the upper right corner.",
            ("users/s", lambda speed: f"{speed:,.0f}"),
            alt.Tooltip("cost:Q", title="users/s", format=",.0f"),
        ),
    ]


def _cost(
    view: View, name: str, key: str, heading: str, x: str, read: str, column: tuple[str, Any], tip: alt.Tooltip
) -> Chart:
    """Accuracy against a cost. column : its name in the table, and the function that formats it"""
    title = metric_name(view.main)
    # a logarithmic scale has no zero
    rows = [view.chart_row(model) | {"cost": max(0.001, cost)} for model, cost in view.numbers(key).items()]
    looks = [view.looks[row["name"]] for row in rows]
    return Chart(
        name,
        heading,
        read,
        f"{title} of each model against {x}; the table has the numbers.",
        charts.against(rows, looks, x, title, tip),
        Table(
            ["model", column[0], title], [[row["name"], column[1](row["cost"]), f"{row['mean']:.4f}"] for row in rows]
        ),
        looks,
    )


def recall_curves(view: View) -> list[Chart]:
    """Recall@k by k, the length of the list."""
    curves = {name: [interval(point) for point in curve] for name, curve in view.values("recall_curve").items()}
    looks = [view.looks[name] for name in curves]
    rows: list[dict[str, Any]] = [
        {"name": name, "x": k, "y": point.mean, "kept": False}
        for name, curve in curves.items()
        for k, point in enumerate(curve, 1)
        if point is not None
    ]
    ks = [k for k in (1, 5, 10, 20, 50, 100) if k <= max(row["x"] for row in rows)]
    texts = {(row["name"], row["x"]): f"{row['y']:.4f}" for row in rows}
    return [
        Chart(
            "recall",
            "Recall by the length of the list",
            "A line says what share a list of k items finds of what was hidden, relative to the most that k places can "
            "hold (so that a line may fall at first); higher is better, and hovering tells all values at one k.",
            f"Recall at k from 1 to {ks[-1]}, a line for each of {len(curves)} models.",
            charts.curves(rows, looks, "k, items in the list", "recall@k", ".4f", 360),
            Table(
                ["model", *(f"recall@{k}" for k in ks)],
                [[name, *(texts.get((name, k), "") for k in ks)] for name in curves],
            ),
            looks,
        )
    ]


def by_activity(view: View) -> list[Chart]:
    """The main metric by the number of items in a user's history."""
    groups = _groups(view, "activity")
    labels = _ranges(groups)
    sizes = [f"{group['users']:,} users" for group in groups]
    read = (
        "Users are grouped by how many items the model saw of them, about as many users in each group; within a group "
        "the highest mark wins, and where the lines overlap much the order may be chance."
    )
    y = metric_name(view.main)
    return [_by_group(view, "by_activity", "By users' activity", read, labels, sizes, "items that a user has", y)]


def by_popularity(view: View) -> list[Chart]:
    """The share of held-out items that are found, by the popularity of the items."""
    groups = _groups(view, "popularity")
    sizes = [f"{group['items']:,} items, {group['held_out']:,} times hidden" for group in groups]
    read = (
        "Items are grouped from the most popular to the rarest, each group with about a fifth of all training events; "
        f"a mark says what share of a group's hidden items a list of {TOP} finds, and rare ones are harder to find."
    )
    x, y = "items, by popularity", f"share found in {TOP} places"
    return [_by_group(view, "by_popularity", "By items' popularity", read, _item_labels(groups), sizes, x, y)]


def _by_group(
    view: View, key: str, title: str, read: str, labels: Sequence[str], sizes: Sequence[str], x: str, y: str
) -> Chart:
    """A metric of each model in each group, and which model is best in each."""
    by_model = {name: [interval(value) for value in values] for name, values in view.values(key).items()}
    if any(len(intervals) != len(labels) for intervals in by_model.values()):
        raise AbsentError("the results hold other groups than they name.")
    rows = [
        {"name": name, "group": label, "size": size} | columns_of(value)
        for name, intervals in by_model.items()
        for label, size, value in zip(labels, sizes, intervals, strict=True)
        if value is not None
    ]
    looks = [view.looks[name] for name in by_model]
    texts = [[name, *("" if v is None else f"{v.mean:.4f}" for v in values)] for name, values in by_model.items()]
    best = [_best_model(by_model, index) for index in range(len(labels))]
    best_text = "; ".join(f"{label}: {name}" for label, name in zip(labels, best, strict=True) if name)
    return Chart(
        key.replace("_", "-"),
        title,
        read,
        f"{y} of {len(by_model)} models in {len(labels)} groups ({x}). Highest in each: {best_text}.",
        charts.by_group(rows, labels, looks, x, y),
        Table([f"{y}; {x}", *labels], [*texts, ["highest (but for the oracle)", *best]]),
        looks,
        caption=f"Highest in each group: {best_text}.",
    )


def _best_model(by_model: dict[str, list[Interval | None]], index: int) -> str:
    """The model, apart from the oracle, with the highest mean in group `index`; "" without one."""
    means = {name: value.mean for name, values in by_model.items() if (value := values[index]) and name != ORACLE}
    return max(means, key=means.__getitem__) if means else ""


def recommended_items(view: View) -> list[Chart]:
    """What is recommended: popularity of the items in the lists, and coverage."""
    sections = []
    if any(row.get("listed") for row in view.rows.values()):
        sections.append(_popularity_of_lists(view))
    lists = {name: row.get("lists") or {} for name, row in view.rows.items()}
    coverage = {name: value for name in lists if (value := number(lists[name].get("coverage"))) is not None}
    if coverage:
        sections.append(_coverage(view, lists, coverage))
    if not sections:
        raise AbsentError("the results hold nothing about the lists.")
    return sections


def _popularity_of_lists(view: View) -> Chart:
    groups = _groups(view, "popularity")
    labels = _item_labels(groups)
    n_held_out = sum(group["held_out"] for group in groups)
    by_name = {"hidden items": [group["held_out"] / n_held_out for group in groups]} | view.values("listed")
    rows = [
        {"name": name, "group": label, "place": index, "share": share}
        for name, shares in by_name.items()
        for index, (label, share) in enumerate(zip(labels, shares, strict=True))
    ]
    looks = [Look(label, f"var(--g{index})", "square", (1, 0)) for index, label in enumerate(labels)]
    return Chart(
        "listed",
        f"Popularity of what fills the first {TOP} places",
        "Each bar divides a model's places among items from the most popular (left) to the rarest (right); the first "
        "bar is what users really went on to, and a model whose first part is longer than there plays safe.",
        f"Share of the first {TOP} places by popularity of items, for {len(by_name) - 1} models and the hidden items.",
        charts.shares(rows, list(by_name), looks),
        Table(["model", *labels], [[name, *(f"{share:.1%}" for share in shares)] for name, shares in by_name.items()]),
        looks,
    )


def _coverage(view: View, lists: dict[str, dict[str, Any]], coverage: dict[str, float]) -> Chart:
    def text(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    return Chart(
        "coverage",
        "Coverage of the catalogue",
        "The bar is the share of all items that stand in at least one test user's list; a long bar means that "
        "more than the same few items are shown.",
        "Share of the catalogue in at least one list: "
        + ", ".join(f"{name} {value:.0%}" for name, value in coverage.items())
        + ".",
        charts.bars(
            [{"name": name, "value": value} for name, value in coverage.items()],
            [view.looks[name] for name in coverage],
            "share of all items",
            ".0%",
        ),
        Table(
            ["model", "coverage", "novelty, bits", "Gini index"],
            [
                [name, *(text(number(lists[name].get(key))) for key in ("coverage", "novelty", "gini"))]
                for name in coverage
            ],
        ),
        [],
    )


def _groups(view: View, name: str) -> list[dict[str, int]]:
    groups = (view.results.get("groups") or {}).get(name)
    if not groups:
        raise AbsentError("the results hold no groups; they were made by an older version, or cut.")
    return list(groups)


def _ranges(groups: Sequence[dict[str, int]]) -> list[str]:
    """The ranges of the groups, as labels: 5–12, 13–20, 21+"""
    ranges = [(group["least"], group["most"]) for group in groups]
    labels = [f"{least:,}" if least == most else f"{least:,}–{most:,}" for least, most in ranges]
    return [*labels[:-1], f"{ranges[-1][0]:,}+"] if len(labels) > 1 else labels


def _item_labels(groups: Sequence[dict[str, int]]) -> list[str]:
    """Labels of the item groups, from the most popular: top 20, next 50, last 900"""
    positions = ["top", *["next"] * (len(groups) - 2), "last"][: len(groups)]
    return [f"{position} {group['items']:,}" for position, group in zip(positions, groups, strict=True)]
