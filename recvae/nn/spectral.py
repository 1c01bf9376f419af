"""Spectral initial weights: a network starts from the singular vectors of its training rows, not from chance.

A step reaches the embeddings of an item only through users who have it, so that from random weights most epochs on
sparse data go into finding out which items belong together. The leading singular vectors know that already.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from recvae.data.batches import DeviceRows
from recvae.data.shards import Shards
from recvae.distributed.communicator import Communicator
from recvae.nn.encoders import DenselyConnectedEncoder, GaussianEncoder, input_layer
from recvae.nn.sharded import sharded_parameters
from recvae.nn.singular import item_scale, scaled, singular_vectors, some_users
from recvae.nn.vae import VAE, MLPDecoder
from recvae.utils.workers import use_workers

USERS = 50_000  # whose rows are decomposed, at most
STEEPNESS = 8  # exponent of a singular value below that of the noise, as its vector's weight
LAST_NORM = 0.5  # of an item's row in the output layer; in the first layer it is 1
HIDDEN_DEVIATION = 0.3  # of a tanh layer that passes codes on: tanh is nearly linear there
FILTER_NORM = 1.0  # of an item's row in the output layer after such layers, whose values are smaller than those of z
OTHER_SHARE = 0.1  # of the initial weights of such layers that is kept
FITTED_USERS = 5_000  # whose posterior means are fitted, at most
RIDGE = 1e-3  # penalty of that fit, as a share of the mean square of a feature


@torch.no_grad()
def init_spectrally(
    network: VAE, rows: sparse.csr_matrix | Shards, communicator: Communicator, as_filter: bool = False
) -> None:
    """Start a network from the leading right singular vectors V (I, K) of its scaled training rows.

    The first K columns of both item embeddings become the rows of V, scaled to one length for all items; the other
    columns, and items without users, keep their weights. Vectors whose singular value is below that of the noise get
    small weights: users with random items have a singular value of about sqrt(U / N) + sqrt(I / N), for N events
    (Marchenko & Pastur 1967), and networks that start from such vectors overfit.

    The layer of a densely connected encoder that gives the posterior mean is fitted by ridge regression, so that the
    mean is the user's projection on V: scores are then those of a low-pass filter on the graph of items, and training
    improves on them. Tanh layers do the same with `as_filter`: they pass the first K values on.

    Parameters
    ----------
    network : VAE
        With initial weights.
    rows : csr_matrix or Shards
        (U, I), whose values do not count here; of more than `USERS` users, so many are drawn.
    communicator : Communicator
        Its main process does the linear algebra for all ranks, whose processors may round differently.
    as_filter : bool
        Whether the hidden layers of a `GaussianEncoder` and of a decoder of tanh layers pass the projections on.
        Without, they keep their weights.

    Notes
    -----
    The result depends on the rows, not on a seed or on a number of cores or ranks.
    """
    rows = some_users(rows, USERS)
    scale = item_scale(rows)  # (I,)
    first, last = input_layer(network.encoder).weight, network.decoder.weight
    layers = _tanh_layers(network) if as_filter else []
    widths = [first.shape[1], last.shape[1], *(layer.out_features for layer in layers)]
    k = min(network.decoder.latent_dim, *widths, *rows.shape)
    with use_workers():
        found = singular_vectors(scaled(rows, scale), k) if communicator.is_main_process else None
        vectors, values = communicator.broadcast(found)  # V (I, K), (K,)
        directions = vectors * (values / _noise_value(rows)).clamp(max=1) ** STEEPNESS
        directions /= directions.norm(dim=1, keepdim=True).clamp(min=1e-12)
        known = torch.from_numpy(scale > 0)
        last_norm = FILTER_NORM if layers else LAST_NORM
        for table, norm, name in ((first, 1.0, "encoder.bag.weight"), (last, last_norm, "decoder.weight")):
            shard = sharded_parameters(network).get(name)
            of_rank = slice(None) if shard is None else slice(shard.start, shard.stop)
            table[known[of_rank], : len(values)] = (norm * directions[of_rank][known[of_rank]]).to(table)
        some = some_users(rows, FITTED_USERS)
        if layers:
            _pass_on(network, some, len(values), communicator)
        elif isinstance(network.encoder, DenselyConnectedEncoder):
            codes = torch.from_numpy(scaled(some, scale) @ vectors.numpy())
            layer = network.encoder.last
            assert isinstance(layer, nn.Linear)
            weight, bias = communicator.broadcast(_mean_layer(network.encoder, some, codes, layer.weight.device))
            layer.weight[: len(bias)], layer.bias[: len(bias)] = weight.to(layer.weight), bias.to(layer.bias)


def _tanh_layers(network: VAE) -> list[nn.Linear]:
    """The layers between the two tables of items, if there are tanh layers on both sides of z; else none."""
    encoder, decoder = network.encoder, network.decoder
    if not (isinstance(encoder, GaussianEncoder) and isinstance(decoder, MLPDecoder) and len(encoder.layers)):
        return []
    layers = [*encoder.layers, *decoder.hidden] if len(decoder.hidden) and decoder.activation is torch.tanh else []
    return [layer for layer in layers if isinstance(layer, nn.Linear)]


def _pass_on(network: VAE, rows: sparse.csr_matrix, k: int, communicator: Communicator) -> None:
    """Let the tanh layers pass the first k values on, centred and scaled for these rows (U, I).

    The posterior mean gets a variance of 1/2, and q(z | x) one of 1/2 too, so that z is N(0, I) over all users, as the
    prior is; tanh layers get a standard deviation of `HIDDEN_DEVIATION`.
    """
    encoder, decoder = network.encoder, network.decoder
    assert isinstance(encoder, GaussianEncoder)
    assert isinstance(decoder, MLPDecoder)
    values = encoder.bag(DeviceRows(rows, encoder.bag.weight.device).all())[:, :k]  # (U, k)
    deviations = [*[HIDDEN_DEVIATION] * (len(encoder.layers) - 1), 0.5**0.5]
    for layer, deviation in zip(encoder.layers, deviations, strict=True):
        values = torch.tanh(values)
        center = values.mean(0)
        spread = (values - center).square().mean().sqrt().clamp(min=1e-12)
        center, spread = communicator.broadcast((center, spread))
        values = (values - center) * (deviation / spread)
        _set_diagonal(layer, k, float(deviation / spread), center)
    last = encoder.layers[-1]
    assert isinstance(last, nn.Linear)
    last.bias[decoder.latent_dim :][:k] = math.log(0.5)  # the logarithm of the variance
    for index, layer in enumerate(decoder.hidden):
        _set_diagonal(layer, k, 1.0 if index else HIDDEN_DEVIATION / deviations[-1])


def _set_diagonal(layer: nn.Module, k: int, gain: float, center: Tensor | None = None) -> None:
    """Let the first k outputs of a layer be `gain` times its inputs less their center (k,), plus a little of before."""
    assert isinstance(layer, nn.Linear)
    layer.weight[:k] *= OTHER_SHARE
    layer.weight[:k, :k].diagonal().add_(gain)
    if center is not None:
        layer.bias[:k] = -gain * center


def _mean_layer(
    encoder: DenselyConnectedEncoder, rows: sparse.csr_matrix, codes: Tensor, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Weight and bias by which posterior means are the codes (U, K) of rows, centred, with a mean square of 1.

    Returns
    -------
    (Tensor, Tensor)
        (K, H) and (K,), of the least squared error with a ridge penalty.
    """
    features = encoder.features(encoder.bag(DeviceRows(rows, device).all())).cpu().double()  # (U, H)
    codes = codes.double() - codes.double().mean(0)
    codes /= codes.square().mean().sqrt().clamp(min=1e-12)
    mean = features.mean(0)
    features = features - mean
    gram = features.T @ features
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() + 1e-12)
    weights = torch.linalg.solve(gram, features.T @ codes)  # (H, K)
    return weights.T.float(), -(mean @ weights).float()


def _noise_value(rows: sparse.csr_matrix) -> float:
    """About the second largest singular value of scaled rows (U, I) if their events were drawn at random."""
    n_users, n_items = rows.shape
    return float(np.sqrt(n_users / max(rows.nnz, 1)) + np.sqrt(n_items / max(rows.nnz, 1)))
