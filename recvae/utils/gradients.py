"""Torch's modes of gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def with_gradients() -> Iterator[None]:
    """In this context torch computes gradients, also where the caller has switched them off, as services do.

    What `torch.inference_mode` allocates can never be trained.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield
