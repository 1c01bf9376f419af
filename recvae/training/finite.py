"""A training whose loss, weights or metric are not finite ends with a sentence."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recvae.data.rows import LARGEST
from recvae.distributed.communicator import Communicator
from recvae.errors import TrainingError
from recvae.utils.finite import all_finite

ADVICE = 'lower learning_rate, set max_grad_norm, or look for huge values in the data (values="log1p" tames counts)'


def check_losses(losses: Tensor, epoch: int) -> None:
    """Refuse losses of an epoch's steps (S,) that are not finite. Raises TrainingError."""
    wrong = (~losses.isfinite()).nonzero()[:, 0].tolist()
    if wrong:
        raise TrainingError(
            f"Expected a finite loss, got {losses[wrong[0]].item()} in step {wrong[0] + 1} of {len(losses)} of epoch "
            f"{epoch}; {ADVICE}."
        )


def check_weights(network: nn.Module, epoch: int, communicator: Communicator) -> None:
    """Refuse weights that are not finite, or too large to be squared: no loss has seen what the last step left.

    Raises
    ------
    TrainingError
        On all ranks alike: each may have rows of its own.
    """
    wrong = [name for name, weight in network.named_parameters() if not all_finite(weight, LARGEST)]
    if communicator.all_reduce_max(torch.tensor([float(bool(wrong))])).item():
        raise TrainingError(
            f"Expected finite weights of at most {LARGEST:g} after epoch {epoch}, got others in "
            f"{wrong[0] if wrong else 'the part of another rank'}; {ADVICE}."
        )


def check_metric(metric: float | None, epoch: int) -> None:
    """Refuse a metric on validation users that is no number. Raises TrainingError."""
    if metric is not None and not math.isfinite(metric):
        raise TrainingError(
            f"Expected a finite metric on validation users, got {metric} after epoch {epoch}; look for users without "
            f"held-out items."
        )
