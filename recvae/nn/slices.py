"""A rank's items, where tables are too large for one device: rows [start, stop) of both ends of a network.

What lies between the tables is on every rank, and the same: all ranks see all users of a batch. So there are but two
kinds of seam. Where parts come together, they are summed over ranks, and each part's gradient is that of the sum.
Where a whole goes to all parts, nothing is done, and its gradient is the sum of what the parts give back.
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
from recvae.nn.layers import group_offsets


class LocalEvents(NamedTuple):
    """What a batch has of a slice's items."""

    kept: Tensor  # (E',) which events these are
    batch: Batch  # of all users, with items from 0 to stop - start - 1


class ItemSlice:
    """This rank's of `n_items` items. All ranks have to call its methods together, but for `local`."""

    def __init__(self, communicator: Communicator, n_items: int):
        if n_items < communicator.size:
            raise InvalidParameterError(
                f"Expected an item for each rank at least, got {n_items} items on {communicator.size} ranks; start "
                "fewer."
            )
        self.communicator, self.n_items = communicator, n_items
        here = communicator.shard_range(n_items)
        self.start, self.stop = here.start, here.stop
        self.max_size = -(-n_items // communicator.size)  # of all slices
        self._last: tuple[Batch, LocalEvents] | None = None

    def local(self, batch: Batch) -> LocalEvents:
        """What a batch of whole rows has of these items. That of the last batch is kept: both ends ask for it."""
        if self._last is None or self._last[0] is not batch:
            kept = ((batch.items >= self.start) & (batch.items < self.stop)).nonzero()[:, 0]
            offsets = group_offsets(batch.rows[kept], len(batch))
            bounds = offsets.cpu().numpy()
            own = Batch(batch.items[kept] - self.start, batch.values[kept], offsets, bounds, batch.users)
            self._last = batch, LocalEvents(kept, own)
        return self._last[1]

    def reduce(self, part: Tensor) -> Tensor:
        """The sum over ranks; the gradient of a part is that of the sum."""
        whole: Tensor = _Reduce.apply(part, self.communicator)  # type: ignore[no-untyped-call]
        return whole

    def broadcast(self, whole: Tensor) -> Tensor:
        """What is the same on all ranks, for the parts; its gradient is the sum over ranks."""
        same: Tensor = _Broadcast.apply(whole, self.communicator)  # type: ignore[no-untyped-call]
        return same

    def gather(self, columns: Tensor) -> Tensor:
        """Columns of all ranks side by side. (B, stop - start) -> (B, I)"""
        return self.communicator.all_gather(columns.T.contiguous()).T


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, communicator: Communicator) -> Tensor:
        return communicator.all_reduce(part.clone())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _Broadcast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Tensor, communicator: Communicator) -> Tensor:
        ctx.communicator = communicator
        return whole.view_as(whole)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.communicator.all_reduce(grad.clone()), None
