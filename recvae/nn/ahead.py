"""Gradients formed in the forward pass, while what they are made of is at hand, for a loss that is a mean."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Formed(Protocol):
    """Gradients of a sum of nll over users, each with its weight."""

    def all(self, scale: Tensor | None = None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Of hidden states, weight and bias, times a number; None where nobody learns from it."""
        ...


class Compute(Protocol):
    """A likelihood of some rows given the last hidden state and the output layer."""

    def __call__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, users: Tensor | None
    ) -> tuple[Tensor, Formed | None]:
        """nll (B,), and its gradients where `users` (B,) gives the weight of each user in a loss."""
        ...


def nll_formed_ahead(compute: Compute, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """-log p(x | z) of each user, with gradients where they are wanted. -> (B,)"""
    hidden = hidden.to(weight.dtype)
    if not len(hidden):
        return hidden.sum(1)
    if not (torch.is_grad_enabled() and any(part.requires_grad for part in (hidden, weight, bias))):
        return compute(hidden, weight, bias, None)[0]
    nll: Tensor = _Ahead.apply(compute, hidden, weight, bias)  # type: ignore[no-untyped-call]
    return nll


class _Ahead(torch.autograd.Function):
    """For any other weights than the mean's, and if asked for once more, backward computes the gradients anew.

    But where to look at the weights would halt the device, there must be one weight for all.
    """

    @staticmethod
    def forward(ctx: Any, compute: Compute, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mean = hidden.new_full((len(hidden),), 1 / len(hidden))
        nll, ctx.formed = compute(hidden, weight, bias, mean)
        ctx.save_for_backward(hidden, weight, bias, mean)
        ctx.compute = compute
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, mean = ctx.saved_tensors
        formed, ctx.formed = ctx.formed, None  # handed out, not kept: who gets them may change them
        if formed is not None and grad.device.type != "cpu":
            # to look at the weights would halt the device: where they are not all alike, the gradients are NaN
            scale = torch.where((grad == grad[:1]).all(), grad[0] / mean[0], torch.nan)
            return None, *formed.all(scale)
        if formed is None or not torch.equal(grad, mean):
            _, formed = ctx.compute(hidden, weight, bias, grad)
        return None, *formed.all()
