"""The exact head: value and gradients of a likelihood from blocks of logits, of which one at a time exists."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from recvae.data.batches import Batch
from recvae.nn.ahead import nll_formed_ahead
from recvae.nn.products import Bfloat16, Gradients, Plain, products


class Block(NamedTuple):
    """Logits of R users, to be written over, and the users' events."""

    logits: Tensor  # (R, I), in the precision of the products
    rows: Tensor  # (E,) user of each event, from 0 to R - 1
    cells: Tensor  # (E,) place of each event in logits.view(-1)
    values: Tensor  # (E,)
    with_items: Plain | Bfloat16

    def observed(self) -> Tensor:
        """Logits of the events. -> (E,)"""
        return self.logits.view(-1)[self.cells].to(self.values.dtype)

    def sum(self, events: Tensor) -> Tensor:
        """Sum of one number for each event (E,) by user. -> (R,)"""
        return events.new_zeros(len(self.logits)).index_add_(0, self.rows, events)


class Distribution(Protocol):
    """-log p(x | l) of a row x given its logits l, without the constant of x alone."""

    def dense(self, logits: Tensor, x: Tensor) -> Tensor:
        """From whole rows, as the textbook has it: the reference. (B, I), (B, I) -> (B,)"""
        ...

    def block(self, block: Block) -> tuple[Tensor, Tensor | float]:
        """From a block, in whose logits it leaves the gradient, but for a factor for each user. -> (R,), the factor"""
        ...


class How(NamedTuple):
    """How the products with all items are computed."""

    precision: str
    block_bytes: int
    widest: int = 0  # items of the largest slice, where ranks have slices: all are to cut users into the same blocks


def exact_nll(
    distribution: Distribution, hidden: Tensor, weight: Tensor, bias: Tensor, batch: Batch, how: How
) -> Tensor:
    """-log p(x | z) of each user, with gradients where they are wanted. -> (B,)"""
    return nll_formed_ahead(partial(_by_blocks, distribution, batch, how), hidden, weight, bias)


@torch.no_grad()
def _by_blocks(
    distribution: Distribution,
    batch: Batch,
    how: How,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    users: Tensor | None,
) -> tuple[Tensor, Gradients | None]:
    """nll (B,), and its gradients where `users` (B,) gives the weight of each user in a loss."""
    values = batch.values.to(hidden.dtype)
    nll = hidden.new_empty(len(hidden))
    gradients = None if users is None else Gradients.like(hidden, weight, bias)
    with_items = products(how.precision, weight, bias)
    n_users, n_items = len(hidden), len(weight)
    row_bytes = with_items.dtype.itemsize * max(1, how.widest or n_items)
    n_blocks = -(-n_users // max(1, how.block_bytes // row_bytes))
    step = -(-n_users // max(1, n_blocks))  # all blocks of about one size
    for start in range(0, n_users, step):
        rows = slice(start, min(start + step, n_users))
        events = batch.events(rows)
        of = batch.rows[events] - start
        with torch.autocast(hidden.device.type, enabled=False):
            logits = with_items.logits(hidden[rows])
        block = Block(logits, of, of * n_items + batch.items[events], values[events], with_items)
        nll[rows], factor = distribution.block(block)
        if users is not None and gradients is not None:
            with_items.backward(logits, hidden[rows], users[rows] * factor, rows, gradients)
    return nll, gradients
