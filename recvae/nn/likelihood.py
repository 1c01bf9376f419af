"""Likelihoods of a user's row. They take the last hidden state and the output layer, never logits."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from recvae.batches import Batch
from recvae.errors import UnknownNameError

IMPLS = ("auto", "dense", "exact")
PRECISIONS = ("auto", "float32", "bfloat16")
BLOCK_BYTES = 64 << 20


def multinomial_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    batch: Batch,
    impl: str = "auto",
    *,
    precision: str = "float32",
    block_bytes: int = BLOCK_BYTES,
) -> Tensor:
    """-log p(x | z) of each user under a multinomial over the items, without the constant of x alone. -> (B,)

        log p(x | z) = sum_i x_i log softmax(h W^T + b)_i + const        (Liang et al. 2018, equation 2)

    hidden : (B, H), weight : (I, H), bias : (I,), batch : the B rows x
    impl : "dense" is the textbook's, log-softmax over all logits times a dense row: the reference. "exact" has the
        same value and gradient from blocks of rows, and never more than one block of logits. "auto" is "exact".
    precision : of the products of "exact" with all items: "float32" (that of `hidden`), or "bfloat16" with sums, the
        observed items and gradients in float32; "auto" takes bfloat16 where the hardware computes in it
    block_bytes : how large a block of logits may be; it has at least one row
    """
    if impl not in IMPLS:
        raise UnknownNameError.among("impl of the multinomial likelihood", impl, IMPLS)
    if impl == "dense":
        logits = F.linear(hidden, weight, bias)  # (B, I)
        x = torch.zeros_like(logits).index_put_((batch.rows, batch.items), batch.values.to(logits.dtype), True)
        return -(x * F.log_softmax(logits, dim=1)).sum(1)
    how = How(_dtype(precision, hidden), block_bytes)
    nll: Tensor = _Multinomial.apply(hidden, weight, bias, batch, how)  # type: ignore[no-untyped-call]
    return nll


class How(NamedTuple):
    """How the products with all items are computed."""

    dtype: torch.dtype
    block_bytes: int


class Gradients(NamedTuple):
    """Of a sum of nll over users, each with its weight."""

    hidden: Tensor  # (B, H)
    weight: Tensor  # (I, H)
    bias: Tensor  # (I,)


class _Multinomial(torch.autograd.Function):
    """n_u logsumexp(l) - sum_i x_i l_i, whose gradient in the logits l is n_u softmax(l) - x.

    The gradients are formed in the forward pass, while a block of softmax is at hand, for the loss that is the mean
    over users. For any other weights, backward computes them anew.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, batch: Batch, how: How) -> Tensor:
        mean = hidden.new_full((len(hidden),), 1 / max(len(hidden), 1))
        differentiable = any(ctx.needs_input_grad)
        nll, gradients = _by_blocks(hidden, weight, bias, batch, how, mean if differentiable else None)
        if gradients is not None:
            ctx.save_for_backward(hidden, weight, bias, mean, *gradients)
            ctx.batch, ctx.how = batch, how
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, mean, *formed = ctx.saved_tensors
        if grad.device.type != "cpu":
            # to look at the weights would halt the device: where they are not all alike, the gradients are NaN
            scale = torch.where((grad == grad[:1]).all(), grad[0] / mean[0], torch.nan)
            return *(gradient * scale for gradient in formed), None, None
        if torch.equal(grad, mean):
            return *formed, None, None
        _, gradients = _by_blocks(hidden, weight, bias, ctx.batch, ctx.how, grad)
        return *(gradients or ()), None, None


def _by_blocks(
    hidden: Tensor, weight: Tensor, bias: Tensor, batch: Batch, how: How, users: Tensor | None
) -> tuple[Tensor, Gradients | None]:
    """nll (B,), and its gradients where `users` (B,) gives the weight of each user in a loss."""
    values = batch.values.to(hidden.dtype)
    totals = batch.sum(values)  # (B,), n_u
    of_items = _bag(weight, batch.items, batch.offsets, values)  # (B, H), sum_i x_i W_i
    observed = (hidden * of_items).sum(1) + batch.sum(values * bias[batch.items])  # (B,), sum_i x_i l_i
    lse = torch.empty_like(totals)
    gradients = None if users is None else _sparse_part(hidden, bias, batch, of_items, users)
    h, w, b = hidden.to(how.dtype), weight.to(how.dtype), bias.to(how.dtype)
    step = max(1, how.block_bytes // max(1, w.element_size() * len(w)))
    for start in range(0, len(h), step):
        rows = slice(start, start + step)
        p = torch.addmm(b, h[rows], w.T)  # (R, I), logits for now
        top = p.amax(1, keepdim=True)
        p = p.sub_(top).exp_()  # softmax, but for its sum
        sums = p.sum(1, dtype=hidden.dtype)
        lse[rows] = sums.log() + top[:, 0]
        if gradients is not None and users is not None:
            scale = users[rows] * totals[rows] / sums
            gradients.hidden[rows].add_((p @ w) * scale[:, None])
            _add_product(gradients.weight, p.T, (hidden[rows] * scale[:, None]).to(how.dtype))
            gradients.bias.add_(p.T @ scale.to(how.dtype))
    return totals * lse - observed, gradients


def _sparse_part(hidden: Tensor, bias: Tensor, batch: Batch, of_items: Tensor, users: Tensor) -> Gradients:
    """What the -x in n_u softmax(l) - x makes of the gradients: only observed items."""
    rows = batch.rows
    values = -batch.values.to(hidden.dtype) * users[rows]
    order = batch.items.argsort()
    offsets = F.pad(batch.items.bincount(minlength=len(bias)).cumsum(0), (1, 0))
    return Gradients(
        hidden=-of_items * users[:, None],
        weight=_bag(hidden, rows[order], offsets, values[order]),
        bias=torch.zeros_like(bias).index_add_(0, batch.items, values),
    )


def _bag(table: Tensor, chosen: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
    """Weighted sums of rows of a table: one for each of the bags that begin at `offsets`."""
    return F.embedding_bag(chosen, table, offsets, mode="sum", per_sample_weights=values, include_last_offset=True)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b, in the precision of `total` if that of the factors is lower."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _dtype(precision: str, hidden: Tensor) -> torch.dtype:
    if precision not in PRECISIONS:
        raise UnknownNameError.among("precision", precision, PRECISIONS)
    if precision == "auto":
        precision = "bfloat16" if hidden.dtype == torch.float32 and _computes_bfloat16(hidden.device) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else hidden.dtype


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16, rather than turning it into float32 first."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # no public name for these
    )
