"""Numbers that are none: what a fit, a step of training or a file came to is refused where it is not finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recvae.errors import TrainingError
from recvae.rows import LARGEST
from recvae.world import World

ADVICE = 'lower learning_rate, set max_grad_norm, or look for huge values in the data (values="log1p" tames counts)'


def all_finite(tensor: Tensor, largest: float = math.inf) -> bool:
    """Whether all numbers are finite, and smaller than `largest` in size: without a copy."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if torch.linalg.vector_norm(tensor.detach()).item() < largest:  # than which no number is larger; the faster pass
        return True
    low, high = (bound.item() for bound in tensor.detach().aminmax())  # NaN if one is
    return -largest < low and high < largest


def check_fitted(tensor: Tensor, remedy: str) -> None:
    """Refuse what a fit came to where that is not finite: it would give no lists. Raises TrainingError."""
    if not all_finite(tensor):
        raise TrainingError(f"Expected finite numbers from the fit, got NaN or an infinity; {remedy}.")


def check_losses(losses: Tensor, epoch: int) -> None:
    """Refuse losses of an epoch's steps (S,) that are not finite. Raises TrainingError."""
    wrong = (~losses.isfinite()).nonzero()[:, 0].tolist()
    if wrong:
        raise TrainingError(
            f"Expected a finite loss, got {losses[wrong[0]].item()} in step {wrong[0] + 1} of {len(losses)} of epoch "
            f"{epoch}; {ADVICE}."
        )


def check_weights(network: nn.Module, epoch: int, world: World) -> None:
    """Refuse weights that are not finite, or too large to be squared: no loss has seen what the last step left.

    Raises TrainingError, on all ranks alike: each may have rows of its own.
    """
    wrong = [name for name, weight in network.named_parameters() if not all_finite(weight, LARGEST)]
    if world.max(torch.tensor([float(bool(wrong))])).item():
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
