"""Checks for NaN and infinities in results of fits and training steps, and in files."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recvae.errors import TrainingError


def all_finite(tensor: Tensor, largest: float = math.inf) -> bool:
    """Whether all numbers are finite and below `largest` in absolute value; makes no copy."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if torch.linalg.vector_norm(tensor.detach()).item() < largest:  # the norm bounds every entry, and is faster
        return True
    low, high = (bound.item() for bound in tensor.detach().aminmax())  # NaN if any entry is
    return -largest < low and high < largest


def check_fitted(tensor: Tensor, remedy: str) -> None:
    """Raise TrainingError if the result of a fit has NaN or an infinity, which could not rank items."""
    if not all_finite(tensor):
        raise TrainingError(f"Expected finite numbers from the fit, got NaN or an infinity; {remedy}.")
