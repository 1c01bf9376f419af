"""Spectral initial weights: a network starts from the singular vectors of its training rows, not from chance.

A step reaches the embeddings of an item only through users who have it, so that from random weights most epochs on
sparse data go into finding out which items belong together. The leading singular vectors know that already.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from recvae.data.batches import DeviceRows
from recvae.data.shards import Shards
from recvae.nn.encoders import DenselyConnectedEncoder, input_layer
from recvae.nn.layers import weighted_sums
from recvae.nn.sharded import sharded_parameters
from recvae.nn.vae import VAE
from recvae.utils.workers import use_workers

USERS = 50_000  # whose rows are decomposed, at most
ITERATIONS = 4  # of the subspace iteration
OVERSAMPLING = 20  # vectors that are computed in addition to the leading ones
LAST_NORM = 0.5  # of an item's row in the output layer; in the first layer it is 1
FITTED_USERS = 5_000  # whose posterior means are fitted, at most
RIDGE = 1e-3  # penalty of that fit, as a share of the mean square of a feature


@torch.no_grad()
def init_spectrally(network: VAE, rows: sparse.csr_matrix | Shards) -> None:
    """Start a network from the leading right singular vectors V (I, K) of its scaled training rows.

    The first K columns of both item embeddings become the rows of V, scaled to one length for all items; the other
    columns, and items without users, keep their weights. The layer of a densely connected encoder that gives the
    posterior mean is fitted by ridge regression, so that the mean is the user's projection on V: scores are then those
    of a low-pass filter on the graph of items, and training improves on them.

    Parameters
    ----------
    network : VAE
        With initial weights.
    rows : csr_matrix or Shards
        (U, I); of more than `USERS` users, so many are drawn.

    Notes
    -----
    The result depends on the rows, not on a seed, a device, or a number of cores or ranks.
    """
    rows = _some(rows, USERS)
    scale = _item_scale(rows)  # (I,)
    first, last = input_layer(network.encoder).weight, network.decoder.weight
    k = min(network.decoder.latent_dim, first.shape[1], last.shape[1], min(rows.shape))
    with use_workers():
        vectors = _singular_vectors(_scaled(rows, scale), k)  # V (I, K)
        directions = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)
        known = torch.from_numpy(scale > 0)
        for weight, norm, name in ((first, 1.0, "encoder.bag.weight"), (last, LAST_NORM, "decoder.weight")):
            shard = sharded_parameters(network).get(name)
            of_rank = slice(None) if shard is None else slice(shard.start, shard.stop)
            weight[known[of_rank], : vectors.shape[1]] = (norm * directions[of_rank][known[of_rank]]).to(weight)
        if isinstance(network.encoder, DenselyConnectedEncoder):
            some = _some(rows, FITTED_USERS)
            _fit_means(network.encoder, some, torch.from_numpy(_scaled(some, scale) @ vectors.numpy()))


def _fit_means(encoder: DenselyConnectedEncoder, rows: sparse.csr_matrix, codes: Tensor) -> None:
    """Let the posterior means be the codes (U, K) of these rows, centred and with a mean square of 1."""
    last = encoder.last
    assert isinstance(last, nn.Linear)
    features = encoder.features(encoder.bag(DeviceRows(rows, last.weight.device).all())).cpu().double()  # (U, H)
    codes = codes.double() - codes.double().mean(0)
    codes /= codes.square().mean().sqrt().clamp(min=1e-12)
    mean = features.mean(0)
    features = features - mean
    gram = features.T @ features
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() + 1e-12)
    weights = torch.linalg.solve(gram, features.T @ codes)  # (H, K)
    k = weights.shape[1]
    last.weight[:k] = weights.T.to(last.weight)
    last.bias[:k] = -(mean @ weights).to(last.bias)


def _singular_vectors(rows: sparse.csr_matrix, k: int) -> Tensor:
    """The leading right singular vectors of rows (U, I), by randomised subspace iteration. -> (I, k)

    References
    ----------
    Halko, Martinsson & Tropp, "Finding Structure with Randomness", SIAM Review 2011, algorithms 4.4 and 5.1.
    """
    n_users, n_items = rows.shape
    columns = rows.T.tocsr()
    start = np.random.default_rng(0).standard_normal((n_items, min(k + OVERSAMPLING, n_users, n_items)))
    basis = torch.from_numpy(start.astype(np.float32))
    for _ in range(ITERATIONS):
        basis, _ = torch.linalg.qr(_product(columns, _product(rows, basis)))  # (I, P)
    images = _product(rows, basis).double()  # (U, P)
    _, turn = torch.linalg.eigh(images.T @ images)  # ascending
    return basis @ turn.flip(1)[:, :k].float()


def _product(rows: sparse.csr_matrix, table: Tensor) -> Tensor:
    """(U, I) (I, P) -> (U, P)"""
    indices, offsets, values = (torch.from_numpy(part) for part in (rows.indices, rows.indptr, rows.data))
    return weighted_sums(table, indices, offsets, values)


def _item_scale(rows: sparse.csr_matrix) -> NDArray[np.float32]:
    """1 / sqrt(n_i), where n_i is the sum of squares of an item's values; 0 for items without users. -> (I,)"""
    squares = np.bincount(rows.indices, weights=rows.data.astype(np.float64) ** 2, minlength=rows.shape[1])
    return np.divide(1, np.sqrt(squares), out=np.zeros(len(squares)), where=squares > 0).astype(np.float32)


def _scaled(rows: sparse.csr_matrix, item_scale: NDArray[np.float32]) -> sparse.csr_matrix:
    """Rows of unit norm, as the first layer has them, times the scale of items: D_U^-1/2 X D_I^-1/2. (U, I)"""
    lengths = np.diff(rows.indptr)
    norms = np.sqrt(np.add.reduceat(np.append(rows.data.astype(np.float64) ** 2, 0), rows.indptr[:-1]))
    norms = np.where(lengths > 0, norms, 1)  # reduceat gives the next value for an empty row
    data = rows.data / np.repeat(norms, lengths).astype(np.float32) * item_scale[rows.indices]
    return sparse.csr_matrix((data.astype(np.float32), rows.indices, rows.indptr), shape=rows.shape)


def _some(rows: sparse.csr_matrix | Shards, n: int) -> sparse.csr_matrix:
    """At most n users, the same ones each time, in memory."""
    n_users = rows.shape[0]
    chosen = np.sort(np.random.default_rng(1).permutation(n_users)[:n])
    if isinstance(rows, Shards):
        return rows.take(chosen)
    return rows if n_users <= n else rows[chosen]
