"""Gradients made shorter where some are sparse over rows: torch's own clipping knows dense ones only."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from recvae.distributed.communicator import SINGLE_PROCESS, Communicator
from recvae.nn.csr import row_sparse
from recvae.nn.touched import merged


@torch.no_grad()
def clip_grad_norm_(
    parameters: Iterable[nn.Parameter],
    max_norm: float,
    cut: Collection[nn.Parameter] = (),
    communicator: Communicator = SINGLE_PROCESS,
) -> Tensor:
    """Scale all gradients by one factor so that their joint norm is `max_norm` at most.

    As torch.nn.utils.clip_grad_norm_ does it on dense gradients. Of a sparse one, rows that met are summed first. Of
    parameters that are `cut`, each rank of the `communicator` has some rows.

    Returns
    -------
    Tensor
        The norm that they had.
    """
    apart = {id(parameter) for parameter in cut}
    gradients, own = [], []
    for parameter in parameters:
        part = _dense_part(parameter)
        if part is not None:
            gradients.append(part)
            own.append(id(parameter) in apart)
    if not gradients:
        return torch.zeros(())
    norms = torch.stack([torch.linalg.vector_norm(part) for part in gradients])
    norm = torch.linalg.vector_norm(norms) if communicator.size == 1 else _joint(norms, own, communicator)
    factor = (max_norm / (norm + 1e-6)).clamp(max=1)
    for part in gradients:
        part.mul_(factor)
    return norm


def _joint(norms: Tensor, own: list[bool], communicator: Communicator) -> Tensor:
    """Norm of all, of which some are a rank's own rows and the others are the same on each rank."""
    squares, theirs = norms.square(), torch.tensor(own, device=norms.device)
    return (communicator.all_reduce(squares[theirs].sum()) + squares[~theirs].sum()).sqrt()


def _dense_part(parameter: nn.Parameter) -> Tensor | None:
    """The memory in which a gradient is."""
    grad = parameter.grad
    if grad is None or not grad.is_sparse:
        return grad
    rows, values = merged(grad)
    parameter.grad = row_sparse(rows, values, grad.shape)
    return values
