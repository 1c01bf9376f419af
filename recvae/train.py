"""The training loop. It knows no models and no metrics: a network gives ELBO terms, a function validates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recvae.batches import Batch, DeviceRows
from recvae.errors import TrainingError
from recvae.nn.products import in_bfloat16
from recvae.nn.scratch import reused
from recvae.nn.vae import VAE


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave, per user in the mean, and how many seconds it took, validation included.

    An epoch is one pass of each of its phases, or more. loss is what was minimised, nll + beta * kl with each step's
    own beta; `beta` is that of the last step.
    """

    epoch: int
    nll: float
    kl: float
    loss: float
    beta: float
    valid: float | None
    seconds: float

    @property
    def elbo(self) -> float:
        """The evidence lower bound, with the KL term in full."""
        return -self.nll - self.kl


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


def train(
    network: VAE,
    rows: DeviceRows,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    *,
    epochs: int,
    stop_after: int | None = None,
    batch_size: int,
    beta: Callable[[float], float],
    phases: Sequence[Phase] = (WHOLE,),
    max_grad_norm: float | None = None,
    precision: str = "float32",
    validate: Callable[[], float] | None = None,
    patience: int | None = None,
    callbacks: Iterable[Callable[[Epoch], None]] = (),
) -> list[Epoch]:
    """Minimise nll + beta * kl; with `validate`, stop early and keep the weights that it liked best.

    epochs, stop_after : how long the run is by which `beta` goes, and after which of its epochs to end it early
    beta : share of the run done, in [0, 1) -> weight of the KL term
    phases : what an epoch is made of, one after the other
    max_grad_norm : scale the gradient of a step down to this norm where it is longer
    precision : of the products within the network, not of weights, noise and KL term
    validate : () -> a number that is better when higher, called after each epoch with the network in eval mode
    patience : stop after so many epochs in a row without a better one; None never stops
    callbacks : called with each epoch's record; what one raises ends the run

    Raises TrainingError when a loss is not finite: at the end of its epoch, so that no step waits for the device.
    """
    history: list[Epoch] = []
    best, best_epoch, best_weights = float("-inf"), 0, dict[str, Tensor]()
    passes = [phase for phase in phases for _ in range(phase.passes)]
    n_steps = -(-len(rows) // batch_size)
    lower = torch.autocast(generator.device.type, torch.bfloat16, enabled=in_bfloat16(precision, generator.device))
    for epoch in range(min(epochs, stop_after or epochs)):
        started = time.perf_counter()
        done = [step / (n_steps * len(passes)) for step in range(n_steps * len(passes))]
        betas = [beta((epoch + share) / epochs) for share in done]
        if network.prior is not None:
            network.prior.renew(network.encoder, rows)
        each = []
        for place, phase in enumerate(passes):
            batches, here = rows.shuffled(batch_size, generator), betas[place * n_steps : (place + 1) * n_steps]
            each.append(run_steps(network, batches, optimizer, generator, here, lower, max_grad_norm, phase))
        steps = torch.cat(each)
        _check_finite(steps[:, 2], epoch)
        nll, kl, loss = (steps.sum(0) / (len(rows) * len(passes))).tolist()
        valid = None if validate is None else validate()
        history.append(Epoch(epoch + 1, nll, kl, loss, betas[-1], valid, time.perf_counter() - started))
        for callback in callbacks:
            callback(history[-1])
        if valid is not None and valid > best:
            best, best_epoch, best_weights = valid, epoch, _copy(network)
        if valid is not None and patience is not None and epoch - best_epoch >= patience:
            break
    optimizer.zero_grad()  # nobody needs the last gradients, nor their memory
    network.requires_grad_(True)
    if network.prior is not None:
        network.prior.forget()
    if best_weights:
        network.load_state_dict(best_weights)
    return history


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch whose weights `train` keeps: that of the best validation, or the last."""
    return max(history, key=lambda epoch: epoch.epoch if epoch.valid is None else epoch.valid)


def run_steps(
    network: VAE,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    betas: Sequence[float],
    precision: torch.autocast,
    max_grad_norm: float | None,
    phase: Phase = WHOLE,
) -> Tensor:
    """One step for each batch. -> (steps, 3) on the host: sums over users of nll, kl and loss"""
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


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _check_finite(losses: Tensor, epoch: int) -> None:
    wrong = (~losses.isfinite()).nonzero()[:, 0].tolist()
    if wrong:
        raise TrainingError(
            f"Expected a finite loss, got {losses[wrong[0]].item()} in step {wrong[0] + 1} of {len(losses)} of epoch "
            f"{epoch + 1}; lower learning_rate, set max_grad_norm, or look for huge values in the data "
            f'(values="log1p" tames counts).'
        )
