"""Sections of the page about single users and items: recommendations with their reasons, and the map of the items."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from recvae.benchmark.report import charts
from recvae.benchmark.report.view import AbsentError, Chart, Look, Table, View, look
from recvae.benchmark.results import number

CONTROLS = "map-controls"  # id of the element for the choice of a genre
GENRES = 7  # the most common ones have a colour of their own; the rest are "other"
OTHER = "other"
GREY = 6  # the index of the grey look, which "other" gets
SHOWN = 30  # items of a history that are shown before the fold


@dataclass(frozen=True)
class Item:
    """An item of a list. hit : whether it is a hidden item; because : titles in the history that explain it"""

    title: str
    genres: str
    hit: bool = False
    because: str = ""


@dataclass(frozen=True)
class Recommendations:
    """What a model recommends to a user."""

    model: str
    items: list[Item]
    hits: int


@dataclass(frozen=True)
class User:
    """A test user: the history that the models read, the hidden items, and what each model recommends."""

    user: str
    history: list[Item]
    folded_history: list[Item]  # the rest of it, below the fold
    hidden: list[Item]
    recommendations: list[Recommendations]


def users(view: View) -> list[User]:
    """The example users. Raises AbsentError if the results have none."""
    examples = view.results.get("examples")
    if not examples:
        raise AbsentError("the results hold no users; they were made with --examples 0, as where data stay private.")
    return [_user(view, example) for example in examples]


def _user(view: View, example: dict[str, Any]) -> User:
    hidden, recommendations = set(_labels(example["held_out"])), []
    recommended = dict(example["recommended"])
    for model in [name for name in view.rows if name in recommended]:
        labels = _labels(recommended[model])
        reasons = (example.get("why") or {}).get(model) or []
        because = [", ".join(_item(label).title for label, _ in pairs) for pairs in reasons]
        because += [""] * (len(labels) - len(because))  # only the first recommendations are explained
        items = [_item(label, label in hidden, why) for label, why in zip(labels, because, strict=True)]
        recommendations.append(Recommendations(model, items, sum(item.hit for item in items)))
    history = [_item(label) for label in _labels(example["history"])]
    hidden_items = [_item(label) for label in example["held_out"]]
    return User(str(example["user"]), history[:SHOWN], history[SHOWN:], hidden_items, recommendations)


def _labels(value: Any) -> list[str]:
    """The value, if it is a list of strings. Raises TypeError."""
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise TypeError(f"{value!r} is not a list of strings")
    return value


def _item(label: str, hit: bool = False, because: str = "") -> Item:
    """An item from its label, "Title [Genre|Genre]"."""
    match = re.fullmatch(r"(.+) \[(.*)\]", label, re.DOTALL)
    title, genres = match.groups() if match else (label, "")
    return Item(title, genres.replace("|", ", "), hit, because)


def item_map(view: View) -> list[Chart]:
    """The map of the items. Raises AbsentError if the results have none."""
    data: dict[str, Any] | None = view.results.get("item_map")
    if data is None:
        raise AbsentError(
            "the results hold no map: it needs a gradient-trained model of this package, and other than --examples 0, "
            "for titles are data."
        )
    groups, looks, by = _map_groups(data)
    columns = zip(data["x"], data["y"], data["title"], data["users"], groups, strict=True)
    genres = data["genres"] or [""] * len(groups)
    rows = [
        {"x": x, "y": y, "title": title, "users": n_users, "group": group, "genres": genre.replace("|", ", ")}
        for (x, y, title, n_users, group), genre in zip(columns, genres, strict=True)
        if number(x) is not None and number(y) is not None
    ]
    if not rows:
        raise AbsentError("the map of the results holds no point.")
    titles = {each.name: [row["title"] for row in rows if row["group"] == each.name] for each in looks}
    return [
        Chart(
            "map",
            f"{len(rows):,} of {data['of']:,} items as {data['model']} sees them",
            "Each mark is an item, larger where more users have it; neighbours are recommended to the same people, "
            "whatever their labels, and distances across the map mean little (hover, or tap, to read a title).",
            f"A map of the {len(rows):,} most popular items, coloured by {by}; the table names the most popular of "
            f"each.",
            charts.points(rows, looks, f"#{CONTROLS}"),
            # rows are in the order of popularity
            Table(
                [by, "items", "the most popular"],
                [[group, str(len(members)), "; ".join(members[:5])] for group, members in titles.items()],
            ),
            looks,
            caption=f"Positions by {data['method']}, from the rows of the model's output layer; colours and marks by "
            f"{by}.",
            controls=True,
        )
    ]


def _map_groups(data: dict[str, Any]) -> tuple[list[str], list[Look], str]:
    """Group items by first genre, else into fifths by popularity. -> group of each item, looks, name of the grouping"""
    if data["genres"] is None:
        n = len(data["users"])
        limits = [f"{'top' if fifth == 0 else 'next'} {-(-n // 5):,}" if fifth < 4 else "rarest" for fifth in range(5)]
        labels = [f"{fifth + 1}. {limit}" for fifth, limit in enumerate(limits)]
        looks = [Look(label, f"var(--g{fifth})", look("", fifth).shape, (1, 0)) for fifth, label in enumerate(labels)]
        ranks = np.argsort(np.argsort(-np.array(data["users"]), kind="stable"), kind="stable")
        return [labels[min(4, int(rank * 5 // n))] for rank in ranks], looks, "popularity"
    first_genres = [genres.partition("|")[0] or OTHER for genres in data["genres"]]
    common = [genre for genre, _ in Counter(genre for genre in first_genres if genre != OTHER).most_common(GENRES)]
    groups = [genre if genre in common else OTHER for genre in first_genres]
    looks = [look(genre, index if index < GREY else index + 1) for index, genre in enumerate(common)]
    if OTHER in groups:
        looks.append(Look(OTHER, f"var(--m{GREY})", look(OTHER, GREY).shape, (1, 0)))
    return groups, looks, "first genre"
