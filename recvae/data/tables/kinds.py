"""Tell the kind of a text file from its first lines, where the extension does not say."""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter
from pathlib import Path

from recvae.data.tables.compressed import unpacked
from recvae.data.tables.options import ReadOptions
from recvae.errors import InvalidDataError

BLOCK = 2**20
SAMPLE = 1000  # lines
USUAL = 0.6  # share of lines with as many fields as most have, from which a file is taken for a table
FEATURE = re.compile(r"\d+:[+-]?[\d.]+(?:[eE][+-]?\d+)?")
TYPED = re.compile(r"\S+:(?:token|float)(?:_seq)?")


def kind_by_content(path: Path, options: ReadOptions) -> tuple[str, str]:
    """Kind of a file by its first lines, and a note; "text" and no note if these look like a table.

    Raises
    ------
    InvalidDataError
        For lines of ids that may be baskets, or users and their items.
    """
    content = unpacked(path)
    with path.open("rb") if content is None else io.BytesIO(content) as file:
        block = file.read(BLOCK)
    if b"\0" in block:
        return "text", ""
    whole = len(block) < BLOCK
    text = block.decode(options.encoding or "utf-8", "replace").removeprefix("\ufeff").lstrip()
    if text.startswith(("{", "[{", "[\n", "[ ")):
        return "json", "taken for JSON"
    if options.separator is not None or options.header is not None or options.comment:
        return "text", ""
    rows = text.splitlines()
    rows = rows if whole or len(rows) < 2 else rows[:-1]
    rows = [row for row in itertools.islice(rows, SAMPLE) if row.strip()]
    if rows and all(map(TYPED.fullmatch, rows[0].split("\t"))):
        return "inter", "taken for an atomic file of RecBole (inter)"
    lines = [_fields(row) for row in rows]
    if rows and all(all(map(FEATURE.fullmatch, fields[1:])) and fields[1:] for fields in lines):
        return "libsvm", "taken for lines of index:value (libsvm)"
    if any(row.startswith(("#", "//")) for row in rows):  # the reader of text names the option that skips comments
        return "text", ""
    lengths = Counter(map(len, lines))
    if len(lines) < 2 or (options.quote and options.quote in text) or lengths.most_common(1)[0][1] > USUAL * len(lines):
        return "text", ""
    if all(fields[0] == str(len(fields) - 1) for fields in lines):
        return "counted", "taken for lines of a number of items and the items (counted)"
    users = [int(fields[0]) if fields[0].isdecimal() else -1 for fields in lines]
    if users[0] in (0, 1) and users == list(range(users[0], users[0] + len(users))):
        return "adjacency", "taken for lines of a user and all items (adjacency)"
    raise InvalidDataError(
        f"Expected a table in {path}, got lines of {min(lengths)} to {max(lengths)} fields; say "
        f"{options.give('format', 'adjacency')} for lines of a user and all items, {options.give('format', 'baskets')} "
        f"for the items alone, {options.give('format', 'counted')} for their number first."
    )


def _fields(row: str) -> list[str]:
    delimiter = next((one for one in ("\t", "::", "|", ";", ",") if one in row), None)
    return row.strip().split(delimiter)
