"""Blocks of events become the lists of a part: the same wherever they are made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from recvae.data.histories import UnknownItems
from recvae.data.ids import ItemIndex
from recvae.models.base import Recommender
from recvae.serving.batch.touched import block_histories
from recvae.utils.folder import Written, check_integer

BLOCK = 4096  # users that are scored at a time


@dataclass(frozen=True, kw_only=True)
class Part(Written):
    """A file of the folder: lists of `users` users, from the id `first` to the id `last`.

    Attributes
    ----------
    unknown, examples
        Events on items that the model does not know, and some of these items.
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
                name.encode()  # what cannot be is no id
            else:
                check_integer("an id", name, -(2**63), 2**64 - 1)


def block_sizes(users_per_part: int) -> list[int]:
    """Users in each block of a part. A part that is made alone has the blocks that it has in a whole run."""
    full, rest = divmod(users_per_part, BLOCK)
    return [BLOCK] * full + [rest] * (rest > 0)


@dataclass(frozen=True)
class Lists:
    """How blocks of events become the lists of a part."""

    model: Recommender
    index: ItemIndex
    N: int
    value: str | None
    min_value: float | None
    users_per_part: int

    def part(self, blocks: Iterable[pa.Table], advance: Callable[[int], None]) -> tuple[Part, bytes] | None:
        """A part named by the content of its file, and that content; None where there are no blocks."""
        sink, writer, unknown = pa.BufferOutputStream(), None, UnknownItems()
        users: list[Any] = []  # the first and the last of each block
        n_users = n_rows = 0
        for block in blocks:
            histories = block_histories(block, self.index, self.value, self.min_value)
            table = self.model.ranked_table(histories.users, histories.rows, self.N, seen=histories.seen)
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
