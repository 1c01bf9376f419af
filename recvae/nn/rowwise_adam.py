"""Adam for tables of which a step touches few rows: it reads and writes those only, and keeps less."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from recvae.errors import InvalidParameterError
from recvae.nn.touched import merged

BLOCK = 1 << 15  # numbers of a block of rows: it stays in the cache, and torch does not hand it out to several threads


class RowwiseAdam(Optimizer):
    """Adam whose second moment is one number for each row: the mean of the row's squared gradients.

    params : tables (I, ...), of which a row has a state of its own; their gradients are sparse over rows or dense
    lr : learning rate
    betas : decay of the two moments; with 0 as the first there is no first moment, so that all that is kept of a row is
        two numbers
    eps : added to the root of the second moment
    weight_decay : a touched row shrinks by lr * weight_decay, apart from its gradient

    A row that is not in a sparse gradient is left alone, with its moments and its count of updates, by which they are
    corrected: an update is as if steps without the row had not been. A dense gradient touches all rows.
    Source: Kingma & Ba 2015; one second moment for a row as the partial row-wise Adam of FBGEMM; decay as Loshchilov &
    Hutter 2019.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Some more parameters, with what settings they have of their own."""
        super().add_param_group(param_group)
        _check(self.param_groups[-1])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the gradients that are there."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update(table, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` gave, moved to where the parameters are."""
        super().load_state_dict(state_dict)
        for table, state in self.state.items():
            state["step"] = state["step"].to(table.device)

    def _update(self, table: Tensor, group: dict[str, Any]) -> None:
        grad = table.grad
        assert grad is not None
        if grad.is_sparse:
            rows, grad = merged(grad)
        else:
            rows = torch.arange(len(table), device=table.device)
        if not len(rows):
            return
        state = self.state[table] or _begin(self.state[table], table, group["betas"][0])
        factor = _row_factors(grad, rows, state, group)
        size = max(1, BLOCK // max(1, grad[0].numel())) if table.device.type == "cpu" else len(rows)
        for here, part, by_row in zip(rows.split(size), grad.split(size), factor.split(size), strict=True):
            _move(table, here, part, by_row, state.get("first"), group)


def _begin(state: dict[str, Tensor], table: Tensor, beta: float) -> dict[str, Tensor]:
    """Nothing was seen yet."""
    # torch leaves what has this name in its own type when it loads
    state["step"] = torch.zeros(len(table), dtype=torch.int32, device=table.device)
    state["second"] = torch.zeros(len(table), dtype=table.dtype, device=table.device)
    if beta:
        state["first"] = torch.zeros_like(table)
    return state


def _row_factors(grad: Tensor, rows: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    """By what each row's first moment, or its gradient, is multiplied, after second moment and count. -> (T,)"""
    (beta1, beta2), dtype = group["betas"], grad.dtype
    count = state["step"].index_select(0, rows).add_(1)  # (T,)
    state["step"].index_copy_(0, rows, count)
    second = state["second"].index_select(0, rows).lerp_(_mean_squares(grad), 1 - beta2)  # (T,)
    state["second"].index_copy_(0, rows, second)
    root = second.div_(_seen(beta2, count, dtype)).sqrt_().add_(group["eps"])
    return -group["lr"] / root.mul_(_seen(beta1, count, dtype))


def _move(
    table: Tensor, rows: Tensor, grad: Tensor, factor: Tensor, moment: Tensor | None, group: dict[str, Any]
) -> None:
    """Some rows of a table, and of its first moment where there is one."""
    if moment is not None:
        first = moment.index_select(0, rows).lerp_(grad, 1 - group["betas"][0])
        moment.index_copy_(0, rows, first)
        grad = first
    new = table.index_select(0, rows)
    if group["weight_decay"]:
        new.mul_(1 - group["lr"] * group["weight_decay"])
    new.addcmul_(grad, factor.view(-1, *[1] * (grad.dim() - 1)))
    table.index_copy_(0, rows, new)


def _mean_squares(grad: Tensor) -> Tensor:  # (T, ...) -> (T,)
    if grad.dim() == 1:
        return grad.square()
    width = max(1, grad[0].numel())
    return torch.linalg.vector_norm(grad.flatten(1), dim=1).square_().div_(width)


def _seen(beta: float, count: Tensor, dtype: torch.dtype) -> Tensor:
    """1 - beta^count, the weight of all that a moment has seen."""
    if not beta:
        return torch.ones_like(count, dtype=dtype)
    return torch.expm1(count.to(dtype) * math.log(beta)).neg_()


def _check(group: dict[str, Any]) -> None:
    for name in ("lr", "weight_decay", "eps"):
        if not 0 <= group[name] < math.inf:
            raise InvalidParameterError(f"Expected {name} of 0 or more, got {group[name]!r}.")
    if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
        raise InvalidParameterError(f"Expected two betas from 0 up to but not 1, got {group['betas']!r}.")
    if any(not table.dim() for table in group["params"]):
        raise InvalidParameterError("Expected parameters that have rows, got one that is a single number.")
