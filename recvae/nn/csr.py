"""Sparse CSR tensors, whose products torch has."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

with warnings.catch_warnings():  # torch says once that CSR tensors are in beta
    warnings.simplefilter("ignore", UserWarning)
    torch.sparse_csr_tensor([0], [], [], (0, 1), check_invariants=False)


def csr(rows: Tensor, columns: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    """A CSR tensor from cells (E,) that are in the order of their rows. Indices are int32, with which it is faster."""
    return torch.sparse_csr_tensor(
        starts(rows, shape[0]).int(), columns.int(), values, tuple(shape), check_invariants=False
    )


def products_at(rows: Tensor, columns: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Cells (E,), in the order of their rows, of the product (B, H) (I, H)^T, whose others are never computed.

    `right` by rows: of one by columns torch would copy all.
    """
    cells = csr(rows, columns, left.new_zeros(len(rows)), (len(left), len(right)))
    return torch.sparse.sampled_addmm(cells, left, right.T, beta=0).values()


def starts(groups: Tensor, n_groups: int) -> Tensor:
    """Where each group begins in a list of members, given the groups of these in order. -> (n_groups + 1,)"""
    return torch.searchsorted(groups, torch.arange(n_groups + 1, dtype=groups.dtype, device=groups.device))


def row_sparse(rows: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor that is zero but in some rows (T,), distinct and ascending, which have these values (T, ...)."""
    return torch.sparse_coo_tensor(rows.long()[None], values, tuple(shape), check_invariants=False, is_coalesced=True)
