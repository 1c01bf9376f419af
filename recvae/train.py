"""The training loop. It knows no models and no metrics: a network gives ELBO terms, a function validates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recvae.batches import DeviceRows
from recvae.errors import TrainingError
from recvae.nn.vae import VAE


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave, per user in the mean, and how many seconds it took, validation included.

    loss is what was minimised, nll + beta * kl with each step's own beta; `beta` is that of the last step.
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
    validate: Callable[[], float] | None = None,
    patience: int | None = None,
    callbacks: Iterable[Callable[[Epoch], None]] = (),
) -> list[Epoch]:
    """Minimise nll + beta * kl; with `validate`, stop early and keep the weights that it liked best.

    epochs, stop_after : how long the run is by which `beta` goes, and after which of its epochs to end it early
    beta : share of the run done, in [0, 1) -> weight of the KL term
    validate : () -> a number that is better when higher, called after each epoch with the network in eval mode
    patience : stop after so many epochs in a row without a better one; None never stops
    callbacks : called with each epoch's record

    Raises TrainingError when the loss of an epoch is not finite.
    """
    history: list[Epoch] = []
    best, best_epoch, best_weights = float("-inf"), 0, dict[str, Tensor]()
    n_batches = -(-len(rows) // batch_size)
    for epoch in range(min(epochs, stop_after or epochs)):
        started = time.perf_counter()
        network.train()
        totals = torch.zeros(3, device=generator.device)  # sums over users of nll, kl and loss
        for step, batch in enumerate(rows.shuffled(batch_size, generator)):
            weight = beta((epoch + step / n_batches) / epochs)
            terms = network(batch, generator)
            optimizer.zero_grad()
            loss = terms.loss(weight)
            loss.backward()
            optimizer.step()
            totals += torch.stack([terms.nll.sum(), terms.kl.sum(), loss * len(batch)]).detach()
        network.eval()
        nll, kl, mean_loss = (totals / len(rows)).tolist()  # the one look at device memory in an epoch
        _check_finite(mean_loss, epoch)
        valid = None if validate is None else validate()
        history.append(Epoch(epoch + 1, nll, kl, mean_loss, weight, valid, time.perf_counter() - started))
        for callback in callbacks:
            callback(history[-1])
        if valid is not None and valid > best:
            best, best_epoch, best_weights = valid, epoch, _copy(network)
        if valid is not None and patience is not None and epoch - best_epoch >= patience:
            break
    if best_weights:
        network.load_state_dict(best_weights)
    return history


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _check_finite(value: float, epoch: int) -> None:
    if value != value or value in (float("inf"), float("-inf")):
        raise TrainingError(
            f"Expected a finite loss, got {value} in epoch {epoch + 1}; lower learning_rate, or look for huge values "
            f'in the data (values="log1p" tames counts).'
        )
