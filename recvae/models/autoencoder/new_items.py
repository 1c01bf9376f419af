"""Vectors of new items for a trained network: means of similar items, or a ridge regression on item features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import svd
from torch import Tensor

from recvae.models.autoencoder.scoring import network_scores
from recvae.nn import VAE
from recvae.nn.item_vectors import ItemVectors, add_items, item_vectors, mean_where_unknown
from recvae.utils.memory import require_memory
from recvae.utils.topk import top_k

NEIGHBOURS = 20  # old items of which a new item's vector is the mean
BLOCK = 256  # new items at a time
PENALTIES = 10.0 ** np.arange(-4, 2.5, 0.5)  # of the ridge regression, in units of the features' mean variance
PROBES = 256  # approximate number of one-item users with whom the bias is corrected

Array = NDArray[np.float64]


def neighbour_weights(new: sparse.csr_matrix, old: sparse.csr_matrix) -> sparse.csr_matrix:
    """Weights of the old items that are nearest to each new one, by cosine similarity.

    Parameters
    ----------
    new, old : csr_matrix of shape (n, M) and (I, M)
        Rows by which items are compared: the users who have them, or their features.

    Returns
    -------
    csr_matrix of shape (n, I)
        At most `NEIGHBOURS` positive weights in a row, which sum to 1. A row is empty if no old item is similar.
    """
    old = _unit_rows(old).T.tocsr()
    blocks = [sparse.csr_matrix((0, old.shape[1]), dtype=np.float32)]
    for start in range(0, new.shape[0], BLOCK):
        similar = (new[start : start + BLOCK] @ old).toarray().astype(np.float32, copy=False)
        ids, values = (part.numpy() for part in top_k(torch.from_numpy(similar), NEIGHBOURS))
        values = np.where(values > 0, values, 0)
        starts = np.arange(0, values.size + 1, values.shape[1])
        blocks.append(sparse.csr_matrix((values.ravel(), ids.ravel(), starts), shape=similar.shape))
    weights = sparse.vstack(blocks).tocsr()
    weights.eliminate_zeros()
    sums = np.maximum(np.asarray(weights.sum(axis=1)).ravel(), np.finfo(np.float32).tiny)
    weights.data /= np.repeat(sums, np.diff(weights.indptr)).astype(np.float32)
    weights.sort_indices()
    return weights


def vectors_from_neighbours(old: ItemVectors, weights: sparse.csr_matrix, counts: NDArray[np.int64]) -> ItemVectors:
    """Vectors of new items as weighted means of similar items, and biases by popularity.

    The bias is that of old items of the same popularity: least squares on log(1 + users), clipped to the range of the
    old biases. An item without neighbours gets the mean of all vectors, and the lowest bias.

    Parameters
    ----------
    old : ItemVectors
        Of the I items of the network.
    weights : csr_matrix of shape (n, I)
        As `neighbour_weights` gives them.
    counts : ndarray of shape (I + n,)
        Users of each item in the rows that the new items come with.
    """
    n_items = len(old.bias)
    x, bias = np.log1p(counts.astype(np.float64)), old.bias.numpy().astype(np.float64)
    centred = x[:n_items] - x[:n_items].mean()
    slope = centred @ bias / max(float(centred @ centred), 1e-9)
    new_bias = np.clip(bias.mean() + slope * (x[n_items:] - x[:n_items].mean()), bias.min(), bias.max())
    first, last = (torch.from_numpy((weights @ part.numpy()).astype(np.float32)) for part in (old.first, old.last))
    return mean_where_unknown(ItemVectors(first, last, torch.from_numpy(new_bias.astype(np.float32))), old, weights)


def extend_linear_weights(
    weights: Tensor | sparse.csr_matrix, neighbours: sparse.csr_matrix, keep: int
) -> Tensor | sparse.csr_matrix:
    """Extend the weights (I, I) of a linear model by rows and columns of new items: means of those of similar items.

    Parameters
    ----------
    weights : Tensor or csr_matrix of shape (I, I)
    neighbours : csr_matrix of shape (n, I)
        As `neighbour_weights` gives them.
    keep : int
        For a sparse matrix: how many weights a new item keeps, the largest by magnitude.

    Returns
    -------
    Tensor or csr_matrix of shape (I + n, I + n)
        With a diagonal of zeros.

    Raises
    ------
    NotEnoughMemoryError
    """
    n_items, n_all = neighbours.shape[1], sum(neighbours.shape)
    if not isinstance(weights, Tensor):
        rows, columns = _largest(neighbours @ weights, keep), _largest(neighbours @ weights.T.tocsr(), keep)
        corner = _largest(neighbours @ columns.T.tocsr(), keep)
        grown = sparse.bmat([[weights, columns.T], [rows, corner]], format="coo", dtype=np.float32)
        off_diagonal = grown.row != grown.col
        cells = (grown.data[off_diagonal], (grown.row[off_diagonal], grown.col[off_diagonal]))
        return sparse.csr_matrix(cells, shape=(n_all, n_all))
    require_memory(4 * n_all**2, f"the {n_all:,} x {n_all:,} weights of items on items", 'form="sparse"')
    dense = np.zeros((n_all, n_all), dtype=np.float32)
    dense[:n_items, :n_items] = weights.numpy()
    dense[n_items:, :n_items] = neighbours @ dense[:n_items, :n_items]
    dense[:, n_items:] = (neighbours @ dense[:, :n_items].T).T
    np.fill_diagonal(dense, 0)
    return torch.from_numpy(dense)


def vectors_from_features(network: VAE, features: sparse.csr_matrix) -> ItemVectors:
    """Vectors of new items by `ridge` on item features, with a corrected bias.

    The bias is corrected because a predicted score is a mean, and exp(mean) is less than the mean of exp, so that the
    sum of exp(score) over predicted items is too small. The error is measured on the old items, each predicted from the
    others: the mean difference of the logs of these sums, over users with one item each, is added to the bias. An item
    without features gets the mean of all vectors, and the lowest bias.

    Parameters
    ----------
    network : VAE
        Of I items.
    features : csr_matrix of shape (I + n, F)
        Rows of the old items first.

    Raises
    ------
    NotEnoughMemoryError
    """
    old = item_vectors(network)
    new, left_out = ridge(old, features)
    n_items = len(old.bias)
    probes = sparse.identity(n_items, dtype=np.float32, format="csr")[:: -(-n_items // PROBES)]
    scores = network_scores(add_items(network, left_out), probes)  # (U, I) with their own vectors, (U, I) predicted
    shortfall = scores[:, :n_items].logsumexp(1) - scores[:, n_items:].logsumexp(1)
    new.bias.add_(float(shortfall.mean()))
    return mean_where_unknown(new, old, features[n_items:])


def ridge(old: ItemVectors, features: sparse.csr_matrix) -> tuple[ItemVectors, ItemVectors]:
    """Ridge regression of the old items' vectors on their features, with an intercept.

    One penalty is used for all vectors. It minimises the leave-one-out error over the old items, relative to the spread
    of each kind of vector; that error has a closed form.

    Parameters
    ----------
    old : ItemVectors
        Of I items.
    features : csr_matrix of shape (I + n, F)

    Returns
    -------
    (ItemVectors, ItemVectors)
        Vectors of the n new items, and of each old one, predicted from the others.

    References
    ----------
    Allen, "The Relationship Between Variable Selection and Data Augmentation and a Method for Prediction",
    Technometrics 1974 (PRESS).
    """
    n_items, width = old.first.shape
    known, new = features[:n_items], features[n_items:]
    require_memory(
        32 * n_items * features.shape[1], f"{n_items:,} items x {features.shape[1]:,} features", "fewer features"
    )
    mean = np.asarray(known.mean(axis=0)).ravel()
    basis, sizes, axes = svd(known.toarray() - mean, full_matrices=False, overwrite_a=True)  # (I, R), (R,), (R, F)
    nonzero = sizes > 1e-9 * np.linalg.norm(known.data)  # smaller ones are rounding errors
    basis, sizes, axes = basis[:, nonzero], sizes[nonzero], axes[nonzero]
    target = np.hstack([part.numpy().reshape(n_items, -1) for part in old]).astype(np.float64)  # (I, D)
    intercept = target.mean(0)
    target -= intercept
    spread = [np.linalg.norm(part) for part in np.split(target, [width, target.shape[1] - 1], axis=1)]
    scale = np.repeat(np.maximum(spread, 1e-30), [width, target.shape[1] - 1 - width, 1])
    penalty = _best_penalty(basis, sizes, target / scale)
    slopes = (sizes / (sizes**2 + penalty))[:, None] * (basis.T @ target)  # (R, D)
    errors = _leave_one_out_errors(basis, sizes, target, penalty)
    coordinates = new @ axes.T - mean @ axes.T  # (n, R)
    return _as_vectors(intercept + coordinates @ slopes, width), _as_vectors(intercept + target - errors, width)


def _as_vectors(concatenated: Array, width: int) -> ItemVectors:
    """Split (n, H + H' + 1) into vectors of the first and the last layer, (n, H) and (n, H'), and biases."""
    tensor = torch.from_numpy(concatenated.astype(np.float32))
    return ItemVectors(tensor[:, :width], tensor[:, width:-1], tensor[:, -1])


def _best_penalty(basis: Array, sizes: Array, target: Array) -> float:
    """The penalty with the least squared leave-one-out error."""
    unit = float((sizes**2).mean()) if len(sizes) else 1.0
    penalties = [share * unit for share in PENALTIES]
    return min(penalties, key=lambda penalty: float((_leave_one_out_errors(basis, sizes, target, penalty) ** 2).sum()))


def _leave_one_out_errors(basis: Array, sizes: Array, target: Array, penalty: float) -> Array:
    """Errors of items predicted from the others. basis (I, R), sizes (R,), target (I, D), centred -> (I, D)"""
    shrunk = basis * (sizes**2 / (sizes**2 + penalty))
    leverage = 1 / len(basis) + np.einsum("ir,ir->i", shrunk, basis)  # of each item on its own prediction
    errors: Array = (target - shrunk @ (basis.T @ target)) / np.maximum(1 - leverage, 1e-6)[:, None]
    return errors


def _unit_rows(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    return sparse.diags(1 / np.maximum(norms, 1e-30)) @ rows


def _largest(rows: sparse.csr_matrix, keep: int) -> sparse.csr_matrix:
    """The entries of each row that are largest by magnitude."""
    rows = sparse.csr_matrix(rows)
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((-np.abs(rows.data), row))
    kept = order[np.arange(len(order)) - rows.indptr[row] < keep]
    return sparse.csr_matrix((rows.data[kept], (row[kept], rows.indices[kept])), shape=rows.shape)
