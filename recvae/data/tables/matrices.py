"""Read matrices: a row per user and a column per item, as delimited text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from recvae.data.tables.options import WHITESPACE, Columns, Reading, ReadOptions
from recvae.data.tables.shaped import ShapedFile, checked_reading, with_found
from recvae.data.tables.text_columns import NUMBER
from recvae.data.tables.text_file import Format, TextFile, check_bytes, open_text, reading
from recvae.errors import InvalidDataError, shown

GUESSED = ("\t", ";", ",", "|", " ")
BY_POSITION = "items are the positions of the columns, from 0"
BY_LINE = "users are the numbers of the lines, from 1"


def read_matrix(path: Path, columns: Columns, options: ReadOptions) -> Reading:
    """Read a wide matrix of text: each cell that is neither empty, 0 nor a word of `options.missing` is an event.

    The first line has the ids of the items if some of its fields are no numbers; the ids of the users are in the column
    that is named so, or in the first column, if it has no name or holds text. Otherwise users are the numbers of lines,
    from 1, and items the positions of columns, from 0. A first column that has the number of the values in each row, as
    in Jester, is left out.

    Raises
    ------
    DataNotFoundError
    InvalidDataError
        For rows of unequal length, cells that are not numbers, and a first line that may or may not be a header.
    """
    with reading(path):
        text, notes = _opened(path, options)
        header, values, lines = _cells(text, options)
        names = [str(position) for position in range(len(values))] if header is None else header
        at, user_note = _user_column(values, header, columns)
        users = pa.chunked_array([pa.array(lines)]) if at is None else values[at]
        rest = [index for index in range(len(values)) if index != at]
        cells = _Cells(text, [values[index] for index in rest], [names[index] for index in rest], lines, options)
        notes += [f"the first line {'names the items' if header else 'is a user'}" if options.header is None else ""]
        notes += [user_note, "" if header else BY_POSITION, cells.leave_out_counts(path, at is None)]
        found, row = cells.events()
        found["user"] = users.take(pa.array(row))
        shaped = ShapedFile(path, lines=lambda: lines[row].tolist())
        return checked_reading(shaped, found, with_found(columns, found), options, [note for note in notes if note])


def _opened(path: Path, options: ReadOptions) -> tuple[TextFile, list[str]]:
    """The text with its delimiter, and a note if that was guessed."""
    encoding, delimiter, notes = options.encoding or "utf-8", options.separator, []
    if delimiter is None:
        with open_text(path, Format("\n", None, False, encoding)).open() as file:
            first = file.readline().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
        delimiter = max(GUESSED, key=first.count)
        delimiter = WHITESPACE if delimiter == " " else delimiter
        notes = [f"delimiter {delimiter if delimiter == WHITESPACE else repr(delimiter)} guessed"]
    return open_text(path, Format(delimiter, None, False, encoding, options=options)), notes


def _cells(text: TextFile, options: ReadOptions) -> tuple[list[str] | None, list[pa.ChunkedArray], NDArray[np.int64]]:
    """Names of the columns, if the first line has them; columns as text, numbers where that is sure; lines."""
    check_bytes(text, (), ())
    parse = pyarrow.csv.ParseOptions(
        delimiter=text.format.one, quote_char=text.format.quote or False, newlines_in_values=False
    )
    records = text.records(strict=True)
    first_line, first = next(records, (0, []))
    if not first:
        raise InvalidDataError(f"The file {text.path} cannot be read: expected rows of a matrix, got none.")
    header = _has_header(text, first, next(records, (0, []))[1], options)
    names = [str(position) for position in range(len(first))]
    read = pyarrow.csv.ReadOptions(column_names=names, skip_rows=first_line if header else 0, block_size=2**24)
    convert = pyarrow.csv.ConvertOptions(null_values=["", *options.missing], strings_can_be_null=True)
    try:
        table = pyarrow.csv.read_csv(text.source(), read, parse, convert)
    except pa.ArrowInvalid as error:
        for line, fields in text.records(strict=True):
            if len(fields) != len(first):
                raise text.refused(line, f"expected {len(first)} columns, got {len(fields)}.") from error
        raise
    numbers = (
        [line for line, _ in text.records()][int(header) :] if _has_empty_lines(text, len(table) + header) else None
    )
    lines = np.arange(1, len(table) + 1) + (first_line if header else 0) if numbers is None else np.array(numbers)
    return ([name.strip() for name in first] if header else None), list(table.columns), lines.astype(np.int64)


def _has_empty_lines(text: TextFile, n_rows: int) -> bool:
    with text.open() as file:
        content = file.read()
    return content.count(b"\n") + (not content.endswith(b"\n")) != n_rows


def _has_header(text: TextFile, first: list[str], second: list[str], options: ReadOptions) -> bool:
    """Whether the first line has the ids of the items. Raises InvalidDataError if that cannot be told."""
    if options.header is not None:
        return options.header
    empty = {"", *options.missing}
    fields = [field.strip().replace(options.decimal, ".") for field in first]
    if not all(NUMBER.fullmatch(field) or field in empty for field in fields[1:]):
        return True
    if not NUMBER.fullmatch(fields[0]) and fields[0] not in empty:  # a user, or a name above the users
        return bool(second) and bool(NUMBER.fullmatch(second[0].strip()))
    whole = [field for field in fields[1:] if field.isdecimal() and field not in empty]
    distinct = len(whole) == len(first) - 1 > 1 and len(set(whole)) == len(whole)
    if distinct and fields[0] == "":
        return True
    if distinct and sorted(map(int, whole)) != [0, 1]:
        raise text.refused(
            1,
            f"expected to tell names of items from values, got numbers that may be either: {shown(first[:6])}; say "
            f"{options.give('header', True)} or {options.give('header', False)}.",
        )
    return False


def _user_column(values: list[pa.ChunkedArray], header: list[str] | None, columns: Columns) -> tuple[int | None, str]:
    """Index of the column of users, None if there is none; a note if it was guessed."""
    user = columns.user
    if isinstance(user, int) or (user.isdecimal() and (header is None or user not in header)):
        if int(user) >= len(values):
            raise InvalidDataError(f"Expected users in one of {len(values)} columns, got position {user}.")
        return int(user), ""
    if header is not None and user in header:
        return header.index(user), ""
    if header is not None and user != "user":
        raise InvalidDataError(f"Expected a column {user!r} of users, but the columns are {shown(header)}.")
    is_text = pa.types.is_string(values[0].type)
    if (header is not None and header[0] == "") or is_text:
        return 0, "users are in the first column"
    if header is not None and re.fullmatch(r"(?i)(user|customer|member|person|visitor)s?([ _-]?id)?|id", header[0]):
        return 0, f"users are in the first column, {header[0]!r}"
    return None, BY_LINE


class _Cells:
    """The columns of items."""

    def __init__(
        self,
        text: TextFile,
        values: list[pa.ChunkedArray],
        names: list[str],
        lines: NDArray[np.int64],
        options: ReadOptions,
    ):
        self._columns = [
            self._numbers(text, column, name, lines, options) for column, name in zip(values, names, strict=True)
        ]
        self._names = names

    def leave_out_counts(self, path: Path, may: bool) -> str:
        """Leave out a first column with the number of the values of its row. -> a note"""
        if not may or len(self._columns) < 3 or np.isnan(self._columns[0]).any() or len(self._columns[0]) < 2:
            return ""
        counts = np.sum([~np.isnan(column) for column in self._columns[1:]], axis=0)
        same = self._columns[0] == counts
        if not same.all() or counts.max() < 3:
            if same.mean() >= 0.9 and counts.max() >= 3 and len(same) > 9:
                raise InvalidDataError(
                    f"Expected the first column of {path} to be an item, or the number of values in each row, got that "
                    f"number in {same.sum():,} of {len(same):,} rows; take the column out, or mend the others."
                )
            return ""
        self._columns, self._names = self._columns[1:], self._names[1:]
        return "the first column, which has the number of values of each row, is left out"

    def events(self) -> tuple[dict[str, pa.ChunkedArray], NDArray[np.int64]]:
        """Items and values of all cells that have one, row by row; the row of each."""
        if not self._columns:
            raise InvalidDataError("Expected a matrix with a column for each item, got none.")
        cells = np.column_stack(self._columns)
        row, column = np.nonzero(~np.isnan(cells) & (cells != 0))
        items = pa.DictionaryArray.from_arrays(pa.array(column.astype(np.int32)), pa.array(self._names, pa.string()))
        return {"item": pa.chunked_array([items]), "value": pa.chunked_array([pa.array(cells[row, column])])}, row

    @staticmethod
    def _numbers(
        text: TextFile, column: pa.ChunkedArray, name: str, lines: NDArray[np.int64], options: ReadOptions
    ) -> NDArray[np.float64]:
        kind = column.type
        if pa.types.is_null(kind):
            return np.full(len(column), np.nan)
        if pa.types.is_string(kind):
            texts = pc.utf8_trim_whitespace(column)
            if options.decimal == ",":
                texts = pc.replace_substring(texts, ",", ".")
            known = pc.or_(pc.match_substring_regex(texts, f"^(?:{NUMBER.pattern})$"), pc.equal(texts, ""))
            known = pc.fill_null(pc.or_(known, pc.is_in(texts, value_set=pa.array(options.missing, pa.string()))), True)
            index = pc.index(known, False).as_py()
            if index >= 0:
                raise text.refused(
                    int(lines[index]),
                    f"expected numbers in column {name!r}, got {column[index].as_py()!r:.40}; if it means that there "
                    f"is no value, say {options.give('missing', column[index].as_py())}.",
                )
            texts = pc.if_else(pc.match_substring_regex(texts, "[0-9]"), texts, pa.scalar(None, texts.type))
            column = texts.cast(pa.float64())
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise text.refused(int(lines[0]), f"expected numbers in column {name!r}, got {kind}.")
        column = column.cast(pa.int8()) if pa.types.is_boolean(kind) else column
        missing = [float(word) for word in options.missing if NUMBER.fullmatch(word)]
        values = np.array(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
        values[np.isin(values, missing)] = np.nan
        return values
