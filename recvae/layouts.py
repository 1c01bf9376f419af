"""Files as data set cards describe them -> a table of events, and the titles and genres of items."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from recvae.cards import Table, table_files
from recvae.errors import DataNotFoundError, InvalidDataError
from recvae.frames import number_texts, read_delimited, read_table

# item id -> text
Texts = dict[int | str, str]
EVENT_COLUMNS = ("user", "item", "value", "time")


def read_events(folder: Path, table: Table) -> pa.Table:
    """The events of a card's table: columns user, item and, where the files have them, value and time.

    Raises DataNotFoundError, InvalidDataError.
    """
    paths = table_files(folder, table)
    for path in paths:
        if not path.exists():
            raise _missing(path)
    read = {"columns": _read_columns, "adjacency": _read_adjacency, "blocks": _read_blocks}[table.layout]
    return concat_events([read(path, table) for path in paths], str(folder / table.file))


def concat_events(tables: list[pa.Table], name: str) -> pa.Table:
    """Tables of events as one: ids are text in all where they are text in one, numbers become as wide as needed."""
    for column in ("user", "item"):
        if len({_stands_as_text(table[column]) for table in tables}) > 1:
            tables = [
                table.set_column(table.column_names.index(column), column, table[column].cast(pa.string()))
                for table in tables
            ]
    try:
        whole: pa.Table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise InvalidDataError(f"Expected the files of {name} to have columns of one kind, got: {error}") from error
    absent = [column for column in whole.column_names if any(column not in part.column_names for part in tables)]
    if absent:
        raise InvalidDataError(f"Expected {', '.join(absent)} in all files of {name}, or in none.")
    return whole


def read_items(folder: Path, table: Table) -> tuple[Texts, Texts]:
    """Titles and genres ("Drama|War") by item id, where the file has them. Raises as `read_events`."""
    path = folder / table.file
    titles: Texts = {}
    genres: Texts = {}
    columns = [*table.columns, *table.genre_flags]
    try:
        for fields in _lines(path, table, len(columns)):
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


def _read_columns(path: Path, table: Table) -> pa.Table:
    """One event in each line, or a Parquet file."""
    wanted = [name for name in EVENT_COLUMNS if name in table.columns]
    if path.suffix == ".parquet":
        return read_table(path, wanted)
    # the parser takes one character: "::" is ":" with an empty column after each
    gap = len(table.delimiter) - 1
    columns = [name or f"_{place}" for place, name in enumerate(table.columns)]
    spread = [part for name in columns for part in [name, *(f"{name}.{place}" for place in range(gap))]]
    names = spread[: len(spread) - gap]
    return read_delimited(
        path, table.delimiter[0], wanted, names, int(table.header), table.encoding, quoted=table.quoted
    )


def _read_adjacency(path: Path, table: Table) -> pa.Table:
    """One user in each line, with all of the user's items: "user item item ..."."""
    users: list[str] = []
    items: list[str] = []
    try:
        with path.open(encoding=_encoding(table)) as lines:
            for number, line in enumerate(lines, 1):
                if table.delimiter != "\t" and "\t" in line:
                    raise ValueError(f"line {number} has another delimiter than {table.delimiter!r}: {line[:40]!r}")
                user, *mine = line.rstrip("\r\n").removesuffix(table.delimiter).split(table.delimiter)
                if mine and not (user.strip() and all(item.strip() == item != "" for item in mine)):
                    raise ValueError(f"line {number} has an empty or spaced id: {line.strip()[:40]!r}")
                users += [user] * len(mine)
                items += mine
    except (ValueError, LookupError) as error:
        raise InvalidDataError(f"The file {path} is damaged after {len(items)} events: {error}.") from error
    return pa.table({"user": number_texts(users), "item": number_texts(items)})


def _read_blocks(path: Path, table: Table) -> pa.Table:
    """A line "item:" before the lines of its events, as Netflix had them: "user,value,time"."""
    before, *parts = re.split(rb"(?m)^(\d+):[ \t]*\r?\n", path.read_bytes().rstrip() + b"\n")
    items, blocks = [item.decode() for item in parts[::2]], parts[1::2]
    if before or not items:
        raise InvalidDataError(f"Expected {path} to begin with an item, such as '1:', got {before[:20]!r}.")
    wanted = [name for name in EVENT_COLUMNS if name in table.columns]
    names = [name or f"_{place}" for place, name in enumerate(table.columns)]
    body = b"".join(blocks)
    events = read_delimited(
        path, table.delimiter, wanted, names, encoding=table.encoding, content=body, n_ids=1, quoted=False
    )
    sizes = [block.count(b"\n") for block in blocks]
    if sum(sizes) != len(events):
        raise InvalidDataError(f"Expected {path} without empty lines, got {sum(sizes) - len(events)}; take these out.")
    item = number_texts(items).take(pa.array(np.repeat(np.arange(len(items)), sizes)))
    return events.append_column("item", item)


def _lines(path: Path, table: Table, n_columns: int) -> Iterator[list[str]]:
    with path.open(encoding=_encoding(table), newline="") as lines:
        if table.header:
            next(lines, None)
        if not table.quoted:  # the last column may hold delimiters
            yield from (line.rstrip("\r\n").split(table.delimiter, n_columns - 1) for line in lines)
        elif table.delimiter == ",":
            yield from csv.reader(lines)
        else:
            yield from (line.rstrip("\r\n").split(table.delimiter) for line in lines)


def _encoding(table: Table) -> str:
    """That of the table; a mark at the beginning of a UTF-8 file is none of its text."""
    return "utf-8-sig" if table.encoding.lower() in ("utf-8", "utf8") else table.encoding


def _stands_as_text(ids: pa.ChunkedArray) -> bool:
    kind = ids.type.value_type if pa.types.is_dictionary(ids.type) else ids.type
    return not pa.types.is_integer(kind)


def _missing(path: Path) -> DataNotFoundError:
    return DataNotFoundError(
        f"Expected the file {path.name} in {path.parent}, which is there without it; put it there."
    )
