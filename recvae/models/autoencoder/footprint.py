"""The memory that a training takes, counted before it begins: by sizes alone, without any of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from recvae.nn import VAE, Composite
from recvae.nn.likelihood import CHUNK_BYTES
from recvae.nn.products import in_bfloat16
from recvae.nn.rowwise_adam import BLOCK
from recvae.utils.topk import BLOCK_BYTES as RANKED_BYTES

BYTES_OF_AN_EVENT = 160  # in a step: what was gathered of it, noise and sums
WINDOWS = 2 << 28  # of shards that are in memory


@dataclass(frozen=True)
class Sizes:
    """Of the data, and how they are there.

    Attributes
    ----------
    batch : int
        Users in a step.
    mean_length : float
        Events of a user, in the mean.
    on_disk : bool
        Whether a few windows of them are in memory at a time.
    tensor_ranks, data_ranks : int
        Processes that split the items (tensor parallel) or the users of a step (data parallel).
    begun : bool
        Whether what a model has beside its network is there already.
    """

    users: int
    items: int
    events: int
    batch: int
    on_disk: bool
    validated: bool
    tensor_ranks: int = 1
    data_ranks: int = 1
    begun: bool = False

    @property
    def mean_length(self) -> float:
        return self.events / max(1, self.users)


@dataclass(frozen=True)
class Memory:
    """Bytes, at the most, by what they are for."""

    weights: int
    optimizer: int
    gradients: int
    step: int
    rows: int
    best: int
    path: int = 0  # beside the network

    @property
    def peak(self) -> int:
        return self.weights + self.optimizer + self.gradients + self.step + self.rows + self.best + self.path


def count(network: VAE, impl: str, sizes: Sizes, n_candidates: int, precision: str, device: torch.device) -> Memory:
    """The memory of a training. network : of these sizes, on the meta device perhaps"""
    encoder: Any = network.encoder
    first, last = encoder.bag.weight, network.decoder.weight
    tied, parameters = first is last, list(network.parameters())
    tables = {id(p): p.numel() for p in (first, last, network.decoder.bias)}
    middle = sum(p.numel() for p in parameters) - sum(tables.values())
    tables = {table: -(-size // sizes.tensor_ranks) for table, size in tables.items()}
    total = middle + sum(tables.values())
    events = int(sizes.batch * sizes.mean_length)
    step = BYTES_OF_AN_EVENT * events + 16 * sizes.batch * sum(
        p.shape[0] for p in parameters if p.dim() > 1 and id(p) not in tables
    )
    if impl == "sampled":
        n_candidates = min(sizes.items, n_candidates)
        changes = last.shape[1] * _touched(sizes, n_candidates)
        changes = min(BLOCK, changes) if device.type == "cpu" else changes
        step += 4 * (n_candidates * (2 * last.shape[1] + sizes.batch) + changes) + 16 * sizes.items
        gradients = 4 * middle + _bytes_of_rows(network, sizes, n_candidates)
        optimizer = 8 * middle + 4 * (len(parameters) - len(tables))  # moments of Adam, and a count for each
        optimizer += len(tables) * (4 * sizes.items + 8)  # second moment of each row; a count
    else:
        gradients, optimizer = 4 * total, 8 * total + 4 * len(parameters)
        if tied:  # of both ends, and on a CPU, where these live on from step to step, their sum
            gradients += 4 * tables[id(last)] * (2 if device.type == "cpu" else 1)
        step += _head_bytes(network, impl, sizes, in_bfloat16(precision, device))
    if sizes.validated:
        step = max(step, _ranking_bytes(network, sizes, device))
    best = 4 * total * sizes.validated
    if not tied:  # at last the output layer by columns, beside the weights, when what training alone needs is let go
        step = max(step, 4 * last.numel() - optimizer - gradients - best)
    return Memory(4 * total, optimizer, gradients, step, _rows_bytes(network, sizes), best)


def _touched(sizes: Sizes, n_candidates: int, ranks: int = 1) -> int:
    """Rows of a table that a step touches on one of so many ranks, at the most."""
    return min(sizes.items, -(-int(sizes.batch * sizes.mean_length) // ranks)) + n_candidates


def _bytes_of_rows(network: VAE, sizes: Sizes, n_candidates: int) -> int:
    """Of the gradients of touched rows; where ranks share out users, of all ranks' as well."""
    encoder: Any = network.encoder
    first, last, ranks = encoder.bag.weight, network.decoder.weight, sizes.data_ranks
    both, own = first.shape[1] + last.shape[1], _touched(sizes, n_candidates, ranks)
    # of one table, those of both ends, both of them in one list, and that where rows met summed
    found = 4 * own * both * (3 if first is last else 1)
    if ranks == 1:
        return found
    gathered = ranks * own * (4 * max(first.shape[1], last.shape[1]) + 8)  # of a table at a time, rows and places
    return found + 2 * gathered + 4 * _touched(sizes, n_candidates) * both  # as they came, in one piece, and summed


def _head_bytes(network: VAE, impl: str, sizes: Sizes, lower: bool) -> int:
    """Of blocks of logits, and of what the output layer becomes for the products."""
    width, items = network.decoder.weight.shape[1], -(-sizes.items // sizes.tensor_ranks)
    if impl == "dense":
        return 5 * 4 * sizes.batch * items
    of_row = (2 if lower else 4) * items
    block = of_row * min(sizes.batch, max(1, CHUNK_BYTES // of_row))
    copy = 2 * items * -(-(width + 2) // 32) * 32 if lower else 0
    unit = 8 * items * width if network.decoder.temperature is not None else 0
    return block + copy + unit


def _ranking_bytes(network: VAE, sizes: Sizes, device: torch.device) -> int:
    """Of ranking validation users: a few blocks of scores, and the output layer for rough ones."""
    rough = 2 * network.decoder.weight.numel() // sizes.tensor_ranks if in_bfloat16("auto", device) else 0
    return rough + 3 * max(RANKED_BYTES, 4 * sizes.items)


def _rows_bytes(network: VAE, sizes: Sizes) -> int:
    """Of the rows, and of what is kept of each user."""
    known = 8 * network.decoder.latent_dim * sizes.users if isinstance(network.prior, Composite) else 0
    if sizes.on_disk:
        return min(WINDOWS, 16 * sizes.events) + 16 * sizes.users + known
    return 16 * sizes.events + 24 * sizes.users + known
