"""Products with sparse weights, in pieces that several cores compute in parallel."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from recvae.utils.workers import ITEMS, USERS, cut, map_pieces

with warnings.catch_warnings():  # torch warns once that CSR tensors are in beta
    warnings.simplefilter("ignore", UserWarning)
    torch.sparse_csr_tensor([0], [], [], (0, 1), check_invariants=False)


def weighted_sums(table: Tensor, indices: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
    """Weighted sums of rows of a table, one per bag; bag i is indices[offsets[i] : offsets[i + 1]]."""

    def bags(piece: slice) -> Tensor:
        bounds = offsets[piece.start : piece.stop + 1]
        events = slice(int(bounds[0]), int(bounds[-1]))
        return bag_sums(table, indices[events], bounds - bounds[0], values[events])

    pieces = cut(len(offsets) - 1, USERS, table.device)
    if len(pieces) == 1:
        return bag_sums(table, indices, offsets, values)
    return torch.cat(map_pieces(bags, pieces))


def bag_sums(table: Tensor, indices: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
    """`weighted_sums` of one piece."""
    return F.embedding_bag(
        indices,
        table,
        offsets.to(indices.dtype),
        mode="sum",
        per_sample_weights=values,
        include_last_offset=True,
    )


def grouped_sums(table: Tensor, offsets: Tensor, indices: Tensor, values: Tensor, out: Tensor) -> Tensor:
    """`weighted_sums` of rows of a small table (B, H) for many groups, on a CPU as a sparse product. -> (n_groups, H)

    There they are written into `out`.
    """
    if table.device.type != "cpu":
        return weighted_sums(table, indices, offsets, values)
    offsets, indices = offsets.int(), indices.int()

    def rows_of_piece(piece: slice) -> None:
        events = slice(int(offsets[piece.start]), int(offsets[piece.stop]))
        bounds = offsets[piece.start : piece.stop + 1] - events.start
        shape = piece.stop - piece.start, len(table)
        sums = torch.sparse_csr_tensor(bounds, indices[events], values[events], shape, check_invariants=False)
        torch.addmm(out[piece], sums, table, beta=0, out=out[piece])

    map_pieces(rows_of_piece, cut(len(out), ITEMS))
    return out


def products_at(rows: Tensor, columns: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Entries (E,), ordered by row, of the product (B, H) (I, H)^T; the others are never computed.

    `right` has to be row-major: torch would copy a column-major one.
    """
    cells = csr(rows, columns, left.new_zeros(len(rows)), (len(left), len(right)))
    return torch.sparse.sampled_addmm(cells, left, right.T, beta=0).values()


def csr(rows: Tensor, columns: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    """A CSR tensor from entries (E,) sorted by row. Its indices are int32, which is faster than int64."""
    return torch.sparse_csr_tensor(
        group_offsets(rows, shape[0]).int(), columns.int(), values, tuple(shape), check_invariants=False
    )


def row_sparse(rows: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    """A coalesced sparse tensor with `values` (T, ...) in `rows` (T,), which are distinct and ascending."""
    return torch.sparse_coo_tensor(rows.long()[None], values, tuple(shape), check_invariants=False, is_coalesced=True)


def group_offsets(groups: Tensor, n_groups: int) -> Tensor:
    """Start of each group in a list sorted by group, from the group of each member. -> (n_groups + 1,)"""
    return torch.searchsorted(groups, torch.arange(n_groups + 1, dtype=groups.dtype, device=groups.device))
