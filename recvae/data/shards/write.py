"""Parquet files of events, larger than memory perhaps -> a folder of shards, to be gone on with after a stop."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recvae.data.events import digest_events
from recvae.data.parquet.source import Source, find_source
from recvae.data.parquet.stored import LEAST_MIB
from recvae.data.rows import VALUES, Values, as_read
from recvae.data.shards.assignment import TEST, TRAIN, VALID, Assignment, assign
from recvae.data.shards.cells import Cells, NumberedEvents, cut, store_cells
from recvae.data.shards.files import (
    ITEMS,
    KIND,
    USERS,
    CsrRows,
    ShardFile,
    heldout_names,
    id_pieces,
    is_shard,
    joined,
    read_shard,
    shard_bytes,
    shard_name,
    write_ids,
)
from recvae.data.shards.read import Shards
from recvae.data.splits import SPLIT_SEED
from recvae.errors import UnknownNameError
from recvae.utils.checks import check_fraction, check_integer
from recvae.utils.files import replacing, write_whole, writing
from recvae.utils.folder import Manifest, claimed, digest_of, read_manifest
from recvae.utils.paths import output_path
from recvae.utils.progress import bar
from recvae.version import __version__

USERS_PER_SHARD = 20_000
STAGE = ".recvae-cells"  # from the sort to the last shard
EVENTS_PER_SHARD = 1 << 22  # a shard has fewer users where these have more events


def write_shards(
    input: str | Path,
    out: str | Path,
    *,
    user: str = "user",
    item: str = "item",
    value: str | None = None,
    min_value: float | None = None,
    min_user: int = 0,
    min_item: int = 0,
    values: Values = "binary",
    users_per_shard: int = USERS_PER_SHARD,
    heldout_users: int | None = None,
    split_seed: int = SPLIT_SEED,
    test_share: float = 0.2,
    memory_mib: int = 2048,
    show_progress: bool = True,
    on_part: Callable[[ShardFile], None] | None = None,
) -> Shards:
    """Write what `Interactions.read` would make of Parquet files as shards on disk, in bounded memory.

    Parameters
    ----------
    input : str or Path
        A Parquet file or a folder of such, in any order, with a row for each event, or for each user with a column of
        lists of items; columns, filters and `values` as in `Interactions.from_frame`, repeated events added up. Times
        are not kept.
    out : str or Path
        A folder, which gets the files that `Shards` reads.
    users_per_shard : int
        Users in a shard, or fewer where these have more than four million events.
    heldout_users, split_seed, test_share
        Keep users for validation and test out of the shards, as `strong_split` does; the items are then those of the
        training users.
    memory_mib : int
        How much DuckDB may take to sort in; what is more goes to files in `out`, where there has to be room for all
        events, 20 bytes each or so.
    on_part : Callable[[ShardFile], None] or None
        Called with each file that was made. What it raises ends the run.

    Raises
    ------
    InvalidParameterError
        Where `out` was begun with another input or setting.
    OutputError
        Where it holds something else or cannot be written.
    MissingDependencyError
        Without DuckDB, and as `Interactions.from_frame` and `strong_split`.
    RecvaeError
        What was not there before is not there then.

    Notes
    -----
    Where `out` was begun before, by a run that was stopped or killed, or has a damaged file, what is whole stays and
    the rest is made: in the end, all files are those of a run in one go, byte for byte (on one machine, with one set of
    libraries).
    """
    least = {"min_user": min_user, "min_item": min_item}
    settings = {name: check_integer(name, number, 0) for name, number in least.items()}
    settings["users_per_shard"] = check_integer("users_per_shard", users_per_shard, 1)
    check_integer("memory_mib", memory_mib, LEAST_MIB)
    source, folder = find_source(input, user, item, value, min_value), output_path(out)
    source.check_apart(folder)
    settings |= _settings(source, values, heldout_users, split_seed, test_share)
    with claimed(folder, ["*.arrow", "*.parquet"]) as scratch, bar(show_progress) as progress:
        manifest = read_manifest(folder, KIND, ShardFile, settings)
        if not (manifest.done and all(piece.is_whole(folder) for piece in manifest.parts)):
            task = progress.add_task("sorting events", total=None, note="")
            cells = Cells.open(folder / STAGE) or _sorted(source, scratch, memory_mib)
            choice = assign(cells, min_user, min_item, heldout_users, split_seed, test_share)
            manifest.write(folder)
            pieces = ShardWriter(_settled(cells, folder), choice, values, users_per_shard)

            def tell(done: int, total: int) -> None:
                progress.update(task, description="writing shards", total=total, completed=done)

            _fill(folder, manifest, pieces, on_part or (lambda piece: None), tell)
        shutil.rmtree(folder / STAGE, ignore_errors=True)  # nobody needs the cells any more
    return Shards(folder)


def _settings(
    source: Source, values: Values, heldout_users: int | None, split_seed: int, test_share: float
) -> dict[str, Any]:
    """All else that determines the output, as JSON can hold it."""
    if values not in VALUES:
        raise UnknownNameError.among("values transform", values, VALUES)
    return {
        "recvae": __version__,
        "columns": [source.user, source.item, source.value],
        "min_value": None if source.min_value is None else float(source.min_value),
        "values": values,
        "heldout_users": None if heldout_users is None else check_integer("heldout_users", heldout_users, 1),
        "split_seed": check_integer("split_seed", split_seed, 0, 2**32 - 1),
        "test_share": check_fraction("test_share", test_share),
        "input": source.state(),
    }


def _sorted(source: Source, scratch: Path, memory_mib: int) -> Cells:
    """The cells of the source, in a folder yet to be moved to its place."""
    with NumberedEvents(source, scratch / "sort", memory_mib) as events:
        return store_cells(events, scratch / "cells")


def _settled(cells: Cells, folder: Path) -> Cells:
    """The same cells, in the place where they stay until the last shard is there."""
    place = folder / STAGE
    if cells.folder != place:
        shutil.rmtree(place, ignore_errors=True)  # it may be there and damaged
        with writing(place):
            cells.folder.rename(place)
    return replace(cells, folder=place)


def _fill(
    folder: Path,
    manifest: Manifest[ShardFile],
    pieces: ShardWriter,
    on_part: Callable[[ShardFile], None],
    tell: Callable[[int, int], None],
) -> None:
    """Make the files that are not whole, in order."""
    whole = {piece.file: piece for piece in manifest.parts if piece.is_whole(folder)}
    manifest = replace(manifest, done=False, facts={}, parts=[whole[name] for name in pieces.names if name in whole])
    manifest.write(folder)
    for place, name in enumerate(pieces.names):
        tell(place, len(pieces.names))
        if name not in whole:
            piece = pieces.make(folder / name)
            manifest = replace(manifest, parts=[*manifest.parts[:place], piece, *manifest.parts[place:]])
            manifest.write(folder)
            on_part(piece)
    replace(manifest, done=True, facts=_facts(folder, manifest.parts)).write(folder)


def _facts(folder: Path, parts: list[ShardFile]) -> dict[str, Any]:
    """What is known of the whole: its sizes, and the digest that `Interactions.fingerprint` would give."""
    shards = [piece for piece in parts if is_shard(piece.file)]
    n_users, n_items = (next(piece.rows for piece in parts if piece.file == name) for name in (USERS, ITEMS))
    kinds: dict[str, Callable[[CsrRows, int], NDArray[Any]]] = {
        "indptr": lambda rows, before: rows.indptr[1:].astype(np.int64) + before,
        "indices": lambda rows, before: rows.items.astype(np.int64),
        "data": lambda rows, before: rows.data,
    }

    def arrays() -> Iterator[NDArray[Any]]:
        yield np.zeros(1, dtype=np.int64)
        for make in kinds.values():
            before = 0
            for piece in shards:
                yield make(read_shard(folder, piece, n_items), before)
                before += piece.events

    ids = ((column.to_pylist() for column in id_pieces(folder / name)) for name in (USERS, ITEMS))
    events = sum(piece.events for piece in shards)
    return {"users": n_users, "items": n_items, "events": events, "fingerprint": digest_events(ids, arrays())}


class ShardWriter:
    """Which files there are to be, in order, and how each is made."""

    def __init__(self, cells: Cells, choice: Assignment, values: Values, users_per_shard: int):
        self._cells, self._choice, self._values = cells, choice, values
        train = np.flatnonzero(choice.parts == TRAIN)
        self._makers: dict[str, Callable[[Path], ShardFile]] = {
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

    def make(self, path: Path) -> ShardFile:
        """Write the file of that name. Raises OutputError."""
        return self._makers[path.name](path)

    def _rows(self, part: int, first: int, last: int, path: Path) -> ShardFile:
        """A file of the users of one part that are from `first` on, before `last`, among the cells."""
        rows = joined(list(self._chosen(part, int(first), int(last))))
        content = shard_bytes(rows)
        write_whole(path, content)
        return ShardFile(
            file=path.name,
            rows=len(rows),
            events=len(rows.items),
            total=float(as_read(rows.data, self._values).sum(dtype=np.float64)),
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )

    def _chosen(self, part: int, first: int, last: int) -> Iterator[CsrRows]:
        for users, items, values in self._cells.blocks(first, last):
            mine, lengths = self._choice.parts[users] == part, self._cells.lengths[users]
            columns = self._choice.columns[items]
            kept = np.repeat(mine, lengths) & (columns >= 0)
            ends = np.concatenate([[0], np.cumsum(kept)])[np.concatenate([[0], np.cumsum(lengths)])]
            indptr = np.concatenate([[0], np.cumsum(np.diff(ends)[mine])])
            yield CsrRows(indptr, columns[kept], None if values is None else values[kept])

    def _ids(
        self, name: str, column: str, mask: NDArray[np.bool_], counts: NDArray[np.int64] | None, path: Path
    ) -> ShardFile:
        """A file of the ids that a mask chooses, with the number of users for each item."""
        with replacing(path) as part:
            n_ids = write_ids(part, _masked(id_pieces(self._cells.folder / name), column, mask, counts))
        return ShardFile(file=path.name, rows=n_ids, bytes=path.stat().st_size, sha256=digest_of(path))


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
