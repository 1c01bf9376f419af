"""The tables of a network, which have a row for each item: one for both ends or two, what they begin with, and how they
learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recvae.errors import InvalidParameterError
from recvae.nn import VAE
from recvae.nn.growing import ItemVectors
from recvae.nn.rowwise_adam import RowwiseAdam
from recvae.nn.sharded import sharded_parameters

TABLES = ("separate", "tied")
BIASES = ("auto", "normal", "popularity")
FIRST = "encoder.bag.weight"  # by name, what is not in a file where it is the output layer's
LAST = "decoder.weight"


def tie(network: VAE) -> None:
    """Make the first layer's weight (I, H) and the output layer's one. Raises InvalidParameterError."""
    encoder: Any = network.encoder
    first, last = encoder.bag, network.decoder
    if first.weight.shape != last.weight.shape:
        raise InvalidParameterError(
            f'Expected both ends of the network of one width for tables="tied", got {first.weight.shape[1]} and '
            f"{last.weight.shape[1]}; make them alike, or leave the tables separate."
        )
    first.weight = last.weight


def are_tied(network: VAE) -> bool:
    """Whether both ends are one parameter."""
    encoder: Any = network.encoder
    return encoder.bag.weight is network.decoder.weight


def without_twins(tensors: dict[str, Tensor], tied: bool) -> dict[str, Tensor]:
    """The tensors of a network as a file has them: what is one parameter once."""
    return {name: tensor for name, tensor in tensors.items() if not (tied and name == FIRST)}


def with_twins(tensors: dict[str, Tensor], tied: bool) -> dict[str, Tensor]:
    """The inverse of `without_twins`."""
    return tensors | {FIRST: tensors[LAST]} if tied and LAST in tensors else tensors


def of_one_table(vectors: ItemVectors, tied: bool) -> ItemVectors:
    """Vectors of new items, for both ends the mean of what these would have where they are one."""
    if not tied:
        return vectors
    mean = (vectors.first + vectors.last) / 2
    return ItemVectors(mean, mean, vectors.bias)


def by_popularity(network: VAE, counts: NDArray[np.int64], likelihood: str) -> None:
    """Let biases of items begin with the log of how many users have each, less its mean.

    A softmax of these alone is the distribution of all users' items together. Learning starts from there, rather than
    from all items alike: of millions, a step touches too few to tell in an epoch which are popular.

    Raises
    ------
    InvalidParameterError
        For another likelihood than the multinomial.
    """
    if likelihood != "multinomial":
        raise InvalidParameterError(
            f'Expected the multinomial likelihood for item_biases="popularity", got {likelihood!r}; take "normal".'
        )
    biases, cut = np.log1p(counts), sharded_parameters(network).get("decoder.bias")
    own = slice(None) if cut is None else slice(cut.start, cut.stop)
    with torch.no_grad():
        network.decoder.bias.copy_(torch.from_numpy(biases - biases.mean())[own])


def optimizers(
    network: VAE, sparse: bool, learning_rate: float, weight_decay: float, table_rate: float
) -> list[torch.optim.Optimizer]:
    """Adam for all; or, where gradients of the tables are `sparse` over rows, row by row for these.

    Parameters
    ----------
    table_rate : float
        How many times the learning rate these have then.
    """
    encoder: Any = network.encoder
    encoder.bag.sparse = sparse
    if not sparse:
        return [torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)]
    tables = list({id(p): p for p in (encoder.bag.weight, network.decoder.weight, network.decoder.bias)}.values())
    known = {id(table) for table in tables}
    others = [parameter for parameter in network.parameters() if id(parameter) not in known]
    return [
        torch.optim.AdamW(others, lr=learning_rate, weight_decay=weight_decay, fused=True),
        RowwiseAdam(tables, lr=table_rate * learning_rate, weight_decay=weight_decay),
    ]
