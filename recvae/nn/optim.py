"""Optimisation of embedding tables with sparse gradients: row-wise Adam, gradient clipping, coalescing of rows."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from recvae.distributed.communicator import SINGLE_PROCESS, Communicator
from recvae.errors import InvalidParameterError, InvalidTypeError
from recvae.nn.layers import workspace
from recvae.utils.sparse_products import group_offsets, grouped_sums, row_sparse
from recvae.utils.workers import map_pieces

BLOCK = 1 << 20  # elements in a block of rows, so that its update stays in the cache
LEAST_UNIT = 1e-9  # of the unit of second moments: they are rescaled before it gets smaller


class _Uncompiled(Optimizer):
    """An optimizer that is not called from code for `torch.compile`.

    torch wraps these methods for it; the first call of a wrapper imports the compiler, which takes a second and more.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with their own settings."""
        inspect.unwrap(Optimizer.add_param_group)(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or set them to zero."""
        inspect.unwrap(Optimizer.zero_grad)(self, set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The state and the settings, as torch's."""
        state: dict[str, Any] = inspect.unwrap(Optimizer.state_dict)(self)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        inspect.unwrap(Optimizer.load_state_dict)(self, state_dict)


class AdamW(_Uncompiled, torch.optim.AdamW):
    """torch's fused AdamW on a CPU, in blocks of rows that several cores update in parallel; the state is the same."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float):
        super().__init__(params, lr=lr, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient."""
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if closure is not None or any(p.device.type != "cpu" or not p.is_contiguous() for p in parameters):
            return super().step(closure)
        for group in self.param_groups:
            blocks: list[list[Tensor]] = []
            for parameter in group["params"]:
                if parameter.grad is not None:
                    blocks += self._blocks(parameter)
            map_pieces(partial(_update_blocks, group), _shares(blocks))
        return None

    def _blocks(self, parameter: nn.Parameter) -> list[list[Tensor]]:
        """Weights, gradient, both moments and the count of steps of each block of rows."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        step = state["step"].clone()  # each update counts the step
        state["step"] += 1
        assert parameter.grad is not None
        tensors = parameter.detach(), parameter.grad, state["exp_avg"], state["exp_avg_sq"]
        rows = max(1, BLOCK // max(1, parameter[:1].numel())) if parameter.dim() else 1
        if parameter.dim() == 0 or len(parameter) <= rows:
            return [[*tensors, step]]
        blocks = zip(*(tensor.split(rows) for tensor in tensors), strict=True)
        return [[*block, step.clone()] for block in blocks]


def _shares(blocks: list[list[Tensor]]) -> list[list[list[Tensor]]]:
    """Lists of consecutive blocks, each of about `BLOCK` elements."""
    shares: list[list[list[Tensor]]] = []
    size = BLOCK
    for block in blocks:
        if size >= BLOCK:
            shares.append([])
            size = 0
        shares[-1].append(block)
        size += block[0].numel()
    return shares


def _update_blocks(group: dict[str, Any], blocks: list[list[Tensor]]) -> None:
    weights, gradients, moments, squares, steps = (list(tensors) for tensors in zip(*blocks, strict=True))
    beta1, beta2 = group["betas"]
    adamw(
        weights,
        gradients,
        moments,
        squares,
        [],
        steps,
        foreach=False,
        fused=True,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


class RowwiseAdam(_Uncompiled):
    """Adam with one second moment per row, of the mean of its squared gradients, and without a first moment.

        v_t = beta v_{t-1} + (1 - beta) mean(g_t^2),  w_t = w_{t-1} - lr g_t / (sqrt(v_t / (1 - beta^t)) + eps)

    Parameters
    ----------
    params : Iterable[nn.Parameter] or Iterable[dict[str, Any]]
        Tables (I, ...) with one second moment per row; their gradients are sparse over rows, or dense.
    lr : float
        Learning rate.
    beta : float
        Decay of the second moment.
    eps : float
        Added to the root of the second moment.
    weight_decay : float
        A row with a gradient shrinks by lr * weight_decay, apart from its gradient.

    Notes
    -----
    A row that is not in a sparse gradient is not changed in that step, and counts as having a gradient of 0: apart from
    weight decay, a step is the same as with the gradient made dense. Its second moment still decays: the moments of all
    rows are stored in units of a power of beta, whose exponent grows by one with each step, so beta must not change
    during training. A row with a gradient in a share p of the steps moves by up to lr / sqrt(p) in each of them; if the
    other steps did not count, rare rows would move by only lr. There is no first moment, because it would change a row
    in every later step.

    References
    ----------
    Kingma & Ba 2015 with beta_1 = 0; one second moment per row as in FBGEMM's partial row-wise Adam; weight
    decay as Loshchilov & Hutter 2019.
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
        """Add parameters, with their own settings."""
        super().add_param_group(param_group)
        _check(self.param_groups[-1])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient."""
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
        """Load a state dict onto the device of the parameters, except for the step counts, which the host reads."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["step"] = state["step"].cpu()

    def _update(self, table: Tensor, group: dict[str, Any]) -> None:
        grad = table.grad
        assert grad is not None
        if grad.is_sparse:
            rows, grad = coalesced_rows(grad)
        else:
            rows = torch.arange(len(table), device=table.device)
        state = self.state[table] or _begin(self.state[table], table)
        step, unit = _next_step(state, group["beta"])
        if not len(rows):
            return
        factors = _row_factors(grad, rows, step, unit, state["second"], group).view(-1, *[1] * (grad.dim() - 1))
        size = max(1, BLOCK // max(1, grad[0].numel())) if table.device.type == "cpu" else len(rows)

        def update(block: tuple[Tensor, Tensor, Tensor]) -> None:
            rows, grad, factor = block
            out = workspace("change of a table", grad.shape, grad.dtype, grad.device)
            change = torch.mul(grad, factor, out=out)
            if group["weight_decay"]:
                change.sub_(table.index_select(0, rows), alpha=group["lr"] * group["weight_decay"])
            table.index_add_(0, rows, change)

        map_pieces(update, list(zip(rows.split(size), grad.split(size), factors.split(size), strict=True)))


def _begin(state: dict[str, Tensor], table: Tensor) -> dict[str, Tensor]:
    """Initialise the state of a table: no steps, second moments of 0."""
    state["step"] = torch.zeros((), dtype=torch.int64)
    state["second"] = torch.zeros(len(table), dtype=table.dtype, device=table.device)
    return state


def _next_step(state: dict[str, Tensor], beta: float) -> tuple[int, float]:
    """Count a step, which decays the second moments of all rows.

    Stored in units of beta^k after k steps, they need no update; they are rescaled before the unit becomes too small.

    Returns
    -------
    tuple[int, float]
        The number of steps so far, and the unit of second moments.
    """
    state["step"] += 1
    step = int(state["step"])
    span = max(1, int(math.log(LEAST_UNIT) / math.log(beta)))  # steps
    if step % span == 0:
        state["second"].mul_(beta**span)
    return step, beta ** (step % span)


def _row_factors(grad: Tensor, rows: Tensor, step: int, unit: float, moments: Tensor, group: dict[str, Any]) -> Tensor:
    """Update the second moments of `rows`. -> (T,), the factor from each row's gradient to its update"""
    beta = group["beta"]
    second = moments.index_select(0, rows).add_(_mean_squares(grad), alpha=(1 - beta) / unit)  # (T,)
    moments.index_copy_(0, rows, second)
    return -group["lr"] / second.mul_(unit / (1 - beta**step)).sqrt_().add_(group["eps"])


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


@torch.no_grad()
def clip_grad_norm_(
    parameters: Iterable[nn.Parameter],
    max_norm: float,
    cut: Collection[nn.Parameter] = (),
    communicator: Communicator = SINGLE_PROCESS,
) -> Tensor:
    """Scale all gradients by one factor so that their joint norm is `max_norm` at most.

    The same as torch.nn.utils.clip_grad_norm_ on dense gradients. Rows of a sparse gradient with the same index are
    summed first. Parameters in `cut` are sharded: each rank of the `communicator` has some of their rows.

    Returns
    -------
    Tensor
        The norm before clipping.
    """
    sharded = {id(parameter) for parameter in cut}
    gradients, is_sharded = [], []
    for parameter in parameters:
        part = _dense_part(parameter)
        if part is not None:
            gradients.append(part)
            is_sharded.append(id(parameter) in sharded)
    if not gradients:
        return torch.zeros(())
    norms = torch.stack([torch.linalg.vector_norm(part) for part in gradients])
    norm = torch.linalg.vector_norm(norms) if communicator.size == 1 else _joint(norms, is_sharded, communicator)
    factor = (max_norm / (norm + 1e-6)).clamp(max=1)
    for part in gradients:
        part.mul_(factor)
    return norm


def _joint(norms: Tensor, is_sharded: list[bool], communicator: Communicator) -> Tensor:
    """The joint norm of sharded gradients, summed over ranks, and the others, which are the same on each rank."""
    squares, mask = norms.square(), torch.tensor(is_sharded, device=norms.device)
    return (communicator.all_reduce(squares[mask].sum()) + squares[~mask].sum()).sqrt()


def _dense_part(parameter: nn.Parameter) -> Tensor | None:
    """The values of a gradient, to be changed in place; a sparse one is replaced by its coalesced form first."""
    grad = parameter.grad
    if grad is None or not grad.is_sparse:
        return grad
    rows, values = coalesced_rows(grad)
    parameter.grad = row_sparse(rows, values, grad.shape)
    return values


def coalesced_rows(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Coalesce a sparse gradient: distinct ascending row indices (T,), and rows (T, ...), those of equal index summed.

    Autograd does not mark gradients as coalesced, and torch coalesces in a single thread. torch has no public accessor
    for indices and values of an uncoalesced tensor.
    """
    if grad.sparse_dim() != 1:
        raise InvalidTypeError(
            f"Expected a gradient that is sparse over rows, got {grad.sparse_dim()} sparse dimensions."
        )
    rows, values = grad._indices()[0], grad._values()
    if grad.is_coalesced() or bool((rows[1:] > rows[:-1]).all()):
        return rows, values
    rows, order = rows.sort(stable=True)
    distinct_rows, positions = rows.unique_consecutive(return_inverse=True)
    table = values.flatten(1) if values.dim() > 1 else values[:, None]
    shape = len(distinct_rows), table.shape[1]
    out = workspace("coalesced rows of a gradient", shape, values.dtype, values.device, for_step=True)
    starts = group_offsets(positions, len(distinct_rows))
    sums = grouped_sums(table, starts, order, torch.ones_like(table[:, 0]), out)
    return distinct_rows, sums.view(len(distinct_rows), *values.shape[1:])
