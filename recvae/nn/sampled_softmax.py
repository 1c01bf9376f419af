"""The sampled softmax: a step computes logits only for the items of its users and for negatives, not for all items.

The sum over items in -log p(x | z) is, for each user, exact over the items that the user has, and estimated over the
others from the batch's `Negatives`. Neither logits nor gradients of all items are ever in memory.

    n log Z - sum_i x_i l_i,  n = sum_i x_i,  l = h W^T + b
    Z = sum of e^l_i over the user's items i + sum of w_c e^l_c over the negatives c that the user does not have

In expectation Z is the sum over all items; log Z is too low by about half the relative variance of Z. With all items as
negatives of weight 1 the value is exact. Gradients of weight and bias are sparse over the rows of the negatives and
of the batch's items. All is in the precision of the weights, which have to be leaf tensors.

Source: Bengio & Senecal 2008, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language
Model".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recvae.data.batches import Batch, Negatives
from recvae.errors import InvalidParameterError
from recvae.nn.layers import grouped_sums, products_at, row_sparse, weighted_sums, workspace


def check_sampled(family: str, weight: Tensor, bias: Tensor, batch: Batch) -> None:
    """Raise InvalidParameterError unless it is multinomial, with negatives, and weight and bias are leaf tensors."""
    if family != "multinomial":
        raise InvalidParameterError(
            f'Expected the multinomial likelihood for impl="sampled", got {family}; take impl="chunked".'
        )
    if batch.negatives is None:
        raise InvalidParameterError(
            "Expected a batch with negatives for a sampled likelihood, got one without; "
            "draw them by a sampler of recvae.nn.samplers."
        )
    if torch.is_grad_enabled() and (weight.grad_fn is not None or bias.grad_fn is not None):
        raise InvalidParameterError(
            "Expected the parameters themselves as weight and bias of a sampled likelihood, got what was computed from "
            "them, as with a temperature; their gradients are sparse."
        )


@torch.no_grad()
def sampled_with_gradients(
    batch: Batch, hidden: Tensor, weight: Tensor, bias: Tensor, users: Tensor | None
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None, Tensor | None] | None]:
    """nll (B,) and, if `users` (B,) are given, gradients of sum_u users[u] nll_u: hidden states, weight, bias."""
    assert batch.negatives is not None
    with torch.autocast(hidden.device.type, enabled=False):
        negatives, index = batch.negatives, Index.of(batch, batch.negatives)
        shared = _rows_of(weight, negatives.items)  # (C, H)
        observed = products_at(batch.rows, batch.items, hidden, weight) + bias[batch.items]  # (E,)
        logits = _negative_logits(hidden, shared, bias[negatives.items], negatives, index)  # (B, C)
        values = batch.values.to(hidden.dtype)
        below, terms = _terms(observed, logits, batch)
        n = batch.sum(values)
        nll = torch.xlogy(n, terms.sums) - batch.sum(values * below)  # n log Z - sum_i x_i l_i, both minus n * largest
        if users is None:
            return nll, None
        scale = users * n / terms.sums.clamp(min=torch.finfo(n.dtype).tiny)
        of_events = scale[batch.rows] * terms.of_events - users[batch.rows] * values
        layer = weight, bias
        return nll, _gradients(hidden, layer, shared, batch, index, of_events, terms.of_negatives, scale)


class Index(NamedTuple):
    """The distinct items of a batch, events and negatives, and the positions of both among them."""

    touched: Tensor  # (T,) distinct items, ascending
    events: Tensor  # (E,) from 0 to T - 1
    negatives: Tensor  # (C,) from 0 to T - 1
    by_item: Tensor  # (E,) indices that sort the events by item
    had: Tensor  # flat indices in (B, C) of negatives that the user has

    @classmethod
    def of(cls, batch: Batch, negatives: Negatives) -> Index:
        n_events, n_negatives = len(batch.items), len(negatives.items)
        items = torch.cat([batch.items, negatives.items.to(batch.items.dtype)])
        items, order = items.sort(stable=True)
        touched, in_order = items.unique_consecutive(return_inverse=True)
        positions = torch.empty_like(in_order).index_copy_(0, order, in_order)
        events, of_negatives = positions[:n_events], positions[n_events:]
        column = torch.full_like(touched, -1, dtype=torch.int64)  # (T,)
        column[of_negatives] = torch.arange(n_negatives, device=column.device)
        columns = column[events]
        had = (batch.rows * n_negatives + columns)[columns >= 0]
        return cls(touched, events, of_negatives, order[order < n_events], had)


class Terms(NamedTuple):
    """Terms of Z_u, each divided by e^(largest logit of the user), and their sum."""

    of_events: Tensor  # (E,)
    of_negatives: Tensor  # (B, C), 0 for items that the user has
    sums: Tensor  # (B,)


def _rows_of(weight: Tensor, items: Tensor) -> Tensor:
    out = workspace("rows of negatives", (len(items), weight.shape[1]), weight.dtype, weight.device)
    return torch.index_select(weight, 0, items, out=out)


def _negative_logits(hidden: Tensor, rows: Tensor, biases: Tensor, negatives: Negatives, index: Index) -> Tensor:
    """log w + l of the negatives, -inf for items that the user has. (B, H), (C, H), (C,) -> (B, C)"""
    shift = biases + negatives.weights.to(biases.dtype).log()
    out = workspace("logits of negatives", (len(hidden), len(rows)), hidden.dtype, hidden.device)
    torch.addmm(shift, hidden, rows.T, out=out)
    out.view(-1)[index.had] = -torch.inf
    return out


def _terms(observed: Tensor, logits: Tensor, batch: Batch) -> tuple[Tensor, Terms]:
    """Logits of the events minus the user's largest one, and the terms of Z. `logits` is overwritten."""
    largest = observed.new_full((len(batch),), -torch.inf).scatter_reduce_(0, batch.rows, observed, "amax")
    if logits.shape[1]:
        largest = torch.maximum(largest, logits.amax(1))
    largest = largest.masked_fill_(largest == -torch.inf, 0)  # users without events or negatives
    below = observed - largest[batch.rows]
    of_negatives = logits.sub_(largest[:, None]).exp_()
    of_events = below.exp()
    return below, Terms(of_events, of_negatives, of_negatives.sum(1) + batch.sum(of_events))


def _gradients(
    hidden: Tensor,
    layer: tuple[Tensor, Tensor],
    shared: Tensor,
    batch: Batch,
    index: Index,
    of_events: Tensor,
    of_negatives: Tensor,
    scale: Tensor,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Backpropagate the gradients of logits: `of_events` (E,), and `of_negatives` (B, C) times `scale` (B,)."""
    weight, bias = layer
    grad_hidden = grad_weight = grad_bias = None
    n_rows, width = len(index.touched), weight.shape[1]
    if hidden.requires_grad:
        grad_hidden = torch.mm(of_negatives, shared).mul_(scale[:, None])
        grad_hidden += weighted_sums(weight, batch.items, batch.offsets, of_events)
    if weight.requires_grad:
        order = index.by_item
        name = "gradient of the output layer"
        out = workspace(name, (n_rows, width), weight.dtype, weight.device, for_step=True)
        rows = grouped_sums(hidden, index.events[order], batch.rows[order], of_events[order], out)
        out = workspace("gradient of negatives", shared.shape, weight.dtype, weight.device)
        rows.index_add_(0, index.negatives, torch.mm(of_negatives.T, hidden * scale[:, None], out=out))
        grad_weight = row_sparse(index.touched, rows, weight.shape)
    if bias.requires_grad:
        rows = of_events.new_zeros(n_rows).index_add_(0, index.events, of_events)
        rows.index_add_(0, index.negatives, of_negatives.T @ scale)
        grad_bias = row_sparse(index.touched, rows, bias.shape)
    return grad_hidden, grad_weight, grad_bias
