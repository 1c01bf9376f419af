"""Parallel strategies: how the ranks of a communicator divide a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recvae.distributed.communicator import SINGLE_PROCESS, Communicator
from recvae.nn.optim import clip_grad_norm_
from recvae.nn.sharded import sharded_parameters

STRATEGIES = ("data", "tensor")


@dataclass(frozen=True)
class ParallelStrategy:
    """Data parallel or tensor parallel training by the ranks of a communicator.

    Data parallel: each rank has the whole network and computes the gradients of its users; these are summed. Tensor
    parallel: each rank has the rows of its items in both embedding tables and sees all users; what passes between the
    tables is summed (recvae.nn.sharded). Either way a step is that of one process on the same batch, except for the
    order in which floats are added.
    """

    communicator: Communicator = SINGLE_PROCESS
    tensor_parallel: bool = False

    @property
    def data_parallel_group(self) -> Communicator:
        """The ranks that divide the users of a batch: this one alone in tensor parallel training."""
        return SINGLE_PROCESS if self.tensor_parallel else self.communicator

    def clip_grad_norm(self, network: nn.Module, max_norm: float) -> None:
        """Scale the summed gradients down to a norm, the same on each rank."""
        sharded: list[nn.Parameter] = []
        if self.tensor_parallel:
            named = dict(network.named_parameters())
            sharded = [named[name] for name in sharded_parameters(network) if name in named]
        group = self.communicator if self.tensor_parallel else SINGLE_PROCESS
        clip_grad_norm_(network.parameters(), max_norm, sharded, group)

    def reduce_losses(self, losses: Tensor) -> Tensor:
        """Sums over the users of all ranks, from those over the users of each. (S, 3) -> (S, 3), a copy"""
        return self.data_parallel_group.all_reduce(losses.clone())

    def validate(self, validate: Callable[[], float]) -> float:
        """The validation metric, the same on each rank; computed by the main process where it has all weights."""
        if self.tensor_parallel:
            return validate()
        metric: float = self.communicator.broadcast(validate() if self.communicator.is_main_process else None)
        return metric

    def due_on_main_process(self, due: bool) -> bool:
        """Whether something is due by the clock of the main process, which differs from those of other ranks."""
        if self.communicator.size == 1:
            return due
        on_main = due and self.communicator.is_main_process
        return bool(self.communicator.all_reduce_max(torch.tensor([float(on_main)])).item())
