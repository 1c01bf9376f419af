"""Likelihoods of a user's row. They take the last hidden state and the output layer, never logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recvae.batches import Batch
from recvae.errors import UnknownNameError


def multinomial_nll(hidden: Tensor, weight: Tensor, bias: Tensor, batch: Batch, impl: str = "auto") -> Tensor:
    """-log p(x | z) of each user under a multinomial over the items, without the constant of x alone. -> (B,)

        log p(x | z) = sum_i x_i log softmax(h W^T + b)_i + const        (Liang et al. 2018, equation 2)

    hidden : (B, H), weight : (I, H), bias : (I,), batch : the B rows x
    impl : "dense" is the textbook's, log-softmax over all logits times a dense row: the reference. "exact" has the
        same value and gradient from the log-sum-exp and the logits of the observed items. "auto" is "exact".
    """
    if impl not in ("auto", "dense", "exact"):
        raise UnknownNameError.among("impl of the multinomial likelihood", impl, ("auto", "dense", "exact"))
    logits = F.linear(hidden, weight, bias)  # (B, I)
    if impl == "dense":
        x = torch.zeros_like(logits).index_put_((batch.rows, batch.items), batch.values.to(logits.dtype), True)
        return -(x * F.log_softmax(logits, dim=1)).sum(1)
    nll: Tensor = _Multinomial.apply(logits, batch.rows, batch.items, batch.values.to(logits.dtype))  # type: ignore[no-untyped-call]
    return nll


class _Multinomial(torch.autograd.Function):
    """n_u logsumexp(l) - sum_i x_i l_i, whose gradient n_u softmax(l) - x needs no dense x."""

    @staticmethod
    def forward(ctx, logits, rows, items, values):  # type: ignore[no-untyped-def]
        totals = logits.new_zeros(len(logits)).index_add_(0, rows, values)  # (B,), n_u
        observed = logits.new_zeros(len(logits)).index_add_(0, rows, values * logits[rows, items])  # (B,)
        lse = logits.logsumexp(1)  # (B,)
        ctx.save_for_backward(logits, rows, items, values, totals, lse)
        return totals * lse - observed

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        logits, rows, items, values, totals, lse = ctx.saved_tensors
        p = (logits - lse[:, None]).exp_().mul_((grad * totals)[:, None])
        p.index_put_((rows, items), -values * grad[rows], accumulate=True)
        return p, None, None, None
