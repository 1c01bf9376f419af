"""The first layer: sparse rows times a weight, whose gradient is a sparse product too."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recvae.data.batches import Batch
from recvae.nn.csr import csr, row_sparse, starts
from recvae.nn.scratch import scratch


class Bag(nn.Module):
    """x W + b for sparse rows x: the weighted sum of the rows of W that belong to a user's items.

    With `sparse` set, the gradient of W is a sparse tensor over the rows that a batch has touched, whose cost does not
    grow with the number of items; it is for an optimiser that knows such, as RowwiseAdam.
    """

    def __init__(self, n_items: int, out_dim: int):
        super().__init__()
        self.sparse = False
        self.weight = nn.Parameter(torch.full((n_items, out_dim), torch.nan))  # (I, H), for `initialize`
        self.bias = nn.Parameter(torch.full((out_dim,), torch.nan))  # (H,)

    def forward(self, batch: Batch, values: Tensor | None = None) -> Tensor:
        """Of the batch's own values, or of others (E,) at the same places. -> (B, H)"""
        return self.sums(batch, batch.values if values is None else values) + self.bias

    def sums(self, batch: Batch, values: Tensor) -> Tensor:
        """x W. (E,) -> (B, H)"""
        x = values.to(self.weight.dtype)
        if not (torch.is_grad_enabled() and self.weight.requires_grad):
            return weighted_sums(self.weight, batch.items, batch.offsets, x)
        sums: Tensor = _Bag.apply(self.weight, batch, x, self.sparse)  # type: ignore[no-untyped-call]
        return sums


class _Bag(torch.autograd.Function):
    """x W, without a gradient in x."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, batch: Batch, values: Tensor, sparse: bool) -> Tensor:
        items, rows, offsets = batch.items, batch.rows, batch.offsets
        if values.device.type == "cpu":  # what dropout left; to count them, other devices would halt
            kept = values.nonzero()[:, 0]
            items, rows, values = items[kept], rows[kept], values[kept]
            offsets = starts(rows, len(batch))
        ctx.shape, ctx.sparse = weight.shape, sparse
        ctx.save_for_backward(items, rows, values)
        return weighted_sums(weight, items, offsets, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """x^T grad, from the events in the order of their items."""
        items, rows, values = ctx.saved_tensors
        items, order = items.sort(stable=True)
        rows, values = rows[order], values[order]
        if not ctx.sparse:
            return _summed(grad, items, rows, values, ctx.shape[0]), None, None, None
        touched, places = items.unique_consecutive(return_inverse=True)
        return row_sparse(touched, _summed(grad, places, rows, values, len(touched)), ctx.shape), None, None, None


def _summed(grad: Tensor, items: Tensor, rows: Tensor, values: Tensor, n_items: int) -> Tensor:
    shape = n_items, grad.shape[1]
    room = scratch("gradient of the first layer", shape, grad.dtype, grad.device, for_step=True)
    return grouped_sums(grad, items, rows, values, room)


def grouped_sums(table: Tensor, groups: Tensor, chosen: Tensor, values: Tensor, room: Tensor) -> Tensor:
    """Weighted sums of rows of a table (B, H) by group, given the groups (E,) of these in order.

    On a CPU it is written into `room`, whose length is the number of groups.

    Returns
    -------
    Tensor
        (groups, H).
    """
    if table.device.type != "cpu":
        return weighted_sums(table, chosen, starts(groups, len(room)), values)
    sums = csr(groups, chosen, values, (len(room), len(table)))
    return torch.addmm(room, sums, table, beta=0, out=room)


def weighted_sums(table: Tensor, chosen: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
    """Weighted sums of rows of a table: one for each of the bags that begin at `offsets`."""
    return F.embedding_bag(
        chosen, table, offsets.to(chosen.dtype), mode="sum", per_sample_weights=values, include_last_offset=True
    )
