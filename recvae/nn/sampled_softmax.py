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
from recvae.nn.layers import workspace
from recvae.utils.sparse_products import group_offsets, grouped_sums, products_at, row_sparse, weighted_sums
from recvae.utils.workers import ITEMS, USERS, cut, map_pieces


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
    negatives = batch.negatives
    pieces = cut(len(hidden), USERS, hidden.device)
    with torch.autocast(hidden.device.type, enabled=False):
        index, shared = Index.of(batch, negatives), _rows_of(weight, negatives.items)  # (C, H)
        shift = bias[negatives.items] + negatives.weights.to(bias.dtype).log()  # (C,) log w + b
        room = workspace("logits of negatives", (len(hidden), len(shared)), hidden.dtype, hidden.device)

        def piece(rows: slice) -> tuple[Tensor, ...]:
            """nll (n,) of some users and, with `users`, `scale` (n,), gradients of logits (E,) and hidden states."""
            part, columns = batch, index.columns
            if len(pieces) > 1:
                part, columns = batch.part(rows), columns[batch.events(rows)]
            h = hidden[rows]
            observed = products_at(part.rows, part.items, h, weight) + bias[part.items]  # (E,)
            logits = torch.addmm(shift, h, shared.T, out=room[rows])  # (n, C)
            logits.view(-1)[(part.rows * len(shared) + columns)[columns >= 0]] = -torch.inf  # those the user has
            values = part.values.to(h.dtype)
            below, terms = _terms(observed, logits, part)
            n = part.sum(values)
            nll = torch.xlogy(n, terms.sums) - part.sum(values * below)  # n log Z - sum_i x_i l_i, less n * largest
            if users is None:
                return (nll,)
            scale = users[rows] * n / terms.sums.clamp(min=torch.finfo(n.dtype).tiny)
            of_events = scale[part.rows] * terms.of_events - users[rows][part.rows] * values
            if not hidden.requires_grad:
                return nll, scale, of_events
            grad = torch.mm(terms.of_negatives, shared).mul_(scale[:, None])
            return nll, scale, of_events, grad.add_(weighted_sums(weight, part.items, part.offsets, of_events))

        nll, *others = (torch.cat(parts) for parts in zip(*map_pieces(piece, pieces), strict=True))
        if users is None:
            return nll, None
        scale, of_events, *grad_hidden = others
        of_tables = _gradients(hidden, (weight, bias), shared, batch, index, of_events, room, scale)
        return nll, (grad_hidden[0] if grad_hidden else None, *of_tables)


class Index(NamedTuple):
    """The distinct items of a batch, events and negatives, and the positions of both among them."""

    touched: Tensor  # (T,) distinct items, ascending
    events: Tensor  # (E,) from 0 to T - 1
    negatives: Tensor  # (C,) from 0 to T - 1
    by_item: Tensor  # (E,) indices that sort the events by item
    columns: Tensor  # (E,) position of the event's item among the negatives, -1 if it is none

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
        return cls(touched, events, of_negatives, order[order < n_events], column[events])


class Terms(NamedTuple):
    """Terms of Z_u, each divided by e^(largest logit of the user), and their sum."""

    of_events: Tensor  # (E,)
    of_negatives: Tensor  # (B, C), 0 for items that the user has
    sums: Tensor  # (B,)


def _rows_of(weight: Tensor, items: Tensor) -> Tensor:
    out = workspace("rows of negatives", (len(items), weight.shape[1]), weight.dtype, weight.device)
    return torch.index_select(weight, 0, items, out=out)


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
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of weight and bias, from those of logits: `of_events` (E,), and `of_negatives` (B, C) times `scale`."""
    weight, bias = layer
    grad_weight = grad_bias = None
    n_rows, width = len(index.touched), weight.shape[1]
    if weight.requires_grad:
        order = index.by_item
        name = "gradient of the output layer"
        out = workspace(name, (n_rows, width), weight.dtype, weight.device, for_step=True)
        starts = group_offsets(index.events[order], n_rows)
        rows = grouped_sums(hidden, starts, batch.rows[order], of_events[order], out)
        scaled = hidden * scale[:, None]

        def add_negatives(block: slice) -> None:  # a negative has a row of its own
            rows.index_add_(0, index.negatives[block], torch.mm(of_negatives[:, block].T, scaled))

        map_pieces(add_negatives, cut(len(shared), ITEMS, weight.device))
        grad_weight = row_sparse(index.touched, rows, weight.shape)
    if bias.requires_grad:
        rows = of_events.new_zeros(n_rows).index_add_(0, index.events, of_events)
        rows.index_add_(0, index.negatives, of_negatives.T @ scale)
        grad_bias = row_sparse(index.touched, rows, bias.shape)
    return grad_weight, grad_bias
