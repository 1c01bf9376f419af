"""The ranks that make a training step together, and what of it each of them does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recvae.distributed.communicator import SINGLE_PROCESS, Communicator
from recvae.nn import VAE
from recvae.nn.optim import clip_grad_norm_
from recvae.nn.sharded import sharded_parameters

STRATEGIES = ("data", "tensor")


@dataclass(frozen=True)
class ParallelStrategy:
    """A communicator of ranks that share out the users of each batch, or the items of the tables.

    By users, each rank has the whole network, makes the gradients of its users, and these are summed. By items, each
    rank has some rows of the tables and sees all users: what passes between the tables is summed (recvae.nn.sharded).
    Either way a step is that of one process on the same batch, but for the order in which numbers are summed.
    """

    communicator: Communicator = SINGLE_PROCESS
    tensor_parallel: bool = False

    @property
    def data_parallel_group(self) -> Communicator:
        """The communicator in which users are shared out: of this rank alone where it is items that are."""
        return SINGLE_PROCESS if self.tensor_parallel else self.communicator

    def clip_grad_norm(self, network: VAE, max_norm: float) -> None:
        """Scale the summed gradients down to a norm, the same on each rank."""
        cut: list[nn.Parameter] = []
        if self.tensor_parallel:
            named = dict(network.named_parameters())
            cut = [named[name] for name in sharded_parameters(network) if name in named]
        clip_grad_norm_(
            network.parameters(), max_norm, cut, self.communicator if self.tensor_parallel else SINGLE_PROCESS
        )

    def reduce_losses(self, steps: Tensor) -> Tensor:
        """What all ranks' users gave in steps. (S, 3) -> (S, 3), a copy"""
        return self.data_parallel_group.all_reduce(steps.clone())

    def validate(self, validate: Callable[[], float]) -> float:
        """The metric, the same on each rank. Where one rank can do it, it is the writer."""
        if self.tensor_parallel:
            return validate()
        value: float = self.communicator.broadcast(validate() if self.communicator.is_main_process else None)
        return value

    def due_on_main_process(self, due: bool) -> bool:
        """Whether something is due on the writer, by its clock."""
        if self.communicator.size == 1:
            return due
        return bool(
            self.communicator.all_reduce_max(torch.tensor([float(due and self.communicator.is_main_process)])).item()
        )
