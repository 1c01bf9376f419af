"""Torch devices by name."""

from __future__ import annotations

import torch

from recvae.errors import InvalidParameterError, shown


def find_device(name: str) -> torch.device:
    """The torch device `name`; "auto" is a CUDA GPU if there is one. Raises InvalidParameterError if unusable."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.empty(0, device=name).device
        if device.type == "meta":
            raise RuntimeError("nothing is computed on it.")
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidParameterError(f"Expected a device that is here, got device={shown(name)}: {reason}") from error
    return device
