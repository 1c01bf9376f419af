"""Further items for a trained network: both its ends grow, and its scores of the other items stay as they are."""

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
    """What a network has learned of single items, a row for each."""

    first: Tensor  # (I, H), weight of the first layer
    last: Tensor  # (I, H'), weight of the output layer
    bias: Tensor  # (I,), its bias


def item_vectors(network: VAE) -> ItemVectors:
    """The vectors of all items of a network, on the host."""
    return ItemVectors(*(getattr(owner, name).detach().cpu() for owner, name in _tables(network)))


def add_items(network: VAE, new: ItemVectors) -> VAE:
    """A copy of the network that has further items, with these vectors, after its own."""
    copied = copy.deepcopy(network)
    for (owner, name), rows in zip(_tables(copied), new, strict=True):
        old = getattr(owner, name).detach()
        setattr(owner, name, nn.Parameter(torch.cat([old, rows.to(old)])))
    return copied


def mean_where_unknown(new: ItemVectors, old: ItemVectors, known: sparse.csr_matrix) -> ItemVectors:
    """The new vectors, but for items whose row of `known` is empty: for these the mean of all, and the lowest bias."""
    unknown = torch.from_numpy(np.diff(known.indptr) == 0)
    new.first[unknown], new.last[unknown] = old.first.mean(0), old.last.mean(0)
    new.bias[unknown] = old.bias.min()
    return new


def _tables(network: VAE) -> list[tuple[object, str]]:
    """Modules and names of the parameters of items, in the order of `ItemVectors`."""
    return [(input_layer(network.encoder), "weight"), (network.decoder, "weight"), (network.decoder, "bias")]
