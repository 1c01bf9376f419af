"""Data set cards: one TOML file for each, saying where the data are, how they are laid out and how they are used."""

from __future__ import annotations

import hashlib
import os
import sys
import tomllib
from dataclasses import dataclass, field, replace
from datetime import date
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_type_hints

from recvae.data.rows import Values
from recvae.data.splits import SPLIT_OPTIONS
from recvae.errors import InvalidDataError, InvalidTypeError, UnknownNameError, shown
from recvae.evaluation.metrics import parse_metric
from recvae.utils.paths import as_path, check_below, input_path, is_below, is_name

LAYOUTS = ("columns", "adjacency", "blocks")


@dataclass(frozen=True)
class Table:
    """A file of the data set, or several by a pattern, Parquet or delimited text.

    Attributes
    ----------
    columns : list[str]
        Their names in order, "" for those that are not read.
    layout : str
        "columns", one event in each line; "adjacency", one user in each line, with all items; "blocks", a line "item:"
        before the lines of its events.
    quoted : bool
        Whether a column in quotes may hold the delimiter; else the last column may.
    genre_flags : list[str]
        Names of the last columns, where each genre has one.
    """

    columns: list[str] = field(default_factory=list)
    file: str = ""
    layout: str = "columns"
    delimiter: str = ","
    header: bool = False
    quoted: bool = True
    encoding: str = "utf-8"
    genre_flags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not (self.delimiter and self.delimiter.isascii() and self.encoding):
            raise TypeError("delimiter or encoding is empty, or the delimiter no ASCII")
        if self.file and not is_below(self.file):
            raise TypeError(f"file = {shown(self.file)} is no path below the folder of the data set")
        if self.layout not in LAYOUTS:
            raise TypeError(f"layout = {shown(self.layout)} is none of {', '.join(LAYOUTS)}")
        if self.layout != "adjacency" and not self.columns:
            raise TypeError("columns are missing")


@dataclass(frozen=True)
class Download:
    """An archive, its checksum as its owners publish it, and the folder inside."""

    url: str
    checksum: str
    folder: str

    def __post_init__(self) -> None:
        if not is_below(self.folder):
            raise TypeError(f"folder = {shown(self.folder)} is no path below the top of the archive")
        if not is_name(self.archive):
            raise TypeError(f"url = {shown(self.url)} does not end in the name of a file")
        algorithm, _, digest = self.checksum.partition(":")
        if algorithm not in hashlib.algorithms_guaranteed or "shake" in algorithm or not digest:
            raise TypeError(f"checksum = {shown(self.checksum)} is none such as md5:... or sha256:...")

    @property
    def archive(self) -> str:
        """The name of its file."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Protocol:
    """How the data are used in published work: which events and users count, the split, what is measured.

    Attributes
    ----------
    split, heldout_users, test_share, valid_share, last, test_start, valid_start
        The kind of split and its options; see `recvae.data.splits.make_split`.
    min_value, min_item, min_user, values
        As in `Interactions.from_frame`.
    metrics : list[str]
        Those in the table; the last one sorts it, and chooses among settings.
    """

    split: str = "strong"
    heldout_users: int | None = None
    test_share: float | None = None
    valid_share: float | None = None
    last: int | None = None
    test_start: float | str | None = None
    valid_start: float | str | None = None
    min_value: float | None = None
    min_item: int = 0
    min_user: int = 5
    values: Values = "binary"
    metrics: list[str] = field(default_factory=lambda: ["recall@20", "recall@50", "ndcg@100"])

    def __post_init__(self) -> None:
        for metric in self.metrics or [""]:
            parse_metric(metric)

    def split_options(self) -> dict[str, Any]:
        """What the split is told."""
        return {name: getattr(self, name) for name in SPLIT_OPTIONS if getattr(self, name) is not None}


@dataclass(frozen=True)
class Expected:
    """Counts of the whole data set, before any filter."""

    users: int
    items: int
    events: int


@dataclass(frozen=True)
class Card:
    """All that is known of a data set. Only the embedded sample, which is made on the spot, has no files.

    A card of one's own names its file of events by `path`, which starts at the card's folder.
    """

    name: str
    title: str
    protocol: Protocol
    licence: str = ""
    citation: str = ""
    homepage: str = ""
    path: str = ""
    expected: Expected | None = None
    download: Download | None = None
    events: Table | None = None
    test: Table | None = None  # the events of a test that the data come with
    items: Table | None = None
    published: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise TypeError(f"name = {shown(self.name)} is no name of a folder")
        for part, needed in (("events", "user item"), ("test", "user item"), ("items", "item title")):
            table: Table | None = getattr(self, part)
            if table is not None and table.layout != "adjacency":
                wanted = needed.removesuffix(" item") if table.layout == "blocks" else needed
                missing = set(wanted.split()) - set(table.columns)
                if missing:
                    raise TypeError(f"[{part}] has no column {' and '.join(sorted(missing))}")
            if table is not None and not table.file and not (part == "events" and self.path):
                raise TypeError(f"[{part}] has no file")
        for who, figures in self.published.items():
            if not isinstance(figures, dict) or not all(_is_number(n) for n in figures.values()):
                raise TypeError(f"published {shown(who)} is no table of numbers")


PARTS: dict[str, type] = {
    "protocol": Protocol,
    "expected": Expected,
    "download": Download,
    "events": Table,
    "test": Table,
    "items": Table,
}


def known_cards() -> list[str]:
    """Names of the data sets that have a card."""
    return sorted(card.name.removesuffix(".toml") for card in _folder().iterdir() if card.name.endswith(".toml"))


def is_own_card(name: str | os.PathLike[str]) -> bool:
    """Whether this is the file of a card, and not the name of one of ours."""
    if not isinstance(name, (str, os.PathLike)):
        raise InvalidTypeError(f"Expected the name of a data set, or the file of a card, got {type(name).__name__}.")
    return isinstance(name, os.PathLike) or name.endswith(".toml")


def table_files(folder: Path, table: Table) -> list[Path]:
    """The files of a table, in order. Raises InvalidDataError where one leads out of the folder, by dots or links."""
    try:
        found = [] if (folder / table.file).exists() else folder.glob(table.file)  # a name may look like a pattern
        names = sorted(str(path.relative_to(folder)) for path in found) or [table.file]
    except (ValueError, OSError) as error:
        raise InvalidDataError(
            f"Expected a file or a pattern in {folder}, got {shown(table.file)}: {error}."
        ) from error
    return [check_below(folder, name, "the files of a data set") for name in names]


def load_card(name: str | os.PathLike[str]) -> Card:
    """The card of a data set, or one of your own by its file, which ends in .toml.

    Raises
    ------
    UnknownNameError
        With the nearest names.
    InvalidDataError
        For a card that cannot be read.
    """
    if is_own_card(name):
        return read_card(as_path(name))
    if name not in known_cards():
        raise UnknownNameError.among("data set", name, known_cards())
    with as_file(_folder() / f"{name}.toml") as path:
        return read_card(path)


def read_card(path: Path) -> Card:
    """Read a card from a TOML file. Raises InvalidDataError for broken TOML and for missing or unknown keys."""
    try:
        content = tomllib.loads(input_path(path).read_text(encoding="utf-8"))
        parts = {key: _make(PARTS[key], content[key]) for key in PARTS if key in content}
        card = _make(Card, content | parts)
        return _local(card, path.parent) if card.path else card
    except RecursionError:
        raise InvalidDataError(f"The card {path.name} cannot be read: it is too deep.") from None
    except (OSError, ValueError, TypeError) as error:
        raise InvalidDataError(
            f"The card {path.name} cannot be read: {error}; compare it with another card."
        ) from error


def _local(card: Card, folder: Path) -> Card:
    """A card of one's own, with its files found from the card's folder."""
    if card.events is None:
        raise TypeError("[events] is missing")
    if not is_below(card.path):
        raise TypeError(f"path = {shown(card.path)} is no path below the folder of the card")
    path = check_below(folder, card.path, "the path in a card")
    return replace(card, path=str(path), events=replace(card.events, file=path.name))


# type of a field -> what TOML may give for it; the others are checked where they are used
ACCEPTED: dict[Any, tuple[Any, str]] = {
    str: (str, "text"),
    bool: (bool, "true or false"),
    int: (int, "an integer"),
    int | None: (int, "an integer"),
    float | None: ((int, float), "a number"),
    float | str | None: ((int, float, str, date), "a date or a number"),
    list[str]: (list, "a list of texts"),
    dict[str, dict[str, float]]: (dict, "a table"),
}


def _make(kind: type, content: dict[str, Any]) -> Any:
    """An object of `kind` from a table of TOML. Raises TypeError for unknown, missing and ill-typed keys."""
    if not isinstance(content, dict):
        raise TypeError(f"{shown(content)} is no table of a {kind.__name__.lower()}")
    for name, hint in get_type_hints(kind).items():
        value, (accepted, called) = content.get(name), ACCEPTED.get(hint, (object, ""))
        texts = not isinstance(value, list) or all(isinstance(text, str) for text in value)
        truth = isinstance(value, bool) and hint is not bool
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise TypeError(f"{name} is a number of {value.bit_length()} bits, where 63 are enough for all")
        if name in content and (not isinstance(value, accepted) or truth or not texts):
            raise TypeError(f"{name} = {shown(value)} is not {called}")
    return kind(**{name: str(value) if isinstance(value, date) else value for name, value in content.items()})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _folder() -> Traversable:
    """Our cards: in a checkout a link to `datasets/` at its top, of which a wheel has a copy."""
    return files("recvae.datasets") / "cards"
