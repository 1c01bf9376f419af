"""Convert stored events to files of sorted cells, one per (user, item) pair: the source of the shards.

Memory holds one number per user and per item, and a block of cells, independent of the number of events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recvae.data.events import merge_sorted
from recvae.data.parquet.stored import StoredEvents, exact_name
from recvae.data.rows import check_content
from recvae.data.shards.files import ITEMS, USERS, CsrRows, is_sound, read_ids, write_ids
from recvae.errors import InvalidDataError
from recvae.utils.files import writing
from recvae.utils.folder import Manifest, Written, digest_of, load_manifest

KIND = "cells"
AT_A_TIME = 1 << 20  # rows in a batch of a query result
BLOCK = 1 << 22  # cells
ARRAYS = {"lengths": np.int64, "counts": np.int64, "items": np.int32, "values": np.float32}

Cell = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]


@dataclass(frozen=True)
class Cells:
    """Cells in the files of a folder, sorted by user.

    Attributes
    ----------
    lengths, counts : NDArray[np.int64]
        Number of cells of each user, and of each item.
    has_values : bool
        Whether there is a file of values; otherwise all values are 1.
    """

    folder: Path
    lengths: NDArray[np.int64]
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]
    has_values: bool

    @classmethod
    def open(cls, folder: Path) -> Cells | None:
        """Open the files written by `store_cells`; None if they are missing, damaged or inconsistent."""
        try:
            manifest = load_manifest(folder, KIND, Written)
            if manifest is None or not all(part.is_whole(folder) for part in manifest.parts):
                return None
            names = {part.file for part in manifest.parts}
            if names - {"values"} != {USERS, ITEMS, "lengths", "counts", "items"}:
                return None
            lengths, counts = (np.fromfile(folder / name, ARRAYS[name]) for name in ("lengths", "counts"))
            read_ids(folder / USERS, len(lengths))
            read_ids(folder / ITEMS, len(counts))
        except (InvalidDataError, OSError):
            return None
        starts = np.concatenate([[0], np.cumsum(lengths)])
        cells = cls(folder, lengths, counts, starts, "values" in names)
        return cells if cells._is_sound() else None

    def _is_sound(self) -> bool:
        """Whether the files are consistent."""
        n_cells, counts = int(self.starts[-1]), np.zeros_like(self.counts)
        sizes = [(self.folder / name).stat().st_size for name in ("items", *["values"][: self.has_values])]
        if not len(self.lengths) or self.lengths.min() < 1 or self.lengths.max() > len(self.counts):
            return False
        if any(size != 4 * n_cells for size in sizes):
            return False
        for users, items, values in self.blocks():
            bounds = self.starts[users.start : users.stop + 1] - self.starts[users.start]
            if not is_sound(CsrRows(bounds, items, values), len(bounds) - 1, len(items), len(self.counts)):
                return False
            counts += np.bincount(items, minlength=len(counts))
        return bool((counts == self.counts).all())

    def blocks(self, first: int = 0, last: int | None = None) -> Iterator[tuple[slice, Any, Any]]:
        """Cells of the users [first, last) in blocks: slice of users, their items, and their values or None."""
        last = len(self.lengths) if last is None else last
        bounds = cut(self.lengths[first:last], last - first, BLOCK)
        for start, stop in zip(first + bounds[:-1], first + bounds[1:], strict=True):
            cells = int(self.starts[start]), int(self.starts[stop] - self.starts[start])
            values = self._read("values", *cells) if self.has_values else None
            yield slice(int(start), int(stop)), self._read("items", *cells), values

    def _read(self, name: str, start: int, count: int) -> NDArray[Any]:
        kind = np.dtype(ARRAYS[name])
        values = np.fromfile(self.folder / name, kind, count, offset=start * kind.itemsize)
        if len(values) < count:
            raise InvalidDataError(f"The file {self.folder / name} has become shorter; run the same command again.")
        return values


def cut(lengths: NDArray[np.int64], most_users: int, most_events: int) -> NDArray[np.int64]:
    """Bounds of blocks of at most `most_users` users and `most_events` events, or of one user with more events."""
    ends = np.cumsum(lengths)
    bounds = [0]
    while (start := bounds[-1]) < len(lengths):
        before = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, before + most_events, side="right"))
        bounds.append(min(max(stop, start + 1), start + most_users, len(lengths)))
    return np.array(bounds, dtype=np.int64)


def store_cells(events: NumberedEvents, folder: Path) -> Cells:
    """Write the files of `Cells` to a new folder. Raises as `StoredEvents`, and OutputError."""
    with writing(folder):
        folder.mkdir(parents=True)
    events.check_events()
    sizes = [
        write_ids(folder / name, events.ids(column, AT_A_TIME)) for name, column in ((USERS, "user"), (ITEMS, "item"))
    ]
    lengths, counts = (np.zeros(size, dtype=np.int64) for size in sizes)
    with _Columns(folder) as columns:
        for users, items, values in merged(events.numbered(folder / USERS, folder / ITEMS, AT_A_TIME)):
            columns.add(items, values)
            new = np.bincount(users - users[0])
            lengths[users[0] : users[-1] + 1] += new
            counts += np.bincount(items, minlength=len(counts))
    for name, array in (("lengths", lengths), ("counts", counts)):
        with writing(folder / name):
            (folder / name).write_bytes(array.tobytes())
    with writing(folder):
        paths = sorted(folder.iterdir())
        parts = [Written(file=path.name, bytes=path.stat().st_size, sha256=digest_of(path)) for path in paths]
    Manifest(KIND, {}, parts, True).write(folder)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Cells(folder, lengths, counts, starts, (folder / "values").exists())


def merged(batches: Iterable[pa.RecordBatch]) -> Iterator[Cell]:
    """Merge rows sorted by user and item: the values of repeated pairs are summed; without values each row counts 1.

    Sums are in float64 and in the order of the rows, so that they are reproducible.
    """
    held = None
    for batch in batches:
        table = pa.Table.from_batches([batch])
        table = table if held is None else pa.concat_tables([held, table])
        pairs = table["user"].to_numpy().astype(np.int64) << 32 | table["item"].to_numpy()
        last = int(np.searchsorted(pairs, pairs[-1]))  # the last pair may continue in the next batch
        if last:
            yield _merged(pairs[:last], table[:last])
        held, pairs = table[last:], pairs[last:]
    if held is not None:
        yield _merged(pairs, held)


def _merged(pairs: NDArray[np.int64], table: pa.Table) -> Cell:
    first, sums = merge_sorted(pairs, table["value"].to_numpy() if "value" in table.column_names else None)
    check_content(sums)  # each value is within the limits, but their sum may not be
    return table["user"].to_numpy()[first], table["item"].to_numpy()[first], sums


class _Columns:
    """Writer of the file of items and, once a value differs from 1, of the file of values."""

    def __init__(self, folder: Path):
        self._folder, self._files = folder, ExitStack()
        self._values: BinaryIO | None = None
        self._n_ones = 0

    def __enter__(self) -> _Columns:
        self._items = self._open("items")
        return self

    def __exit__(self, *error: object) -> None:
        with writing(self._folder):  # closing flushes the last bytes
            self._files.close()

    def add(self, items: NDArray[np.int32], values: NDArray[np.float32]) -> None:
        with writing(self._folder):
            self._items.write(items.astype(np.int32, copy=False).tobytes())
            if self._values is None and (values == 1).all():
                self._n_ones += len(values)
                return
            if self._values is None:
                self._values = self._open("values")
                for start in range(0, self._n_ones, BLOCK):
                    self._values.write(np.ones(min(BLOCK, self._n_ones - start), np.float32).tobytes())
            self._values.write(values.tobytes())

    def _open(self, name: str) -> BinaryIO:
        with writing(self._folder / name):
            return self._files.enter_context((self._folder / name).open("wb"))


class NumberedEvents(StoredEvents):
    """Stored events, with users and items replaced by their rows in files of ids."""

    def ids(self, column: str, rows: int) -> Iterator[pa.RecordBatch]:
        """Distinct ids of "user" or "item" in ascending order, as a column `id`, in batches of at most `rows` rows."""
        with self._translating_errors():
            distinct = self._single().select(f'"{column}" AS id').distinct().order("id")
        return self._batches(distinct, rows)

    def numbered(self, users: Path, items: Path, rows: int) -> Iterator[pa.RecordBatch]:
        """Events sorted by user, item and value: user and item as int32 rows in the files of ids, and value, if any."""
        names = ["user", "item", *(["value"] if self._source.has_values else [])]
        with self._translating_errors():
            events = self._single()
            for name, path in (("user", users), ("item", items)):
                ids = self._connection.read_parquet(exact_name(str(path.absolute())), file_row_number=True)
                numbers = ids.select(f'id AS "{name} id", CAST(file_row_number AS INTEGER) AS "{name} number"')
                events = events.join(numbers, f'"{name}" = "{name} id"')
            chosen = ['"user number" AS "user"', '"item number" AS "item"', *names[2:]]
            # sorted by value, too: sums of floats depend on the order
            ordered = events.select(", ".join(chosen)).order(", ".join(f'"{name}"' for name in names))
        return self._batches(ordered, rows)

    def _single(self) -> Any:
        """One row per event; lists of items are unnested."""
        return self._events.select('"user", unnest(item) AS item') if self._source.lists else self._events
