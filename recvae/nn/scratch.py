"""Memory that lives on from step to step: on a CPU, a fresh page costs about as much as the arithmetic done on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_kept: ContextVar[dict[str, Tensor] | None] = ContextVar("kept", default=None)


@contextmanager
def reused() -> Iterator[None]:
    """Within this, `scratch` gives the same memory under the same name again and again.

    Gradients lie in it too: each backward pass writes over those of the one before. So it is for loops that are done
    with a step's gradients before they begin the next step.
    """
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def scratch(name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised tensor. Other devices than the CPU have an allocator that keeps memory by itself."""
    kept = _kept.get()
    if kept is None or device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    size = torch.Size(shape).numel()
    held = kept.get(name)
    if held is None or held.dtype != dtype or len(held) < size:
        held = kept[name] = torch.empty(size, dtype=dtype)
    return held[:size].view(shape)
