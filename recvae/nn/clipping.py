"""Gradients made shorter where some are sparse over rows: torch's own clipping knows dense ones only."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from recvae.nn.csr import row_sparse
from recvae.nn.touched import merged


@torch.no_grad()
def clip_grad_norm_(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients by one factor so that their joint norm is `max_norm` at most. -> the norm that they had

    As torch.nn.utils.clip_grad_norm_ does it on dense gradients. Of a sparse one, rows that met are summed first.
    """
    gradients = [part for parameter in parameters if (part := _dense_part(parameter)) is not None]
    if not gradients:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in gradients]))
    factor = (max_norm / (norm + 1e-6)).clamp(max=1)
    for part in gradients:
        part.mul_(factor)
    return norm


def _dense_part(parameter: nn.Parameter) -> Tensor | None:
    """The memory in which a gradient is."""
    grad = parameter.grad
    if grad is None or not grad.is_sparse:
        return grad
    rows, values = merged(grad)
    parameter.grad = row_sparse(rows, values, grad.shape)
    return values
