"""How several processes make a training step together: by users of the batch, or by items of the tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recvae.distributed.communicator import SINGLE_PROCESS, Communicator
from recvae.nn.clipping import clip_grad_norm_
from recvae.nn.sharded import sharded_parameters

STRATEGIES = ("data", "tensor")


@dataclass(frozen=True)
class ParallelStrategy:
    """What each rank does of a training step.

    Either way a step is that of one process on the same batch, but for the order in which numbers are summed.

    Parameters
    ----------
    communicator : Communicator
        The ranks that train together; by default this process alone.
    tensor_parallel : bool
        False, data parallel: each rank has the whole network and some users of each batch, and gradients are summed.
        True: each rank has some rows of the tables and sees all users, and what passes between the tables is summed
        (recvae.nn.sharded).
    """

    communicator: Communicator = SINGLE_PROCESS
    tensor_parallel: bool = False

    @property
    def data_parallel_group(self) -> Communicator:
        """The ranks that share out users: this one alone in tensor parallel training."""
        return SINGLE_PROCESS if self.tensor_parallel else self.communicator

    def clip_grad_norm(self, network: nn.Module, max_norm: float) -> None:
        """Scale the summed gradients down to a norm, the same on each rank."""
        sharded: list[nn.Parameter] = []
        if self.tensor_parallel:
            named = dict(network.named_parameters())
            sharded = [named[name] for name in sharded_parameters(network) if name in named]
        clip_grad_norm_(
            network.parameters(), max_norm, sharded, self.communicator if self.tensor_parallel else SINGLE_PROCESS
        )

    def reduce_losses(self, steps: Tensor) -> Tensor:
        """Losses of S steps, summed over the users of all ranks. (S, 3) -> (S, 3), a copy"""
        return self.data_parallel_group.all_reduce(steps.clone())

    def validate(self, validate: Callable[[], float]) -> float:
        """The validation metric, the same on each rank. Where one rank can compute it, rank 0 does."""
        if self.tensor_parallel:
            return validate()
        value: float = self.communicator.broadcast(validate() if self.communicator.is_main_process else None)
        return value

    def due_on_main_process(self, due: bool) -> bool:
        """Whether something is due on rank 0, by its clock."""
        if self.communicator.size == 1:
            return due
        return bool(
            self.communicator.all_reduce_max(torch.tensor([float(due and self.communicator.is_main_process)])).item()
        )
