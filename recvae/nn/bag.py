"""The first layer: sparse rows times a weight, whose gradient is a sparse product too."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recvae.batches import Batch
from recvae.nn.csr import csr, starts
from recvae.nn.scratch import scratch


class Bag(nn.Module):
    """x W + b for sparse rows x: the weighted sum of the rows of W that belong to a user's items."""

    def __init__(self, n_items: int, out_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_items, out_dim))  # (I, H)
        self.bias = nn.Parameter(torch.empty(out_dim))  # (H,)

    def forward(self, batch: Batch, values: Tensor | None = None) -> Tensor:
        """Of the batch's own values, or of others (E,) at the same places. -> (B, H)"""
        x = batch.values if values is None else values
        x = x.to(self.weight.dtype)
        if not (torch.is_grad_enabled() and self.weight.requires_grad):
            return weighted_sums(self.weight, batch.items, batch.offsets, x) + self.bias
        sums: Tensor = _Bag.apply(self.weight, batch, x)  # type: ignore[no-untyped-call]
        return sums + self.bias


class _Bag(torch.autograd.Function):
    """x W, without a gradient in x."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, batch: Batch, values: Tensor) -> Tensor:
        items, rows, offsets = batch.items, batch.rows, batch.offsets
        if values.device.type == "cpu":  # what dropout left; to count them, other devices would halt
            kept = values.nonzero()[:, 0]
            items, rows, values = items[kept], rows[kept], values[kept]
            offsets = starts(rows, len(batch))
        ctx.shape, ctx.n_users = weight.shape, len(batch)
        ctx.save_for_backward(items, rows, values)
        return weighted_sums(weight, items, offsets, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """x^T grad, from the events in the order of their items."""
        items, rows, values = ctx.saved_tensors
        order = items.argsort(stable=True)
        items, rows, values = items[order], rows[order], values[order]
        if grad.device.type != "cpu":
            return weighted_sums(grad, rows, starts(items, ctx.shape[0]), values), None, None
        transposed = csr(items, rows, values, (ctx.shape[0], ctx.n_users))
        room = scratch("gradient of the first layer", ctx.shape, grad.dtype, grad.device, for_step=True)
        return torch.addmm(room, transposed, grad, beta=0, out=room), None, None


def weighted_sums(table: Tensor, chosen: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
    """Weighted sums of rows of a table: one for each of the bags that begin at `offsets`."""
    return F.embedding_bag(
        chosen, table, offsets.to(chosen.dtype), mode="sum", per_sample_weights=values, include_last_offset=True
    )
