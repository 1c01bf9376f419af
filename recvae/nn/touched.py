"""Gradients over the rows of a table that were touched: of millions, a step sees some thousands."""

from __future__ import annotations

import torch
from torch import Tensor

from recvae.errors import InvalidTypeError
from recvae.nn.bag import grouped_sums
from recvae.nn.scratch import scratch


def merged(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (T,) of a sparse gradient, distinct and ascending, and what it is there (T, ...), where rows met summed.

    What autograd hands out has forgotten that it was coalesced, and to sum is slow in torch: one thread does it all.
    """
    if grad.sparse_dim() != 1:
        raise InvalidTypeError(
            f"Expected a gradient that is sparse over rows, got {grad.sparse_dim()} sparse dimensions."
        )
    rows, values = grad._indices()[0], grad._values()
    if grad.is_coalesced() or bool((rows[1:] > rows[:-1]).all()):
        return rows, values
    rows, order = rows.sort(stable=True)
    touched, places = rows.unique_consecutive(return_inverse=True)
    table = values.flatten(1) if values.dim() > 1 else values[:, None]
    shape = len(touched), table.shape[1]
    room = scratch("merged rows of a gradient", shape, values.dtype, values.device, for_step=True)
    sums = grouped_sums(table, places, order, torch.ones_like(table[:, 0]), room)
    return touched, sums.view(len(touched), *values.shape[1:])
