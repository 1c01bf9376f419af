"""The training loop. It knows no models and no metrics: a network gives ELBO terms, a function validates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from recvae.batches import Batch, DeviceRows
from recvae.callbacks import Callback, Epoch
from recvae.errors import TrainingError
from recvae.nn.products import in_bfloat16
from recvae.nn.scratch import reused
from recvae.nn.vae import VAE


@dataclass(frozen=True)
class Phase:
    """Passes over the users in which a part of the network learns and the others stay, without dropout in them."""

    learns: tuple[str, ...] = ("encoder", "decoder", "prior")
    passes: int = 1

    def begin(self, network: nn.Module) -> None:
        """Make the parts learn, and stop the others."""
        for name, part in network.named_children():
            part.train(name in self.learns).requires_grad_(name in self.learns)


WHOLE = Phase()


@dataclass(frozen=True)
class Plan:
    """How to train: what stays the same from the first step to the last.

    epochs, stop_after : how long the run is by which `beta` goes, and after which of its epochs to end it early
    beta : share of the run done, in [0, 1) -> weight of the KL term
    phases : what an epoch is made of, one after the other
    max_grad_norm : scale the gradient of a step down to this norm where it is longer
    precision : of the products within the network, not of weights, noise and KL term
    validate : () -> a number that is better when higher, called after each epoch with the network in eval mode
    patience : stop after so many epochs in a row without a better one; None never stops
    part : what is trained, as the records of its epochs say it
    """

    epochs: int
    batch_size: int
    beta: Callable[[float], float]
    stop_after: int | None = None
    phases: Sequence[Phase] = (WHOLE,)
    max_grad_norm: float | None = None
    precision: str = "float32"
    validate: Callable[[], float] | None = None
    patience: int | None = None
    part: str = "network"

    @property
    def last(self) -> int:
        """The epoch after which the run is over, if patience does not end it before."""
        return min(self.epochs, self.stop_after or self.epochs)

    @property
    def passes(self) -> list[Phase]:
        """The phase of each pass of an epoch."""
        return [phase for phase in self.phases for _ in range(phase.passes)]

    def steps(self, n_users: int) -> int:
        """Steps of an epoch."""
        return -(-n_users // self.batch_size) * len(self.passes)


@dataclass
class State:
    """All that one epoch leaves to the next."""

    network: VAE
    optimizer: torch.optim.Optimizer
    generator: torch.Generator  # of all draws
    history: list[Epoch] = field(default_factory=list)
    best: float = float("-inf")  # of the validations so far
    best_epoch: int = 1
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def weigh(self, valid: float) -> float:
        """Keep the weights of the epoch that ends where it is better than all before. -> the best so far"""
        if valid > self.best:
            weights = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
            self.best, self.best_epoch, self.best_weights = valid, len(self.history) + 1, weights
        return self.best

    def is_over(self, plan: Plan) -> bool:
        """Whether all epochs are done, or patience is at its end."""
        done = len(self.history)
        if plan.validate is not None and plan.patience is not None and 0 < done >= self.best_epoch + plan.patience:
            return True
        return done >= plan.last

    def finish(self) -> None:
        """Go back to the best weights, and let go of what training alone needs."""
        self.optimizer.zero_grad()  # nobody needs the last gradients, nor their memory
        self.network.requires_grad_(True)
        if self.network.prior is not None:
            self.network.prior.forget()
        if self.best_weights:
            self.network.load_state_dict(self.best_weights)


def train(state: State, rows: DeviceRows, plan: Plan, callbacks: Sequence[Callback] = ()) -> list[Epoch]:
    """Minimise nll + beta * kl; with `plan.validate`, stop early and keep the weights that it liked best.

    It goes on where `state` is. The callbacks hear of each step and each epoch; what one raises ends the run.

    Raises TrainingError when a loss is not finite: at the end of its epoch, so that no step waits for the device.
    """
    while not state.is_over(plan):
        started = time.perf_counter()
        steps, beta = run_epoch(state, rows, plan, callbacks)
        speed = len(rows) * len(plan.passes) / (time.perf_counter() - started)
        nll, kl, loss = (steps.sum(0) / (len(rows) * len(plan.passes))).tolist()
        valid = None if plan.validate is None else plan.validate()
        best = None if valid is None else state.weigh(valid)
        seconds = time.perf_counter() - started
        epoch = Epoch(len(state.history) + 1, nll, kl, loss, beta, valid, seconds, best, speed, plan.part)
        state.history.append(epoch)
        for callback in callbacks:
            callback.epoch(epoch)
    state.finish()
    return state.history


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch whose weights `train` keeps: that of the best validation, or the last."""
    return max(history, key=lambda epoch: epoch.epoch if epoch.valid is None else epoch.valid)


def run_epoch(state: State, rows: DeviceRows, plan: Plan, callbacks: Sequence[Callback]) -> tuple[Tensor, float]:
    """All passes of the next epoch. -> as `run_steps`, the last step's beta"""
    network, device, done = state.network, state.generator.device, len(state.history)
    n_steps = plan.steps(len(rows))
    betas = [plan.beta((done + step / n_steps) / plan.epochs) for step in range(n_steps)]
    lower = torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16(plan.precision, device))
    if network.prior is not None:
        network.prior.renew(network.encoder, rows)
    each: list[Tensor] = []
    for phase, here in zip(plan.passes, np.array_split(betas, len(plan.passes)), strict=True):
        batches = rows.shuffled(plan.batch_size, state.generator)
        watched = _watched(batches, callbacks, done + 1, sum(map(len, each)))
        each.append(run_steps(state, watched, here.tolist(), lower, plan.max_grad_norm, phase))
    steps = torch.cat(each)
    _check_finite(steps[:, 2], done + 1)
    return steps, betas[-1]


def _watched(batches: Iterable[Batch], callbacks: Sequence[Callback], epoch: int, before: int) -> Iterator[Batch]:
    """The batches, telling of each step that was made of one; so many steps of the epoch were before."""
    for step, batch in enumerate(batches, before + 1):
        yield batch
        for callback in callbacks:
            callback.step(epoch, step)


def run_steps(
    state: State,
    batches: Iterable[Batch],
    betas: Sequence[float],
    precision: torch.autocast,
    max_grad_norm: float | None = None,
    phase: Phase = WHOLE,
) -> Tensor:
    """One step for each batch. -> (steps, 3) on the host: sums over users of nll, kl and loss"""
    network, optimizer, generator = state.network, state.optimizer, state.generator
    phase.begin(network)
    steps = torch.empty(len(betas), 3, device=generator.device)
    with reused() as memory:
        for step, (batch, beta) in enumerate(zip(batches, betas, strict=True)):
            optimizer.zero_grad()
            memory.begin_step()
            with precision:
                terms = network(batch, generator)
            loss = terms.loss(beta)
            loss.backward()
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(network.parameters(), max_grad_norm)
            optimizer.step()
            steps[step] = torch.stack([terms.nll.sum(), terms.kl.sum(), loss * len(batch)]).detach()
    network.eval()
    return steps.cpu()  # what the host learns of these steps, once


def _check_finite(losses: Tensor, epoch: int) -> None:
    wrong = (~losses.isfinite()).nonzero()[:, 0].tolist()
    if wrong:
        raise TrainingError(
            f"Expected a finite loss, got {losses[wrong[0]].item()} in step {wrong[0] + 1} of {len(losses)} of epoch "
            f"{epoch}; lower learning_rate, set max_grad_norm, or look for huge values in the data "
            f'(values="log1p" tames counts).'
        )
