"""Times of a text file in a format that is given: a unit of numbers, or a pattern of strptime."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recvae.data.tables.options import TIME_UNITS
from recvae.data.tables.text_columns import NUMBER
from recvae.data.tables.text_file import TextFile

# directives that Arrow parses; the others are left to Python
FAST = re.compile(r"(?:%[YmdHMS]|[^%A-Za-z])*")
ZEROS = r"\b0+(\d)"


def to_times(text: TextFile, column: pa.ChunkedArray, name: str, time_format: str) -> pa.ChunkedArray:
    """Convert a column to timestamps in microseconds; empty cells and the number 0 become null: unknown.

    Raises
    ------
    InvalidDataError
        For a time that is not in the format, with its line.
    """
    if time_format in TIME_UNITS:
        return _from_numbers(text, column, name, time_format)
    encoded = pc.utf8_trim_whitespace(column).dictionary_encode().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().chunk(0)
    times = _parsed(encoded.dictionary, time_format)
    wrong = pc.and_(times.is_null(), pc.not_equal(encoded.dictionary, ""))
    code = pc.index(wrong, True).as_py()
    if code >= 0:
        index = pc.index(encoded.indices, pa.scalar(code, encoded.indices.type)).as_py()
        raise text.refused(
            text.line(index),
            f"Expected a time as {time_format!r} in column {name!r}, got {encoded.dictionary[code].as_py()!r:.40}; "
            f"{text.format.options.name_of('time_format')} has to fit every row.",
        )
    return pa.chunked_array([times.take(encoded.indices)])


def _from_numbers(text: TextFile, column: pa.ChunkedArray, name: str, unit: str) -> pa.ChunkedArray:
    if pa.types.is_string(column.type):
        known = pc.match_substring_regex(column, rf"^\s*(?:{NUMBER.pattern})?\s*$")
        index = pc.index(known, False).as_py()
        if index >= 0:
            raise text.refused(
                text.line(index), f"Expected times in {unit} in column {name!r}, got {column[index].as_py()!r:.40}."
            )
        blank = pc.equal(pc.utf8_trim_whitespace(column), "")
        column = pc.if_else(blank, pa.scalar(None, pa.string()), pc.utf8_trim_whitespace(column))
    try:
        times = np.nan_to_num(column.cast(pa.float64(), safe=False).to_numpy(), nan=0.0)
    except pa.ArrowException as error:  # dates
        raise text.refused(
            text.line(0), f"Expected times in {unit} in column {name!r}, got {column[0].as_py()}."
        ) from error
    micros = times * (1e6 / 1000 ** TIME_UNITS.index(unit))
    wrong = np.flatnonzero(~(np.abs(micros) < 2.0**63))
    if len(wrong):
        raise text.refused(
            text.line(int(wrong[0])), f"Expected times in {unit} in column {name!r}, got {times[wrong[0]]:g}."
        )
    return pa.chunked_array([pa.array(np.rint(micros).astype(np.int64), pa.timestamp("us"), mask=times == 0)])


def _parsed(texts: pa.Array, pattern: str) -> pa.Array:
    """Parse distinct texts; null for those that do not fit the pattern.

    Arrow takes 31/02 for 2 March: what it does not write as it stands, apart from leading zeros, is left to Python.
    """
    if FAST.fullmatch(pattern):
        times = pc.strptime(texts, format=pattern, unit="s", error_is_null=True)
        back = pc.strftime(times, format=pattern)
        same = [pc.replace_substring_regex(part, ZEROS, r"\1") for part in (back, texts)]
        slow = pc.invert(pc.fill_null(pc.equal(*same), False))
        if not pc.any(slow).as_py():
            return times.cast(pa.timestamp("us"))
        again = pa.array([_micros(text, pattern) for text in texts.filter(slow).to_pylist()], pa.timestamp("us"))
        return pc.replace_with_mask(times.cast(pa.timestamp("us")), slow, again)
    return pa.array([_micros(text, pattern) for text in texts.to_pylist()], pa.timestamp("us"))


def _micros(text: str, pattern: str) -> int | None:
    """Microseconds since 1970, in UTC unless the text has a time zone; None if it does not fit."""
    try:
        time = datetime.strptime(text, pattern)
    except ValueError:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return round(time.timestamp() * 1e6)
