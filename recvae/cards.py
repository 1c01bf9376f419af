"""Data set cards: one TOML file for each, saying where the data are, how they are laid out and how they are used."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

from recvae.errors import InvalidDataError, UnknownNameError
from recvae.rows import Values


@dataclass(frozen=True)
class Table:
    """A file of the data set, Parquet or delimited text: its columns in order, "" for those that are not read."""

    columns: list[str]
    file: str = ""
    delimiter: str = ","
    header: bool = False
    encoding: str = "utf-8"
    genre_flags: list[str] = field(default_factory=list)  # names of the last columns, where each genre has one

    def __post_init__(self) -> None:
        if not (self.delimiter and self.encoding):
            raise TypeError("delimiter or encoding is empty")


@dataclass(frozen=True)
class Download:
    """An archive, its checksum as its owners publish it, and the folder inside."""

    url: str
    checksum: str
    folder: str


@dataclass(frozen=True)
class Protocol:
    """How the data are used in published work: events that count, users that count, users held out twice."""

    heldout_users: int
    min_value: float | None = None
    min_user: int = 5
    values: Values = "binary"


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
    items: Table | None = None
    published: dict[str, dict[str, float]] = field(default_factory=dict)


PARTS: dict[str, type] = {
    "protocol": Protocol,
    "expected": Expected,
    "download": Download,
    "events": Table,
    "items": Table,
}


def known_cards() -> list[str]:
    """Names of the data sets that have a card."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def load_card(name: str) -> Card:
    """The card of a data set, or one of your own by its file, which ends in .toml.

    Raises UnknownNameError with the nearest names, InvalidDataError for a card that cannot be read.
    """
    if name.endswith(".toml"):
        return read_card(Path(name))
    if name not in known_cards():
        raise UnknownNameError.among("data set", name, known_cards())
    return read_card(_folder() / f"{name}.toml")


def read_card(path: Path) -> Card:
    """Read a card from a TOML file. Raises InvalidDataError for broken TOML and for missing or unknown keys."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        parts = {key: _make(PARTS[key], content[key]) for key in PARTS if key in content}
        card = _make(Card, content | parts)
        return replace(card, path=str(path.parent / card.path)) if card.path else card
    except (OSError, ValueError, TypeError) as error:
        raise InvalidDataError(
            f"The card {path.name} cannot be read: {error}; compare it with another card."
        ) from error


# type of a field -> what TOML may give for it; the others are checked where they are used
ACCEPTED: dict[Any, Any] = {str: str, bool: bool, int: int, float | None: (int, float), list[str]: list}


def _make(kind: type, content: dict[str, Any]) -> Any:
    """An object of `kind` from a table of TOML. Raises TypeError for unknown, missing and ill-typed keys."""
    for name, hint in get_type_hints(kind).items():
        value = content.get(name)
        texts = not isinstance(value, list) or all(isinstance(text, str) for text in value)
        if name in content and not (isinstance(value, ACCEPTED.get(hint, object)) and texts):
            raise TypeError(f"{name} = {value!r} is no {getattr(hint, '__name__', hint)}")
    return kind(**content)


def _folder() -> Path:
    """Inside the package where a wheel was installed, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "cards" if (here / "cards").is_dir() else here.parent / "datasets"
