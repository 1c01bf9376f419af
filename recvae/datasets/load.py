"""Load a data set by name as Interactions or as a Split: download if needed, parse, and filter as its card says."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec.structs import astuple

from recvae.data.interactions import Interactions
from recvae.data.names import SPLIT_FOLDER
from recvae.data.splits import SPLIT_SEED, Split, check_split, make_split, split_options
from recvae.data.splits.folder import read_split
from recvae.data.tables.options import Reading
from recvae.datasets.card import Card, Expected, Protocol, is_own_card, known_cards, load_card
from recvae.datasets.download import fetch
from recvae.datasets.home import data_home
from recvae.datasets.parsers import Items, concat_events, read_events, read_items, table_files
from recvae.datasets.sample import make_sample
from recvae.errors import InvalidDataError, InvalidParameterError
from recvae.utils.paths import as_path

CardOrName = str | os.PathLike[str] | Card


def load_dataset(
    name: CardOrName,
    home: str | Path | None = None,
    *,
    min_value: float | None = None,
    min_user: int | None = None,
    show_progress: bool = True,
) -> Interactions:
    """Load a data set by the name of its card, such as "ml-1m", or by a card of your own.

    Parameters
    ----------
    name : str or Path or Card
        Name of a card, or a card of your own: its file (.toml) or a `Card`. "sample" is generated in memory; the others
        are read from `home`. If the data come with their own test set, its events are included.
    home : str or Path or None
        Folder of data sets; by default the environment variable RECVAE_DATA, otherwise the user's cache. If the data
        set's folder is there, it is used as it is; otherwise the data are downloaded, checked and unpacked.
    min_value : float or None
        Smallest value of an event that counts, instead of the card's (see `load_card`).
    min_user : int or None
        Smallest number of events of a user, instead of the card's.
    show_progress : bool
        Show a progress bar of the download.

    Returns
    -------
    Interactions
        The events that pass the filters of the card's protocol.

    Raises
    ------
    UnknownNameError
        If there is no such card.
    DataNotFoundError
        If the data are not in `home` and there is no network; the message says which file to put where.
    InvalidDataError
        If files are damaged, or do not match the card.
    """
    card = load_card(name)
    if card.events is None:
        return _sample(card, min_value, min_user)
    tables = _read(card, home, show_progress)
    return _interactions(card, tables, tables.all_events(card.name), min_value, min_user)


def load_unfiltered(
    name: CardOrName, home: str | Path | None = None, *, min_value: float | None = None, show_progress: bool = True
) -> tuple[pa.Table, float | None]:
    """Load all events of a data set, unfiltered, and the smallest value of an event that counts.

    Parameters and errors as of `load_dataset`.

    Returns
    -------
    tuple[pa.Table, float | None]
        A table of all events, including those below `min_value` and those of users with few events, with columns user,
        item and, where the data have them, value, time and behavior; and `min_value`, or that of the card.
    """
    card = load_card(name)
    if card.events is None:
        data = _sample(card, min_value, 0)
        cells = data.matrix.tocoo()
        return pa.table({"user": data.user_ids[cells.row], "item": data.item_ids[cells.col]}), None
    events = _read(card, home, show_progress).all_events(card.name).table
    return events, _min_value(card, events, min_value)


def behavior_rules(name: CardOrName) -> dict[str, Any]:
    """The column of behaviours and their weights of a data set, as keywords of `read_histories`."""
    protocol = load_card(name).protocol
    if protocol.weights is None:
        return {}
    weights = {"weights": protocol.weights, "unknown_behavior": protocol.unknown_behavior}
    return {"behavior": "behavior"} | weights


def load_split(
    name: CardOrName,
    home: str | Path | None = None,
    *,
    split: str | None = None,
    seed: int = SPLIT_SEED,
    min_value: float | None = None,
    min_user: int | None = None,
    show_progress: bool = True,
    **options: Any,
) -> Split:
    """Load a data set as `load_dataset` does, and split it as its card says or as asked for.

    Parameters
    ----------
    name : str or Path
        As in `load_dataset`; or the folder of a split, which needs no card: what the VAE papers' preprocessing or
        `Split.write` has left (train.csv, validation_tr.csv, validation_te.csv, test_tr.csv, test_te.csv,
        unique_sid.txt and, if there is one, unique_uid.txt), or LightGCN's (train.txt, test.txt).
    home : str or Path
        As in `load_dataset`.
    split : str or None
        Another kind of split than the card's: "strong", "per-user", "leave-last", "temporal" or "given".
    seed : int
        Seed of the split.
    min_value
        As in `load_dataset`; it applies to a given test set, too.
    min_user
        As in `load_dataset`; a given test set is not filtered by it.
    show_progress
        As in `load_dataset`.
    **options : Any
        Options of that kind of split, such as heldout_users=600; added to the card's options if the kind is the card's.

    Returns
    -------
    Split
        Training, validation and test.

    Raises
    ------
    RecvaeError
        As `load_dataset` and the split's own function.
    """
    card = load_card(name)
    kind, settings = resolve_split(card.protocol, split, seed, options)
    if kind == SPLIT_FOLDER:
        if min_value is not None or min_user is not None:
            raise InvalidParameterError(f"Expected neither min_value nor min_user with the split in {card.path}.")
        return read_split(card.path)
    if kind == "given" and card.test is None:
        raise InvalidParameterError(f"Expected another split for {card.name}, whose card gives no test.")
    if card.events is None or kind != "given":
        data = load_dataset(card, home, min_value=min_value, min_user=min_user, show_progress=show_progress)
        return make_split(data, kind, **settings)
    tables = _read(card, home, show_progress)
    train = _interactions(card, tables, tables.events, min_value, min_user)
    assert tables.test is not None
    test = _interactions(card, tables, tables.test, min_value, 0, 0, is_test=True)
    return make_split(train, kind, test, **settings)


def resolve_split(
    protocol: Protocol, split: str | None, seed: int, options: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Kind of split and all its options: those of the card, unless overridden. Raises as `check_split`."""
    kind = protocol.split if split is None else split
    if protocol.split == SPLIT_FOLDER:
        if split is not None or options:
            wanted = ", ".join([*([] if split is None else [f"split={split!r}"]), *options])
            raise InvalidParameterError(f"Expected no options for a split whose files are in a folder, got {wanted}.")
        return kind, {}
    settings = protocol.split_options() if kind == protocol.split else {}
    for part in ("test", "valid"):  # a share in `options` replaces the start of the card, and vice versa
        for one, other in (("share", "start"), ("start", "share")):
            if f"{part}_{one}" in options:
                settings.pop(f"{part}_{other}", None)
    settings |= options | ({"seed": seed} if "seed" in split_options(kind) else {})
    check_split(kind, settings)
    return kind, settings


def paths_of_dataset(name: CardOrName, home: str | Path | None = None) -> list[Path]:
    """Files and folders of a data set, and the folders of all other known data sets in `home`.

    Raises
    ------
    RecvaeError
        As `load_card`.
    """
    card, folder = load_card(name), data_home(home)
    card_file = [as_path(name)] if not isinstance(name, Card) and is_own_card(name) else []
    if card.protocol.split == SPLIT_FOLDER:
        return [Path(card.path)]
    if card.path:
        near = Path(card.path).parent
        tables = [table for table in (card.events, card.test, card.items) if table is not None]
        return card_file + [path for table in tables for path in table_files(near, table)]
    folders = [] if card.events is None else [*known_cards(), card.name]
    download = [] if card.download is None else [card.download.folder, card.download.archive]
    return card_file + [folder / other for other in [*folders, *download]]


@dataclass(frozen=True)
class _Tables:
    """The tables in the files of a data set."""

    events: Reading
    test: Reading | None
    items: Items

    def all_events(self, name: str) -> Reading:
        """Events of training and test set together."""
        return self.events if self.test is None else concat_events([self.events, self.test], name)


def _sample(card: Card, min_value: float | None, min_user: int | None) -> Interactions:
    if card.protocol.split == SPLIT_FOLDER:
        raise InvalidDataError(f"Expected all events of a data set, got the split in {card.path}; see load_split.")
    if card.name != "sample":
        raise InvalidDataError(f"Expected [events] in the card {card.name}, got none; compare it with another card.")
    if min_value is not None:
        raise _no_values(card, min_value)
    return make_sample().interactions.filter(min_user=card.protocol.min_user if min_user is None else min_user)


def _read(card: Card, home: str | Path | None, show_progress: bool) -> _Tables:
    assert card.events is not None
    folder = Path(card.path).parent if card.path else fetch(card, data_home(home), show_progress)
    if card.items is not None:
        table_files(folder, card.items)  # checks that they are inside the folder; `read_events` does so for the events
    events = read_events(folder, card.events)
    test = None if card.test is None else read_events(folder, card.test)
    if card.expected is not None:
        everything = events if test is None else concat_events([events, test], card.name)
        _check_counts(card, card.expected, everything.table, folder)
    return _Tables(events, test, read_items(folder, card.items) if card.items else Items())


def _interactions(
    card: Card,
    tables: _Tables,
    events: Reading,
    min_value: float | None,
    min_user: int | None,
    min_item: int | None = None,
    is_test: bool = False,
) -> Interactions:
    protocol = card.protocol
    min_value = _min_value(card, events.table, min_value)
    data = Interactions.from_reading(
        events,
        min_value=min_value,
        min_user=protocol.min_user if min_user is None else min_user,
        min_item=protocol.min_item if min_item is None else min_item,
        **_rules(protocol, is_test),
        titles=tables.items.titles or None,
        genres=tables.items.genres or None,
        values=protocol.values,
    )
    return data if data.account is None else replace(data, account=data.account.noted(*tables.items.notes()))


def _rules(protocol: Protocol, is_test: bool) -> dict[str, Any]:
    """What an event counts; of a test set, the weights only, which decide whether it counts at all."""
    rules: dict[str, Any] = {"weights": protocol.weights, "unknown_behavior": protocol.unknown_behavior}
    return rules if is_test else rules | {"k_core": protocol.k_core, "half_life": protocol.half_life}


def _min_value(card: Card, events: pa.Table, asked: float | None) -> float | None:
    """Smallest value of an event that counts: that of the card, unless another one is asked for."""
    min_value = card.protocol.min_value if asked is None else asked
    if min_value is not None and "value" not in events.column_names:
        raise _no_values(card, min_value)
    return min_value


def _no_values(card: Card, min_value: float) -> InvalidParameterError:
    return InvalidParameterError(f"Expected no min_value for {card.name}, whose events have no value; got {min_value}.")


def _check_counts(card: Card, expected: Expected, events: pa.Table, folder: Path) -> None:
    counts = Expected(len(events["user"].unique()), len(events["item"].unique()), len(events))
    if counts != expected:
        raise InvalidDataError(
            f"Expected {astuple(expected)} users, items and events in {folder}, as the card of {card.name} says, got "
            f"{astuple(counts)}: the files are truncated or of another version; read another version with "
            f"Interactions.from_frame."
        )
