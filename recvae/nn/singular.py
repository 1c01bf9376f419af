"""The leading singular vectors of rows of events, scaled by how many each user and each item has."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.shards import Shards
from recvae.utils.sparse_products import weighted_sums

ITERATIONS = 4  # of the subspace iteration
OVERSAMPLING = 20  # vectors that are computed in addition to the leading ones


def singular_vectors(rows: sparse.csr_matrix, k: int) -> tuple[Tensor, Tensor]:
    """The leading right singular vectors of rows (U, I), and their values, by subspace iteration. -> (I, k), (k,)

    References
    ----------
    Halko, Martinsson & Tropp, "Finding Structure with Randomness", SIAM Review 2011, algorithms 4.4 and 5.1.
    """
    n_users, n_items = rows.shape
    columns = rows.T.tocsr()
    shape = n_items, min(k + OVERSAMPLING, n_users, n_items)
    basis = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    for _ in range(ITERATIONS):
        basis, _ = torch.linalg.qr(_product(columns, _product(rows, basis)))  # (I, P)
    images = _product(rows, basis).double()  # (U, P)
    squares, turn = torch.linalg.eigh(images.T @ images)  # ascending
    return basis @ turn.flip(1)[:, :k].float(), squares.flip(0)[:k].clamp(min=0).sqrt().float()


def item_scale(rows: sparse.csr_matrix, power: float = 0.5) -> NDArray[np.float32]:
    """n_i^-power; 0 for items without users. -> (I,)"""
    counts = np.bincount(rows.indices, minlength=rows.shape[1]).astype(np.float32)
    return np.divide(1, counts**power, out=np.zeros_like(counts), where=counts > 0)


def scaled(rows: sparse.csr_matrix, scale: NDArray[np.float32], user_power: float = 0.5) -> sparse.csr_matrix:
    """n_u^-user_power x_ui s_i of rows (U, I) whose events count as 1, with the scale s (I,) of items."""
    lengths = np.diff(rows.indptr)
    data = np.repeat(np.maximum(lengths, 1).astype(np.float32) ** -user_power, lengths) * scale[rows.indices]
    return sparse.csr_matrix((data, rows.indices, rows.indptr), shape=rows.shape)


def some_users(rows: sparse.csr_matrix | Shards, n: int) -> sparse.csr_matrix:
    """At most n users, the same ones each time, in memory."""
    n_users = rows.shape[0]
    chosen = np.sort(np.random.default_rng(1).permutation(n_users)[:n])
    if isinstance(rows, Shards):
        return rows.take(chosen)
    return rows if n_users <= n else rows[chosen]


def _product(rows: sparse.csr_matrix, table: Tensor) -> Tensor:
    """(U, I) (I, P) -> (U, P)"""
    # memory maps may be read-only, of which torch warns
    parts = (rows.indices, rows.indptr, rows.data)
    indices, offsets, values = (torch.from_numpy(part if part.flags.writeable else part.copy()) for part in parts)
    # QR gives a matrix by columns, whose rows are gathered at a thirtieth of the speed
    return weighted_sums(table.contiguous(), indices, offsets, values)
