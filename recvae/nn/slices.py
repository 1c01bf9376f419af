"""A rank's slice of the items in tensor parallel training: rows [start, stop) of both embedding tables.

The layers between the tables are on every rank, with the same weights and the same input: all ranks see all users of a
batch. So ranks communicate in two operations, g and f of the source. `reduce` sums partial results over ranks,
and passes the gradient of the sum to each; `broadcast` passes a tensor that is the same on all ranks to the slices, and
sums their gradients over ranks.
Source: Shoeybi et al. 2019, "Megatron-LM: Training Multi-Billion Parameter Language Models Using Model Parallelism".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recvae.data.batches import Batch
from recvae.distributed.communicator import Communicator
from recvae.errors import InvalidParameterError
from recvae.utils.sparse_products import group_offsets


class LocalEvents(NamedTuple):
    """The events of a batch whose items are in a slice."""

    indices: Tensor  # (E',) positions of these events in the batch
    batch: Batch  # of all users; items are renumbered from 0 to stop - start - 1


class ItemSlice:
    """The slice [start, stop) of `n_items` items that this rank holds.

    Its methods are collective operations, except `local`: all ranks have to call them.
    """

    def __init__(self, communicator: Communicator, n_items: int):
        if n_items < communicator.size:
            raise InvalidParameterError(
                f"Expected an item for each rank at least, got {n_items} items on {communicator.size} ranks; start "
                "fewer."
            )
        self.communicator, self.n_items = communicator, n_items
        items = communicator.shard_range(n_items)
        self.start, self.stop = items.start, items.stop
        self.max_size = -(-n_items // communicator.size)  # items in the largest slice of any rank
        self._last: tuple[Batch, LocalEvents] | None = None

    def local(self, batch: Batch) -> LocalEvents:
        """The events of a batch in this slice. The last result is cached for encoder and likelihood."""
        if self._last is None or self._last[0] is not batch:
            indices = ((batch.items >= self.start) & (batch.items < self.stop)).nonzero()[:, 0]
            offsets = group_offsets(batch.rows[indices], len(batch))
            bounds = offsets.cpu().numpy()
            local = Batch(batch.items[indices] - self.start, batch.values[indices], offsets, bounds, batch.users)
            self._last = batch, LocalEvents(indices, local)
        return self._last[1]

    def reduce(self, partial: Tensor) -> Tensor:
        """Sum over ranks; in the backward pass each rank gets the gradient of the sum."""
        total: Tensor = _Reduce.apply(partial, self.communicator)  # type: ignore[no-untyped-call]
        return total

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Pass on a tensor that is the same on all ranks; in the backward pass its gradients are summed over ranks."""
        same: Tensor = _Broadcast.apply(tensor, self.communicator)  # type: ignore[no-untyped-call]
        return same

    def gather(self, columns: Tensor) -> Tensor:
        """Concatenate the columns of all ranks. (B, stop - start) -> (B, I)"""
        return self.communicator.all_gather(columns.T.contiguous()).T


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, partial: Tensor, communicator: Communicator) -> Tensor:
        return communicator.all_reduce(partial.clone())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _Broadcast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, communicator: Communicator) -> Tensor:
        ctx.communicator = communicator
        return tensor.view_as(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.communicator.all_reduce(grad.clone()), None
