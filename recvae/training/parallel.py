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

    Data parallel: each rank has the whole network and computes the gradients of its users, which are summed. Tensor
    parallel: each rank has the rows of its items in both embedding tables and sees all users; partial results between
    the tables are summed (recvae.nn.sharded). Either way a step equals that of one process on the same batch, except
    for the order of floating-point sums.
    """

    communicator: Communicator = SINGLE_PROCESS
    tensor_parallel: bool = False

    @property
    def data_parallel_group(self) -> Communicator:
        """The ranks that divide the users of a batch: in tensor parallel training, only this rank."""
        return SINGLE_PROCESS if self.tensor_parallel else self.communicator

    def clip_grad_norm(self, network: nn.Module, max_norm: float) -> None:
        """Scale the summed gradients down to a joint norm of at most `max_norm`, equally on each rank."""
        sharded: list[nn.Parameter] = []
        if self.tensor_parallel:
            named = dict(network.named_parameters())
            sharded = [named[name] for name in sharded_parameters(network) if name in named]
        group = self.communicator if self.tensor_parallel else SINGLE_PROCESS
        clip_grad_norm_(network.parameters(), max_norm, sharded, group)

    def reduce_losses(self, losses: Tensor) -> Tensor:
        """Sum over ranks the losses of S steps, each a sum over the users of a rank. (S, 3) -> (S, 3), a copy"""
        return self.data_parallel_group.all_reduce(losses.clone())

    def validate(self, validate: Callable[[], float]) -> float:
        """The validation metric, the same on each rank. With data parallelism only the main process computes it."""
        if self.tensor_parallel:
            return validate()
        metric: float = self.communicator.broadcast(validate() if self.communicator.is_main_process else None)
        return metric

    def due_on_main_process(self, due: bool) -> bool:
        """Whether `due` holds on the main process, for decisions by its clock; clocks differ between ranks."""
        if self.communicator.size == 1:
            return due
        on_main = due and self.communicator.is_main_process
        return bool(self.communicator.all_reduce_max(torch.tensor([float(on_main)])).item())
