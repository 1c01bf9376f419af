"""Read columns of delimited text as an Arrow table, with checks of quotes, lines, ids and numbers.

pyarrow parses. Before, the bytes are scanned once for what pyarrow would accept silently: quotes that are never closed,
line breaks within quotes, NUL. A file that is refused is read again, slowly, to report the line.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from recvae.data.tables.compressed import unpacked
from recvae.data.tables.guess import guess_format
from recvae.data.tables.options import TIME_UNITS, Columns, Reading, ReadOptions
from recvae.data.tables.quotes import Quotes
from recvae.data.tables.text_columns import (
    NUMBER,
    check_header,
    check_number_column,
    check_time_column,
    checked_ids,
    is_counted,
    without_id,
)
from recvae.data.tables.text_file import NUL, Format, TextFile, check_bytes, open_text, reading
from recvae.data.tables.text_times import to_times
from recvae.errors import InvalidDataError

BLOCK, LARGEST_BLOCK = 2**22, 2**31 - 1  # bytes of a block that a thread parses


def read_text(path: Path, columns: Columns, options: ReadOptions) -> Reading:
    """Read the columns of a delimited text file, guessing what the options leave open.

    The reader of this kind in `recvae.data.tables.formats`; raises as `read_delimited`.
    """
    with reading(path):
        content = unpacked(path)
        guess = guess_format(path, content, columns, options)
    try:
        result = read_delimited(
            path, guess.format, columns.names, numbers=columns.numbers, texts=columns.texts, content=content
        )
    except InvalidDataError as error:
        if not guess.notes:
            raise
        flags = ", ".join(map(options.name_of, guess.guessed))
        raise InvalidDataError(
            f"{str(error).rstrip('.')}. This was {guess.said}; {flags} can say otherwise."
        ) from error
    return Reading(result.table, columns, result.left_out, (guess.said,) if guess.notes else ())


def read_delimited(
    path: Path,
    format: Format,
    columns: Sequence[str],
    *,
    n_ids: int = 2,
    numbers: Sequence[str] = (),
    texts: Sequence[str] = (),
    content: bytes | None = None,
) -> Reading:
    """Read the named columns of a delimited text file.

    The first `n_ids` columns are ids: integers if all values of the column are written as such (7.0 is 7), otherwise
    text, so that 007 stays 007. Of the others, `numbers` hold numbers only, `texts` any text, the rest times.
    `content`, if given, is parsed instead of the content of the file.

    Returns
    -------
    Reading
        Its `columns` are those of the defaults.

    Raises
    ------
    DataNotFoundError
    InvalidDataError
        If the file is malformed; the message names the line and the column.
    """
    with reading(path):
        text = open_text(path, format, content)
        names = _names(text, columns)
        ids = [names.index(name) for name in columns[:n_ids]]
        quotes = check_bytes(text, names, ids)
        table = _read(text, columns, n_ids, numbers, texts, quotes, None if format.names is None else names)
        n_rows = len(table)
        if format.options.without_id == "drop":
            text, table = _drop(text, table, columns[:n_ids])
        for index, name in enumerate(columns[:n_ids]):
            table = table.set_column(index, name, checked_ids(text, table[name], name))
        check_header(text, table, names)
        for index, name in enumerate(columns[n_ids:], n_ids):
            if name in texts:
                continue
            if name in numbers:
                check_number_column(text, table[name], name)
            elif format.options.time_format is None:
                check_time_column(text, table[name], name)
            else:
                times = to_times(text, table[name], name, format.options.time_format)
                table = table.set_column(index, name, times)
    dropped = n_rows - len(table)
    return Reading(table, Columns(), {"without an id": dropped} if dropped else {})


def _drop(text: TextFile, table: pa.Table, ids: Sequence[str]) -> tuple[TextFile, pa.Table]:
    """Drop the rows without an id. -> the file, which knows the lines of the others; the other rows"""
    masks = [mask for name in ids if (mask := without_id(table[name])) is not None]
    if not masks:
        return text, table
    kept = pc.invert(masks[0] if len(masks) == 1 else pc.or_(*masks))
    rows, table = np.flatnonzero(kept.to_numpy()), table.filter(kept)
    for index, name in enumerate(ids):  # the dictionaries without the words that are gone
        table = table.set_column(index, name, table[name].cast(pa.string()).dictionary_encode())
    return replace(text, kept=rows), table


def check_columns(wanted: Sequence[str], known: Iterable[Any]) -> None:
    """Refuse columns that are requested twice, missing or repeated."""
    known = list(known)
    if len(set(wanted)) < len(wanted):
        raise InvalidDataError(f"Expected different columns for users, items and values, got {list(wanted)}.")
    for name in wanted:
        same = [column for column in known if column == name]
        if len(same) != 1:
            state = "is missing" if not same else f"stands {len(same)} times"
            raise InvalidDataError(f"Expected one column {name!r}, but it {state}; the columns are {known}.")


def _names(text: TextFile, columns: Sequence[str]) -> list[str]:
    """Names of all columns. Raises InvalidDataError if one of `columns` is missing or repeated."""
    if text.format.names is not None:
        return [name or f"_{index}" for index, name in enumerate(text.format.names)]
    line, names = next(text.records(strict=True), (0, []))
    if not names:
        raise InvalidDataError(f"The file {text.path} cannot be read: Empty CSV file, expected a line of column names.")
    if "\0" in "".join(names):
        raise text.refused(line, NUL)
    try:
        check_columns(columns, names)
    except InvalidDataError as error:
        check_bytes(text, names, ())  # an unclosed quote may have swallowed names
        options = text.format.options
        hint = f"name others by {options.column_flags()}; where line {line} is a row, {options.by_position()}"
        if _is_data(names):
            hint = f"line {line} looks like a row: begin the file with their names, or {options.by_position()}"
        if len(names) == 1:
            hint = f"is the delimiter another than {text.format.delimiter!r}? {options.name_of('delimiter')} names it"
        raise InvalidDataError(f"{str(error)[:-1]}; {hint}.") from error
    if _is_data(names):
        raise text.refused(
            line,
            f"expected names of columns, got a row: {names}; begin the file with their names, or "
            f"{text.format.options.by_position()}.",
        )
    return names


def _is_data(names: Sequence[str]) -> bool:
    """Whether the header consists of numbers other than the numbers of the columns."""
    return all(map(NUMBER.fullmatch, names)) and not is_counted(names)


def _read(
    text: TextFile,
    columns: Sequence[str],
    n_ids: int,
    numbers: Sequence[str],
    texts: Sequence[str],
    quotes: Quotes,
    names: list[str] | None,
) -> pa.Table:
    options = text.format.options
    types = dict.fromkeys(columns[:n_ids], pa.dictionary(pa.int32(), pa.string()))
    if options.without_id == "refuse":  # faster than text, which `checked_ids` turns into integers
        types |= {name: pa.int64() for name, plain in zip(columns, quotes.integers, strict=False) if plain}
    if options.time_format not in (None, *TIME_UNITS):
        types |= dict.fromkeys([name for name in columns[n_ids:] if name not in numbers], pa.string())
    types |= dict.fromkeys(texts, pa.dictionary(pa.int32(), pa.string()))
    convert = pyarrow.csv.ConvertOptions(
        include_columns=list(columns),
        column_types=types,
        null_values=["", *options.missing],
        decimal_point=options.decimal,
        strings_can_be_null=True,
    )
    parse = pyarrow.csv.ParseOptions(
        delimiter=text.format.one,
        quote_char=text.format.quote or False,
        newlines_in_values=quotes.breaks,
    )
    skip = next(text.records(), (0, []))[0] if text.format.header and names is not None else 0
    block = BLOCK if quotes.longest < BLOCK // 2 else text.size() + 1
    while True:
        options = pyarrow.csv.ReadOptions(column_names=names, skip_rows=skip, block_size=min(block, LARGEST_BLOCK))
        try:
            return pyarrow.csv.read_csv(text.source(), options, parse, convert)
        except pa.ArrowInvalid as error:
            if block == BLOCK and "straddl" in str(error):  # a row exceeds a block
                block = text.size() + 1
                continue
            if any(quotes.integers) and "conversion error to int64" in str(error):  # not all are integers
                return _read(text, columns, n_ids, numbers, texts, replace(quotes, integers=()), names)
            _explain(text, names)
            raise


def _explain(text: TextFile, names: Sequence[str] | None) -> None:
    """Raise InvalidDataError with the line of the first row with a wrong number of columns, if there is one."""
    expected = None if names is None else len(names)
    skip = int(text.format.header and names is not None)
    for line, fields in itertools.islice(text.records(strict=True), skip, None):
        expected = len(fields) if expected is None else expected
        if len(fields) != expected:
            shown = text.format.delimiter.join(fields)
            hint = "" if text.format.options.comment else _comment_hint(text.format.options, shown)
            raise text.refused(line, f"Expected {expected} columns, got {len(fields)}: {shown[:60]!r}{hint}.")


def _comment_hint(options: ReadOptions, line: str) -> str:
    mark = next((mark for mark in ("#", "%", "//") if line.startswith(mark)), None)
    return "" if mark is None else f"; {options.give('comment', mark)} skips such lines"
