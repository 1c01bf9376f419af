"""Settings of a training run (`TrainConfig`, `Phase`), and the state that its steps update (`TrainState`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from recvae.errors import InvalidTypeError, UnknownNameError, shown
from recvae.training.callbacks import Epoch
from recvae.utils.checks import check_integer, check_number, is_list_of
from recvae.utils.workers import cut, map_pieces

ROWS = 512  # least of a table of weights in a piece, whose averages one core updates
AVERAGED = 10  # updates of the averages in an epoch, up to 19, or one after each step: each takes a fifth of a step


@dataclass(frozen=True)
class Phase:
    """Passes over the users in which some parts of the network are trained and the others are frozen.

    Parameters
    ----------
    trainable : tuple of str
        Names of the network's child modules that are trained. The others get no gradient, and no dropout.
    passes : int
        How many passes over all users in each epoch.
    """

    trainable: tuple[str, ...] = ("encoder", "decoder", "prior")
    passes: int = 1

    def __post_init__(self) -> None:
        if not (is_list_of(self.trainable, str) and self.trainable):
            raise InvalidTypeError(
                f"Expected trainable of a Phase to be a tuple of at least one name, got {shown(self.trainable)}."
            )
        check_integer("passes of a Phase", self.passes, 1)

    def check(self, network: nn.Module) -> None:
        """Raise UnknownNameError for a part that the network lacks; of the default ones, it needs one."""
        parts = [name for name, _ in network.named_children()]
        missing = [name for name in self.trainable if name not in parts]
        is_default = self.trainable == Phase.trainable
        if missing and not (is_default and (len(missing) < len(self.trainable) or not parts)):
            raise UnknownNameError.among("child module of the network, to be trained in a Phase,", missing[0], parts)

    def apply(self, network: nn.Module) -> None:
        """Put the trainable parts into training mode, and freeze the others."""
        for trainable in (False, True):  # in this order: a weight that two parts share is trained with either
            for name, part in network.named_children():
                if (name in self.trainable) is trainable:
                    part.train(trainable).requires_grad_(trainable)


@dataclass(frozen=True)
class TrainConfig:
    """How to train: what stays the same from the first step to the last.

    Parameters
    ----------
    epochs : int
        Epochs of the run, over which the schedule of `beta` stretches.
    batch_size : int, optional
        Users in a step. By default a twentieth of the training users, at most 500: enough steps on small data.
    learning_rate : float
        Learning rate of AdamW; ignored if the trainer gets optimizers.
    weight_decay : float
        Weight decay of AdamW; ignored if the trainer gets optimizers.
    beta : float or callable
        Weight of the KL term: a number, or a function of the share of the run that is done, in [0, 1).
    stop_epoch : int, optional
        Stop after this epoch; the schedule of `beta` still covers all `epochs`.
    patience : int, optional
        Stop after so many epochs in a row without a better validation metric. By default never.
    phases : sequence of Phase
        The phases of an epoch, in order. By default one pass that trains all parts.
    max_grad_norm : float, optional
        Scale the gradient of a step down to this norm where it is longer.
    precision : {"auto", "float32", "bfloat16"}
        Of the matrix products within the network; weights, noise and the KL term stay in float32. "auto" takes bfloat16
        where the hardware computes in it.
    seed : int
        Seed of initial weights, if they are missing, and of order, dropout and noise, which depend only on the seed,
        the epoch, the pass and the user.
    averaging : float
        Time constant, in epochs, of a moving average of the weights, which validation, callbacks at the end of an epoch
        and the end of the run get instead of the last weights; 0 keeps the last weights.
    """

    epochs: int = 50
    batch_size: int | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    beta: float | Callable[[float], float] = 0.2
    stop_epoch: int | None = None
    patience: int | None = None
    phases: Sequence[Phase] = (Phase(),)
    max_grad_norm: float | None = None
    precision: str = "auto"
    seed: int = 0
    averaging: float = 0.0

    def __post_init__(self) -> None:
        check_integer("epochs", self.epochs, 1)
        check_integer("seed", self.seed, 0)
        for name in ("batch_size", "stop_epoch", "patience"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), 1)
        for name in ("learning_rate", "weight_decay", "averaging"):
            check_number(name, getattr(self, name))
        if self.max_grad_norm is not None:
            check_number("max_grad_norm", self.max_grad_norm, zero=False)
        if not callable(self.beta):
            check_number("beta", self.beta)
        if not (is_list_of(self.phases, Phase) and self.phases):
            raise InvalidTypeError(f"Expected phases to be a list of at least one Phase, got {shown(self.phases)}.")

    @property
    def last_epoch(self) -> int:
        """Number of the last epoch, unless patience ends the run earlier."""
        return min(self.epochs, self.stop_epoch or self.epochs)

    @property
    def passes(self) -> list[Phase]:
        """The phase of each pass of an epoch."""
        return [phase for phase in self.phases for _ in range(phase.passes)]

    def users_per_step(self, n_users: int) -> int:
        """Users in a step, for a training set of `n_users`."""
        return self.batch_size or default_batch_size(n_users)

    def steps_per_epoch(self, n_users: int) -> int:
        """Steps of all passes of an epoch."""
        return -(-n_users // self.users_per_step(n_users)) * len(self.passes)

    def beta_at(self, progress: float) -> float:
        """Weight of the KL term at `progress`, the share of the run that is done."""
        return self.beta(progress) if callable(self.beta) else self.beta


def default_batch_size(n_users: int) -> int:
    """A twentieth of the users, at most 500."""
    return min(500, -(-n_users // 20))


@dataclass
class TrainState:
    """The state that training steps update, which is what a checkpoint stores.

    Parameters
    ----------
    network : nn.Module
    optimizers : sequence of torch.optim.Optimizer
    seed : int
        Seed of order, dropout and noise.
    history : list of Epoch
        Records of the finished epochs.
    losses : list of Tensor
        Of each step of the current epoch (3,): sums over this rank's users of nll, kl and loss, on the device.
    pass_index : int
        The current pass of the epoch, from 0.
    best, best_epoch, best_weights
        The best validation metric so far, its epoch, and a copy of its weights.
    averages : dict of Tensor
        The moving averages of the weights by name, if they are kept; while the network has them, its own weights.
    """

    network: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    seed: int
    history: list[Epoch] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    pass_index: int = 0
    best: float = float("-inf")
    best_epoch: int = 1
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    averages: dict[str, Tensor] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """The current epoch, from 0."""
        return len(self.history)

    @property
    def step(self) -> int:
        """Number of steps done in the current epoch."""
        return len(self.losses)

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters()).device

    def update_averages(self, config: TrainConfig, n_steps: int) -> None:
        """Move the averages towards the weights, after a step of the `n_steps` of an epoch, if it is due.

        All follows from the position in the run, so that a run that is resumed has the same averages.
        """
        every = max(1, n_steps // AVERAGED)
        if not config.averaging or self.step % every:
            return
        update = self.epoch * (n_steps // every) + self.step // every  # its number, from 1
        share = min(1.0, max(every / (config.averaging * n_steps), 1 / update))  # until then, all weigh the same
        blocks: list[tuple[Tensor, Tensor]] = []  # of averages and weights, by several cores
        for name, parameter in self.network.named_parameters():
            weights = parameter.detach()
            if name not in self.averages:
                self.averages[name] = weights.clone()
            elif weights.dim():
                pieces = cut(len(weights), ROWS, weights.device)
                blocks += [(self.averages[name][rows], weights[rows]) for rows in pieces]
            else:
                blocks.append((self.averages[name], weights))
        map_pieces(lambda block: block[0].lerp_(block[1], share), blocks)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """In this context, the network has the averages of its weights, if they are kept."""
        self._exchange_averages()
        try:
            yield
        finally:
            self._exchange_averages()

    def _exchange_averages(self) -> None:
        """Exchange the memory of weights and averages: there may be none for a copy."""
        for name, parameter in self.network.named_parameters():
            if name in self.averages:
                parameter.data, self.averages[name] = self.averages[name], parameter.data

    def keep_best(self, metric: float) -> float:
        """Copy the weights if `metric`, of the epoch that ends, is better than all before. -> the best so far"""
        if metric > self.best:
            self.best, self.best_epoch = metric, self.epoch + 1
            for name, parameter in self.network.named_parameters():
                if name in self.best_weights:  # in place: there may be no memory for a second copy
                    self.best_weights[name].copy_(parameter.detach())
                else:
                    self.best_weights[name] = parameter.detach().clone()
        return self.best

    def is_over(self, config: TrainConfig) -> bool:
        """Whether all epochs are done, or patience has run out."""
        validated = self.best > float("-inf")
        if validated and config.patience is not None and self.epoch >= self.best_epoch + config.patience:
            return True
        return self.epoch >= config.last_epoch

    def finish(self) -> None:
        """Take the best weights or else the averages, if they are kept, and release what training alone needs."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()  # releases the last gradients
            optimizer.state.clear()
        self.network.requires_grad_(True)
        if self.best_weights:
            self.network.load_state_dict(self.best_weights, strict=False)  # a shared weight is in there once
        else:
            self._exchange_averages()
        self.best_weights, self.averages = {}, {}


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch whose weights a fit keeps: that of the best validation, or the last."""
    return max(history, key=lambda epoch: epoch.epoch if epoch.valid is None else epoch.valid)
