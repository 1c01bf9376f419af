"""What new items begin with in a model that has learned without them, from the items that they are alike."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.nn.growing import ItemVectors, mean_where_unknown
from recvae.utils.memory import require_memory
from recvae.utils.topk import top_k

NEIGHBOURS = 20  # old items that a new one begins as a mean of
BLOCK = 256  # new items at a time


def alike(new: sparse.csr_matrix, old: sparse.csr_matrix) -> sparse.csr_matrix:
    """Shares of the old items that each new one is nearest to, by the cosines of rows: of users, or of features.

    Parameters
    ----------
    new : sparse.csr_matrix
        (n, M).
    old : sparse.csr_matrix
        (I, M).

    Returns
    -------
    sparse.csr_matrix
        (n, I): positive, `NEIGHBOURS` in a row at most, which sum to 1; a row without any is of an item of which
        nothing is known.
    """
    old = _unit_rows(old).T.tocsr()
    found = [sparse.csr_matrix((0, old.shape[1]), dtype=np.float32)]
    for start in range(0, new.shape[0], BLOCK):
        similar = (new[start : start + BLOCK] @ old).toarray().astype(np.float32, copy=False)
        ids, values = (part.numpy() for part in top_k(torch.from_numpy(similar), NEIGHBOURS))
        values = np.where(values > 0, values, 0)
        starts = np.arange(0, values.size + 1, values.shape[1])
        found.append(sparse.csr_matrix((values.ravel(), ids.ravel(), starts), shape=similar.shape))
    shares = sparse.vstack(found).tocsr()
    shares.eliminate_zeros()
    sums = np.maximum(np.asarray(shares.sum(axis=1)).ravel(), np.finfo(np.float32).tiny)
    shares.data /= np.repeat(sums, np.diff(shares.indptr)).astype(np.float32)
    shares.sort_indices()
    return shares


def by_neighbours(old: ItemVectors, shares: sparse.csr_matrix, counts: NDArray[np.int64]) -> ItemVectors:
    """Vectors of new items: the weighted means of those that they are `alike`, and a bias by popularity.

    The bias is what the old items' is in the mean at that popularity: least squares on log(1 + users), within their
    range. An item that is like none has the mean of all vectors, and the lowest bias.

    Parameters
    ----------
    shares : sparse.csr_matrix
        (n, I).
    counts : NDArray[np.int64]
        (I + n,) users of each item in the rows that the new items come with.
    """
    n_items = len(old.bias)
    x, bias = np.log1p(counts.astype(np.float64)), old.bias.numpy().astype(np.float64)
    off = x[:n_items] - x[:n_items].mean()
    slope = off @ bias / max(float(off @ off), 1e-9)
    start = np.clip(bias.mean() + slope * (x[n_items:] - x[:n_items].mean()), bias.min(), bias.max())
    first, last = (torch.from_numpy((shares @ part.numpy()).astype(np.float32)) for part in (old.first, old.last))
    return mean_where_unknown(ItemVectors(first, last, torch.from_numpy(start.astype(np.float32))), old, shares)


def wider_path(weights: Tensor | sparse.csr_matrix, shares: sparse.csr_matrix, keep: int) -> Tensor | sparse.csr_matrix:
    """Weights of a linear path (I, I) with rows and columns of new items, means of those that they are alike.

    The diagonal is zero.

    Parameters
    ----------
    shares : sparse.csr_matrix
        (n, I).
    keep : int
        How many of a new item's weights a sparse path has, the largest.

    Returns
    -------
    Tensor or sparse.csr_matrix
        (I + n, I + n), of the kind it got.

    Raises
    ------
    NotEnoughMemoryError
    """
    n_items, n_all = shares.shape[1], sum(shares.shape)
    if not isinstance(weights, Tensor):
        rows, columns = _largest(shares @ weights, keep), _largest(shares @ weights.T.tocsr(), keep)
        corner = _largest(shares @ columns.T.tocsr(), keep)
        grown = sparse.bmat([[weights, columns.T], [rows, corner]], format="coo", dtype=np.float32)
        off = grown.row != grown.col
        return sparse.csr_matrix((grown.data[off], (grown.row[off], grown.col[off])), shape=(n_all, n_all))
    require_memory(4 * n_all**2, f"the {n_all:,} x {n_all:,} weights of items on items", 'form="sparse"')
    made = np.zeros((n_all, n_all), dtype=np.float32)
    made[:n_items, :n_items] = weights.numpy()
    made[n_items:, :n_items] = shares @ made[:n_items, :n_items]
    made[:, n_items:] = (shares @ made[:, :n_items].T).T
    np.fill_diagonal(made, 0)
    return torch.from_numpy(made)


def _unit_rows(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    return sparse.diags(1 / np.maximum(norms, 1e-30)) @ rows


def _largest(rows: sparse.csr_matrix, keep: int) -> sparse.csr_matrix:
    """The entries of each row that are largest by magnitude."""
    rows = sparse.csr_matrix(rows)
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((-np.abs(rows.data), row))
    chosen = order[np.arange(len(order)) - rows.indptr[row] < keep]
    return sparse.csr_matrix((rows.data[chosen], (row[chosen], rows.indices[chosen])), shape=rows.shape)
