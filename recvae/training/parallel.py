"""How several processes make a training step together: by users of the batch, or by items of the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recvae.data.batches import Batch
from recvae.distributed.communicator import ALONE, World
from recvae.nn.clipping import clip_grad_norm_
from recvae.nn.sharded import slices

SHARED = ("users", "items")


@dataclass(frozen=True)
class ParallelStrategy:
    """What each rank does of a training step.

    Parameters
    ----------
    communicator : World
        The ranks that train together; of one process by default.
    by_items : bool
        False, data parallel: each rank has the whole network and some users of each batch, and gradients are summed.
        True, tensor parallel: each rank has some rows of the tables and sees all users; what passes between the tables
        is summed (recvae.nn.sharded).

    Either way a step is that of one process on the same batch, but for the order in which numbers are summed.
    """

    communicator: World = ALONE
    by_items: bool = False

    @property
    def is_single(self) -> bool:
        """Whether there is one process."""
        return self.communicator.size == 1

    @property
    def user_ranks(self) -> World:
        """The ranks among which users are shared out: this one alone in tensor parallel training."""
        return ALONE if self.by_items else self.communicator

    def shard_batch(self, batch: Batch) -> Batch:
        """This rank's users of a batch; none where there are fewer users than ranks."""
        return self.user_ranks.share(batch)

    def all_reduce_gradients(self, parameters: Iterable[Tensor], weight: float) -> None:
        """Make each gradient the sum over ranks of `weight` * gradient. weight : this rank's share of the users"""
        self.user_ranks.add_gradients(parameters, weight)

    def clip_grad_norm(self, network: nn.Module, max_norm: float) -> None:
        """Scale the summed gradients down to a norm, the same on each rank."""
        sharded: list[nn.Parameter] = []
        if self.by_items:
            named = dict(network.named_parameters())
            sharded = [named[name] for name in slices(network) if name in named]
        clip_grad_norm_(network.parameters(), max_norm, sharded, self.communicator if self.by_items else ALONE)

    def total(self, losses: Tensor) -> Tensor:
        """Sums over the users of all ranks. (S, 3) -> (S, 3), a copy"""
        return self.user_ranks.sum(losses.clone())

    def validate(self, validate: Callable[[], float]) -> float:
        """The validation metric, the same on each rank. Where one rank can compute it, rank 0 does."""
        if self.by_items:
            return validate()
        value: float = self.communicator.broadcast(validate() if self.communicator.is_writer else None)
        return value

    def is_due(self, due: bool) -> bool:
        """Whether something is due on rank 0, by its clock."""
        if self.is_single:
            return due
        return bool(self.communicator.max(torch.tensor([float(due and self.communicator.is_writer)])).item())
