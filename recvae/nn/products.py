"""The three products of a block of users with all items, on which training spends its time, in two precisions.

Both keep the same protocol: `logits` of a block of users, and `backward`, which adds what the gradient in these logits
makes of the gradients of hidden states, weights and bias.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recvae.errors import InvalidTypeError, UnknownNameError
from recvae.nn.scratch import scratch

PRECISIONS = ("auto", "float32", "bfloat16")
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
ITEMS = 4096  # of a product that is taken apart by items


class Gradients(NamedTuple):
    """Of a sum of nll over users, each with its weight; None where nobody learns from it."""

    hidden: Tensor | None  # (B, H)
    layer: tuple[Tensor, Tensor] | None  # (I, H) and (I,), of weight and bias

    @classmethod
    def like(cls, hidden: Tensor, weight: Tensor, bias: Tensor) -> Gradients:
        """Room for those that are needed, uninitialised."""
        layer = None
        if weight.requires_grad or bias.requires_grad:
            room = scratch("gradient of the output layer", weight.shape, weight.dtype, weight.device, for_step=True)
            layer = room, torch.empty_like(bias)
        return cls(torch.empty_like(hidden) if hidden.requires_grad else None, layer)

    def all(self, scale: Tensor | None = None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Of hidden states, weight and bias, times a number."""
        hidden, weight, bias = (
            part if part is None or scale is None else part.mul_(scale)
            for part in (self.hidden, *(self.layer or (None, None)))
        )
        return hidden, weight, bias


class Plain:
    """In the precision of the weights."""

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias = weight, bias
        self.dtype = weight.dtype

    def logits(self, hidden: Tensor) -> Tensor:  # (R, H) -> (R, I)
        return linear(hidden, self.weight, self.bias)

    def sums(self, p: Tensor) -> Tensor:  # (R, I) -> (R,)
        return p.sum(1)

    def squares(self, p: Tensor) -> Tensor:  # (R, I) -> (R,), their sum
        return torch.linalg.vector_norm(p, dim=1).square()

    def backward(self, p: Tensor, hidden: Tensor, scale: Tensor, rows: slice, into: Gradients) -> None:
        """For the gradient p * scale[:, None] in the logits of `rows`; the first block writes, the others add."""
        beta = 0 if rows.start == 0 else 1
        if into.hidden is not None:
            torch.mm(p, self.weight, out=into.hidden[rows]).mul_(scale[:, None])
        if into.layer is not None:
            into.layer[0].addmm_(p.T, hidden * scale[:, None], beta=beta)
            into.layer[1].addmv_(p.T, scale, beta=beta)


class Bfloat16:
    """In bfloat16: what goes into a product and what comes out of it, while it is summed in float32.

    The bias is two more columns of the weight, met by ones in the hidden state: the nearest bfloat16, and what that is
    off by. So it is as exact as in float32, and costs no pass of its own over the logits.
    """

    dtype = torch.bfloat16

    def __init__(self, weight: Tensor, bias: Tensor):
        n_items, self.width = weight.shape
        padded = -(-(self.width + 2) // 32) * 32  # whole cache lines
        self.weight = scratch("output layer in bfloat16", (n_items, padded), self.dtype, weight.device)
        self.weight[:, : self.width] = weight
        self.weight[:, self.width :] = 0
        self.weight[:, self.width] = bias
        self.weight[:, self.width + 1] = bias - self.weight[:, self.width]

    def logits(self, hidden: Tensor) -> Tensor:
        out = scratch("block of logits", (len(hidden), len(self.weight)), self.dtype, hidden.device)
        return torch.mm(self._widened(hidden, 1), self.weight.T, out=out)

    def sums(self, p: Tensor) -> Tensor:
        # a sum in bfloat16 is rounded once, at its end: of 64 of them, no rounding is that of the whole
        n_items = p.shape[1]
        whole = n_items - n_items % 64
        return p[:, :whole].unflatten(1, (64, whole // 64)).sum(2).float().sum(1) + p[:, whole:].sum(1)

    def squares(self, p: Tensor) -> Tensor:
        return torch.stack([part.float().square().sum(1) for part in p.split(ITEMS, dim=1)]).sum(0)

    def backward(self, p: Tensor, hidden: Tensor, scale: Tensor, rows: slice, into: Gradients) -> None:
        if into.hidden is not None:
            into.hidden[rows] = (p @ self.weight)[:, : self.width] * scale[:, None]
        if into.layer is None:
            return
        weight, bias = into.layer
        scaled = self._widened(hidden * scale[:, None], scale)
        scaled[:, self.width + 1] = scale - scaled[:, self.width]  # where all users have one scale, rounding would stay
        for start in range(0, len(self.weight), ITEMS):  # what a product gives is in the cache when it is added up
            items = slice(start, start + ITEMS)
            product = p[:, items].T @ scaled
            of_bias = product[:, self.width : self.width + 2].float().sum(1)
            for total, part in ((weight, product[:, : self.width]), (bias, of_bias)):
                if rows.start == 0:
                    total[items].copy_(part)
                else:
                    total[items].add_(part)

    def _widened(self, hidden: Tensor, ones: Tensor | float) -> Tensor:
        """(R, H) and what stands beside it for the bias. -> (R, columns of the weight)"""
        wide = scratch("hidden state in bfloat16", (len(hidden), self.weight.shape[1]), self.dtype, hidden.device)
        wide[:, : self.width] = hidden
        wide[:, self.width :] = ones if isinstance(ones, float | int) else ones[:, None]
        return wide


def linear(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """h W^T + b.

    On a CPU, where no gradient is wanted, by oneDNN, as what torch.compile makes does it: on some CPUs it needs half
    the time of the BLAS behind F.linear, but for one row and a weight that lies `by_columns`.
    """
    if ONEDNN is None or hidden.device.type != "cpu" or hidden.dtype != torch.float32 or torch.is_grad_enabled():
        return F.linear(hidden, weight, bias)
    if len(hidden) == 1 and weight.T.is_contiguous():
        return torch.addmm(bias, hidden, weight.T)
    return ONEDNN(hidden, weight, bias, "none", [], "")


def by_columns(weight: Tensor) -> Tensor:
    """The same weight (I, H), in memory (H, I): for few rows, products with it take down to half the time."""
    return weight.T.contiguous().T


def products(precision: str, weight: Tensor, bias: Tensor) -> Plain | Bfloat16:
    """The products in a precision; float64 stays as it is under "auto"."""
    if weight.dtype not in (torch.float32, torch.float64):
        raise InvalidTypeError(
            f"Expected weights in float32 or float64, got {weight.dtype}; precision says what products are computed in."
        )
    precise = precision == "auto" and weight.dtype == torch.float64
    return (Bfloat16 if not precise and in_bfloat16(precision, weight.device) else Plain)(weight, bias)


def in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether a precision is bfloat16; "auto" is where the hardware computes in it."""
    if precision not in PRECISIONS:
        raise UnknownNameError.among("precision", precision, PRECISIONS)
    return precision == "bfloat16" or (precision == "auto" and _computes_bfloat16(device))


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16, rather than turning it into float32 first."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # no public name for these
    )
