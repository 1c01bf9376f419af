"""Columns of a table, from whatever library: ids numbered in ascending order, and numbers. All passes through Arrow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recvae.errors import InvalidDataError, InvalidTypeError


def read_column(frame: Any, name: str) -> pa.ChunkedArray:
    """A column without gaps of a pandas or polars frame, or of a pyarrow table."""
    lazy = hasattr(frame, "collect")
    known = None if lazy else getattr(frame, "column_names", None) or getattr(frame, "columns", None)
    if known is None:
        raise InvalidTypeError(f"Expected a pandas or polars frame or a pyarrow table, got {type(frame).__name__}.")
    found = [column for column in known if column == name]
    if len(found) != 1:
        state = "is missing" if not found else f"stands {len(found)} times"
        raise InvalidDataError(f"Expected one column {name!r}, but it {state}; the columns are {list(known)}.")
    try:
        column = frame[name]
        column = pa.chunked_array(column) if hasattr(column, "__arrow_c_stream__") else pa.chunked_array([column])
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise InvalidDataError(
            f"Column {name!r} cannot be read ({error}); expected numbers or strings, all of one kind."
        ) from error
    if column.null_count:
        first = pc.index(column.is_null(), True).as_py()
        raise InvalidDataError(f"Expected a value in every row of {name!r}, got none in row {first} (from 0).")
    return column


def number_ids(column: pa.ChunkedArray, name: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Number the distinct ids in ascending order. -> (code of each event, ids)"""
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([_sortable(chunk.dictionary).take(chunk.indices) for chunk in column.chunks])
    column = _sortable(column)
    if not pa.types.is_large_string(column.type) and not pa.types.is_integer(column.type):
        raise InvalidDataError(f"Expected whole numbers or strings as ids in {name!r}, got {column.type}.")
    encoded = column.combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    ids = encoded.dictionary.take(pa.array(order)).to_numpy(zero_copy_only=False)
    return rank[encoded.indices.to_numpy()], ids


def _sortable(texts: Any) -> Any:
    """Text as the one kind that Arrow sorts at any size; anything else as it is."""
    is_text = pa.types.is_string(texts.type) or pa.types.is_string_view(texts.type)
    return texts.cast(pa.large_string()) if is_text else texts


def read_numbers(column: pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    """A column of numbers as an array."""
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)):
        raise InvalidDataError(f"Expected numbers in column {name!r}, got {column.type}.")
    return np.asarray(column.to_numpy(), dtype=np.float64)
