"""The parts of the page about single users and items: examples of lists with their reasons, and the map."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from recvae.benchmark.report import charts
from recvae.benchmark.report.pieces import Chart, Table
from recvae.benchmark.report.view import AbsentError, Look, View, look
from recvae.benchmark.results import number

CONTROLS = "map-controls"  # id of the element for the choice of a genre
GENRES = 7  # with a colour of their own; the rest are "other"
OTHER = "other"
GREY = 6  # the place of the grey look, which is theirs
SHOWN = 30  # items of a history before the fold


@dataclass(frozen=True)
class Item:
    """An item of a list. hit : it is among what was hidden; because : items of the user that it came from"""

    title: str
    genres: str
    hit: bool = False
    because: str = ""


@dataclass(frozen=True)
class List:
    """What a model recommends to a user."""

    model: str
    items: list[Item]
    hits: int


@dataclass(frozen=True)
class Person:
    """A test user: what the models saw, what was hidden, what they recommend."""

    user: str
    history: list[Item]
    more: list[Item]  # of the history
    hidden: list[Item]
    lists: list[List]


def people(view: View) -> list[Person]:
    """The examples. Raises AbsentError where there are none."""
    examples = view.results.get("examples")
    if not examples:
        raise AbsentError("the results hold no users; they were made with --examples 0, as where data stay private.")
    return [_person(view, example) for example in examples]


def item_map(view: View) -> Chart:
    """The items in the plane. Raises AbsentError where the results have no map."""
    found: dict[str, Any] | None = view.results.get("item_map")
    if found is None:
        raise AbsentError(
            "the results hold no map: it needs a gradient-trained model of this package, and other than --examples 0, "
            "for titles are data."
        )
    groups, looks, by = _map_groups(found)
    columns = zip(found["x"], found["y"], found["title"], found["users"], groups, strict=True)
    genres = found["genres"] or [""] * len(groups)
    rows = [
        {"x": x, "y": y, "title": title, "users": users, "group": group, "genres": genre.replace("|", ", ")}
        for (x, y, title, users, group), genre in zip(columns, genres, strict=True)
        if number(x) is not None and number(y) is not None
    ]
    if not rows:
        raise AbsentError("the map of the results holds no place.")
    return Chart(
        "map",
        f"{len(rows):,} of {found['of']:,} items as {found['model']} sees them",
        "Each mark is an item, larger where more users have it; neighbours are recommended to the same people, "
        "whatever their labels, and distances across the map mean little (hover, or tap, to read a title).",
        f"A map of the {len(rows):,} most popular items, coloured by {by}; the table names the most popular of each.",
        charts.places(rows, looks, f"#{CONTROLS}"),
        _map_table(rows, looks, by),
        looks,
        found=f"Places by {found['method']}, from the rows of the model's output layer; colours and marks by {by}.",
        controls=True,
    )


def _person(view: View, example: dict[str, Any]) -> Person:
    hidden, lists = set(_titles(example["held_out"])), []
    recommended = dict(example["recommended"])
    for name in [name for name in view.rows if name in recommended]:
        titles = _titles(recommended[name])
        reasons = (example.get("why") or {}).get(name) or []
        because = [", ".join(_split(title).title for title, _ in parts) for parts in reasons]
        because += [""] * (len(titles) - len(because))
        items = [_split(title, title in hidden, why) for title, why in zip(titles, because, strict=True)]
        lists.append(List(name, items, sum(item.hit for item in items)))
    history = [_split(title) for title in _titles(example["history"])]
    return Person(
        str(example["user"]), history[:SHOWN], history[SHOWN:], [_split(title) for title in example["held_out"]], lists
    )


def _titles(found: Any) -> list[str]:
    """Texts, or a TypeError."""
    if not isinstance(found, list) or not all(isinstance(title, str) for title in found):
        raise TypeError(f"{found!r} is no list of texts")
    return found


def _split(label: str, hit: bool = False, because: str = "") -> Item:
    """A label, "Title [Genre|Genre]", in its parts."""
    found = re.fullmatch(r"(.+) \[(.*)\]", label, re.DOTALL)
    title, genres = found.groups() if found else (label, "")
    return Item(title, genres.replace("|", ", "), hit, because)


def _map_groups(found: dict[str, Any]) -> tuple[list[str], list[Look], str]:
    """The group of each item, how groups are drawn, and what they are: first genres, else fifths by popularity."""
    if found["genres"] is None:
        n = len(found["users"])
        limits = [f"{'top' if place == 0 else 'next'} {-(-n // 5):,}" if place < 4 else "rarest" for place in range(5)]
        labels = [f"{place + 1}. {limit}" for place, limit in enumerate(limits)]
        looks = [Look(label, f"var(--g{place})", look("", place).shape, (1, 0)) for place, label in enumerate(labels)]
        place_of = np.argsort(np.argsort(-np.array(found["users"]), kind="stable"), kind="stable")
        return [labels[min(4, int(place * 5 // n))] for place in place_of], looks, "popularity"
    first = [genres.partition("|")[0] or OTHER for genres in found["genres"]]
    common = [genre for genre, _ in Counter(genre for genre in first if genre != OTHER).most_common(GENRES)]
    groups = [genre if genre in common else OTHER for genre in first]
    looks = [look(genre, place if place < GREY else place + 1) for place, genre in enumerate(common)]
    if OTHER in groups:
        looks.append(Look(OTHER, f"var(--m{GREY})", look(OTHER, GREY).shape, (1, 0)))
    return groups, looks, "first genre"


def _map_table(rows: list[dict[str, Any]], looks: list[Look], by: str) -> Table:
    """How many items each group has, and its most popular titles; rows come by popularity."""
    members = {each.name: [row["title"] for row in rows if row["group"] == each.name] for each in looks}
    texts = [[group, str(len(titles)), "; ".join(titles[:5])] for group, titles in members.items()]
    return Table([by, "items", "the most popular"], texts)
