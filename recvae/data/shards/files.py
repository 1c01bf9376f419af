"""File formats of a folder of shards: Arrow files of rows, and Parquet files of raw ids.

A shard holds all events of some users in one uncompressed Arrow file, whose arrays are those of a CSR matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.rows import LARGEST
from recvae.errors import InvalidDataError
from recvae.utils.files import writing
from recvae.utils.folder import Written, check_integer, check_number

KIND = "shards"
USERS, ITEMS = "users.parquet", "items.parquet"  # raw ids of rows and columns, in their order
LISTS = [("items", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))]
SCHEMAS = [pa.schema(LISTS[:1]), pa.schema(LISTS)]
# raised by Arrow and numpy for damaged files
DAMAGED = (OSError, pa.ArrowException, MemoryError, LookupError, TypeError, ValueError, OverflowError)
REMEDY = "run the recvae shard command that wrote it once more, which writes damaged files again"
AT_A_TIME = 1 << 18


@dataclass(frozen=True, kw_only=True)
class ShardFile(Written):
    """Manifest entry of a file of the folder: a shard, or ids.

    Attributes
    ----------
    rows, events : int
        Number of users or of ids, and of events.
    total : float
        Sum of the values after the transform `values`.
    """

    rows: int
    events: int = 0
    total: float = 0.0

    def check(self) -> None:
        super().check()
        check_integer("rows", self.rows, 1)
        check_integer("events", self.events)
        check_number("total", self.total, 0)
        # files are uncompressed, so the counts are bounded by the size
        if self.file.endswith(".arrow") and 4 * (self.rows + 1 + self.events) > self.bytes:
            raise ValueError(f"expected {self.rows} rows and {self.events} events in {self.bytes} bytes")


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05}.arrow"


def heldout_names(part: str) -> tuple[str, str]:
    """File names of the ids and of the rows of the "valid" or "test" users, who are held out of training."""
    return f"{part}-users.parquet", f"{part}.arrow"


def is_shard(name: str) -> bool:
    """Whether a file holds rows of training users, rather than held-out users or ids."""
    return name.startswith("shard-")


@dataclass(frozen=True)
class CsrRows:
    """CSR arrays of some users; if `values` is None, each value is 1."""

    indptr: NDArray[Any]  # (users + 1,)
    items: NDArray[np.int32]  # (events,)
    values: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.indptr).astype(np.int64)

    @property
    def data(self) -> NDArray[np.float32]:
        """The values, as ones if they are not stored."""
        return np.ones(len(self.items), dtype=np.float32) if self.values is None else self.values

    def matrix(self, n_items: int) -> sparse.csr_matrix:
        """A matrix over the same arrays."""
        return sparse.csr_matrix((self.data, self.items, self.indptr), shape=(len(self), n_items))

    def take(self, rows: NDArray[np.int64]) -> CsrRows:
        """Copy the given users, in any order."""
        starts, lengths = self.indptr[:-1][rows].astype(np.int64), self.lengths[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        events = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], lengths)
        return CsrRows(indptr, self.items[events], None if self.values is None else self.values[events])


def joined(parts: list[CsrRows]) -> CsrRows:
    """Concatenate the users of several parts, as a copy."""
    lengths = np.concatenate([[0], *(part.lengths for part in parts)])
    with_values = any(part.values is not None for part in parts)
    values = np.concatenate([part.data for part in parts]) if with_values else None
    return CsrRows(np.cumsum(lengths), np.concatenate([part.items for part in parts]), values)


def shard_bytes(rows: CsrRows) -> bytes:
    """Content of the file of a shard: one row per user, with a list of items and, if stored, of values."""
    offsets = pa.array(rows.indptr.astype(np.int32))
    columns = {"items": rows.items} if rows.values is None else {"items": rows.items, "values": rows.values}
    lists = {name: pa.ListArray.from_arrays(offsets, pa.array(array)) for name, array in columns.items()}
    batch, sink = pa.RecordBatch.from_pydict(lists), pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as file:
        file.write_batch(batch)
    return sink.getvalue().to_pybytes()


def read_shard(folder: Path, piece: ShardFile, n_items: int) -> CsrRows:
    """Read the users of a shard, as read-only arrays.

    Compiled code trusts the arrays, so all are validated on each read. The file is not memory-mapped: if a mapped file
    is truncated meanwhile, access crashes the process instead of raising an error.

    Raises
    ------
    InvalidDataError
        If the content of the file has changed.
    """
    path = folder / piece.file
    with suppress(*DAMAGED):
        if piece.has_size(folder):
            with pa.OSFile(str(path)) as content:
                rows = _rows(content)
                if rows is not None and is_sound(rows, piece.rows, piece.events, n_items):
                    return rows
    raise InvalidDataError(f"The file {path} is not as it was written; {REMEDY}.")


def read_lengths(folder: Path, piece: ShardFile) -> NDArray[np.int64]:
    """Read the number of events of each user of a shard, and little else of its file. Raises as `read_shard`."""
    path = folder / piece.file
    with suppress(*DAMAGED):
        if piece.has_size(folder):
            with pa.memory_map(str(path)) as content:
                rows = _rows(content)
                if rows is not None and len(rows) == piece.rows and rows.indptr[-1] == piece.events:
                    return rows.lengths  # a copy
    raise InvalidDataError(f"The file {path} is not as it was written; {REMEDY}.")


def _rows(content: Any) -> CsrRows | None:
    """Arrays of an Arrow file; None if its schema is not that of `shard_bytes`, or if it has nulls."""
    with pa.ipc.open_file(content) as file:
        if file.schema.remove_metadata() not in SCHEMAS or file.num_record_batches != 1:
            return None
        batch = file.get_batch(0)
    batch.validate(full=True)  # checks lengths and offsets against the size of the buffers
    items = batch.column(0)
    if any(column.null_count or column.values.null_count for column in batch.columns):
        return None
    if batch.num_columns == 1:
        return CsrRows(items.offsets.to_numpy(), items.values.to_numpy(), None)
    values = batch.column(1)
    if not items.offsets.equals(values.offsets):
        return None
    return CsrRows(items.offsets.to_numpy(), items.values.to_numpy(), values.values.to_numpy())


def is_sound(rows: CsrRows, n_rows: int, n_events: int, n_items: int) -> bool:
    """Whether arrays have the expected sizes, sorted items below `n_items`, and values as in `check_content`."""
    bounds, items, values = rows.indptr, rows.items, rows.values
    if (len(rows), len(items)) != (n_rows, n_events) or (values is not None and len(values) != n_events):
        return False
    lengths = np.diff(bounds.astype(np.int64))
    if bounds[0] != 0 or bounds[-1] != n_events or (lengths < 0).any():
        return False
    if not n_events:
        return True
    starts = bounds[:-1][lengths > 0]
    ascending = items[1:] > items[:-1]
    ascending[starts[1:] - 1] = True  # no order is required across the boundary between users
    if not ascending.all() or items[starts].min() < 0 or items[bounds[1:][lengths > 0] - 1].max() >= n_items:
        return False
    # NaN fails both comparisons
    return values is None or bool(values.min() >= np.float32(1 / LARGEST) and values.max() <= LARGEST)


def write_ids(path: Path, pieces: Iterator[pa.RecordBatch]) -> int:
    """Write batches of ids to a file. -> number of ids. Raises OutputError."""
    first = next(pieces)
    n_ids = 0
    with writing(path), pyarrow.parquet.ParquetWriter(path, first.schema) as file:
        while first is not None:
            file.write_batch(first)
            n_ids, first = n_ids + len(first), next(pieces, None)
    return n_ids


def id_pieces(path: Path, column: int = 0) -> Iterator[pa.Array]:
    """Read a column of the file in batches."""
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(AT_A_TIME):
            yield batch.column(column)


def read_ids(path: Path, n_ids: int) -> pa.ChunkedArray:
    """Read the `n_ids` ids of the file. Raises InvalidDataError if its content has changed."""
    with _as_written(path):
        ids = _column(path, 0, n_ids)
        if not pa.types.is_integer(ids.type) and not pa.types.is_string(ids.type):
            raise ValueError(f"ids are of type {ids.type}")
        if len(ids) > 1 and not pc.all(pc.less(ids[:-1], ids[1:])).as_py():
            raise ValueError("ids are not in ascending order")
        return ids


def read_counts(path: Path, n_ids: int, n_events: int) -> NDArray[np.int64]:
    """Read the number of users of each item, which sum to `n_events`. Raises as `read_ids`."""
    with _as_written(path):
        counts = _column(path, 1, n_ids)
        if counts.type != pa.int64():
            raise ValueError(f"counts are of type {counts.type}")
        n_users: NDArray[np.int64] = counts.to_numpy()
        if n_users.min() < 1 or n_users.max() > n_events or n_users.sum() != n_events:
            raise ValueError(f"counts do not add up to {n_events:,} events")
        return n_users


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
