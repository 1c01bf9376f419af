"""Further items for a network that has learned without them: both its ends grow, what it says of the others stays."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from recvae.nn.vae import VAE


class ItemVectors(NamedTuple):
    """What a network knows of single items, a row for each."""

    first: Tensor  # (I, H), weight of the first layer
    last: Tensor  # (I, H'), weight of the output layer
    bias: Tensor  # (I,), its bias


def item_vectors(network: VAE) -> ItemVectors:
    """Those of all items of a network, on the host."""
    return ItemVectors(*(getattr(owner, name).detach().cpu() for owner, name in _ends(network)))


def enlarged(network: VAE, new: ItemVectors) -> VAE:
    """A copy of the network that has further items, with these vectors, after its own."""
    grown = copy.deepcopy(network)
    for (owner, name), rows in zip(_ends(grown), new, strict=True):
        old = getattr(owner, name).detach()
        setattr(owner, name, nn.Parameter(torch.cat([old, rows.to(old)])))
    return grown


def mean_where_unknown(new: ItemVectors, old: ItemVectors, known: sparse.csr_matrix) -> ItemVectors:
    """The new vectors, but for items whose row of `known` is empty: for these the mean of all, and the lowest bias."""
    nothing = torch.from_numpy(np.diff(known.indptr) == 0)
    new.first[nothing], new.last[nothing] = old.first.mean(0), old.last.mean(0)
    new.bias[nothing] = old.bias.min()
    return new


def _ends(network: VAE) -> list[tuple[Any, str]]:
    """Where the vectors of items are, in the order of `ItemVectors`."""
    encoder: Any = network.encoder
    return [(encoder.bag, "weight"), (network.decoder, "weight"), (network.decoder, "bias")]
