"""What a training step of a Mult-VAE costs, counted on paper: operations, bytes, what goes over the network, memory.

Counts are those of one rank. What a machine makes of them is a sum: seconds = counts / rates, nothing overlapping.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
KEPT = 0.5  # of events, by dropout
POWER = 0.75  # of counts, by which candidates are drawn
TABLES = 3  # the first layer's rows, the output layer's, its biases
OTHERS = 5  # parameters that are no table
BLOCK_BYTES = 48 << 20
CHANGES = 4 << 20  # bytes of the changes of rows that a CPU makes at a time
WINDOWS = 2 << 28
ADAM = 28  # bytes that Adam reads and writes of a parameter
TOUCHES = 4  # how often the optimizer passes over a touched row: its gradient twice, its weights there and back


@dataclass(frozen=True)
class Shape:
    """A training: data, network (items -> hidden -> latent -> hidden -> items), and how it is shared out.

    length : events of a user
    batch : users in a step, of all ranks together
    candidates : of the sampled likelihood; None for the exact one
    share : what ranks share out, "users" of a batch or "items" of the tables
    skew : an item of rank r has a share of events in proportion to (10 + r)^-skew
    block_bytes : how large a block of the exact likelihood's logits may be
    skips : whether what dropout leaves out is skipped, as on a CPU; on a GPU it counts, as zeros
    """

    users: int
    items: int
    length: float
    batch: int = 500
    hidden: int = 128
    latent: int = 128
    candidates: int | None = None
    ranks: int = 1
    share: str = "users"
    skew: float = 0.9
    block_bytes: float = BLOCK_BYTES
    skips: bool = True

    @property
    def seen(self) -> float:
        """Users of a step that a rank computes."""
        return self.batch if self.share == "items" else self.batch / self.ranks

    @property
    def own_items(self) -> float:
        """Items whose rows a rank has."""
        return self.items / self.ranks if self.share == "items" else self.items

    @property
    def own_candidates(self) -> float:
        """Candidates whose logits a rank computes."""
        return (self.candidates or 0) / (self.ranks if self.share == "items" else 1)

    @property
    def events(self) -> float:
        """Events of which a rank reads rows."""
        return self.batch * self.length / self.ranks

    @property
    def read(self) -> float:
        """Those of them that the first layer reads."""
        return self.events * (KEPT if self.skips else 1)

    @property
    def block(self) -> int:
        """Users whose logits, of a rank's items, are there at a time."""
        return max(1, int(self.block_bytes // (2 * math.ceil(self.own_items))))

    @property
    def middle(self) -> int:
        """Parameters between the tables."""
        hidden, latent = self.hidden, self.latent
        return hidden + 2 * latent * (hidden + 1) + hidden * (latent + 1)

    @property
    def tables(self) -> float:
        """Parameters of a rank's tables."""
        return self.own_items * (2 * self.hidden + 1)


@dataclass(frozen=True)
class Counts:
    """Of a step, or of a part of it.

    narrow, wide : floating-point operations in bfloat16 and in float32
    streamed : bytes read and written in one piece
    scattered : bytes of rows here and there
    events : events, and rows of gradients, that are sorted, drawn noise for, and put in place
    sent : bytes that leave a rank, and as many come
    hops : messages that wait for the one before
    steps : what does not depend on sizes, such as starting kernels
    """

    narrow: float = 0
    wide: float = 0
    streamed: float = 0
    scattered: float = 0
    events: float = 0
    sent: float = 0
    hops: float = 0
    steps: float = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def moved(self) -> float:
        """Bytes to and from memory."""
        return self.streamed + self.scattered


KINDS = tuple(field.name for field in fields(Counts))


@dataclass(frozen=True)
class Machine:
    """Rates of one rank's device in what `Counts` count, each a second; infinite where it costs nothing."""

    narrow: float
    wide: float
    streamed: float
    scattered: float
    events: float
    sent: float = math.inf
    hops: float = math.inf
    steps: float = math.inf

    def seconds(self, counts: Counts) -> float:
        """All of them, one after the other."""
        return sum(n / rate for n, rate in zip(astuple(counts), astuple(self), strict=True))


def step(shape: Shape) -> dict[str, Counts]:
    """A step of one rank, by part."""
    output = _exact if shape.candidates is None else _sampled
    return {
        "input": _input(shape),
        "first layer": _first(shape),
        "between the tables": _between(shape),
        "output layer": output(shape),
        "optimizer": _optimizer(shape),
        "exchange": _exchange(shape),
    }


def total(shape: Shape) -> Counts:
    """A step of one rank."""
    return sum(step(shape).values(), Counts())


def memory(shape: Shape, on_disk: bool = False, validated: bool = False) -> dict[str, float]:
    """Bytes of one rank by what they are for, at the most, but for the libraries. "rows" are in the host's memory."""
    parameters = shape.tables + shape.middle
    rows = 16 * shape.users * shape.length
    if on_disk:
        rows = min(WINDOWS, rows)
    found = {"weights": 4 * parameters, "rows": rows + 24 * shape.users, "best": 4 * parameters if validated else 0.0}
    if shape.candidates is None:
        padded = -(-(shape.hidden + 2) // 32) * 32
        work = 2 * shape.own_items * (min(shape.seen, shape.block) + padded)
        return found | {"optimizer": 8 * parameters, "gradients": 4 * parameters, "step": work + _of_events(shape)}
    first, last = rows_of_a_rank(shape)
    gathered = (
        3 * _gathered(shape) if shape.share == "users" and shape.ranks > 1 else 0.0
    )  # parts, in one piece, summed
    changes = 4 * shape.hidden * (last if shape.share == "items" else rows_of_all(shape)[1])
    changes = min(changes, CHANGES) if shape.skips else changes
    work = 4 * shape.own_candidates * (2 * shape.hidden + shape.seen) + changes
    return found | {
        "optimizer": 8 * shape.middle + 4 * OTHERS + TABLES * (4 * shape.own_items + 8),
        "gradients": 4 * (shape.middle + (first + last) * shape.hidden) + gathered,
        "step": work + _of_events(shape),
    }


def rows_of_a_rank(shape: Shape) -> tuple[float, float]:
    """Distinct rows of the first layer and of the output layer that a rank touches in a step."""
    part = shape.ranks if shape.share == "items" else 1
    return _touched(shape, shape.read * part) / part, _touched(shape, shape.events * part, True) / part


def rows_of_all(shape: Shape) -> tuple[float, float]:
    """Those that all ranks together touch."""
    events = shape.batch * shape.length
    return _touched(shape, events * (KEPT if shape.skips else 1)), _touched(shape, events, True)


def _input(shape: Shape) -> Counts:
    """Each rank reads the whole batch, whatever is shared out; 8 bytes of an event are read, cut and written."""
    events = shape.batch * shape.length
    return Counts(streamed=24 * events, events=events, steps=1)


def _first(shape: Shape) -> Counts:
    """Sums of rows; and, the other way, of gradients of users, which are near, into rows."""
    row, read = 4 * shape.hidden, shape.read
    written = shape.own_items if shape.candidates is None else rows_of_a_rank(shape)[0]
    return Counts(wide=4 * read * shape.hidden, scattered=2 * row * read, streamed=row * written)


def _between(shape: Shape) -> Counts:
    return Counts(
        narrow=6 * shape.seen * shape.middle, streamed=40 * shape.seen * (3 * shape.hidden + 4 * shape.latent)
    )


def _exact(shape: Shape) -> Counts:
    """Three products with all items, over rows that are padded to whole cache lines; eight passes over the logits."""
    items, users, padded = shape.own_items, shape.seen, -(-(shape.hidden + 2) // 32) * 32
    blocks = math.ceil(users / shape.block)
    weights = items * (4 * shape.hidden + 2 * padded)  # made narrow, once
    per_block = items * (2 * 2 * padded + 8 * shape.hidden)  # read by two products, and the gradient added to
    return Counts(narrow=6 * users * items * padded, streamed=weights + blocks * per_block + 8 * 2 * users * items)


def _sampled(shape: Shape) -> Counts:
    """Of the events three products with single rows, of the candidates three in one; gradients in one piece."""
    row, users, candidates = 4 * shape.hidden, shape.seen, shape.own_candidates
    last = rows_of_a_rank(shape)[1]
    return Counts(
        wide=6 * users * candidates * shape.hidden + 6 * shape.events * shape.hidden,
        streamed=8 * 4 * users * candidates + 8 * row * candidates + row * last,
        scattered=row * 3 * shape.events,
        events=shape.events,
    )


def _optimizer(shape: Shape) -> Counts:
    """Adam for all; or row by row, of the rows that any rank has touched."""
    if shape.candidates is None:
        return Counts(streamed=ADAM * (shape.tables + shape.middle))
    first, last = rows_of_a_rank(shape) if shape.share == "items" else rows_of_all(shape)
    return Counts(streamed=ADAM * shape.middle, scattered=4 * shape.hidden * TOUCHES * (first + last))


def _exchange(shape: Shape) -> Counts:
    if shape.ranks == 1:
        return Counts()
    if shape.share == "items":
        return _sums_of_users(shape)
    if shape.candidates is None:
        return _all_reduced(shape.ranks, 4 * (shape.tables + shape.middle), 4)
    return _all_reduced(shape.ranks, 4 * shape.middle, 1) + _rows_gathered(shape)


def _sums_of_users(shape: Shape) -> Counts:
    """(B, H) sums of the first layer and gradients of hidden states; of each block the largest logit and three sums."""
    blocks = 1 if shape.candidates is not None else math.ceil(shape.batch / shape.block)
    large = _all_reduced(shape.ranks, 2 * 4 * shape.batch * shape.hidden, 2)
    return large + _all_reduced(shape.ranks, 4 * 4 * shape.batch, 2 * blocks)


def _rows_gathered(shape: Shape) -> Counts:
    """Each rank's touched rows to all; a number of rows before each, and they are summed where ranks have the same."""
    others, gathered = shape.ranks - 1, _gathered(shape)
    first, last = rows_of_a_rank(shape)
    rows = shape.ranks * (first + 2 * last)
    calls = TABLES * 4  # numbers and rows, of places and of gradients
    return Counts(sent=gathered * others / shape.ranks, hops=calls * others, scattered=5 * gathered, events=rows)


def _gathered(shape: Shape) -> float:
    """Bytes of all ranks' touched rows, with their places."""
    first, last = rows_of_a_rank(shape)
    return shape.ranks * (first * (4 * shape.hidden + 8) + last * (4 * shape.hidden + 8 + 4 + 8))


def _all_reduced(ranks: int, n_bytes: float, calls: int) -> Counts:
    """Of what is large by a ring, in which all but 1 / R of it goes out twice; of what is small by a tree."""
    return Counts(
        sent=2 * (ranks - 1) / ranks * n_bytes, hops=2 * math.ceil(math.log2(ranks)) * calls, streamed=3 * n_bytes
    )


def _of_events(shape: Shape) -> float:
    """Bytes of a step for what is kept of events and of users."""
    return 160 * shape.batch * shape.length + 16 * shape.seen * (3 * shape.hidden + 2 * shape.latent)


def _touched(shape: Shape, events: float, with_candidates: bool = False) -> float:
    """Distinct items among so many events, and candidates, in the mean."""
    candidates = min(shape.candidates or 0, shape.items) if with_candidates else 0
    return distinct(shape.items, round(events), candidates, shape.skew)


@lru_cache(maxsize=4096)
def distinct(items: int, events: int, candidates: int = 0, skew: float = 0.9) -> float:
    """How many items are among so many events, or candidates, in the mean.

    An event is of an item with its share p, a candidate with a share in proportion to p^0.75: an item is among neither
    with chance (1 - p)^events e^-(candidates q).
    """
    width, share = _popularity(items, skew)
    chosen = share**POWER
    chosen *= candidates / (width * chosen).sum()
    with np.errstate(divide="ignore"):
        return float(-(width * np.expm1(events * np.log1p(-share) - chosen)).sum())


@lru_cache(maxsize=64)
def _popularity(items: int, skew: float) -> tuple[Floats, Floats]:
    """Stretches of ranks: how many items each has, and the share of events of one of them."""
    ends = np.unique(np.geomspace(1, items + 1, 4000).round().astype(np.int64)) - 1  # from 0 to items
    width = np.diff(ends).astype(np.float64)
    weight = (10 + (ends[:-1] + ends[1:] - 1) / 2) ** -skew
    return width, weight / (width * weight).sum()
