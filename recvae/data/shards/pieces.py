"""The files of a folder of shards, each made on its own of the cells and of what was chosen of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recvae.data.rows import Values, as_read
from recvae.data.shards.cells import Cells, cut
from recvae.data.shards.choice import TEST, TRAIN, VALID, Choice
from recvae.data.shards.ids_file import id_pieces, write_ids
from recvae.data.shards.shard_file import ITEMS, USERS, Piece, Rows, heldout_names, joined, shard_bytes, shard_name
from recvae.utils.files import replacing, write_whole
from recvae.utils.folder import digest_of

EVENTS_PER_SHARD = 1 << 22  # a shard has fewer users where these have more events


class Pieces:
    """Which files there are to be, in order, and how each is made."""

    def __init__(self, cells: Cells, choice: Choice, values: Values, users_per_shard: int):
        self._cells, self._choice, self._values = cells, choice, values
        train = np.flatnonzero(choice.parts == TRAIN)
        self._makers: dict[str, Callable[[Path], Piece]] = {
            ITEMS: partial(self._ids, ITEMS, "item", choice.columns >= 0, choice.counts),
            USERS: partial(self._ids, USERS, "user", choice.parts == TRAIN, None),
        }
        for part, which in ((VALID, "valid"), (TEST, "test")):
            mine = np.flatnonzero(choice.parts == part)
            if len(mine):
                users, rows = heldout_names(which)
                self._makers[users] = partial(self._ids, USERS, "user", choice.parts == part, None)
                self._makers[rows] = partial(self._rows, part, mine[0], mine[-1] + 1)
        bounds = cut(choice.lengths[train], users_per_shard, EVENTS_PER_SHARD)
        for number, start, stop in zip(count(), bounds[:-1], bounds[1:], strict=False):
            self._makers[shard_name(number)] = partial(self._rows, TRAIN, train[start], train[stop - 1] + 1)

    @property
    def names(self) -> list[str]:
        return list(self._makers)

    def make(self, path: Path) -> Piece:
        """Write the file of that name. Raises OutputError."""
        return self._makers[path.name](path)

    def _rows(self, part: int, first: int, last: int, path: Path) -> Piece:
        """A file of the users of one part that are from `first` on, before `last`, among the cells."""
        rows = joined(list(self._chosen(part, int(first), int(last))))
        content = shard_bytes(rows)
        write_whole(path, content)
        return Piece(
            file=path.name,
            rows=len(rows),
            events=len(rows.items),
            total=float(as_read(rows.data, self._values).sum(dtype=np.float64)),
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )

    def _chosen(self, part: int, first: int, last: int) -> Iterator[Rows]:
        for users, items, values in self._cells.blocks(first, last):
            mine, lengths = self._choice.parts[users] == part, self._cells.lengths[users]
            columns = self._choice.columns[items]
            kept = np.repeat(mine, lengths) & (columns >= 0)
            ends = np.concatenate([[0], np.cumsum(kept)])[np.concatenate([[0], np.cumsum(lengths)])]
            indptr = np.concatenate([[0], np.cumsum(np.diff(ends)[mine])])
            yield Rows(indptr, columns[kept], None if values is None else values[kept])

    def _ids(
        self, name: str, column: str, mask: NDArray[np.bool_], counts: NDArray[np.int64] | None, path: Path
    ) -> Piece:
        """A file of the ids that a mask chooses, with the number of users for each item."""
        with replacing(path) as part:
            n_ids = write_ids(part, _masked(id_pieces(self._cells.folder / name), column, mask, counts))
        return Piece(file=path.name, rows=n_ids, bytes=path.stat().st_size, sha256=digest_of(path))


def _masked(
    pieces: Iterator[pa.Array], column: str, mask: NDArray[np.bool_], counts: NDArray[np.int64] | None
) -> Iterator[pa.RecordBatch]:
    start = done = 0
    for piece in pieces:
        chosen = piece.filter(pa.array(mask[start : start + len(piece)]))
        columns = {column: chosen}
        if counts is not None:
            columns["users"] = pa.array(counts[done : done + len(chosen)])
        yield pa.RecordBatch.from_pydict(columns)
        start, done = start + len(piece), done + len(chosen)
