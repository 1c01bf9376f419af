"""Say what a data set card was understood as: its keys, its files, the events that are left, the split."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from recvae.data.tables.guess import guess_format
from recvae.data.tables.options import Columns, Reading, ReadOptions
from recvae.datasets.card import load_card
from recvae.datasets.download import fetch
from recvae.datasets.home import data_home
from recvae.datasets.load import load_split
from recvae.datasets.parsers import read_events, read_items, table_files
from recvae.datasets.table_spec import TableSpec
from recvae.errors import InvalidDataError, RecvaeError, shown

LONGEST = 200  # characters of a value that are shown


def explain_card(name: str | os.PathLike[str], home: str | Path | None = None) -> Iterator[str]:
    """Yield lines on a card: each key that is set, and those at their defaults; then each file as it is read.

    Parameters
    ----------
    name : str or Path
        Name of a data set, or the .toml file of a card of your own.
    home : str or Path or None
        Folder of data sets, as in `load_dataset`.

    Yields
    ------
    str
        A line, without a line break.

    Raises
    ------
    RecvaeError
        For what cannot be understood or read: the message names the key, or the table and the line of the file.
    """
    card = load_card(name)
    yield from _keys("", card)
    for key in ("download", "expected", "events", "test", "items", "protocol"):
        if (table := getattr(card, key)) is not None:
            yield from _keys(f"[{key}] ", table)
    if card.events is None:
        return
    folder = Path(card.path).parent if card.path else fetch(card, data_home(home))
    for key, table in (("events", card.events), ("test", card.test)):
        if table is not None:
            yield from _table(f"[{key}]", folder, table)
    if card.items is not None:
        with _naming("[items]", card.items, folder):
            items = read_items(folder, card.items)
        yield f"[items] {card.items.file}: {len(items.titles):,} titles, {len(items.genres):,} with genres"
        yield from (f"[items] {note}" for note in items.notes())
    split = load_split(card, home, show_progress=False)
    yield f"after [protocol]: {split.train!r} for training, account: {split.train.account}"
    for part, holdout in (("validation", split.valid), ("test", split.test)):
        if holdout is not None:
            yield f"{card.protocol.split} split: {len(holdout.users):,} users for {part}"


def _keys(prefix: str, table: msgspec.Struct) -> Iterator[str]:
    """One line for each key of a table that is set, and one for all others."""
    unset = []
    for field in msgspec.structs.fields(type(table)):
        value = getattr(table, field.name)
        if isinstance(value, msgspec.Struct):
            continue
        default: Any = field.default
        if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if value == default:
            unset.append(f"{field.name} = {_toml(value)}")
        else:
            yield f"{prefix}{field.name} = {_toml(value)}"
    if unset:
        yield f"{prefix}by default: {', '.join(unset)}"


def _toml(value: Any) -> str:
    """A value as TOML writes it; "none" for a key that is not set."""
    if value is None:
        return "none"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except TypeError:
        text = shown(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _table(key: str, folder: Path, table: TableSpec) -> Iterator[str]:
    for path in table_files(folder, table)[:20]:
        yield f"{key} {path.name}: {_kind(path, table)}"
    with _naming(key, table, folder):
        events = read_events(folder, table)
    yield f"{key} {_counts(events)}"
    first = events.table.slice(0, 1).to_pylist()
    if first:
        yield f"{key} the first: {', '.join(f'{name} {value!r:.60}' for name, value in first[0].items())}"


def _kind(path: Path, table: TableSpec) -> str:
    if path.suffix == ".parquet":
        return "Parquet, by the names of its columns"
    header = "after a header" if table.header else "without a header"
    layout = {"columns": f"columns {', '.join(name or '-' for name in table.columns)}"}.get(table.layout, table.layout)
    return f"text in {table.encoding}, delimiter {_toml(table.delimiter)}, {header}, {layout}"


def _counts(events: Reading) -> str:
    sizes = {name: len(events.table[name].unique()) for name in ("user", "item")}
    dropped = "".join(f", {n:,} more {reason}, dropped" for reason, n in events.left_out.items())
    kinds = ", ".join(f"{name}: {_type(events.table[name].type)}" for name in events.table.column_names)
    return f"{len(events.table):,} rows, {sizes['user']:,} users, {sizes['item']:,} items{dropped}; {kinds}"


def _type(kind: pa.DataType) -> str:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return "text" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else str(kind)


@contextmanager
def _naming(key: str, table: TableSpec, folder: Path) -> Iterator[None]:
    """Within the block, errors name the table of the card, and what the file looks like."""
    try:
        yield
    except InvalidDataError as error:
        raise InvalidDataError(f"{key} {str(error).rstrip('.')}{_looks_like(table, folder)}.") from error


def _looks_like(table: TableSpec, folder: Path) -> str:
    """The keys that the first lines of the file suggest, where they differ from those of the card."""
    try:
        path = table_files(folder, table)[0]
        guess = guess_format(path, None, Columns(0, 1), ReadOptions(spoken="card", quote=table.options().quote))
    except (RecvaeError, OSError, LookupError):
        return ""
    found = {"delimiter": guess.format.delimiter, "header": guess.format.header, "encoding": guess.format.encoding}
    other = [f"{name} = {_toml(value)}" for name, value in found.items() if value != getattr(table, name)]
    return f"; its first lines look like {', '.join(other)}" if other else ""
