"""The ranks that make a training step together, and what of it each of them does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recvae.distributed.communicator import ALONE, World
from recvae.nn import VAE
from recvae.nn.clipping import clip_grad_norm_
from recvae.nn.sharded import slices

SHARED = ("users", "items")


@dataclass(frozen=True)
class Team:
    """A world of ranks that share out the users of each batch, or the items of the tables.

    By users, each rank has the whole network, makes the gradients of its users, and these are summed. By items, each
    rank has some rows of the tables and sees all users: what passes between the tables is summed (recvae.nn.sharded).
    Either way a step is that of one process on the same batch, but for the order in which numbers are summed.
    """

    world: World = ALONE
    by_items: bool = False

    @property
    def of_users(self) -> World:
        """The world in which users are shared out: of this rank alone where it is items that are."""
        return ALONE if self.by_items else self.world

    def clip(self, network: VAE, max_norm: float) -> None:
        """Scale the summed gradients down to a norm, the same on each rank."""
        cut: list[nn.Parameter] = []
        if self.by_items:
            named = dict(network.named_parameters())
            cut = [named[name] for name in slices(network) if name in named]
        clip_grad_norm_(network.parameters(), max_norm, cut, self.world if self.by_items else ALONE)

    def total(self, steps: Tensor) -> Tensor:
        """What all ranks' users gave in steps. (S, 3) -> (S, 3), a copy"""
        return self.of_users.sum(steps.clone())

    def validated(self, validate: Callable[[], float]) -> float:
        """The metric, the same on each rank. Where one rank can do it, it is the writer."""
        if self.by_items:
            return validate()
        value: float = self.world.broadcast(validate() if self.world.is_writer else None)
        return value

    def anyone(self, due: bool) -> bool:
        """Whether something is due on the writer, by its clock."""
        if self.world.size == 1:
            return due
        return bool(self.world.max(torch.tensor([float(due and self.world.is_writer)])).item())
