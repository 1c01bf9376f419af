"""Tensors of model files: checks of names, types and shapes, and sparse matrices as tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from scipy import sparse
from torch import Tensor, nn

from recvae.data.validation import check_arrays
from recvae.errors import InvalidDataError


def taken(tensors: Mapping[str, Tensor], name: str, shape: tuple[int | None, ...]) -> Tensor:
    """A tensor of a file, checked to be float32 and of this shape (None: any size). Raises InvalidDataError."""
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != torch.float32 or not _fits(tensor, shape):
        raise InvalidDataError(f"Expected {name} of float32 and shape {shape}, got {describe_tensor(tensor)}.")
    return tensor


def fill(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors of a file as weights into a network on the meta device, which has no memory yet.

    Raises
    ------
    InvalidDataError
        If names, shapes or types differ; it is raised before anything is allocated.
    """
    wanted = network.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        got, expected = tensors.get(name), wanted.get(name)
        if got is None or expected is None or got.shape != expected.shape or got.dtype != expected.dtype:
            raise InvalidDataError(f"Expected {describe_tensor(expected)} as {name}, got {describe_tensor(got)}.")
    network.load_state_dict(tensors, assign=True)


def csr_tensors(matrix: sparse.csr_matrix) -> dict[str, Tensor]:
    """A sparse matrix as tensors of a file."""
    return {name: torch.from_numpy(getattr(matrix, name)) for name in ("data", "indices", "indptr")}


def csr_from(tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> sparse.csr_matrix:
    """The inverse of `csr_tensors`. Raises InvalidDataError where indices point outside of the matrix."""
    data = taken(tensors, "data", (None,))
    indices, indptr = (tensors.get(name, torch.empty(0)) for name in ("indices", "indptr"))
    arrays = data.numpy(), indices.numpy(), indptr.numpy()
    check_arrays(*arrays, shape, "the sparse matrix of the file")
    return sparse.csr_matrix(arrays, shape=shape)


def scalar(tensors: Mapping[str, Tensor], name: str) -> float:
    """A number of a file: a zero-dimensional float64 tensor. Raises InvalidDataError."""
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != torch.float64 or tensor.dim():
        raise InvalidDataError(f"Expected {name} as one number of float64, got {describe_tensor(tensor)}.")
    return float(tensor)


def _fits(tensor: Tensor, shape: tuple[int | None, ...]) -> bool:
    return tensor.dim() == len(shape) and all(n in (None, m) for n, m in zip(shape, tensor.shape, strict=True))


def describe_tensor(tensor: Tensor | None) -> str:
    """Type and shape of a tensor, for messages."""
    return "nothing" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
