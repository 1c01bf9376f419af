"""Data set cards: one TOML file per data set, with the location and layout of its files and its protocol."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tomllib
from datetime import date
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from recvae.data.names import SPLIT_FOLDER, SPLIT_OPTIONS, UNKNOWN_BEHAVIOR, VALUES, Values
from recvae.data.tables.options import WITHOUT_ID
from recvae.data.weight_spec import checked_weights, half_life_in_units
from recvae.datasets.table_spec import LAYOUT_COLUMNS, TableSpec
from recvae.errors import DataNotFoundError, InvalidDataError, InvalidTypeError, RecvaeError, UnknownNameError, shown
from recvae.evaluation.names import parse_metric
from recvae.utils.paths import as_path, check_below, input_path, is_below, is_name

# integers that fit 64 bits, and finite floats
Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Number = Integer | Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]


class Download(Struct, frozen=True, forbid_unknown_fields=True):
    """URL of an archive, its published checksum, and the folder of the data inside."""

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
        """File name of the archive: the last part of the URL."""
        return self.url.rpartition("/")[2]


class Protocol(Struct, frozen=True, forbid_unknown_fields=True):
    """How published work uses the data: filters of events and users, the split, the metrics.

    Attributes
    ----------
    split, heldout_users, test_share, valid_share, last, test_start, valid_start
        The kind of split and its options; see `recvae.data.splits.make_split`.
    min_value, min_item, min_user, k_core, weights, unknown_behavior, half_life, values
        As in `Interactions.from_frame`; weights are for the column `behavior` of the events.
    metrics : list[str]
        Metrics of the result table; the last one sorts the table and selects hyper-parameters.
    """

    split: str = "strong"
    heldout_users: Integer | None = None
    test_share: float | None = None
    valid_share: float | None = None
    last: Integer | None = None
    test_start: Number | str | None = None
    valid_start: Number | str | None = None
    min_value: Integer | float | None = None
    min_item: Integer = 0
    min_user: Integer = 5
    k_core: bool = False
    weights: dict[str, Number] | None = None
    unknown_behavior: Literal["refuse", "drop"] = "refuse"
    half_life: Number | str | None = None
    values: Values = "binary"
    metrics: Annotated[list[str], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["recall@20", "recall@50", "ndcg@100"]
    )

    def __post_init__(self) -> None:
        for metric in self.metrics:
            parse_metric(metric)
        try:
            if self.weights is not None:
                checked_weights(self.weights)
            if self.half_life is not None:
                half_life_in_units(self.half_life)
        except RecvaeError as error:
            raise TypeError(str(error).rstrip(".")) from None

    def split_options(self) -> dict[str, Any]:
        """Options of the split that the card sets."""
        return {name: getattr(self, name) for name in SPLIT_OPTIONS if getattr(self, name) is not None}


class Expected(Struct, frozen=True, forbid_unknown_fields=True):
    """Counts of all events in the files, before any filter."""

    users: Integer
    items: Integer
    events: Integer


class Card(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The description of a data set: where its files are, and how it is used in published work.

    Attributes
    ----------
    name, title : str
        Short name for commands and folders, and display name.
    protocol : Protocol
        Filters, split and metrics of published work.
    licence, citation, homepage : str
        As the authors of the data give them.
    path : str
        For a card of your own: the file of events, relative to the card's folder. For the folder of a split: its path.
    expected : Expected or None
        Counts of all events in the files, which loading checks.
    download : Download or None
        Archive and checksum.
    events, test, items : TableSpec or None
        Files of the events, of a test set that comes with the data, and of titles and genres. Only the embedded
        sample, which is generated, has no files.
    published : dict[str, dict[str, float]]
        Published results by model, then metric.
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
    events: TableSpec | None = None
    test: TableSpec | None = None  # events of the test set that comes with the data
    items: TableSpec | None = None
    published: dict[str, dict[str, Number]] = {}

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise TypeError(f"name = {shown(self.name)} is no name of a folder")
        if (self.protocol.weights is None) != (self.events is None or "behavior" not in self.events.columns):
            raise TypeError("[protocol] weights and the column behavior in [events] are not both there")
        for key, table in (("events", self.events), ("test", self.test), ("items", self.items)):
            if table is None:
                continue
            try:
                table.check_columns(("item", "title") if key == "items" else LAYOUT_COLUMNS[table.layout])
            except TypeError as error:
                raise TypeError(f"[{key}] {error}") from None
            if not table.file and not (key == "events" and self.path):
                raise TypeError(f"[{key}] has no file")


def known_cards() -> list[str]:
    """Names of the data sets that have a card. Raises DataNotFoundError in a checkout without symbolic links."""
    folder = _folder()
    if not folder.is_dir():
        raise DataNotFoundError(
            f"Expected a folder of data set cards at {folder}, a link to datasets/ at the top of the checkout, got "
            f"{'a file: this copy was made without symbolic links' if folder.is_file() else 'nothing'}; copy datasets/ "
            f"to that path, or check the repository out again with git config core.symlinks true."
        )
    return sorted(card.name.removesuffix(".toml") for card in folder.iterdir() if card.name.endswith(".toml"))


def is_own_card(name: str | os.PathLike[str]) -> bool:
    """Whether `name` is the path of a card file rather than the name of a card of the package."""
    if not isinstance(name, (str, os.PathLike)):
        raise InvalidTypeError(f"Expected the name of a data set, or the file of a card, got {type(name).__name__}.")
    return isinstance(name, os.PathLike) or name.endswith(".toml")


def load_card(name: str | os.PathLike[str] | Card) -> Card:
    """Load the card of a data set.

    Parameters
    ----------
    name : str or Path or Card
        Name of a data set, the .toml file of a card of your own, or the folder of a split (see `load_split`), which
        needs no card; a `Card` is returned as it is.

    Returns
    -------
    Card
        Files, licence, expected counts and protocol.

    Raises
    ------
    UnknownNameError
        If there is no such card; the message has the nearest names.
    DataNotFoundError
        If a folder has no files of a split.
    InvalidDataError
        If the card cannot be read.
    """
    if isinstance(name, Card):
        return name
    own = is_own_card(name)
    if (own or name not in known_cards()) and _is_folder(name):
        return _folder_card(as_path(name))
    if own:
        return read_card(as_path(name))
    if name not in known_cards():
        raise UnknownNameError.among("data set", name, known_cards())
    with as_file(_folder() / f"{name}.toml") as path:
        return read_card(path)


def read_card(path: Path) -> Card:
    """Read a card from a TOML file. Raises InvalidDataError for broken TOML and for missing or unknown keys."""
    content: dict[str, Any] = {}
    try:
        content = tomllib.loads(input_path(path).read_text(encoding="utf-8"))
        card = msgspec.convert(_with_dates_as_text(content), Card)
        return _local(card, path.parent) if card.path else card
    except msgspec.ValidationError as error:
        raise InvalidDataError(
            f"The card {path.name} cannot be read: {_explain(error, content)}; compare it with another card."
        ) from error
    except RecursionError:
        raise InvalidDataError(f"The card {path.name} cannot be read: it is too deep.") from None
    except (OSError, ValueError, TypeError) as error:
        raise InvalidDataError(
            f"The card {path.name} cannot be read: {error}; compare it with another card."
        ) from error


def _is_folder(name: str | os.PathLike[str]) -> bool:
    """Whether this is a folder, rather than the name of a data set or the file of a card."""
    return bool(os.fspath(name)) and not os.fspath(name).endswith(".toml") and as_path(name).is_dir()


def _folder_card(path: Path) -> Card:
    """A card for the folder of a split in the layout of the VAE papers or of LightGCN. Raises DataNotFoundError."""
    from recvae.data.splits.folder import find_split_folder

    name = path.resolve().name or "folder"
    papers_folder = find_split_folder(path)
    if papers_folder is not None:
        return Card(name=name, title=f"Split in {name}", path=str(papers_folder), protocol=Protocol(split=SPLIT_FOLDER))
    tables = []
    for file in ("train.txt", "test.txt"):
        if not (path / file).is_file():
            raise DataNotFoundError(
                f"Expected the folder of a split, with train.csv, validation_tr.csv and so on as the VAE papers have "
                f"it, or with train.txt and test.txt as LightGCN has it, got {path}, which has no {file}."
            )
        with (path / file).open("rb") as lines:
            delimiter = "\t" if b"\t" in lines.readline(1 << 16) else " "
        tables.append(TableSpec(file=file, layout="adjacency", delimiter=delimiter))
    return Card(
        name=name,
        title=f"Split in {name}, in LightGCN's layout",
        path=str(path / "train.txt"),
        events=tables[0],
        test=tables[1],
        protocol=Protocol(split="given", min_user=0, metrics=["recall_full@20", "ndcg@20"]),
    )


def _local(card: Card, folder: Path) -> Card:
    """Resolve the files of a user's own card relative to the folder of the card."""
    if card.events is None:
        raise TypeError("[events] is missing")
    if not is_below(card.path):
        raise TypeError(f"path = {shown(card.path)} is no path below the folder of the card")
    path = check_below(folder, card.path, "the path in a card")
    return replace(card, path=str(path), events=replace(card.events, file=path.name))


def _with_dates_as_text(content: dict[str, Any]) -> dict[str, Any]:
    """Convert dates such as `test_start = 2018-01-31` to strings: TOML has a type for dates, the splits take text."""
    protocol = content.get("protocol")
    if not isinstance(protocol, dict):
        return content
    starts = {key: str(value) for key, value in protocol.items() if key.endswith("_start") and isinstance(value, date)}
    return content | {"protocol": protocol | starts}


# messages of msgspec -> the same in terms of TOML
WORDS = {
    "Object contains unknown field": "there is no key",
    "Object missing required field": "missing key",
    "`object": "`table",
}
# keys with a fixed choice of values
CHOICES = {"values": VALUES, "without_id": WITHOUT_ID, "unknown_behavior": UNKNOWN_BEHAVIOR}


def _explain(error: msgspec.ValidationError, content: Any) -> str:
    """Error message of msgspec in terms of TOML, with the key as written in the card and its value."""
    reason, _, path = str(error).partition(" - at `$")
    for words, plain in WORDS.items():
        reason = reason.replace(words, plain)
    key = path.strip(".`")
    choices = CHOICES.get(key.rpartition(".")[2], ())
    reason = reason.replace("Invalid enum value", f"Expected one of {', '.join(choices)}, got")
    for step in re.findall(r"[^.\[\]]+", key):
        content = content[int(step) if isinstance(content, list) else step]
    value = "" if isinstance(content, dict) else f" = {shown(content)}"
    return f"{key}{value}: {reason}" if key else reason


def _folder() -> Traversable:
    """Folder of the cards of the package: in a checkout a link to the top-level `datasets/`, in a wheel a copy."""
    return files("recvae.datasets") / "cards"
