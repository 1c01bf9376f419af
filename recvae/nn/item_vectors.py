"""New items for a trained network: input and output layer get more rows, scores of the old items do not change."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from recvae.nn.encoders import input_layer
from recvae.nn.vae import VAE


class ItemVectors(NamedTuple):
    """The parameters of a network that belong to items, one row per item."""

    first: Tensor  # (I, H), weight of the first layer
    last: Tensor  # (I, H'), weight of the output layer
    bias: Tensor  # (I,), its bias


def item_vectors(network: VAE) -> ItemVectors:
    """The vectors of all items of a network, on the host."""
    return ItemVectors(*(getattr(owner, name).detach().cpu() for owner, name in _tables(network)))


def add_items(network: VAE, new: ItemVectors) -> VAE:
    """A copy of the network with new items, which have these vectors, appended to its own."""
    copied = copy.deepcopy(network)
    for (owner, name), rows in zip(_tables(copied), new, strict=True):
        old = getattr(owner, name).detach()
        setattr(owner, name, nn.Parameter(torch.cat([old, rows.to(old)])))
    return copied


def mean_where_unknown(new: ItemVectors, old: ItemVectors, known: sparse.csr_matrix) -> ItemVectors:
    """Set, in place, the vectors of items whose row of `known` is empty: the mean of the old ones, the lowest bias."""
    unknown = torch.from_numpy(np.diff(known.indptr) == 0)
    new.first[unknown], new.last[unknown] = old.first.mean(0), old.last.mean(0)
    new.bias[unknown] = old.bias.min()
    return new


def _tables(network: VAE) -> list[tuple[object, str]]:
    """Module and attribute name of each parameter with a row per item, in the order of `ItemVectors`."""
    return [(input_layer(network.encoder), "weight"), (network.decoder, "weight"), (network.decoder, "bias")]
