"""Networks whose tables of items are cut among ranks: each holds a slice of the rows, and all of what is between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from recvae.errors import InvalidParameterError
from recvae.nn.item_slice import ItemSlice
from recvae.nn.layers import initialize_rows
from recvae.nn.vae import VAE
from recvae.world import World


def shard(network: VAE, world: World) -> VAE:
    """Cut the tables of a network, in its place: each rank has some rows, on its device, yet to be initialised.

    network : as a model builds it, best on the meta device, where it takes no memory

    From here on all ranks call the network together, with one batch and noise, and get the same ELBO terms and scores of
    all items. Each rank's gradients are those of its own rows, and the same on all ranks elsewhere: they are not to be
    summed. Raises InvalidParameterError where there are fewer items than ranks, or for a likelihood that does not look
    at all items, or at dense rows.
    """
    impl = getattr(network.likelihood, "keywords", {}).get("impl", "auto")
    if impl not in ("auto", "exact"):
        raise InvalidParameterError(f'Expected impl="exact" where ranks share out the items, got {impl!r}; take "exact".')
    items = ItemSlice.of(len(network.decoder.weight), world)
    tables = {id(table): _cut(table, items) for table in _tables(network).values()}  # what is one stays one
    places = [(module, name, tables[id(table)]) for module, name, table in _owned(network) if id(table) in tables]
    for module, name, table in places:
        setattr(module, name, table)
    network.to_empty(device=world.device)
    for module, name, table in places:
        setattr(module, name, nn.Parameter(table.data, table.requires_grad))
    return network
