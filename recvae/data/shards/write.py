"""Convert Parquet files of events, of any size, to a folder of shards; an interrupted run is resumed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recvae.data.events import digest_events
from recvae.data.names import SPLIT_SEED, USERS_PER_SHARD, VALUES, Values
from recvae.data.parquet.source import Source, find_source
from recvae.data.parquet.stored import LEAST_MIB
from recvae.data.rows import as_read
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
from recvae.data.weighting import Weighting
from recvae.errors import UnknownNameError
from recvae.utils.checks import check_fraction, check_integer
from recvae.utils.files import replacing, write_whole, writing
from recvae.utils.folder import Manifest, claimed, digest_of, read_manifest
from recvae.utils.paths import output_path
from recvae.utils.progress import bar
from recvae.version import __version__

STAGE = ".recvae-cells"  # folder of sorted cells, until the last shard is written
EVENTS_PER_SHARD = 1 << 22  # limit of events in a shard, which then has fewer users


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
    k_core: bool = False,
    behavior: str | None = None,
    weights: Mapping[str, float] | None = None,
    unknown_behavior: str = "refuse",
    values: Values = "binary",
    users_per_shard: int = USERS_PER_SHARD,
    heldout_users: int | None = None,
    split_seed: int = SPLIT_SEED,
    test_share: float = 0.2,
    memory_mib: int = 2048,
    show_progress: bool = True,
    on_part: Callable[[ShardFile], None] | None = None,
) -> Shards:
    """Convert Parquet files of events to shards on disk, with the rules of `Interactions.read`, in bounded memory.

    Parameters
    ----------
    input : str or Path
        A Parquet file or a folder of such, in any order, with a row for each event, or for each user with a column of
        lists of items; columns, filters, weights of behaviours and `values` as in `Interactions.from_frame`, repeated
        events added up. Times are not kept, and there is no half-life.
    out : str or Path
        Output folder, to be opened by `Shards`.
    users_per_shard : int
        Users in a shard; fewer if they have more than four million events.
    heldout_users, split_seed, test_share
        Hold out users for validation and test, as `strong_split` does; the items are then those of the training users.
    memory_mib : int
        Memory limit of DuckDB for sorting; beyond it, DuckDB spills to files in `out`, which needs disk space for all
        events, about 20 bytes each.
    on_part : Callable[[ShardFile], None] or None
        Called with each file after it is written. An exception ends the run.

    Raises
    ------
    InvalidParameterError
        If `out` was started with another input or other settings.
    OutputError
        If `out` holds something else or cannot be written.
    MissingDependencyError
        If DuckDB is not installed.
    RecvaeError
        As `Interactions.from_frame` and `strong_split`. A new folder is removed again if it is still empty.

    Notes
    -----
    If a previous run was interrupted, or a file is damaged, intact files are kept and the others are written: the
    result is that of an uninterrupted run, byte for byte (on one machine, with the same versions of libraries).
    """
    least = {"min_user": min_user, "min_item": min_item}
    settings: dict[str, Any] = {name: check_integer(name, number, 0) for name, number in least.items()}
    settings["users_per_shard"] = check_integer("users_per_shard", users_per_shard, 1)
    check_integer("memory_mib", memory_mib, LEAST_MIB)
    weighting = Weighting(behavior, weights, unknown_behavior)
    source, folder = find_source(input, user, item, value, min_value, weighting), output_path(out)
    source.check_apart(folder)
    settings |= _settings(source, values, heldout_users, split_seed, test_share)
    settings |= {
        "k_core": k_core or None,
        "weighting": weighting.record() or None,
    }  # added later: older folders lack them
    with claimed(folder, ["*.arrow", "*.parquet"]) as scratch, bar(show_progress) as progress:
        manifest = read_manifest(folder, KIND, ShardFile, settings)
        if not (manifest.done and all(file.is_whole(folder) for file in manifest.parts)):
            task = progress.add_task("sorting events", total=None, note="")
            cells = Cells.open(folder / STAGE) or _sorted(source, scratch, memory_mib)
            choice = assign(cells, min_user, min_item, heldout_users, split_seed, test_share, k_core)
            manifest.write(folder)
            writer = ShardWriter(_settled(cells, folder), choice, values, users_per_shard)

            def tell(done: int, total: int) -> None:
                progress.update(task, description="writing shards", total=total, completed=done)

            _fill(folder, manifest, writer, on_part or (lambda file: None), tell)
        shutil.rmtree(folder / STAGE, ignore_errors=True)  # complete: the cells are not needed any more
    return Shards(folder)


def _settings(
    source: Source, values: Values, heldout_users: int | None, split_seed: int, test_share: float
) -> dict[str, Any]:
    """All other settings that determine the output, JSON-serialisable."""
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
    """Sort the events of the source into cells, in a temporary folder."""
    with NumberedEvents(source, scratch / "sort", memory_mib) as events:
        return store_cells(events, scratch / "cells")


def _settled(cells: Cells, folder: Path) -> Cells:
    """Move the cells to `STAGE`, where they stay until the last shard is written."""
    target = folder / STAGE
    if cells.folder != target:
        shutil.rmtree(target, ignore_errors=True)  # it may exist and be damaged
        with writing(target):
            cells.folder.rename(target)
    return replace(cells, folder=target)


def _fill(
    folder: Path,
    manifest: Manifest[ShardFile],
    writer: ShardWriter,
    on_part: Callable[[ShardFile], None],
    tell: Callable[[int, int], None],
) -> None:
    """Write the files that are missing or damaged, in order."""
    whole = {file.file: file for file in manifest.parts if file.is_whole(folder)}
    manifest = replace(manifest, done=False, facts={}, parts=[whole[name] for name in writer.names if name in whole])
    manifest.write(folder)
    for index, name in enumerate(writer.names):
        tell(index, len(writer.names))
        if name not in whole:
            file = writer.make(folder / name)
            manifest = replace(manifest, parts=[*manifest.parts[:index], file, *manifest.parts[index:]])
            manifest.write(folder)
            on_part(file)
    replace(manifest, done=True, facts=_facts(folder, manifest.parts)).write(folder)


def _facts(folder: Path, parts: list[ShardFile]) -> dict[str, Any]:
    """Facts of the data set: its sizes, and the digest that `Interactions.fingerprint` would return."""
    shards = [file for file in parts if is_shard(file.file)]
    n_users, n_items = (next(file.rows for file in parts if file.file == name) for name in (USERS, ITEMS))
    kinds: dict[str, Callable[[CsrRows, int], NDArray[Any]]] = {
        "indptr": lambda rows, before: rows.indptr[1:].astype(np.int64) + before,
        "indices": lambda rows, before: rows.items.astype(np.int64),
        "data": lambda rows, before: rows.data,
    }

    def arrays() -> Iterator[NDArray[Any]]:
        yield np.zeros(1, dtype=np.int64)
        for make in kinds.values():
            before = 0
            for file in shards:
                yield make(read_shard(folder, file, n_items), before)
                before += file.events

    ids = ((column.to_pylist() for column in id_pieces(folder / name)) for name in (USERS, ITEMS))
    events = sum(file.events for file in shards)
    return {"users": n_users, "items": n_items, "events": events, "fingerprint": digest_events(ids, arrays())}


class ShardWriter:
    """Names the files of the folder, in order, and writes each."""

    def __init__(self, cells: Cells, choice: Assignment, values: Values, users_per_shard: int):
        self._cells, self._choice, self._values = cells, choice, values
        train = np.flatnonzero(choice.parts == TRAIN)
        self._makers: dict[str, Callable[[Path], ShardFile]] = {
            ITEMS: partial(self._ids, ITEMS, "item", choice.columns >= 0, choice.counts),
            USERS: partial(self._ids, USERS, "user", choice.parts == TRAIN, None),
        }
        for part, which in ((VALID, "valid"), (TEST, "test")):
            members = np.flatnonzero(choice.parts == part)
            if len(members):
                users, rows = heldout_names(which)
                self._makers[users] = partial(self._ids, USERS, "user", choice.parts == part, None)
                self._makers[rows] = partial(self._rows, part, members[0], members[-1] + 1)
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
        """Write the rows of those users of a part that are in [first, last) of the cells."""
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
            members, lengths = self._choice.parts[users] == part, self._cells.lengths[users]
            columns = self._choice.columns[items]
            kept = np.repeat(members, lengths) & (columns >= 0)
            ends = np.concatenate([[0], np.cumsum(kept)])[np.concatenate([[0], np.cumsum(lengths)])]
            indptr = np.concatenate([[0], np.cumsum(np.diff(ends)[members])])
            yield CsrRows(indptr, columns[kept], None if values is None else values[kept])

    def _ids(
        self, name: str, column: str, mask: NDArray[np.bool_], counts: NDArray[np.int64] | None, path: Path
    ) -> ShardFile:
        """Write the ids selected by a mask, with the number of training users of each item, if given."""
        with replacing(path) as part:
            n_ids = write_ids(part, _masked(id_pieces(self._cells.folder / name), column, mask, counts))
        return ShardFile(file=path.name, rows=n_ids, bytes=path.stat().st_size, sha256=digest_of(path))


def _masked(
    writer: Iterator[pa.Array], column: str, mask: NDArray[np.bool_], counts: NDArray[np.int64] | None
) -> Iterator[pa.RecordBatch]:
    start = done = 0
    for chunk in writer:
        chosen = chunk.filter(pa.array(mask[start : start + len(chunk)]))
        columns = {column: chosen}
        if counts is not None:
            columns["users"] = pa.array(counts[done : done + len(chosen)])
        yield pa.RecordBatch.from_pydict(columns)
        start, done = start + len(chunk), done + len(chosen)
