"""A shard: whole users in one Arrow file, uncompressed, so that its arrays are those of a CSR matrix as they lie."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from recvae.errors import InvalidDataError
from recvae.large.folder import Written

KIND = "shards"
USERS, ITEMS = "users.parquet", "items.parquet"  # raw ids of rows and columns, in their order
REMEDY = "run the recvae shard command that wrote it once more, which makes anew what is damaged"


@dataclass(frozen=True, kw_only=True)
class Piece(Written):
    """A file of the folder: a shard, or ids.

    rows, events : users or ids, and events
    total : sum of the values as `values` reads them
    """

    rows: int
    events: int = 0
    total: float = 0.0


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"shard-{number:05}.arrow"


def heldout_names(part: str) -> tuple[str, str]:
    """The files of ids and rows of the users that are kept out of training as "valid" or "test"."""
    return f"{part}-users.parquet", f"{part}.arrow"


def is_shard(name: str) -> bool:
    """Whether a file holds training users, and not others or ids."""
    return name.startswith("shard-")


@dataclass(frozen=True)
class Rows:
    """CSR arrays of some users; without `values` each is 1."""

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
        """The values, ones among them."""
        return np.ones(len(self.items), dtype=np.float32) if self.values is None else self.values

    def matrix(self, n_items: int) -> sparse.csr_matrix:
        """The same as a matrix, which shares the arrays."""
        return sparse.csr_matrix((self.data, self.items, self.indptr), shape=(len(self), n_items))

    def take(self, places: NDArray[np.int64]) -> Rows:
        """Some of the users, in any order, as copies."""
        starts, lengths = self.indptr[:-1][places].astype(np.int64), self.lengths[places]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        events = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], lengths)
        return Rows(indptr, self.items[events], None if self.values is None else self.values[events])


def joined(parts: list[Rows]) -> Rows:
    """Users of several, one after the other, as copies."""
    lengths = np.concatenate([[0], *(part.lengths for part in parts)])
    with_values = any(part.values is not None for part in parts)
    values = np.concatenate([part.data for part in parts]) if with_values else None
    return Rows(np.cumsum(lengths), np.concatenate([part.items for part in parts]), values)


def shard_bytes(rows: Rows) -> bytes:
    """The content of a shard's file: a row for each user, with a list of items and, where there are any, of values."""
    offsets = pa.array(rows.indptr.astype(np.int32))
    columns = {"items": rows.items} if rows.values is None else {"items": rows.items, "values": rows.values}
    lists = {name: pa.ListArray.from_arrays(offsets, pa.array(array)) for name, array in columns.items()}
    batch, sink = pa.RecordBatch.from_pydict(lists), pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as file:
        file.write_batch(batch)
    return sink.getvalue().to_pybytes()


def read_shard(folder: Path, piece: Piece, n_items: int) -> Rows:
    """The users of a shard, over its memory map. Raises InvalidDataError for another content than was written.

    Compiled code follows the arrays blindly, so they are looked at: that they point to nowhere else.
    """
    path = folder / piece.file
    with suppress(OSError, pa.ArrowException, AttributeError, KeyError, TypeError):
        if piece.has_size(folder):  # beyond the end of a memory map there is no error but a crash
            batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
            arrays = {name: batch[name] for name in batch.schema.names}
            indptr, items = arrays["items"].offsets.to_numpy(), arrays["items"].values.to_numpy()
            values = arrays["values"].values.to_numpy() if "values" in arrays else None
            rows = Rows(indptr, items, values)
            if _is_sound(rows, piece, n_items):
                return rows
    raise InvalidDataError(f"The file {path} is not as it was written; {REMEDY}.")


def _is_sound(rows: Rows, piece: Piece, n_items: int) -> bool:
    if rows.items.dtype != np.int32 or (rows.values is not None and rows.values.dtype != np.float32):
        return False
    n_events = piece.events
    if (len(rows), len(rows.items)) != (piece.rows, n_events) or rows.indptr[0] != 0 or rows.indptr[-1] != n_events:
        return False
    if rows.values is not None and len(rows.values) != n_events:
        return False
    inside = not n_events or (rows.items.min() >= 0 and rows.items.max() < n_items)
    return bool(inside and (np.diff(rows.indptr) >= 0).all())
