"""Read the atomic files of RecBole (.inter): tab-separated, with a header of names and types, "user_id:token"."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from recvae.data.tables.lists import exploded, is_listing
from recvae.data.tables.options import Columns, Reading, ReadOptions
from recvae.data.tables.shaped import ShapedFile, checked_reading, dictionary
from recvae.data.tables.text import read_delimited
from recvae.data.tables.text_file import Format, open_text, reading
from recvae.errors import InvalidDataError

TYPES = ("token", "token_seq", "float", "float_seq")


def read_inter(path: Path, columns: Columns, options: ReadOptions) -> Reading:
    """Read columns of a RecBole file, by their names without types; user and item stand for user_id and item_id, too.

    A column of type token_seq has the ids of several items in each row, separated by blanks.

    Raises
    ------
    DataNotFoundError
    InvalidDataError
        For a header without types, missing columns, and broken lines.
    """
    with reading(path):
        plain = replace(options, quote="")
        form = Format(options.separator or "\t", None, True, options.encoding or "utf-8", options=plain)
        text = open_text(path, form)
        line, header = next(text.records(strict=True), (0, []))
        fields = [field.partition(":")[::2] for field in header]
        if not header or not all(kind in TYPES for _, kind in fields):
            raise text.refused(
                max(line, 1),
                f"expected names of columns with types, such as 'user_id:token', got {header}; read files without "
                f"these as {options.give('format', 'text')}.",
            )
        names, kinds = [name for name, _ in fields], dict(fields)
        wanted = {role: _known(str(name), names, path) for role, name in vars(columns).items() if name is not None}
        form = replace(form, names=tuple(names))
        if kinds[wanted["item"]] == "token":
            numbers = [wanted["value"]] if "value" in wanted else []
            result = read_delimited(path, form, list(wanted.values()), numbers=numbers)
            named = [str(getattr(columns, role)) for role in wanted]
            return replace(result, table=result.table.rename_columns(named), columns=columns)
        order = [wanted["user"], *(name for role, name in wanted.items() if role != "user")]
        table = read_delimited(path, form, order, n_ids=2).table
        split = {role: _split(table[name], kinds[name]) for role, name in wanted.items()}
        found, row = exploded(split, str(path))
        found["item"] = dictionary(found["item"])
        return checked_reading(ShapedFile(path, lines=lambda: (row + 2).tolist()), found, columns, options)


def _split(column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    """A column as lists, if it is a sequence."""
    if not kind.endswith("_seq") or is_listing(column.type):
        return column
    return pc.split_pattern(pc.utf8_trim_whitespace(column.cast(pa.string())), " ")


def _known(name: str, names: list[str], path: Path) -> str:
    """Name of a column in the file. Raises InvalidDataError."""
    for known in (name, f"{name}_id"):
        if names.count(known) == 1:
            return known
    raise InvalidDataError(f"Expected one column {name!r} in {path}, but the columns are {names}.")
