"""Read tables of events from data frames, and write them, as Arrow; number ids, parse values and times."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from recvae.data.parquet.files import ParquetFiles, find_files
from recvae.data.tables.text import check_columns
from recvae.data.tables.text_columns import MISSING, no_id
from recvae.data.tables.text_file import reading
from recvae.errors import InvalidDataError, InvalidTypeError
from recvae.utils.files import check_writable, replacing
from recvae.utils.paths import output_path

ROWS_AT_A_TIME = 1 << 13  # turned into JSON
WRITABLE = ("parquet", "csv", "tsv", "jsonl")
# times in this range, in seconds since 1970, are taken for dates: 1973 to 2286
DATES = (1e8, 1e10)
# units per second; the ranges of dates in these units are disjoint, so that the unit can be inferred
UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
ZONE = r":\d\d(?:\.\d+)?(?:Z|[+-]\d\d(?::?\d\d)?)$"


def parquet_parts(path: Path, columns: Sequence[str]) -> ParquetFiles:
    """Locate a Parquet file or those of a folder, with the named columns; reads no rows. Raises RecvaeError."""
    with reading(path):
        return find_files(path, columns)


def write_table(path: str | Path, table: pa.Table) -> None:
    """Write a .parquet, .csv, .tsv or .jsonl file, atomically. Raises as `check_table`."""
    with table_writer(path) as write:
        write(table)


@contextmanager
def table_writer(path: str | Path) -> Iterator[Callable[[pa.Table], None]]:
    """Write a file, as `write_table`, from tables of one schema: yields the function that appends one of them.

    The file replaces an older one at the end of the `with` block; after an error the older one is unchanged.
    """
    path = output_path(path)
    kind = check_table(path)
    with replacing(path) as part, part.open("wb") as file:
        parquet: pyarrow.parquet.ParquetWriter | None = None
        empty = True

        def write(table: pa.Table) -> None:
            nonlocal parquet, empty
            if kind != "parquet":
                file.write(text_of(table, kind, header=empty).encode())
            else:
                parquet = parquet or pyarrow.parquet.ParquetWriter(file, table.schema)
                parquet.write_table(table)
            empty = False

        yield write
        if parquet is not None:
            parquet.close()


def check_table(path: Path) -> str:
    """Check that a table can be written to `path`, before the work.

    Returns
    -------
    str
        Kind of file, by its extension.

    Raises
    ------
    InvalidDataError
        For an unknown file extension.
    OutputError
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in WRITABLE:
        raise InvalidDataError(f"Expected a file that ends in .{', .'.join(WRITABLE)}, got {path.name}.")
    check_writable(path)
    return kind


def text_of(table: pa.Table, kind: str = "csv", header: bool = True) -> str:
    """Serialise a table as "csv", "tsv" or "jsonl"; without a `header`, as a continuation."""
    if kind == "jsonl":
        batches = table.to_batches(max_chunksize=ROWS_AT_A_TIME)
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for batch in batches for row in batch.to_pylist())
    sink = pa.BufferOutputStream()
    options = pyarrow.csv.WriteOptions(delimiter="," if kind == "csv" else "\t", include_header=header)
    pyarrow.csv.write_csv(table, sink, options)
    return sink.getvalue().to_pybytes().decode()


def read_column(frame: Any, name: str, gaps: bool = False) -> pa.ChunkedArray:
    """Read a column of a pandas or polars frame or a pyarrow table; nulls are refused unless `gaps` is true."""
    lazy = hasattr(frame, "collect")
    known = None if lazy else getattr(frame, "column_names", None) or getattr(frame, "columns", None)
    if known is None:
        raise InvalidTypeError(f"Expected a pandas or polars frame or a pyarrow table, got {type(frame).__name__}.")
    check_columns([name], known)
    try:
        column = frame[name]
        column = pa.chunked_array(column) if hasattr(column, "__arrow_c_stream__") else pa.chunked_array([column])
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise InvalidDataError(
            f"Column {name!r} cannot be read ({error}); expected numbers or strings, all of one kind."
        ) from error
    if not gaps:
        _refuse_nulls(column, name)
    return column


def number_ids(column: pa.ChunkedArray, name: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Number the distinct ids in ascending order. -> (code of each event, ids)"""
    if not len(column):  # an empty column may have no type
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    is_dictionary = pa.types.is_dictionary(column.type)
    check_ids(column.type.value_type if is_dictionary else column.type, name)
    if not is_dictionary and pa.types.is_integer(column.type):
        numbered = _number_dense(column)
        if numbered is not None:
            return numbered
    indices, texts = _coded(column, name)
    encoded = _sortable(texts).dictionary_encode()  # as small as the dictionary, unless `column` came without one
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    ids = encoded.dictionary.take(pa.array(order)).to_numpy(zero_copy_only=False)
    codes = rank[encoded.indices.to_numpy()]
    codes = codes if indices is None else codes[indices]
    if ids.dtype == object:
        _refuse_words(codes, ids, name)
    return codes, ids


def _coded(column: pa.ChunkedArray, name: str) -> tuple[NDArray[Any] | None, pa.Array]:
    """A column as one array, or, if it is dictionary-encoded, its codes and the values that occur."""
    if not pa.types.is_dictionary(column.type):
        return None, column.combine_chunks()
    if len({_address(chunk.dictionary) for chunk in column.chunks}) > 1:
        column = column.unify_dictionaries()
    values = column.chunk(0).dictionary
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks])
    used = np.bincount(codes, minlength=len(values)) > 0
    if not used.all():
        values, codes = values.filter(pa.array(used)), (np.cumsum(used) - 1)[codes]
    if values.null_count:
        _refuse_nulls(pa.chunked_array([values.take(pa.array(codes))]), name)
    return codes, values


def _address(array: pa.Array) -> tuple[int, ...]:
    """What two arrays have in common that are the same memory."""
    return (array.offset, len(array), *(0 if buffer is None else buffer.address for buffer in array.buffers()))


def _number_dense(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[Any]] | None:
    """Number integers by a table of all integers in their range; None if the range is too wide for that."""
    least, most = pc.min_max(column).values()
    low, high = least.as_py(), most.as_py()
    if high - low > max(4 * len(column), 1 << 16) or high >= 1 << 63:
        return None
    offsets = column.to_numpy().astype(np.int64) - low
    used = np.zeros(high - low + 1, dtype=bool)
    used[offsets] = True
    ids = np.flatnonzero(used) + low
    return (np.cumsum(used) - 1)[offsets], ids.astype(column.type.to_pandas_dtype())


def check_ids(kind: pa.DataType, name: str) -> None:
    """Refuse a column of ids that are neither integers nor text."""
    if pa.types.is_floating(kind):
        raise InvalidDataError(
            f"Expected integers or strings as ids in {name!r}, got {kind}; drop the rows without an id, then turn "
            f"the column into integers, as pandas' .astype('int64') does."
        )
    if not _is_text(kind) and not pa.types.is_integer(kind):
        raise InvalidDataError(f"Expected integers or strings as ids in {name!r}, got {kind}.")


def check_numbers(kind: pa.DataType, name: str) -> None:
    """Refuse a column of values that are not numbers."""
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise InvalidDataError(f"Expected numbers in column {name!r}, got {kind}.")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _refuse_nulls(column: pa.ChunkedArray, name: str) -> None:
    if column.null_count:
        raise no_id(None, f"row {pc.index(column.is_null(), True).as_py()} (from 0)", name)


def _refuse_words(codes: NDArray[np.int64], ids: NDArray[Any], name: str) -> None:
    """Refuse blank ids and words for missing values among sorted ids: they would merge many users into one."""
    positions = np.searchsorted(ids, np.array(MISSING, dtype=object)).tolist()
    missing = [
        position
        for position, word in zip(positions, MISSING, strict=True)
        if position < len(ids) and ids[position] == word
    ]
    missing += [position for position in range(np.searchsorted(ids, "!")) if not ids[position].strip()]
    if missing:
        raise no_id(ids[missing[0]], f"row {int(np.flatnonzero(codes == missing[0])[0])} (from 0)", name)


def _sortable(texts: Any) -> Any:
    """Cast text to large_string, which Arrow can sort at any size; other types are unchanged."""
    return texts.cast(pa.large_string()) if _is_text(texts.type) else texts


def read_numbers(column: pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    """Convert a column of numbers to float64."""
    check_numbers(column.type, name)
    return np.asarray(column.to_numpy(), dtype=np.float64)


def read_times(column: pa.ChunkedArray, name: str) -> tuple[NDArray[np.float64], str]:
    """Convert a column of dates to seconds since 1970, or read a column of numbers; missing times become 0.

    Numbers that all are dates from 1973 to 2286 in milliseconds, microseconds or nanoseconds are converted to seconds;
    other numbers are unchanged.

    Returns
    -------
    tuple[NDArray[np.float64], str]
        Times, and the unit of the input: "" for dates, and for numbers that are not dates.

    Raises
    ------
    InvalidDataError
        If the column is neither, or has numbers in several units.
    """
    kind = column.type
    if pa.types.is_null(kind):
        return np.zeros(len(column)), ""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = _parsed(column, name)
    if pa.types.is_temporal(column.type):
        try:
            micros = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
            column = pc.divide(micros.cast(pa.float64(), safe=False), 1e6)
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
    """Unit in which all of the numbers are dates, "" if there is none."""
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
    """Parse ISO 8601 dates, with a time zone or in UTC; blank text becomes null."""
    texts = pc.utf8_trim_whitespace(column.cast(pa.large_string()))  # Arrow cannot trim string views
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
