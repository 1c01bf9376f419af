"""Parts of the output: from blocks of events to the lists of a part, on one machine and on a cluster."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from recvae.data.histories import UnknownItems
from recvae.data.ids import ItemIndex
from recvae.data.rules import ItemRules
from recvae.models.base import Recommender
from recvae.serving.batch.seen import block_histories
from recvae.utils.folder import Written, check_integer
from recvae.utils.progress import Bar

BLOCK = 4096  # users that are scored at a time


@dataclass(frozen=True, kw_only=True)
class Part(Written):
    """A file of the folder: the lists of `users` users, with ids from `first` to `last`.

    Attributes
    ----------
    unknown, examples
        Number of events on items that the model does not know, and up to 3 of these items.
    """

    users: int
    rows: int
    first: Any
    last: Any
    unknown: int
    examples: list[Any]

    def check(self) -> None:
        super().check()
        check_integer("users", self.users, 1)
        check_integer("rows", self.rows)
        check_integer("unknown", self.unknown)
        if type(self.examples) is not list or len(self.examples) > 3:
            raise ValueError(f"expected a list of up to 3 examples, got {self.examples!r:.80}")
        for name in (self.first, self.last, *self.examples):
            if type(name) is str:
                name.encode()  # a lone surrogate is no id
            else:
                check_integer("an id", name, -(2**63), 2**64 - 1)


def block_sizes(users_per_part: int) -> list[int]:
    """The number of users in each block of a part. A part has the same blocks in any run that makes it."""
    n_full, remainder = divmod(users_per_part, BLOCK)
    return [BLOCK] * n_full + [remainder] * (remainder > 0)


@dataclass(frozen=True)
class PartMaker:
    """Ranks the users of blocks of events, and writes their lists as a part."""

    model: Recommender
    index: ItemIndex
    N: int
    value: str | None
    min_value: float | None
    users_per_part: int
    rules: ItemRules | None = None

    def make(self, blocks: Iterable[pa.Table], advance: Callable[[int], None]) -> tuple[Part, bytes] | None:
        """A part, named by the digest of its file, and the bytes of that file; None without blocks."""
        sink, writer, unknown = pa.BufferOutputStream(), None, UnknownItems()
        users: list[Any] = []  # the first and the last of each block
        n_users = n_rows = 0
        for block in blocks:
            histories = block_histories(block, self.index, self.value, self.min_value)
            table = self.model.ranked_table(
                histories.users, histories.rows, self.N, seen=histories.seen, rules=self.rules
            )
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
        digest = hashlib.sha256(content).hexdigest()
        part = Part(
            file=f"{digest}.parquet",
            users=n_users,
            rows=n_rows,
            first=users[0],
            last=users[-1],
            unknown=unknown.events,
            examples=list(unknown.examples),
            bytes=len(content),
            sha256=digest,
        )
        return part, content


class Progress:
    """A progress bar of users, with the speed of this run in users per second."""

    def __init__(self, bar: Bar):
        self._bar, self._task = bar, bar.add_task("sorting events", total=None, note="")

    def start(self, n_users: int, n_done: int) -> None:
        """Start the count at `n_done` of `n_users`, the users that earlier runs ranked."""
        self._started, self._first, self._done = time.perf_counter(), n_done, n_done
        self._bar.update(self._task, description="recommending", total=n_users, completed=n_done)

    def advance(self, users: int) -> None:
        """Count `users` more."""
        self._done += users
        rate = (self._done - self._first) / (time.perf_counter() - self._started)
        self._bar.update(self._task, completed=self._done, note=f"{rate:,.0f} users/s")
