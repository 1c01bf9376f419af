"""Read plain JSON lines by pyarrow, in parallel: for each key text or numbers, of one type in all lines.

What is not plain is left to the slower reader, whose rules hold for both: pyarrow refuses it, or it is noticed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json

BLOCK = 2**22  # bytes that a thread parses at a time
NEWLINES = 2**24  # bytes in which line breaks are counted at a time


def read_plain_lines(
    path: Path, keys: Mapping[str, str], sample: Sequence[dict[str, Any]]
) -> dict[str, pa.ChunkedArray] | None:
    """Read the named keys of a file of JSON lines.

    Parameters
    ----------
    path : Path
        The file, as it is: not compressed, in UTF-8.
    keys : Mapping[str, str]
        Key by role, of which each object has at most one.
    sample : Sequence[dict[str, Any]]
        Some entries, which decide the types.

    Returns
    -------
    dict[str, pa.ChunkedArray] or None
        Columns by role: text as dictionaries, integers, or other numbers; null where an entry has none. None, if the
        entries are not all plain.
    """
    kinds = {role: _kind([entry.get(key) for entry in sample]) for role, key in keys.items()}
    if None in kinds.values():
        return None
    schema = pa.schema([(key, kinds[role]) for role, key in keys.items()])
    parse = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = pyarrow.json.read_json(path, pyarrow.json.ReadOptions(block_size=BLOCK), parse)
        if len(table) != _count_lines(path):  # a blank line, or an object over several: line numbers would be wrong
            return None
        columns = {role: _column(table[key]) for role, key in keys.items()}
    except pa.ArrowException:
        return None
    # where ids are missing, the line may be no object at all
    return None if any(columns[role].null_count for role in ("user", "item")) else columns


def _kind(values: Sequence[Any]) -> pa.DataType | None:
    """The Arrow type of values that are all text, all integers or all numbers; None for others."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {str}:
        return pa.string()
    if kinds == {int}:
        return pa.int64()
    return pa.float64() if kinds in ({float}, {int, float}) else None


def _column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as dictionaries, whose bytes are checked: pyarrow's parser takes any."""
    if not pa.types.is_string(column.type):
        return column
    encoded = column.dictionary_encode().combine_chunks()  # all chunks have the same dictionary
    encoded.dictionary.validate(full=True)
    return pa.chunked_array([encoded])


def _count_lines(path: Path) -> int:
    """Number of lines; the last one need not end in a line break."""
    n_lines, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(NEWLINES):
            n_lines, last = n_lines + block.count(b"\n"), block[-1:]
    return n_lines + (last != b"\n")
