"""Raw ids in Parquet files, in the order of their places, read and written in pieces: there may be very many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from recvae.data.shards.shard_file import REMEDY
from recvae.errors import InvalidDataError
from recvae.utils.files import writing

AT_A_TIME = 1 << 18


def write_ids(path: Path, pieces: Iterator[pa.RecordBatch]) -> int:
    """Tables of ids, as they come, to a file. -> how many. Raises OutputError."""
    first = next(pieces)
    n_ids = 0
    with writing(path), pyarrow.parquet.ParquetWriter(path, first.schema) as file:
        while first is not None:
            file.write_batch(first)
            n_ids, first = n_ids + len(first), next(pieces, None)
    return n_ids


def id_pieces(path: Path, column: int = 0) -> Iterator[pa.Array]:
    """A column of the file, in pieces."""
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(AT_A_TIME):
            yield batch.column(column)


def read_ids(path: Path, n_ids: int) -> pa.ChunkedArray:
    """The ids of the file, so many. Raises InvalidDataError for another content than was written."""
    with _as_written(path):
        ids = _column(path, 0, n_ids)
        if not pa.types.is_integer(ids.type) and not pa.types.is_string(ids.type):
            raise ValueError(f"ids are of type {ids.type}")
        if len(ids) > 1 and not pc.all(pc.less(ids[:-1], ids[1:])).as_py():
            raise ValueError("ids are not in ascending order")
        return ids


def read_counts(path: Path, n_ids: int, n_events: int) -> NDArray[np.int64]:
    """How many users have each item, so many in all. Raises as `read_ids`."""
    with _as_written(path):
        counts = _column(path, 1, n_ids)
        if counts.type != pa.int64():
            raise ValueError(f"counts are of type {counts.type}")
        found: NDArray[np.int64] = counts.to_numpy()
        if found.min() < 1 or found.max() > n_events or found.sum() != n_events:
            raise ValueError(f"counts do not add up to {n_events:,} events")
        return found


def _column(path: Path, number: int, n_ids: int) -> pa.ChunkedArray:
    with pyarrow.parquet.ParquetFile(path) as file:
        if file.metadata.num_rows != n_ids:
            raise ValueError(f"expected {n_ids:,} rows, got {file.metadata.num_rows:,}")
        column = file.read().column(number)
    column.validate(full=True)
    if len(column) != n_ids or column.null_count:
        raise ValueError(f"expected {n_ids:,} values, got {len(column) - column.null_count:,}")
    return column


@contextmanager
def _as_written(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, IndexError, ValueError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidDataError(f"The file {path} is not as it was written ({reason}); {REMEDY}.") from error
