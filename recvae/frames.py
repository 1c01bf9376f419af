"""Tables of events, from any library or file: ids numbered in ascending order, and numbers. All is Arrow inside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from recvae.errors import DataNotFoundError, InvalidDataError, InvalidTypeError
from recvae.files import check_writable, write_whole
from recvae.large.parquet_files import ParquetFiles, find_files
from recvae.paths import input_path, output_path

READABLE = ("parquet", "csv", "tsv")


def read_table(path: str | Path, columns: Sequence[str]) -> pa.Table:
    """The named columns of a Parquet file (.parquet), a folder of such, or a text file with a header (.csv, .tsv).

    The first two are ids. Text files may be compressed (.csv.gz), and are read as by `read_delimited`.

    Raises DataNotFoundError, InvalidDataError for an unknown ending, missing or double columns, and broken lines.
    """
    path = input_path(path)
    kind = "parquet" if path.is_dir() else _kind(path, READABLE, (".gz", ".bz2", ".zst"))
    if kind != "parquet":
        return read_delimited(path, "," if kind == "csv" else "\t", columns)
    with _said(path):
        return find_files(path, columns).read()


def parquet_parts(path: Path, columns: Sequence[str]) -> ParquetFiles:
    """A Parquet file or a folder of such, all of which have the named columns. Raises as `read_table`."""
    with _said(path):
        return find_files(path, columns)


def read_delimited(
    path: Path,
    delimiter: str,
    columns: Sequence[str],
    names: Sequence[str] | None = None,
    skip: int = 0,
    encoding: str = "utf-8",
    content: bytes | None = None,
    n_ids: int = 2,
    quoted: bool = True,
) -> pa.Table:
    """The named columns of a delimited text file, whose header says their names unless `names` does.

    The first `n_ids` are ids: whole numbers where all of a column are written as such, and else text, so that 007
    stays 007. `content` may stand in for what the file holds; where nothing is `quoted`, quotes are text. Raises as
    `read_table`; a message on a broken line says which.
    """
    options = {"column_names": names, "skip_rows": skip, "encoding": encoding}
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char='"' if quoted else False)
    text = pa.dictionary(pa.int32(), pa.string())
    convert = pyarrow.csv.ConvertOptions(
        include_columns=list(columns),
        column_types=dict.fromkeys(columns[:n_ids], text),
        null_values=[""],  # an id of nothing is none; one of "NA" is an id
        strings_can_be_null=True,
    )
    slow = pyarrow.csv.ReadOptions(**options, use_threads=False)  # one thread can number the lines

    def source() -> Any:
        return path if content is None else pa.BufferReader(content)

    with _said(path):
        with pyarrow.csv.open_csv(source(), slow, parse) as head:
            _check_columns(columns, head.schema.names)
        try:
            table = pyarrow.csv.read_csv(source(), pyarrow.csv.ReadOptions(**options), parse, convert)
        except pa.ArrowInvalid:
            pyarrow.csv.read_csv(source(), slow, parse, convert)
            raise
    for place, name in enumerate(columns[:n_ids]):
        table = table.set_column(place, name, _as_numbers(table[name].unify_dictionaries()))
    return table


def write_table(path: str | Path, table: pa.Table) -> None:
    """Write a .parquet, .csv, .tsv or .jsonl file, atomically. Raises as `check_table`."""
    path = output_path(path)
    kind = check_table(path)
    if kind == "parquet":
        sink = pa.BufferOutputStream()
        pyarrow.parquet.write_table(table, sink)
        write_whole(path, sink.getvalue().to_pybytes())
    else:
        write_whole(path, text_of(table, kind).encode())


def check_table(path: Path) -> str:
    """Whether a table can be written to `path`, before the work. -> kind of file

    Raises InvalidDataError for an unknown ending, OutputError.
    """
    kind = _kind(path, (*READABLE, "jsonl"))
    check_writable(path)
    return kind


def text_of(table: pa.Table, kind: str = "csv") -> str:
    """A table as text: "csv", "tsv" or "jsonl"."""
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(delimiter="," if kind == "csv" else "\t"))
    return sink.getvalue().to_pybytes().decode()


def read_column(frame: Any, name: str, gaps: bool = False) -> pa.ChunkedArray:
    """A column of a pandas or polars frame, or of a pyarrow table, without `gaps` unless these may be."""
    lazy = hasattr(frame, "collect")
    known = None if lazy else getattr(frame, "column_names", None) or getattr(frame, "columns", None)
    if known is None:
        raise InvalidTypeError(f"Expected a pandas or polars frame or a pyarrow table, got {type(frame).__name__}.")
    _check_columns([name], known)
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


def number_texts(ids: Sequence[str]) -> pa.ChunkedArray:
    """Ids that came as text, as `read_delimited` has them: whole numbers where all are written as such."""
    return _as_numbers(pa.chunked_array([pa.array(ids, pa.string()).dictionary_encode()]))


def number_ids(column: pa.ChunkedArray, name: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Number the distinct ids in ascending order. -> (code of each event, ids)"""
    if not len(column):  # of no kind yet
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([_sortable(chunk.dictionary).take(chunk.indices) for chunk in column.chunks])
        _refuse_nulls(column, name)
    column = _sortable(column)
    check_ids(column.type, name)
    encoded = column.combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    ids = encoded.dictionary.take(pa.array(order)).to_numpy(zero_copy_only=False)
    return rank[encoded.indices.to_numpy()], ids


def check_ids(kind: pa.DataType, name: str) -> None:
    """Refuse a column of ids that are neither whole numbers nor text."""
    if not _is_text(kind) and not pa.types.is_integer(kind):
        raise InvalidDataError(f"Expected whole numbers or strings as ids in {name!r}, got {kind}.")


def check_numbers(kind: pa.DataType, name: str) -> None:
    """Refuse a column of values that are no numbers."""
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise InvalidDataError(f"Expected numbers in column {name!r}, got {kind}.")


def _check_columns(wanted: Sequence[str], known: Iterable[Any]) -> None:
    known = list(known)
    if len(set(wanted)) < len(wanted):
        raise InvalidDataError(f"Expected different columns for users, items and values, got {list(wanted)}.")
    for name in wanted:
        found = [column for column in known if column == name]
        if len(found) != 1:
            state = "is missing" if not found else f"stands {len(found)} times"
            raise InvalidDataError(f"Expected one column {name!r}, but it {state}; the columns are {known}.")


def _kind(path: Path, endings: Sequence[str], compressions: Sequence[str] = ()) -> str:
    """What a file is, by its ending, which that of a compression may follow."""
    if path.suffix.lower() in compressions:
        path = path.with_suffix("")
    if path.suffix.lower().removeprefix(".") in endings:
        return path.suffix.lower().removeprefix(".")
    raise InvalidDataError(f"Expected a file that ends in .{', .'.join(endings)}, got {path.name}.")


@contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataNotFoundError(f"Expected a file of events at {path}, got: {error.strerror or error}.") from error
    except (pa.ArrowException, OSError, UnicodeError, LookupError) as error:
        raise InvalidDataError(f"The file {path} cannot be read: {error}") from error


def _as_numbers(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids as whole numbers if each is written as one would write a whole number, else as they are."""
    if ids.num_chunks == 0 or ids.null_count:
        return ids
    texts = ids.chunk(0).dictionary
    try:
        numbers = texts.cast(pa.int64())
    except pa.ArrowInvalid:
        return ids
    if not numbers.cast(pa.string()).equals(texts):
        return ids
    return pa.chunked_array([numbers.take(chunk.indices) for chunk in ids.chunks])


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _refuse_nulls(column: pa.ChunkedArray, name: str) -> None:
    if column.null_count:
        first = pc.index(column.is_null(), True).as_py()
        raise InvalidDataError(f"Expected a value in every row of {name!r}, got none in row {first} (from 0).")


def _sortable(texts: Any) -> Any:
    """Text as the one kind that Arrow sorts at any size; anything else as it is."""
    return texts.cast(pa.large_string()) if _is_text(texts.type) else texts


def read_numbers(column: pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    """A column of numbers as an array."""
    check_numbers(column.type, name)
    return np.asarray(column.to_numpy(), dtype=np.float64)


def read_times(column: pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    """A column of dates, as seconds since 1970, or of numbers, as they are; 0 where there is no time."""
    if pa.types.is_temporal(column.type):
        try:
            column = pc.divide(column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).cast(pa.float64()), 1e6)
        except pa.ArrowException as error:  # a time of day, a duration
            raise InvalidDataError(f"Expected dates or numbers in column {name!r}, got {column.type}.") from error
    elif pa.types.is_null(column.type):
        return np.zeros(len(column))
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InvalidDataError(
            f"Expected dates or numbers in column {name!r}, got {column.type}; turn it into dates first, as "
            f"pandas.to_datetime does."
        )
    times = read_numbers(column, name)
    if np.isinf(times).any():
        raise InvalidDataError(f"Expected finite times in column {name!r}, got {times[np.isinf(times)][0]}.")
    return np.nan_to_num(times)
