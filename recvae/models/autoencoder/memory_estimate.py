"""Estimates the memory that a training takes, from sizes alone and before anything is allocated.

All numbers are upper bounds in bytes. A float32 takes 4 bytes, an index 4 or 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from recvae.nn import VAE, Composite
from recvae.nn.encoders import input_layer
from recvae.nn.layers import in_bfloat16
from recvae.nn.likelihood import CHUNK_BYTES
from recvae.nn.optim import BLOCK
from recvae.nn.singular import OVERSAMPLING
from recvae.nn.spectral import USERS
from recvae.utils.topk import BLOCK_BYTES as RANKED_BYTES

BYTES_PER_EVENT = 160  # of a step: the event itself, its noise, its gathered weights and sums
SHARD_BYTES = 2 << 28  # of the shard windows that are in memory at a time


@dataclass(frozen=True)
class DataSizes:
    """Sizes of the data, and how a training reads them.

    Parameters
    ----------
    users, items, events : int
        Of the training rows.
    batch : int
        Users in a step.
    on_disk : bool
        Whether rows are read from shards, a few windows in memory at a time.
    validated : bool
        Whether there are validation users, for which the best weights so far are kept.
    tensor_ranks, data_ranks : int
        Number of processes over which the items, or the users of each step, are sharded.
    extras_allocated : bool
        Whether what a model has in addition to its network, such as a linear path, is in memory already.
    """

    users: int
    items: int
    events: int
    batch: int
    on_disk: bool
    validated: bool
    tensor_ranks: int = 1
    data_ranks: int = 1
    extras_allocated: bool = False

    @property
    def mean_length(self) -> float:
        """Events per user."""
        return self.events / max(1, self.users)


@dataclass(frozen=True)
class MemoryEstimate:
    """Upper bounds in bytes, by purpose; `path` is for what a model has in addition to its network."""

    weights: int
    optimizer: int
    gradients: int
    step: int
    rows: int
    best: int
    averages: int = 0
    path: int = 0

    @property
    def peak(self) -> int:
        """The peak of the whole training: the sum of all parts."""
        network = self.weights + self.optimizer + self.gradients + self.best + self.averages
        return network + self.step + self.rows + self.path


def estimate_memory(
    network: VAE,
    impl: str,
    sizes: DataSizes,
    num_negatives: int,
    precision: str,
    device: torch.device,
    starts_spectrally: bool = False,
    averaged: bool = False,
) -> MemoryEstimate:
    """Estimate the memory of a training.

    Parameters
    ----------
    network : VAE
        A network of these sizes; it may be on the meta device.
    impl : {"reference", "chunked", "sampled"}
        How the likelihood is computed.
    sizes : DataSizes
    num_negatives : int
        Items that a sampled likelihood draws in a step.
    precision : str
        Of the matrix products.
    device : torch.device
        Of the training.
    starts_spectrally : bool
        Whether initial weights are singular vectors.
    averaged : bool
        Whether there are moving averages of the weights.
    """
    first, last = input_layer(network.encoder).weight, network.decoder.weight  # (I, H), (I, H')
    tied, parameters = first is last, list(network.parameters())
    embeddings = {id(p): p.numel() for p in (first, last, network.decoder.bias)}
    middle = sum(p.numel() for p in parameters) - sum(embeddings.values())  # parameters without a row for each item
    embeddings = {key: -(-numel // sizes.tensor_ranks) for key, numel in embeddings.items()}
    total = middle + sum(embeddings.values())
    events = int(sizes.batch * sizes.mean_length)
    # activations and their gradients: of the events, and of each hidden layer
    step = BYTES_PER_EVENT * events + 16 * sizes.batch * sum(
        p.shape[0] for p in parameters if p.dim() > 1 and id(p) not in embeddings
    )
    if impl == "sampled":  # gradients are coalesced rows, and the optimizer of the embeddings is row-wise
        num_negatives = min(sizes.items, num_negatives)
        changes = last.shape[1] * _rows_in_step(sizes, num_negatives)
        changes = min(BLOCK, changes) if device.type == "cpu" else changes
        step += 4 * (num_negatives * (2 * last.shape[1] + sizes.batch) + changes) + 16 * sizes.items
        gradients = 4 * middle + _sparse_gradient_bytes(network, sizes, num_negatives)
        optimizer = 8 * middle + 4 * (len(parameters) - len(embeddings))  # two moments; a step count for each
        optimizer += len(embeddings) * (4 * sizes.items + 8)  # one second moment for each row; a step count
    else:
        gradients, optimizer = 4 * total, 8 * total + 4 * len(parameters)
        if tied:  # the gradients of both layers; on a CPU, where buffers are reused from step to step, their sum too
            gradients += 4 * embeddings[id(last)] * (2 if device.type == "cpu" else 1)
        step += _output_layer_bytes(network, impl, sizes, in_bfloat16(precision, device))
    if sizes.validated:
        step = max(step, _ranking_bytes(network, sizes, device))
    best, averages = 4 * total * sizes.validated, 4 * total * averaged
    later = optimizer + gradients + best + averages  # not there before the first step and after the last
    if not tied:  # after training the output layer is copied by columns, once optimizer and gradients are freed
        step = max(step, 4 * last.numel() - later)
    if starts_spectrally:  # before there are optimizer and gradients
        step = max(step, _decomposition_bytes(network, sizes) - later)
    return MemoryEstimate(4 * total, optimizer, gradients, step, _rows_bytes(network, sizes), best, averages)


def _decomposition_bytes(network: VAE, sizes: DataSizes) -> int:
    """Bytes for the singular vectors that a network starts from."""
    users = min(sizes.users, USERS)
    vectors = min(network.decoder.latent_dim + OVERSAMPLING, users, sizes.items)
    events = int(users * sizes.mean_length)
    # the basis, its image, and copies of an orthogonalisation; images of users, also in double precision; scaled rows
    return 20 * sizes.items * vectors + 16 * users * vectors + 40 * events


def _rows_in_step(sizes: DataSizes, num_negatives: int, ranks: int = 1) -> int:
    """Upper bound of the rows of an embedding that have a gradient in a step, on one of several ranks."""
    return min(sizes.items, -(-int(sizes.batch * sizes.mean_length) // ranks)) + num_negatives


def _sparse_gradient_bytes(network: VAE, sizes: DataSizes, num_negatives: int) -> int:
    """Gradients of the rows in a step; in data-parallel training, those gathered from all ranks as well."""
    first, last, ranks = input_layer(network.encoder).weight, network.decoder.weight, sizes.data_ranks
    widths, rows = first.shape[1] + last.shape[1], _rows_in_step(sizes, num_negatives, ranks)
    # tied embeddings: those of both layers, both concatenated, and coalesced
    gradients = 4 * rows * widths * (3 if first is last else 1)
    if ranks == 1:
        return gradients
    gathered = ranks * rows * (4 * max(first.shape[1], last.shape[1]) + 8)  # rows and indices, a layer at a time
    coalesced = 4 * _rows_in_step(sizes, num_negatives) * widths
    return gradients + 2 * gathered + coalesced  # as received, concatenated, and coalesced


def _output_layer_bytes(network: VAE, impl: str, sizes: DataSizes, low_precision: bool) -> int:
    """Bytes of a block of logits, and of the copies of the output layer that the products need."""
    width, items = network.decoder.weight.shape[1], -(-sizes.items // sizes.tensor_ranks)
    if impl == "reference":  # logits, log-softmax and dense rows, with gradients
        return 5 * 4 * sizes.batch * items
    row_bytes = (2 if low_precision else 4) * items
    block = row_bytes * min(sizes.batch, max(1, CHUNK_BYTES // row_bytes))
    copy = 2 * items * -(-(width + 2) // 32) * 32 if low_precision else 0
    unit_rows = 8 * items * width if network.decoder.temperature is not None else 0
    return block + copy + unit_rows


def _ranking_bytes(network: VAE, sizes: DataSizes, device: torch.device) -> int:
    """Ranking validation users: a few blocks of scores, and the output layer in bfloat16 for screening."""
    screening = 2 * network.decoder.weight.numel() // sizes.tensor_ranks if in_bfloat16("auto", device) else 0
    return screening + 3 * max(RANKED_BYTES, 4 * sizes.items)


def _rows_bytes(network: VAE, sizes: DataSizes) -> int:
    """Bytes of the rows, and of the posterior that a composite prior keeps for each user."""
    old_posterior = 8 * network.decoder.latent_dim * sizes.users if isinstance(network.prior, Composite) else 0
    if sizes.on_disk:
        return min(SHARD_BYTES, 16 * sizes.events) + 16 * sizes.users + old_posterior
    return 16 * sizes.events + 24 * sizes.users + old_posterior
