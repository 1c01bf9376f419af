"""The charts of how good the models are: for whom, at which items, at what cost, and what fills their lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from recvae.benchmark.report import charts
from recvae.benchmark.report.pieces import Chart, Table, interval, numbers
from recvae.benchmark.report.view import ORACLE, AbsentError, Look, Summary, View, metric_name, seconds_text, summary
from recvae.benchmark.results import number
from recvae.evaluation.breakdown import TOP


def accuracy(view: View) -> list[Chart]:
    """The means of the main metric with their intervals."""
    looks = _all_looks(view)
    rows: list[dict[str, Any]] = []
    for name in view.rows:
        rows.append({"name": name} | interval(view.mean(name)))
    title = metric_name(view.main)
    return [
        Chart(
            "accuracy",
            f"{title} with 95 % intervals",
            "Each mark is a model's mean over the test users, further right is better; the line through it is the 95 % "
            "interval, within which the mean over very many users is likely to lie.",
            f"{title} of {len(rows)} models, from {rows[0]['name']} with {rows[0]['mean']:.4f} down to "
            f"{rows[-1]['name']} with {rows[-1]['mean']:.4f}.",
            charts.dots(rows, looks, title),
            Table(["model", title, "95 % from", "to"], [[r["name"], *_texts(r)] for r in rows]),
            [],
        )
    ]


def costs(view: View) -> list[Chart]:
    """Accuracy against the seconds of training, and against the users ranked in a second."""
    title = metric_name(view.main)
    least = 0.001  # seconds, or users: a scale of ratios has no zero
    seconds = {name: max(least, cost) for name, cost in numbers(view, "fit_seconds").items()}
    speed = {name: max(least, cost) for name, cost in numbers(view, "users_ranked_per_second").items()}
    made = []
    for name, heading, x, found, tip, said in (
        ("training", "Accuracy and time of training", "seconds of training",
         seconds, alt.Tooltip("cost:Q", title="training, s", format=",.2f"),
         "Higher is more accurate, further left is trained sooner: the best place is the upper left corner."),
        ("throughput", "Accuracy and speed of ranking", "users ranked in a second",
         speed, alt.Tooltip("cost:Q", title="users/s", format=",.0f"),
         "Higher is more accurate, further right is faster: the best place is the upper right corner."),
    ):  # fmt: skip
        rows: list[dict[str, Any]] = [
            {"name": model, "cost": cost} | interval(view.mean(model)) for model, cost in found.items()
        ]
        looks = [view.looks[model] for model in found]
        texts = [[r["name"], seconds_text(r["cost"]) if name == "training" else f"{r['cost']:,.0f}"] for r in rows]
        made.append(
            Chart(
                name,
                heading,
                said,
                f"{title} of each model against {x}; the table has the numbers.",
                charts.against(rows, looks, x, title, tip),
                Table(
                    ["model", "training" if name == "training" else "users/s", title],
                    [[*text, f"{r['mean']:.4f}"] for text, r in zip(texts, rows, strict=True)],
                ),
                looks,
            )
        )
    return made


def recall_curves(view: View) -> list[Chart]:
    """Recall by the length of the list."""
    curves = {name: [summary(point) for point in curve] for name, curve in view.each("recall_curve").items()}
    looks = [view.looks[name] for name in curves]
    rows: list[dict[str, Any]] = [
        {"name": name, "x": k, "y": point.mean, "kept": False}
        for name, curve in curves.items()
        for k, point in enumerate(curve, 1)
        if point is not None
    ]
    ks = [k for k in (1, 5, 10, 20, 50, 100) if k <= max(row["x"] for row in rows)]
    at = {(row["name"], row["x"]): f"{row['y']:.4f}" for row in rows}
    return [
        Chart(
            "recall",
            "Recall by the length of the list",
            "A line says what share a list of k items finds of what was hidden, relative to the most that k places can "
            "hold (so that a line may fall at first); higher is better, and hovering tells all values at one k.",
            f"Recall at k from 1 to {ks[-1]}, a line for each of {len(curves)} models.",
            charts.curves(rows, looks, "k, items in the list", "recall@k", ".4f", 360),
            Table(["model", *(f"recall@{k}" for k in ks)], [[n, *(at.get((n, k), "") for k in ks)] for n in curves]),
            looks,
        )
    ]


def by_activity(view: View) -> list[Chart]:
    """The main metric by how many items a user has."""
    groups = _groups(view, "activity")
    labels = _ranges(groups)
    title = metric_name(view.main)
    sizes = [f"{group['users']:,} users" for group in groups]
    read = (
        "Users are grouped by how many items the model saw of them, about as many users in each group; within a group "
        "the highest mark wins, and where the lines overlap much the order may be chance."
    )
    return [_grouped(view, "by_activity", "By users' activity", read, labels, sizes, "items that a user has", title)]


def by_popularity(view: View) -> list[Chart]:
    """What is found of popular and of rare items."""
    groups = _groups(view, "popularity")
    labels = _item_labels(groups)
    title = f"share found in {TOP} places"
    sizes = [f"{group['items']:,} items, {group['held_out']:,} times hidden" for group in groups]
    read = (
        "Items are grouped from the most popular to the rarest, each group with about a fifth of all training events; "
        f"a mark says what share of a group's hidden items a list of {TOP} finds, and rare ones are harder to find."
    )
    return [_grouped(view, "by_popularity", "By items' popularity", read, labels, sizes, "items, by popularity", title)]


def listed(view: View) -> list[Chart]:
    """What is recommended: coverage, and popularity of the items in the lists."""
    made = []
    if any(row.get("listed") for row in view.rows.values()):
        made.append(_listed(view))
    lists = {name: row.get("lists") or {} for name, row in view.rows.items()}
    known = {name: value for name in lists if (value := number(lists[name].get("coverage"))) is not None}
    if known:
        rows = [{"name": name, "value": value} for name, value in known.items()]
        texts = [[n, *(_text(number(lists[n].get(key))) for key in ("coverage", "novelty", "gini"))] for n in known]
        made.append(
            Chart(
                "coverage",
                "Coverage of the catalogue",
                "The bar is the share of all items that stand in at least one test user's list; a long bar means that "
                "more than the same few items are shown.",
                "Share of the catalogue in at least one list: "
                + ", ".join(f"{name} {value:.0%}" for name, value in known.items())
                + ".",
                charts.bars(rows, [view.looks[name] for name in known], "share of all items", ".0%"),
                Table(["model", "coverage", "novelty, bits", "Gini index"], texts),
                [],
            )
        )
    if not made:
        raise AbsentError("the results hold nothing about the lists.")
    return made


def _grouped(
    view: View, key: str, title: str, read: str, labels: Sequence[str], sizes: Sequence[str], x: str, y: str
) -> Chart:
    found = {name: [summary(value) for value in values] for name, values in view.each(key).items()}
    if any(len(values) != len(labels) for values in found.values()):
        raise AbsentError("the results hold other groups than they name.")
    rows = [
        {"name": name, "group": label, "size": size} | interval(value)
        for name, values in found.items()
        for label, size, value in zip(labels, sizes, values, strict=True)
        if value is not None
    ]
    looks = [view.looks[name] for name in found]
    texts = [[name, *("" if v is None else f"{v.mean:.4f}" for v in values)] for name, values in found.items()]
    wins = [_winner(found, place) for place in range(len(labels))]
    best = "; ".join(f"{label}: {name}" for label, name in zip(labels, wins, strict=True) if name)
    return Chart(
        key.replace("_", "-"),
        title,
        read,
        f"{y} of {len(found)} models in {len(labels)} groups ({x}). Highest in each: {best}.",
        charts.by_group(rows, labels, looks, x, y),
        Table([f"{y}; {x}", *labels], [*texts, ["highest (but for the oracle)", *wins]]),
        looks,
        found=f"Highest in each group: {best}.",
    )


def _winner(found: dict[str, list[Summary | None]], place: int) -> str:
    means = {name: value.mean for name, values in found.items() if (value := values[place]) and name != ORACLE}
    return max(means, key=means.__getitem__) if means else ""


def _listed(view: View) -> Chart:
    groups = _groups(view, "popularity")
    labels = _item_labels(groups)
    held = sum(group["held_out"] for group in groups)
    whole = {"hidden items": [group["held_out"] / held for group in groups]} | view.each("listed")
    rows = [
        {"name": name, "group": label, "place": place, "share": share}
        for name, shares in whole.items()
        for place, (label, share) in enumerate(zip(labels, shares, strict=True))
    ]
    looks = [Look(label, f"var(--g{place})", "square", (1, 0)) for place, label in enumerate(labels)]
    return Chart(
        "listed",
        f"Popularity of what fills the first {TOP} places",
        "Each bar divides a model's places among items from the most popular (left) to the rarest (right); the first "
        "bar is what users really went on to, and a model whose first part is longer than there plays safe.",
        f"Share of the first {TOP} places by popularity of items, for {len(whole) - 1} models and the hidden items.",
        charts.shares(rows, list(whole), looks),
        Table(["model", *labels], [[name, *(f"{share:.1%}" for share in own)] for name, own in whole.items()]),
        looks,
    )


def _all_looks(view: View) -> list[Look]:
    return [view.looks[name] for name in view.rows]


def _texts(row: dict[str, Any]) -> list[str]:
    return [f"{row[key]:.4f}" for key in ("mean", "low", "high")]


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _groups(view: View, name: str) -> list[dict[str, int]]:
    groups = (view.results.get("groups") or {}).get(name)
    if not groups:
        raise AbsentError("the results hold no groups; they were made by an older version, or cut.")
    return list(groups)


def _ranges(groups: Sequence[dict[str, int]]) -> list[str]:
    """The sizes in each group, as labels: 5–12, 13–20, 21+"""
    pairs = [(group["least"], group["most"]) for group in groups]
    labels = [f"{least:,}" if least == most else f"{least:,}–{most:,}" for least, most in pairs]
    return [*labels[:-1], f"{pairs[-1][0]:,}+"] if len(labels) > 1 else labels


def _item_labels(groups: Sequence[dict[str, int]]) -> list[str]:
    """How many items each group has, from the most popular."""
    before = ["top", *["next"] * (len(groups) - 2), "last"][: len(groups)]
    return [f"{where} {group['items']:,}" for where, group in zip(before, groups, strict=True)]
