"""The inverse of a symmetric positive definite matrix in place, by blocks that several cores compute in parallel."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from recvae.utils.workers import map_pieces, use_workers

BLOCK = 1024  # rows and columns of a block


def invert_definite(matrix: Tensor) -> Tensor | None:
    """Invert a symmetric positive definite matrix (n, n) in place; apart from it, blocks alone are allocated.

    The cut depends on n alone, so that the result does not depend on the number of cores. Only the lower triangle is
    read.

    Parameters
    ----------
    matrix
        (n, n), contiguous, float32 or float64.

    Returns
    -------
    Tensor or None
        (n,) the diagonal of its Cholesky factor; None if it is not positive definite, which destroys the matrix.

    References
    ----------
    Golub & Van Loan, "Matrix Computations", section 4.2: A = L L^T, W = L^-1, A^-1 = W^T W.
    """
    n = len(matrix)
    count = max(1, -(-n // BLOCK))
    cuts = list(itertools.pairwise(n * k // count for k in range(count + 1)))
    blocks = [[matrix[a:b, c:d] for c, d in cuts] for a, b in cuts]
    with torch.no_grad(), use_workers():
        if not _factor(blocks):
            return None
        diagonal = matrix.diagonal().clone()
        _write_inverse(blocks, _invert_factor(blocks))
    return diagonal


def _factor(blocks: list[list[Tensor]]) -> bool:
    """L in the lower triangle, column by column of blocks. -> whether the matrix is positive definite"""
    count = len(blocks)
    for k in range(count):
        factor, failed = torch.linalg.cholesky_ex(blocks[k][k])
        if failed.item():
            return False
        blocks[k][k].copy_(factor)

        def divide(i: int, k: int = k, factor: Tensor = factor) -> None:  # L_ik = A_ik L_kk^-T
            blocks[i][k].copy_(torch.linalg.solve_triangular(factor.mT, blocks[i][k], upper=True, left=False))

        def subtract(pair: tuple[int, int], k: int = k) -> None:  # A_ij - L_ik L_jk^T
            i, j = pair
            blocks[i][j].addmm_(blocks[i][k], blocks[j][k].mT, alpha=-1)

        rest = range(k + 1, count)
        map_pieces(divide, rest)
        map_pieces(subtract, [(i, j) for i in rest for j in rest if j <= i])
    return True


def _invert_factor(blocks: list[list[Tensor]]) -> list[Tensor]:
    """W^T in the blocks above the diagonal. -> W in the blocks on the diagonal"""
    count = len(blocks)

    def column(j: int) -> Tensor:
        inverse: dict[int, Tensor] = {}  # i -> W_ij = -L_ii^-1 sum_k L_ik W_kj, and W_jj = L_jj^-1
        for i in range(j, count):
            factor = blocks[i][i]
            if i == j:
                right = torch.eye(len(factor), dtype=factor.dtype)
            else:
                right = blocks[i][j] @ inverse[j]
                for k in range(j + 1, i):
                    right.addmm_(blocks[i][k], inverse[k])
                right.neg_()
            inverse[i] = torch.linalg.solve_triangular(factor, right, upper=False)
            if i > j:
                blocks[j][i].copy_(inverse[i].mT)
        return inverse[j]

    return map_pieces(column, range(count))


def _write_inverse(blocks: list[list[Tensor]], diagonal: list[Tensor]) -> None:
    """W^T W in all blocks, from W^T above the diagonal and the `diagonal` blocks of W."""
    count = len(blocks)

    def transposed(i: int, k: int) -> Tensor:  # (W_ki)^T, k >= i
        return diagonal[i].mT if i == k else blocks[i][k]

    def product(pair: tuple[int, int]) -> None:  # sum_{k >= i} W_ki^T W_kj, j <= i
        i, j = pair
        total = transposed(i, i) @ transposed(j, i).mT
        for k in range(i + 1, count):
            total.addmm_(transposed(i, k), transposed(j, k).mT)
        blocks[i][j].copy_(total)  # the factor there is no longer needed

    def mirror(pair: tuple[int, int]) -> None:
        i, j = pair
        if i == j:
            lower = blocks[i][i].tril()
            blocks[i][i].copy_(lower + lower.tril(-1).mT)
        else:
            blocks[j][i].copy_(blocks[i][j].mT)

    pairs = [(i, j) for i in range(count) for j in range(i + 1)]
    map_pieces(product, pairs)
    map_pieces(mirror, pairs)
