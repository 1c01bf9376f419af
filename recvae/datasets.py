"""Data set by name -> Interactions, by its card: found or downloaded, parsed, filtered as in published work."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pyarrow as pa

from recvae.cards import Card, Expected, Table, load_card
from recvae.download import fetch
from recvae.errors import DataNotFoundError, InvalidDataError, InvalidParameterError
from recvae.frames import read_delimited, read_table
from recvae.interactions import Interactions
from recvae.sample import make_sample

# item id -> text
Texts = dict[int | str, str]


def load_dataset(
    name: str,
    home: str | Path | None = None,
    *,
    min_value: float | None = None,
    min_user: int | None = None,
    show_progress: bool = True,
) -> Interactions:
    """Load a data set by the name of its card, such as "ml-1m", or by the file of a card of your own (.toml).

    "sample" is made on the spot.

    home : folder of data sets; else the environment variable RECVAE_DATA, else the user's cache. A folder of the data
        set that is there is used as it is, else the data are downloaded, checked and unpacked.
    min_value, min_user : which events and users count, in the place of the card's protocol (see `load_card`)

    Raises UnknownNameError, DataNotFoundError (not here and no network: the message says which file to put where),
    InvalidDataError (damaged or other files).
    """
    card = load_card(name)
    protocol = card.protocol
    min_value = protocol.min_value if min_value is None else min_value
    min_user = protocol.min_user if min_user is None else min_user
    if min_value is not None and (card.events is None or "value" not in card.events.columns):
        raise InvalidParameterError(f"Expected no min_value for {name}, whose events have no value; got {min_value}.")
    if card.events is None:
        if card.name != "sample":
            raise InvalidDataError(f"Expected [events] in the card {name}, got none; compare it with another card.")
        return make_sample().interactions.filter(min_user=min_user)
    folder = Path(card.path).parent if card.path else fetch(card, data_home(home), show_progress)
    events = _read_events(Path(card.path) if card.path else folder / card.events.file, card.events)
    if card.expected is not None:
        _check_counts(card, card.expected, events, folder)
    titles, genres = _read_items(folder / card.items.file, card.items) if card.items else ({}, {})
    return Interactions.from_frame(
        events,
        value="value" if "value" in card.events.columns else None,
        min_value=min_value,
        min_user=min_user,
        titles=titles or None,
        genres=genres or None,
        values=protocol.values,
    )


def data_home(home: str | Path | None = None) -> Path:
    """Where data sets are: the argument, else RECVAE_DATA, else the user's cache."""
    return Path(home or os.environ.get("RECVAE_DATA") or platformdirs.user_cache_dir("recvae")).expanduser()


def _read_events(path: Path, table: Table) -> pa.Table:
    """Columns user, item and, where there is one, value. -> table of the events"""
    wanted = [name for name in ("user", "item", "value") if name in table.columns]
    if not path.exists():
        raise _missing(path)
    if path.suffix == ".parquet":
        return read_table(path, wanted)
    # the parser takes one character: "::" is ":" with an empty column after each
    gap = len(table.delimiter) - 1
    columns = [name or f"_{place}" for place, name in enumerate(table.columns)]
    spread = [part for name in columns for part in [name, *(f"{name}.{place}" for place in range(gap))]]
    names = spread[: len(spread) - gap]
    return read_delimited(path, table.delimiter[0], wanted, names, int(table.header), table.encoding)


def _read_items(path: Path, table: Table) -> tuple[Texts, Texts]:
    """Titles and genres ("Drama|War") by item id, where the file has them."""
    titles: Texts = {}
    genres: Texts = {}
    columns = [*table.columns, *table.genre_flags]
    try:
        for fields in _lines(path, table):
            if len(fields) != len(columns):
                raise ValueError(f"expected {len(columns)} columns, got {len(fields)} in {fields}")
            row = dict(zip(columns, fields, strict=True))
            item: int | str = int(row["item"]) if row["item"].isdecimal() else row["item"]
            titles[item] = row["title"]
            genres[item] = row.get("genres") or "|".join(genre for genre in table.genre_flags if row[genre] == "1")
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (ValueError, LookupError) as error:  # too few columns, bytes that are no text
        raise InvalidDataError(f"The file {path} is damaged after item {len(titles)}: {error}.") from error
    return titles, genres if any(genres.values()) else {}


def _lines(path: Path, table: Table) -> Iterator[list[str]]:
    with path.open(encoding=table.encoding, newline="") as lines:
        if table.header:
            next(lines, None)
        if table.delimiter == ",":
            yield from csv.reader(lines)
        else:
            yield from (line.rstrip("\r\n").split(table.delimiter) for line in lines)


def _missing(path: Path) -> DataNotFoundError:
    return DataNotFoundError(
        f"Expected the file {path.name} in {path.parent}, which is there without it; put it there."
    )


def _check_counts(card: Card, counts: Expected, events: pa.Table, folder: Path) -> None:
    found = tuple(int(n) for n in (len(events["user"].unique()), len(events["item"].unique()), len(events)))
    expected = (counts.users, counts.items, counts.events)
    if found != expected:
        raise InvalidDataError(
            f"Expected {expected} users, items and events in {folder}, as the card of {card.name} says, got {found}: "
            f"the files are truncated or of another version; read another version with Interactions.from_frame."
        )
