"""Guess the encoding, the delimiter and the header of a text file from its first lines, where they are not given."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recvae.data.tables.compressed import COMPRESSIONS
from recvae.data.tables.options import WHITESPACE, Columns, ReadOptions
from recvae.data.tables.text_columns import NUMBER, looks_like_name
from recvae.data.tables.text_file import Format, open_text
from recvae.errors import InvalidDataError

HEAD = 1 << 16  # bytes that are looked at
LINES = 200
MOST = 0.9  # share of the lines that must have the same number of fields
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# in the order in which they are tried; blanks last, since text and dates have them
STRICT, BLANKS = ("\t", "::", "|", ";", ","), (" ", WHITESPACE)
NAMES = {"\t": "tab", " ": "space", WHITESPACE: "blanks"}


@dataclass(frozen=True)
class Guess:
    """A format, which options of it were guessed, and notes on the guesses that the extension does not promise."""

    format: Format
    guessed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """What was guessed, in one line."""
        return f"read, as guessed, with {', '.join(self.notes)}"


def guess_format(path: Path, content: bytes | None, columns: Columns, options: ReadOptions) -> Guess:
    """Complete the options of a text file. What is given is not changed.

    Raises
    ------
    InvalidDataError
        If columns are asked for by name, and the file has no header.
    """
    head, cut = _head(path, content)
    encoding = options.encoding or _encoding(head)
    usual = "\t" if _ending(path) in (".tsv", ".tab") else ","
    lines = _lines(head, encoding, options, cut)
    delimiter = options.separator or _delimiter(path, lines, columns, options, usual)
    rows = _split(path, lines, delimiter, options)
    header = options.header
    if header is None:
        header = _header(rows, columns)
    guessed, notes = [], []
    if options.delimiter is None:
        guessed.append("delimiter")
        if delimiter != usual or _ending(path) not in (".csv", ".tsv", ".tab"):
            notes.append(f"delimiter {NAMES.get(delimiter, delimiter)}")
    if options.header is None:
        guessed.append("header")
        notes += [] if header else ["no header"]
    if options.encoding is None:
        guessed.append("encoding")
        notes += [] if encoding == "utf-8" else [f"encoding {encoding}"]
    names = _names(path, rows, columns, header, options)
    return Guess(Format(delimiter, names, header, encoding, options=options), tuple(guessed), tuple(notes))


def _ending(path: Path) -> str:
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return Path(name).suffix


def _head(path: Path, content: bytes | None) -> tuple[bytes, bool]:
    """The first bytes of a file, and whether there are more."""
    if content is None:
        with path.open("rb") as file:
            content = file.read(HEAD + 1)
    return content[:HEAD], len(content) > HEAD


def _encoding(head: bytes) -> str:
    """UTF-8 unless the first bytes say otherwise: a byte order mark, NUL in every other byte, or bytes of no UTF-8."""
    for mark, name in BOMS:
        if head.startswith(mark):
            return name
    some = head[:1000]
    even, odd = some[::2].count(0), some[1::2].count(0)
    if odd > len(some) / 4 and not even:
        return "utf-16-le"
    if even > len(some) / 4 and not odd:
        return "utf-16-be"
    text = head.decode("utf-8", "surrogateescape")
    text = text[:-4] + text[-4:].rstrip("".join(map(chr, range(0xDC80, 0xDD00))))  # a character that is cut
    if not any("\udc80" <= character <= "\udcff" for character in text):
        return "utf-8"
    if any(character > "\x7f" and not "\udc80" <= character <= "\udcff" for character in text):
        return "utf-8"  # valid characters next to others: damaged, which reading reports
    try:
        head.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _lines(head: bytes, encoding: str, options: ReadOptions, cut: bool) -> str:
    """The first whole lines that are no comments."""
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head).removeprefix("\ufeff")
    lines = text.splitlines(keepends=True)
    if cut and len(lines) > 1:
        lines = lines[:-1]
    lines = [line for line in lines if not (options.comment and line.startswith(options.comment)) and line.strip()]
    return "".join(lines[:LINES])


def _split(path: Path, lines: str, delimiter: str, options: ReadOptions) -> list[list[str]]:
    """The rows of the first lines."""
    text = open_text(path, Format(delimiter, options=options), lines.encode("utf-8", "replace").replace(b"\x1f", b""))
    rows = [fields for _, fields in text.records()]
    return rows[:-1] if len(rows) > 1 and rows[-1] and "\n" in "".join(rows[-1]) else rows  # a quote that is cut


def _delimiter(path: Path, lines: str, columns: Columns, options: ReadOptions, usual: str) -> str:
    """The delimiter that gives the columns that are asked for, and most lines equally many fields."""
    split = {
        delimiter: rows for delimiter in (usual, *STRICT, *BLANKS) if (rows := _split(path, lines, delimiter, options))
    }
    fields = {delimiter: _n_fields(rows) for delimiter, rows in split.items()}
    blank = " " if fields.get(" ", 0) > 1 and all(map(all, split[" "])) else WHITESPACE
    named = [column for column in columns if isinstance(column, str)]
    if named and options.header is not False:
        for delimiter in (usual, *STRICT, blank, *BLANKS):
            first = split.get(delimiter, [[]])[0]
            if all(name in first for name in named) and (len(first) > 1 or delimiter == usual):
                return delimiter
    for candidates in (("\t", "::"), ("|", ";", ",")):
        best = max(candidates, key=lambda delimiter: fields.get(delimiter, 0))
        if fields.get(best, 0) > 1:
            return best
    return next((delimiter for delimiter in (blank, *BLANKS) if fields.get(delimiter, 0) > 1), usual)


def _n_fields(rows: Sequence[Sequence[str]]) -> int:
    """Number of fields of most rows; 0 if they differ too much."""
    counts = [len(row) for row in rows]
    most = max(set(counts), key=counts.count)
    return most if counts.count(most) >= MOST * len(counts) else 0


def _header(rows: Sequence[Sequence[str]], columns: Columns) -> bool:
    """Whether the first row has names: those that are asked for, or words above numbers."""
    if not rows:
        return True
    first, others = rows[0], rows[1:]
    if any(isinstance(column, str) and not column.isdecimal() for column in columns):
        named = [column for column in columns if isinstance(column, str)]
        return all(name in first for name in named) or not any(map(NUMBER.fullmatch, first))
    if any(str(column) in first for column in columns) and all(isinstance(column, str) for column in columns):
        return True
    if any(map(NUMBER.fullmatch, first)):
        return False
    if any(map(looks_like_name, first)):
        return True
    return any(
        others and all(position < len(row) and NUMBER.fullmatch(row[position]) for row in others)
        for position in range(len(first))
    )


def _names(
    path: Path, rows: Sequence[Sequence[str]], columns: Columns, header: bool, options: ReadOptions
) -> tuple[str, ...] | None:
    """Names of the columns, those that are read as they are asked for; None if all are names in the header."""
    first = rows[0] if rows else []
    if header and all(isinstance(column, str) and (column in first or not column.isdecimal()) for column in columns):
        return None
    names = [""] * len(first)
    for column in columns:
        position = first.index(column) if header and isinstance(column, str) and column in first else None
        if position is None and not str(column).isdecimal():
            raise InvalidDataError(
                f"The file {path} cannot be read: expected a column {column!r}, but line 1 looks like a row: "
                f"{list(itertools.islice(first, 8))}; begin the file with names, or {options.by_position()}."
            )
        position = int(column) if position is None else position
        if position >= len(first):
            raise InvalidDataError(
                f"The file {path} cannot be read: expected a column at position {position}, from 0, got "
                f"{len(first)} columns: {list(itertools.islice(first, 8))}; {options.name_of('delimiter')} names "
                f"another delimiter."
            )
        if names[position]:
            raise InvalidDataError(f"Expected different columns for users, items and values, got {columns.names}.")
        names[position] = str(column)
    return tuple(names)
