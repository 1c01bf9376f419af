"""A sampled softmax: of a catalogue of millions, a step looks at its users' own items and at some candidates.

The sum over items in -log p(x | z) is, for each user, exact over the items that the user has, and estimated over the
others from the batch's `Candidates`. Neither the logits nor the gradients of all items exist anywhere.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from recvae.data.batches import Batch, Candidates
from recvae.errors import InvalidParameterError
from recvae.nn.ahead import nll_formed_ahead
from recvae.nn.bag import grouped_sums, weighted_sums
from recvae.nn.csr import products_at, row_sparse
from recvae.nn.scratch import scratch


def sampled_nll(hidden: Tensor, weight: Tensor, bias: Tensor, batch: Batch) -> Tensor:
    """-log p(x | z) of each user under a multinomial, from the user's items and `batch.candidates`.

        n log Z - sum_i x_i l_i,  n = sum_i x_i,  l = h W^T + b
        Z = sum of e^l_i over the user's items i + sum of w_c e^l_c over the candidates c that the user does not have

    Parameters
    ----------
    hidden : Tensor
        (B, H).
    weight : Tensor
        (I, H).
    bias : Tensor
        (I,). Weight and bias are the parameters themselves.
    batch : Batch
        Rows that have an item at most once, and the candidates.

    Returns
    -------
    Tensor
        (B,).

    Raises
    ------
    InvalidParameterError
        Where there are no candidates, or for weights that are not a parameter.

    Notes
    -----
    In expectation Z is that of all items; log Z is below it by about half the relative variance of Z. With all items as
    candidates of weight 1 the value is exact. Gradients of weight and bias are sparse over the rows of candidates and
    of the batch's items. All is in the precision of the weights. As with impl="exact", on a GPU the gradient is for
    losses in which all users have one weight; for others it is NaN.

    References
    ----------
    Bengio & Senecal 2008, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language
    Model".
    """
    if batch.candidates is None:
        raise InvalidParameterError(
            "Expected a batch with candidates for a sampled likelihood, got one without; "
            "draw them by a sampler of recvae.nn.candidates."
        )
    if torch.is_grad_enabled() and (weight.grad_fn is not None or bias.grad_fn is not None):
        raise InvalidParameterError(
            "Expected the parameters themselves as weight and bias of a sampled likelihood, got what was computed from "
            "them, as with a temperature; their gradients are sparse."
        )
    return nll_formed_ahead(partial(_with_gradients, batch), hidden, weight, bias)


class Formed(NamedTuple):
    """Gradients of a sum of nll over users, each with its weight; None where nobody learns from it."""

    hidden: Tensor | None  # (B, H)
    touched: Tensor  # (T,) ascending
    weight: Tensor | None  # (T, H)
    bias: Tensor | None  # (T,)
    n_items: int

    def all(self, scale: Tensor | None = None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Of hidden states, weight and bias, times a number."""
        hidden, *layer = (
            part if part is None or scale is None else part.mul_(scale)
            for part in (self.hidden, self.weight, self.bias)
        )
        weight, bias = (
            None if part is None else row_sparse(self.touched, part, (self.n_items, *part.shape[1:])) for part in layer
        )
        return hidden, weight, bias


class Places(NamedTuple):
    """Where the events of a batch and its candidates are among the rows that it touches."""

    touched: Tensor  # (T,) distinct items, ascending
    events: Tensor  # (E,) from 0 to T - 1
    candidates: Tensor  # (C,) from 0 to T - 1
    by_item: Tensor  # (E,) the events in the order of their items
    own: Tensor  # cells of (B, C), flat, in which the user has the candidate

    @classmethod
    def of(cls, batch: Batch, candidates: Candidates) -> Places:
        n_events, n_candidates = len(batch.items), len(candidates.items)
        items = torch.cat([batch.items, candidates.items.to(batch.items.dtype)])
        items, order = items.sort(stable=True)
        touched, in_order = items.unique_consecutive(return_inverse=True)
        places = torch.empty_like(in_order).index_copy_(0, order, in_order)
        events, of_candidates = places[:n_events], places[n_events:]
        column = torch.full_like(touched, -1, dtype=torch.int64)  # (T,)
        column[of_candidates] = torch.arange(n_candidates, device=column.device)
        columns = column[events]
        own = (batch.rows * n_candidates + columns)[columns >= 0]
        return cls(touched, events, of_candidates, order[order < n_events], own)


class Terms(NamedTuple):
    """Terms of Z_u, each divided by the user's e^top, and their sum."""

    of_events: Tensor  # (E,)
    of_candidates: Tensor  # (B, C), 0 in items that the user has
    sums: Tensor  # (B,)


@torch.no_grad()
def _with_gradients(
    batch: Batch, hidden: Tensor, weight: Tensor, bias: Tensor, users: Tensor | None
) -> tuple[Tensor, Formed | None]:
    """nll (B,), and its gradients where `users` (B,) gives the weight of each user in a loss."""
    assert batch.candidates is not None
    with torch.autocast(hidden.device.type, enabled=False):
        candidates, places = batch.candidates, Places.of(batch, batch.candidates)
        shared = _rows_of(weight, candidates.items)  # (C, H)
        observed = products_at(batch.rows, batch.items, hidden, weight) + bias[batch.items]  # (E,)
        logits = _of_candidates(hidden, shared, bias[candidates.items], candidates, places)
        values = batch.values.to(hidden.dtype)
        below, terms = _terms(observed, logits, batch)
        n = batch.sum(values)
        nll = torch.xlogy(n, terms.sums) - batch.sum(values * below)  # n log Z - sum_i x_i l_i, with top taken off both
        if users is None:
            return nll, None
        scale = users * n / terms.sums.clamp(min=torch.finfo(n.dtype).tiny)
        of_events = scale[batch.rows] * terms.of_events - users[batch.rows] * values
        return nll, _formed(hidden, (weight, bias), shared, batch, places, of_events, terms.of_candidates, scale)


def _rows_of(weight: Tensor, items: Tensor) -> Tensor:
    room = scratch("rows of candidates", (len(items), weight.shape[1]), weight.dtype, weight.device)
    return torch.index_select(weight, 0, items, out=room)


def _of_candidates(hidden: Tensor, rows: Tensor, biases: Tensor, candidates: Candidates, places: Places) -> Tensor:
    """log w + l of the candidates, -inf in items that the user has. (B, H), (C, H), (C,) -> (B, C)"""
    shift = biases + candidates.weights.to(biases.dtype).log()
    room = scratch("logits of candidates", (len(hidden), len(rows)), hidden.dtype, hidden.device)
    torch.addmm(shift, hidden, rows.T, out=room)
    room.view(-1)[places.own] = -torch.inf
    return room


def _terms(observed: Tensor, logits: Tensor, batch: Batch) -> tuple[Tensor, Terms]:
    """Logits of the events less the largest of the user's, and the terms of Z. The logits are written over."""
    top = observed.new_full((len(batch),), -torch.inf).scatter_reduce_(0, batch.rows, observed, "amax")
    if logits.shape[1]:
        top = torch.maximum(top, logits.amax(1))
    top = top.masked_fill_(top == -torch.inf, 0)  # nothing to sum
    below = observed - top[batch.rows]
    of_candidates = logits.sub_(top[:, None]).exp_()
    of_events = below.exp()
    return below, Terms(of_events, of_candidates, of_candidates.sum(1) + batch.sum(of_events))


def _formed(
    hidden: Tensor,
    layer: tuple[Tensor, Tensor],
    shared: Tensor,
    batch: Batch,
    places: Places,
    of_events: Tensor,
    of_candidates: Tensor,
    scale: Tensor,
) -> Formed:
    """From the gradients in the logits of events (E,), and in those of candidates (B, C), times scale (B,)."""
    weight, bias = layer
    of_hidden = of_weight = of_bias = None
    n_touched, width = len(places.touched), weight.shape[1]
    if hidden.requires_grad:
        of_hidden = torch.mm(of_candidates, shared).mul_(scale[:, None])
        of_hidden += weighted_sums(weight, batch.items, batch.offsets, of_events)
    if weight.requires_grad:
        order = places.by_item
        room = scratch("gradient of the output layer", (n_touched, width), weight.dtype, weight.device, for_step=True)
        of_weight = grouped_sums(hidden, places.events[order], batch.rows[order], of_events[order], room)
        room = scratch("gradient of candidates", shared.shape, weight.dtype, weight.device)
        of_weight.index_add_(0, places.candidates, torch.mm(of_candidates.T, hidden * scale[:, None], out=room))
    if bias.requires_grad:
        of_bias = of_events.new_zeros(n_touched).index_add_(0, places.events, of_events)
        of_bias.index_add_(0, places.candidates, of_candidates.T @ scale)
    return Formed(of_hidden, places.touched, of_weight, of_bias, len(weight))
