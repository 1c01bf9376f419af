"""When events were: dates, or numbers, which are seconds since 1970 unless they are seen to be something smaller."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recvae.data.tables.frames import read_numbers
from recvae.errors import InvalidDataError

# between these, in seconds since 1970, a time is taken for a date: 1973 to 2286
DATES = (1e8, 1e10)
# how many of each are a second; dates in different units are of different size, so that numbers say their own
UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
ZONE = r":\d\d(?:\.\d+)?(?:Z|[+-]\d\d(?::?\d\d)?)$"


def read_times(column: pa.ChunkedArray, name: str) -> tuple[NDArray[np.float64], str]:
    """A column of dates, as seconds since 1970, or of numbers; 0 where there is no time.

    Numbers that all are dates from 1973 to 2286 in milliseconds, microseconds or nanoseconds become seconds; others
    stay as they are.

    Returns
    -------
    tuple[NDArray[np.float64], str]
        (times, unit they came in).

    Raises
    ------
    InvalidDataError
        For what is neither, and for numbers in several units.
    """
    kind = column.type
    if pa.types.is_null(kind):
        return np.zeros(len(column)), ""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = _parsed(column, name)
    if pa.types.is_temporal(column.type):
        try:
            column = pc.divide(column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).cast(pa.float64()), 1e6)
        except pa.ArrowException as error:  # a time of day, a duration
            raise InvalidDataError(f"Expected dates or numbers in column {name!r}, got {column.type}.") from error
        return _finite(column, name), ""
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InvalidDataError(
            f"Expected dates or numbers in column {name!r}, got {column.type}; turn it into dates first, as "
            f"pandas.to_datetime does."
        )
    return _to_seconds(_finite(column, name), name)


def unit_of(times: NDArray[np.float64]) -> str:
    """The unit in which all of some numbers are dates, or "" where there is none."""
    if not len(times):
        return ""
    least, most = float(times.min()), float(times.max())
    return next((unit for unit, n in UNITS.items() if DATES[0] * n < least and most < DATES[1] * n), "")


def _to_seconds(times: NDArray[np.float64], name: str) -> tuple[NDArray[np.float64], str]:
    known = times[times != 0]
    unit = unit_of(known)
    if unit:
        return times / UNITS[unit], unit
    parts = {unit: (DATES[0] * n < known) & (known < DATES[1] * n) for unit, n in UNITS.items()}
    units = [unit for unit, part in parts.items() if part.any()]
    if len(units) > 1 and np.logical_or.reduce(list(parts.values())).all():
        one, other = (f"{known[parts[unit]][0]:.0f} ({unit})" for unit in units[:2])
        raise InvalidDataError(f"Expected times of one unit in column {name!r}, got {one} and {other}.")
    return times, ""


def _parsed(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Dates in text, as ISO 8601 has them, with a zone or in UTC; nothing where the text is blank."""
    texts = pc.utf8_trim_whitespace(column.cast(pa.large_string()))  # of views Arrow trims none
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, texts.type), texts)
    zoned = pc.any(pc.match_substring_regex(texts, ZONE)).as_py()
    try:
        return texts.cast(pa.timestamp("us", "UTC" if zoned else None))
    except pa.ArrowException as error:
        raise InvalidDataError(
            f"Expected dates or numbers in column {name!r}, got {column.type}; turn it into dates first, as "
            f"pandas.to_datetime does: {' '.join(str(error).split())}"
        ) from error


def _finite(column: pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    times = read_numbers(column, name)
    if np.isinf(times).any():
        raise InvalidDataError(f"Expected finite times in column {name!r}, got {times[np.isinf(times)][0]}.")
    return np.nan_to_num(times)
