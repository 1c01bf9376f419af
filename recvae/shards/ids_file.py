"""Raw ids in Parquet files, in the order of their places, read and written in pieces: there may be very many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from recvae.errors import InvalidDataError
from recvae.files import writing
from recvae.shards.shard_file import REMEDY

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


def read_ids(path: Path, column: int = 0) -> pa.ChunkedArray:
    """A column of the file. Raises InvalidDataError for another content than was written."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return file.read().column(column)
    except (OSError, pa.ArrowException, IndexError) as error:
        raise InvalidDataError(f"The file {path} is not as it was written ({error}); {REMEDY}.") from error
