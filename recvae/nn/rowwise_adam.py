"""Adam for tables of which a step touches few rows: it reads and writes those only, and keeps two numbers of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from recvae.errors import InvalidParameterError
from recvae.nn.touched import merged

BLOCK = 1 << 18  # numbers of a block of rows: it stays in the cache


class RowwiseAdam(Optimizer):
    """Adam whose second moment is one number for each row, the mean of the row's squared gradients, and no first one.

        v_t = beta v_{t-1} + (1 - beta) mean(g_t^2),  w_t = w_{t-1} - lr g_t / (sqrt(v_t / (1 - beta^t)) + eps)

    params : tables (I, ...), of which a row has a state of its own; their gradients are sparse over rows or dense
    lr : learning rate
    beta : decay of the second moment
    eps : added to the root of the second moment
    weight_decay : a touched row shrinks by lr * weight_decay, apart from its gradient

    A row that is not in a sparse gradient is left alone, and has a gradient of 0 in that step: its second moment is
    caught up with when it is touched again, so that steps on sparse gradients are those on the same gradients made
    dense, but for weight decay. So a row that is touched in a share p of the steps moves by up to lr / sqrt(p) in each;
    were steps without it not counted, rare rows would learn by as much less. A first moment would have to be added to
    the row in all steps after.

    Source: Kingma & Ba 2015 with a first decay of 0; one second moment for a row as in FBGEMM's partial row-wise Adam;
    weight decay as Loshchilov & Hutter 2019.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        beta: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "beta": beta, "eps": eps, "weight_decay": weight_decay})

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
        tables = [table for group in self.param_groups for table in group["params"]]
        for index, state in state_dict["state"].items():  # torch makes floats of whole numbers
            self.state[tables[index]]["last"] = state["last"].to(tables[index].device, copy=True)

    def _update(self, table: Tensor, group: dict[str, Any]) -> None:
        grad = table.grad
        assert grad is not None
        if grad.is_sparse:
            rows, grad = merged(grad)
        else:
            rows = torch.arange(len(table), device=table.device)
        state = self.state[table] or _begin(self.state[table], table)
        state["step"] += 1
        if not len(rows):
            return
        size = max(1, BLOCK // max(1, grad[0].numel())) if table.device.type == "cpu" else len(rows)
        for here, part in zip(rows.split(size), grad.split(size), strict=True):
            factor = _row_factors(part, here, state, group).view(-1, *[1] * (part.dim() - 1))
            change = part * factor
            if group["weight_decay"]:
                change.sub_(table.index_select(0, here), alpha=group["lr"] * group["weight_decay"])
            table.index_add_(0, here, change)


def _begin(state: dict[str, Tensor], table: Tensor) -> dict[str, Tensor]:
    """Nothing was seen yet. `last` is the step that touched a row."""
    state["step"] = torch.zeros((), dtype=torch.int64)
    state["last"] = torch.zeros(len(table), dtype=torch.int32, device=table.device)
    state["second"] = torch.zeros(len(table), dtype=table.dtype, device=table.device)
    return state


def _row_factors(grad: Tensor, rows: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    """By what each row's gradient is multiplied, after its second moment. -> (T,)"""
    step, beta = int(state["step"]), group["beta"]
    since = step - state["last"].index_select(0, rows)  # (T,)
    state["last"].index_fill_(0, rows, step)
    kept = since.to(grad.dtype).mul_(math.log(beta)).exp_()
    second = state["second"].index_select(0, rows).mul_(kept).add_(_mean_squares(grad), alpha=1 - beta)  # (T,)
    state["second"].index_copy_(0, rows, second)
    return -group["lr"] / second.div_(1 - beta**step).sqrt_().add_(group["eps"])


def _mean_squares(grad: Tensor) -> Tensor:  # (T, ...) -> (T,)
    if grad.dim() == 1:
        return grad.square()
    width = max(1, grad[0].numel())
    return torch.linalg.vector_norm(grad.flatten(1), dim=1).square_().div_(width)


def _check(group: dict[str, Any]) -> None:
    for name in ("lr", "weight_decay", "eps"):
        if not 0 <= group[name] < math.inf:
            raise InvalidParameterError(f"Expected {name} of 0 or more, got {group[name]!r}.")
    if not 0 < group["beta"] < 1:
        raise InvalidParameterError(f"Expected a beta between 0 and 1, got {group['beta']!r}.")
    if any(not table.dim() for table in group["params"]):
        raise InvalidParameterError("Expected parameters that have rows, got one that is a single number.")
