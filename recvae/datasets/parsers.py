"""Parsers of the file layouts that a data set card may name: tables of events, titles and genres.

To add a layout, write a function of a path and a `TableSpec`, register it in `LAYOUTS`, and its
columns in `recvae.datasets.table_spec`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from recvae.data.tables.baskets import KINDS, read_lists
from recvae.data.tables.formats import FORMATS, read_table
from recvae.data.tables.options import Columns, Reading
from recvae.data.tables.text import read_delimited
from recvae.data.tables.text_columns import MISSING, number_texts
from recvae.data.tables.text_file import Format, TextFile, check_bytes, open_text, reading
from recvae.datasets.table_spec import LAYOUT_COLUMNS, ROLES, TableSpec
from recvae.errors import DataNotFoundError, InvalidDataError, shown
from recvae.utils.paths import check_below

# item id -> text
Texts = dict[int | str, str]


@dataclass(frozen=True)
class Items:
    """Titles and genres ("Drama|War") by item id, and the number of rows without an id or with a repeated one."""

    titles: Texts = field(default_factory=dict)
    genres: Texts = field(default_factory=dict)
    without_id: int = 0
    repeated: int = 0

    def notes(self) -> list[str]:
        """Remarks on rows that were not used, for the account of the data."""
        notes = [f"{self.without_id:,} rows of the items have no id"] if self.without_id else []
        return notes + ([f"{self.repeated:,} rows of the items repeat an id: the last stands"] if self.repeated else [])


def table_files(folder: Path, table: TableSpec) -> list[Path]:
    """Paths of the files of a table, in order. Raises InvalidDataError for one outside of the folder (.. or links)."""
    try:
        matches = [] if (folder / table.file).exists() else folder.glob(table.file)  # a name may look like a pattern
        names = sorted(str(path.relative_to(folder)) for path in matches) or [table.file]
    except (ValueError, OSError) as error:
        raise InvalidDataError(
            f"Expected a file or a pattern in {folder}, got {shown(table.file)}: {error}."
        ) from error
    return [check_below(folder, name, "the files of a data set") for name in names]


def read_events(folder: Path, table: TableSpec) -> Reading:
    """Read the events of a card's table: columns user, item and, if the files have them, value and time.

    The `Reading` counts the rows that were left out in all files.

    Raises
    ------
    DataNotFoundError
    InvalidDataError
    """
    paths = table_files(folder, table)
    for path in paths:
        if not path.exists():
            raise _missing(path)
    read = LAYOUTS[table.layout]
    found = [read(path, table) for path in paths]
    readings = [each if isinstance(each, Reading) else Reading(each, Columns()) for each in found]
    return concat_events(readings, str(folder / table.file))


def concat_events(readings: list[Reading], name: str) -> Reading:
    """Concatenate tables of events: ids become text if they are text in any table, numbers as wide as needed."""
    tables = [each.table for each in readings]
    for column in ("user", "item"):
        if len({_stands_as_text(table[column]) for table in tables}) > 1:
            tables = [
                table.set_column(table.column_names.index(column), column, table[column].cast(pa.string()))
                for table in tables
            ]
    try:
        joined: pa.Table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise InvalidDataError(f"Expected the files of {name} to have columns of one kind, got: {error}") from error
    absent = [column for column in joined.column_names if any(column not in table.column_names for table in tables)]
    if absent:
        raise InvalidDataError(f"Expected {', '.join(absent)} in all files of {name}, or in none.")
    left_out: Counter[str] = Counter()
    for each in readings:
        left_out.update(each.left_out)
    known = {role: role for role in ROLES[2:] if role in joined.column_names}
    return Reading(joined, Columns(**known), left_out)


def read_items(folder: Path, table: TableSpec) -> Items:
    """Titles and genres by item id, where the file has them. Raises as `read_events`."""
    path = folder / table.file
    columns = [*table.columns, *table.genre_flags]
    if not path.exists():
        raise _missing(path)
    with reading(path):
        text = open_text(path, _format(table, columns, spill=True))
        check_bytes(text, columns, [columns.index("item")])
        rows = _item_rows(text, columns)
    kept = [row for row in rows if row["item"].strip() not in ("", *MISSING)]
    if not kept:
        return Items(without_id=len(rows))
    ids = number_texts([row["item"] for row in kept]).to_pylist()
    titles = dict(zip(ids, (row["title"] for row in kept), strict=True))
    genres = {item: row.get("genres") or _flagged(row, table.genre_flags) for item, row in zip(ids, kept, strict=True)}
    return Items(titles, genres if any(genres.values()) else {}, len(rows) - len(kept), len(kept) - len(titles))


def _item_rows(text: TextFile, columns: Sequence[str]) -> list[dict[str, str]]:
    records = list(text.records(strict=True))
    head, body = records[: int(text.format.header)], records[int(text.format.header) :]
    for line, fields in body:
        if len(fields) != len(columns):
            raise text.refused(line, f"expected {len(columns)} columns, got {len(fields)} in {fields}.")
    item = list(columns).index("item")
    numbers = [fields[item].isdecimal() for _, fields in body]
    if head and all(numbers) and "".join(head[0][1][item : item + 1]).isdecimal():
        raise text.refused(head[0][0], f"expected names of columns, got {head[0][1]}; set header = false.")
    if not head and len(numbers) > 1 and not numbers[0] and all(numbers[1:]):
        raise text.refused(body[0][0], f"expected a row, got what looks like names: {body[0][1]}; set header = true.")
    return [dict(zip(columns, fields, strict=True)) for _, fields in body]


def _flagged(row: dict[str, str], flags: Sequence[str]) -> str:
    return "|".join(genre for genre in flags if row[genre] == "1")


def _format(table: TableSpec, columns: Sequence[str], spill: bool = False) -> Format:
    options = table.options()
    return Format(options.separator or ",", tuple(columns), table.header, table.encoding, spill, options)


def _read_columns(path: Path, table: TableSpec) -> Reading:
    """Read one event per line, or a Parquet file."""
    if path.suffix == ".parquet":
        return _read_named(path, table)
    if table.names:
        raise InvalidDataError(f"Expected names for files that name their columns, got {path}; columns has its names.")
    wanted = [name for name in ROLES if name in table.columns]
    numbers, texts = ([name for name in wanted if name == kind] for kind in ("value", "behavior"))
    return read_delimited(path, _format(table, table.columns), wanted, numbers=numbers, texts=texts)


def _read_named(path: Path, table: TableSpec) -> Reading:
    """Read a kind of file whose columns or keys are found by name, and call them by their roles."""
    roles = [role for role in ROLES if role in ("user", "item", *table.columns, *table.names)]
    names = {role: table.names.get(role, role) for role in roles}
    kind = "parquet" if table.layout == "columns" else table.layout
    found = read_table(path, Columns(**names), replace(table.options(), format=kind))
    role_of = {name: role for role, name in found.columns.by_role().items() if name is not None}
    events = found.table.rename_columns([role_of[name] for name in found.table.column_names])
    return replace(found, table=events, columns=Columns(**{role: role for role in role_of.values()}))


def _read_lists(path: Path, table: TableSpec) -> Reading:
    """Read ids in each line: a user and all items, the items alone, or their number and the items."""
    return read_lists(path, Columns(), replace(table.options(), format=table.layout, quote=""), table.layout)


def _read_blocks(path: Path, table: TableSpec) -> Reading:
    """Read blocks of the Netflix format: a line "item:", followed by the events of the item, "user,value,time"."""
    before, *parts = re.split(rb"(?m)^(\d+):[ \t]*\r?\n", path.read_bytes().rstrip() + b"\n")
    items, blocks = [item.decode() for item in parts[::2]], parts[1::2]
    if before or not items:
        raise InvalidDataError(f"Expected {path} to begin with an item, such as '1:', got {before[:20]!r}.")
    wanted = [name for name in ROLES if name in table.columns]
    options = replace(table.options(), quote="", without_id="refuse")  # the sizes of blocks need every row
    form = Format(options.separator or ",", tuple(table.columns), False, table.encoding, options=options)
    numbers = [name for name in wanted if name == "value"]
    body = b"".join(b"\n" + block for block in blocks)  # "item:" -> empty line: keeps line numbers
    events = read_delimited(path, form, wanted, n_ids=1, numbers=numbers, content=body)
    sizes = [block.count(b"\n") for block in blocks]
    if sum(sizes) != len(events.table):
        raise InvalidDataError(
            f"Expected {path} without empty lines, got {sum(sizes) - len(events.table)}; take these out."
        )
    item = number_texts(items).take(pa.array(np.repeat(np.arange(len(items)), sizes)))
    return replace(events, table=events.table.append_column("item", item))


def _stands_as_text(ids: pa.ChunkedArray) -> bool:
    kind = ids.type.value_type if pa.types.is_dictionary(ids.type) else ids.type
    return not pa.types.is_integer(kind)


def _missing(path: Path) -> DataNotFoundError:
    return DataNotFoundError(
        f"Expected the file {path.name} in the folder {path.parent}, which lacks it; put it there."
    )


# layout -> parser of a file: file, table of the card -> the columns user, item and, where it has them, value and time
LAYOUTS: dict[str, Callable[[Path, TableSpec], pa.Table | Reading]] = {
    "columns": _read_columns,
    **dict.fromkeys(KINDS, _read_lists),
    "blocks": _read_blocks,
    **{layout: _read_named for layout in LAYOUT_COLUMNS if layout in FORMATS and layout not in KINDS},
}
