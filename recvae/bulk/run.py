"""The run: ordered events in, a block of users at a time through the model, parts out."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import count, cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from rich.progress import Progress
from scipy import sparse

from recvae.bulk.ordered import OrderedEvents
from recvae.files import write_whole
from recvae.histories import Unknown, read_histories
from recvae.ids import ItemIndex
from recvae.large.folder import Manifest, Written, claimed, read_manifest
from recvae.large.source import Source, find_source
from recvae.large.stored import LEAST_MIB
from recvae.params import check_whole
from recvae.progress import bar
from recvae.recommender import Recommender
from recvae.saving import content_checksum
from recvae.version import __version__

USERS_PER_PART = 50_000
BLOCK = 4096  # users that are scored at a time
KIND = "lists"


@dataclass(frozen=True, kw_only=True)
class Part(Written):
    """A file of the folder: lists of `users` users, from the id `first` to the id `last`.

    unknown, examples : events on items that the model does not know, and some of these items
    """

    users: int
    rows: int
    first: Any
    last: Any
    unknown: int
    examples: list[Any]


@dataclass(frozen=True)
class BulkResult:
    """What a folder of parts holds at the end of a run.

    users, recommendations : in all parts
    parts, made : how many there are, and how many of them this run made
    unknown : events on items that the model does not know
    """

    users: int
    recommendations: int
    parts: int
    made: int
    unknown: Unknown


def recommend_to_parquet(
    model: Recommender,
    input: str | Path,
    out: str | Path,
    N: int = 10,
    *,
    user: str = "user",
    item: str = "item",
    value: str | None = None,
    min_value: float | None = None,
    users_per_part: int = USERS_PER_PART,
    memory_mib: int = 1024,
    show_progress: bool = True,
    on_part: Callable[[Part], None] | None = None,
) -> BulkResult:
    """The N best new items of each user of Parquet files that may be larger than memory, as a folder of Parquet files.

    model : a fitted model that knows the raw ids of its items
    input : a Parquet file or a folder of such, in any order, with columns `user`, `item` and, where it is named,
        `value`: a row for each event, or for each user with a column of lists of items. Events of a `value` below
        `min_value` are left out.
    out : a folder, which gets part-00000.parquet, ... with columns user, rank, item, score and, where known, title,
        `users_per_part` users each in ascending order, and _manifest.json, which says what it was made from
    memory_mib : how much DuckDB may take to sort in, beside which there are the model and a block of users; what is
        more goes to files in `out` for as long as the run lasts
    on_part : called with each `Part` that was made. What it raises ends the run.

    Where `out` was begun before, by a run that was stopped or killed, the parts that are whole stay and the rest is
    made: in the end, all files are those of a run in one go, byte for byte (on one machine, with one set of libraries).

    Raises InvalidParameterError where `out` was begun with another model, input or setting, OutputError where it holds
    something else or cannot be written, MissingDependencyError without DuckDB, InvalidDataError as
    `Interactions.from_frame`, UnknownUsersError for a model that cannot score new users; nothing is written then.
    """
    N, users_per_part = check_whole("N", N, 1), check_whole("users_per_part", users_per_part, 1)
    check_whole("memory_mib", memory_mib, LEAST_MIB)
    source, folder = find_source(input, user, item, value, min_value), Path(out)
    source.check_apart(folder)
    index = _known_items(model, N)
    lists = _Lists(model, index, min(N, len(index)), None if value is None else "value", users_per_part)
    settings = _settings(model, source, N, users_per_part)
    with claimed(folder, ["part-?????.parquet"]) as scratch:
        manifest = read_manifest(folder, KIND, Part, settings)
        whole = [part.is_whole(folder) for part in manifest.parts]
        if manifest.done and all(whole):
            return _result(manifest, 0)
        with OrderedEvents(source, scratch / "sort", memory_mib) as events, bar(show_progress) as progress:
            events.check(lists.index)
            return _fill(folder, manifest, whole, events, lists, progress, on_part or (lambda part: None))


def _fill(
    folder: Path,
    manifest: Manifest[Part],
    whole: list[bool],
    events: OrderedEvents,
    lists: _Lists,
    progress: Progress,
    on_part: Callable[[Part], None],
) -> BulkResult:
    """Make the parts that are not whole, in order, from the first of them on."""
    first = whole.index(False) if False in whole else len(whole)
    kept = manifest.parts[:first]
    manifest, made = replace(manifest, done=False), 0
    manifest.write(folder)
    meter = _Meter(progress)
    n_users, n_kept = events.count_users(), sum(part.users for part in kept)
    sizes = _block_sizes(lists.users_per_part)
    blocks = events.blocks(kept[-1].last if kept else None, cycle(sizes))
    meter.start(n_users, n_kept)
    for number in count(first):
        mine = islice(blocks, len(sizes))
        if number < len(whole) and whole[number]:
            deque(mine, maxlen=0)  # to come to the users after it
            meter.advance(manifest.parts[number].users)
            continue
        made_part = lists.part(number, mine, meter.advance)
        if made_part is None:
            break
        part, content = made_part
        write_whole(folder / part.file, content)
        manifest, made = manifest.with_part(number, part), made + 1
        manifest.write(folder)
        on_part(part)
    manifest = replace(manifest, done=True)
    manifest.write(folder)
    return _result(manifest, made)


def _block_sizes(users_per_part: int) -> list[int]:
    """Users in each block of a part. A part that is made alone has the blocks that it has in a whole run."""
    full, rest = divmod(users_per_part, BLOCK)
    return [BLOCK] * full + [rest] * (rest > 0)


class _Meter:
    """Users done, on a progress bar, and how many in a second of this run."""

    def __init__(self, progress: Progress):
        self._progress, self._task = progress, progress.add_task("sorting events", total=None, note="")

    def start(self, n_users: int, n_done: int) -> None:
        self._started, self._first, self._done = time.perf_counter(), n_done, n_done
        self._progress.update(self._task, description="recommending", total=n_users, completed=n_done)

    def advance(self, users: int) -> None:
        self._done += users
        rate = (self._done - self._first) / (time.perf_counter() - self._started)
        self._progress.update(self._task, completed=self._done, note=f"{rate:,.0f} users/s")


@dataclass(frozen=True)
class _Lists:
    """How blocks of events become the lists of a part."""

    model: Recommender
    index: ItemIndex
    N: int
    value: str | None
    users_per_part: int

    def part(
        self, number: int, blocks: Iterable[pa.Table], advance: Callable[[int], None]
    ) -> tuple[Part, bytes] | None:
        """The part with that number and the content of its file; None where there are no blocks."""
        sink, writer, unknown = pa.BufferOutputStream(), None, Unknown()
        users: list[Any] = []  # the first and the last of each block
        n_users = n_rows = 0
        for block in blocks:
            histories = read_histories(block, self.index, value=self.value)
            table = self.model.ranked_table(histories.users, histories.rows, self.N)
            if writer is None:
                writer = pyarrow.parquet.ParquetWriter(sink, table.schema)
            writer.write_table(table)
            users += histories.users[[0, -1]].tolist()
            n_users, n_rows, unknown = n_users + len(histories.users), n_rows + len(table), unknown + histories.unknown
            advance(len(histories.users))
        if writer is None:
            return None
        writer.close()
        content = sink.getvalue().to_pybytes()
        part = Part(
            file=f"part-{number:05}.parquet",
            users=n_users,
            rows=n_rows,
            first=users[0],
            last=users[-1],
            unknown=unknown.events,
            examples=list(unknown.examples),
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        return part, content


def _known_items(model: Recommender, N: int) -> ItemIndex:
    """The items that a model knows. Raises NotFittedError and UnknownUsersError, InvalidDataError without raw ids."""
    model.ranked_table(
        np.empty(0, dtype=np.int64), sparse.csr_matrix((0, len(model.known_items())), dtype=np.float32), N
    )
    return model.known_items()


def _settings(model: Recommender, source: Source, N: int, users_per_part: int) -> dict[str, Any]:
    """All that determines the output, as JSON can hold it."""
    content: list[bytes] = []
    sink: Any = SimpleNamespace(write=content.append)
    model.save(sink)
    return {
        "recvae": __version__,
        "model": f"{type(model).__name__}, checksum {content_checksum(content[0])}",
        "N": N,
        "users_per_part": users_per_part,
        "columns": [source.user, source.item, source.value],
        "min_value": None if source.min_value is None else float(source.min_value),
        "input": source.state(),
    }


def _result(manifest: Manifest[Part], made: int) -> BulkResult:
    parts = manifest.parts
    unknown = sum((Unknown(part.unknown, tuple(part.examples)) for part in parts), Unknown())
    return BulkResult(sum(p.users for p in parts), sum(p.rows for p in parts), len(parts), made, unknown)
