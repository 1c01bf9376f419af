"""Tables with a row for each item, cut among ranks that train together: what one rank holds, and what it exchanges.

Each rank sees all users of a batch. Of items, it looks at its own; what follows from all of them is summed over ranks.
Source: Shoeybi et al. 2019, "Megatron-LM: Training Multi-Billion Parameter Language Models Using Model Parallelism".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recvae.batches import Batch
from recvae.errors import InvalidParameterError
from recvae.nn.csr import starts
from recvae.world import World


@dataclass(frozen=True)
class ItemSlice:
    """The items `start` to `stop` - 1 of `n_items`, which are this rank's of `world`."""

    start: int
    stop: int
    n_items: int
    world: World = field(repr=False, compare=False)

    @classmethod
    def of(cls, n_items: int, world: World) -> ItemSlice:
        """This rank's slice. Raises InvalidParameterError where there are fewer items than ranks."""
        if n_items < world.size:
            raise InvalidParameterError(
                f"Expected an item or more for each rank, got {n_items} items and {world.size} ranks; start fewer ranks."
            )
        part = world.part(n_items)
        return cls(part.start, part.stop, n_items, world)

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def widest(self) -> int:
        """The number of items in the largest slice."""
        return -(-self.n_items // self.world.size)

    def own(self, batch: Batch) -> tuple[Batch, Tensor]:
        """The events of this rank's items, which count from 0 there, and their places in the batch. -> batch, (E_r,)"""
        places = ((batch.items >= self.start) & (batch.items < self.stop)).nonzero()[:, 0]
        offsets = starts(batch.rows[places], len(batch))
        items, values = batch.items[places] - self.start, batch.values[places]
        bounds = offsets.cpu().numpy()
        return replace(batch, items=items, values=values, offsets=offsets, bounds=bounds, candidates=None), places

    def summed(self, partial: Tensor) -> Tensor:
        """Sums over each rank's items -> over all items. What is made of it, all ranks make alike."""
        whole: Tensor = _Summed.apply(partial, self.world)  # type: ignore[no-untyped-call]
        return whole

    def shared(self, alike: Tensor) -> Tensor:
        """What all ranks have alike, for each rank to make something of its own of it: gradients are summed."""
        same: Tensor = _Shared.apply(alike, self.world)  # type: ignore[no-untyped-call]
        return same

    def columns(self, own: Tensor) -> Tensor:
        """A column for each of this rank's items -> for all. (B, I_r) -> (B, I)"""
        return own if self.world.size == 1 else self.world.gather(own.T).T.contiguous()


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, partial: Tensor, world: World) -> Tensor:
        return _sum(partial, world)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, alike: Tensor, world: World) -> Tensor:
        ctx.world = world
        return alike.view_as(alike)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _sum(grad, ctx.world), None


def _sum(tensor: Tensor, world: World) -> Tensor:
    return world.sum(tensor.clone(memory_format=torch.contiguous_format))
