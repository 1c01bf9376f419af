"""Likelihoods of a user's row. They take the last hidden state and the output layer, never logits."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from recvae.batches import Batch
from recvae.errors import UnknownNameError
from recvae.nn.products import Gradients, products

IMPLS = ("auto", "dense", "exact")
BLOCK_BYTES = 48 << 20  # about 1,250 users of 20,000 items in bfloat16
LARGEST = 60.0  # of a logit that is taken to the exponential as it is: e^60 times any number of items is a float32


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
        On a GPU its gradient is for losses in which all users have one weight, such as the mean; for others it is NaN.
    precision : of the products of "exact" with all items: "float32" (that of the weights), or "bfloat16", in which
        the block of logits is kept too, while sums over items or users are in float32; "auto" takes bfloat16 where the
        hardware computes in it
    block_bytes : how large a block of logits may be; it has at least one row
    """
    if impl not in IMPLS:
        raise UnknownNameError.among("impl of the multinomial likelihood", impl, IMPLS)
    if impl == "dense":
        logits = F.linear(hidden, weight, bias)  # (B, I)
        x = torch.zeros_like(logits).index_put_((batch.rows, batch.items), batch.values.to(logits.dtype), True)
        return -(x * F.log_softmax(logits, dim=1)).sum(1)
    how, hidden = How(precision, block_bytes), hidden.to(weight.dtype)
    if not len(hidden):
        return hidden.sum(1)
    if not (torch.is_grad_enabled() and any(part.requires_grad for part in (hidden, weight, bias))):
        return _by_blocks(hidden, weight, bias, batch, how, None)[0]
    nll: Tensor = _Multinomial.apply(hidden, weight, bias, batch, how)  # type: ignore[no-untyped-call]
    return nll


class How(NamedTuple):
    """How the products with all items are computed."""

    precision: str
    block_bytes: int


class _Multinomial(torch.autograd.Function):
    """n_u logsumexp(l) - sum_i x_i l_i, whose gradient in the logits l is n_u softmax(l) - x.

    The gradients are formed in the forward pass, while a block of softmax is at hand, for the loss that is the mean
    over users. For any other weights, and if asked for once more, backward computes them anew; but where to look at
    the weights would halt the device, there must be one weight for all.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, batch: Batch, how: How) -> Tensor:
        mean = hidden.new_full((len(hidden),), 1 / len(hidden))
        nll, ctx.formed = _by_blocks(hidden, weight, bias, batch, how, mean)
        ctx.save_for_backward(hidden, weight, bias, mean)
        ctx.batch, ctx.how = batch, how
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, mean = ctx.saved_tensors
        formed, ctx.formed = ctx.formed, None  # handed out, not kept: who gets them may change them
        if formed is not None and grad.device.type != "cpu":
            # to look at the weights would halt the device: where they are not all alike, the gradients are NaN
            scale = torch.where((grad == grad[:1]).all(), grad[0] / mean[0], torch.nan)
            return *(None if gradient is None else gradient.mul_(scale) for gradient in formed.all()), None, None
        if formed is None or not torch.equal(grad, mean):
            _, formed = _by_blocks(hidden, weight, bias, ctx.batch, ctx.how, grad)
        return *(formed.all() if formed else ()), None, None


@torch.no_grad()
def _by_blocks(
    hidden: Tensor, weight: Tensor, bias: Tensor, batch: Batch, how: How, users: Tensor | None
) -> tuple[Tensor, Gradients | None]:
    """nll (B,), and its gradients where `users` (B,) gives the weight of each user in a loss."""
    values = batch.values.to(hidden.dtype)
    totals = batch.sum(values)  # (B,), n_u
    nll = torch.empty_like(totals)
    gradients = None if users is None else Gradients.like(hidden, weight, bias)
    with_items = products(how.precision, weight, bias)
    n_users, n_items = len(hidden), len(weight)
    n_blocks = -(-n_users // max(1, how.block_bytes // max(1, with_items.dtype.itemsize * n_items)))
    step = -(-n_users // max(1, n_blocks))  # all blocks of about one size
    for start in range(0, n_users, step):
        rows = slice(start, min(start + step, n_users))
        events = batch.events(rows)
        of, x, n = batch.rows[events] - start, values[events], totals[rows]
        with torch.autocast(hidden.device.type, enabled=False):
            p = with_items.logits(hidden[rows])  # (R, I)
        cells = of * n_items + batch.items[events]  # of the events, in the block
        observed = torch.zeros_like(n).index_add_(0, of, x * p.view(-1)[cells])  # sum_i x_i l_i
        top = p.amax(1, keepdim=True)
        excess = top - top.clamp(-LARGEST, LARGEST)  # mostly 0: no logit is rounded a second time
        if p.device.type != "cpu" or excess.any():
            p.sub_(excess)
        p.exp_()  # softmax, but for the factor 1 / sums
        sums = with_items.sums(p)
        nll[rows] = n * (sums.log() + excess[:, 0]) - observed
        if users is not None and gradients is not None:
            less = x * (sums / n.clamp(min=torch.finfo(n.dtype).tiny))[of]
            p.view(-1).index_add_(0, cells, less.to(p.dtype), alpha=-1)  # n_u softmax(l) - x, but for n_u / sums
            with_items.backward(p, hidden[rows], users[rows] * n / sums, rows, gradients)
    return nll, gradients
