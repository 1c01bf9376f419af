"""Optimisation of tables of which a step touches few rows: row-wise Adam, clipping, and the gradients of such steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from recvae.distributed.communicator import SINGLE_PROCESS, Communicator
from recvae.errors import InvalidParameterError, InvalidTypeError
from recvae.nn.layers import grouped_sums, row_sparse, workspace

BLOCK = 1 << 20  # numbers of a block of rows, whose changes stay in the cache
LEAST_UNIT = 1e-9  # of second moments: before it would be smaller, they are rescaled


class RowwiseAdam(Optimizer):
    """Adam whose second moment is one number for each row, the mean of the row's squared gradients, and no first one.

        v_t = beta v_{t-1} + (1 - beta) mean(g_t^2),  w_t = w_{t-1} - lr g_t / (sqrt(v_t / (1 - beta^t)) + eps)

    Parameters
    ----------
    params : Iterable[nn.Parameter] or Iterable[dict[str, Any]]
        Tables (I, ...), of which a row has a state of its own; their gradients are sparse over rows or dense.
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
    A row that is not in a sparse gradient is left alone, and has a gradient of 0 in that step: steps on sparse
    gradients are those on the same ones made dense, but for weight decay. Its second moment decays all the same, for
    those of all rows are kept in units of a power of beta, which grows by one with each step; so beta is not to be
    changed on the way. A row that is touched in a share p of the steps moves by up to lr / sqrt(p) in each; were steps
    without it not counted, rare rows would learn by as much less. A first moment would have to be added to the row in
    all steps after.

    References
    ----------
    Kingma & Ba 2015 with a first decay of 0; one second moment for a row as in FBGEMM's partial row-wise Adam; weight
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
        """One update from the gradients of the parameters that have one."""
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
        """Load what `state_dict` gave, moved to where the parameters are, but for the steps: the host reads these."""
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
        for block, part, factor in zip(rows.split(size), grad.split(size), factors.split(size), strict=True):
            out = workspace("change of a table", part.shape, part.dtype, part.device)
            change = torch.mul(part, factor, out=out)
            if group["weight_decay"]:
                change.sub_(table.index_select(0, block), alpha=group["lr"] * group["weight_decay"])
            table.index_add_(0, block, change)


def _begin(state: dict[str, Tensor], table: Tensor) -> dict[str, Tensor]:
    """Nothing was seen yet."""
    state["step"] = torch.zeros((), dtype=torch.int64)
    state["second"] = torch.zeros(len(table), dtype=table.dtype, device=table.device)
    return state


def _next_step(state: dict[str, Tensor], beta: float) -> tuple[int, float]:
    """Counts a step, in which all second moments decay.

    In units of beta^k after k steps they stay the same numbers; all are rescaled before that becomes too small.

    Returns
    -------
    tuple[int, float]
        How many there were, and the unit of second moments.
    """
    state["step"] += 1
    step = int(state["step"])
    span = max(1, int(math.log(LEAST_UNIT) / math.log(beta)))  # steps
    if step % span == 0:
        state["second"].mul_(beta**span)
    return step, beta ** (step % span)


def _row_factors(grad: Tensor, rows: Tensor, step: int, unit: float, moments: Tensor, group: dict[str, Any]) -> Tensor:
    """By what each row's gradient is multiplied, after its second moment. -> (T,)"""
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

    As torch.nn.utils.clip_grad_norm_ does it on dense gradients. Of a sparse one, rows of one index are summed first.
    Of parameters that are `cut`, each rank of the `communicator` has some rows.

    Returns
    -------
    Tensor
        The norm that they had.
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
    """Norm of all, of which some are a rank's own rows and the others are the same on each rank."""
    squares, mask = norms.square(), torch.tensor(is_sharded, device=norms.device)
    return (communicator.all_reduce(squares[mask].sum()) + squares[~mask].sum()).sqrt()


def _dense_part(parameter: nn.Parameter) -> Tensor | None:
    """The memory in which a gradient is."""
    grad = parameter.grad
    if grad is None or not grad.is_sparse:
        return grad
    rows, values = coalesced_rows(grad)
    parameter.grad = row_sparse(rows, values, grad.shape)
    return values


def coalesced_rows(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (T,) of a sparse gradient's rows, distinct and ascending, and the rows (T, ...), equal indices summed.

    Gradients come out of autograd without the mark that they are coalesced, and torch coalesces in one thread. Of such
    a tensor torch has no public name for indices and values.
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
    sums = grouped_sums(table, positions, order, torch.ones_like(table[:, 0]), out)
    return distinct_rows, sums.view(len(distinct_rows), *values.shape[1:])
