"""Tensor parallel networks: both embedding tables are sharded by items; values and gradients do not change."""

from __future__ import annotations

from torch import Tensor, nn

from recvae.data.batches import Batch
from recvae.distributed.communicator import Communicator
from recvae.errors import NotSupportedError
from recvae.nn.encoders import input_layer
from recvae.nn.layers import InputLayer
from recvae.nn.likelihood import with_options
from recvae.nn.rng import initialize_rows
from recvae.nn.slices import ItemSlice
from recvae.nn.vae import VAE, MLPDecoder

SPLIT = ("encoder.bag.weight", "decoder.weight", "decoder.bias")


class ShardedInputLayer(InputLayer):
    """The input layer with the rows of a slice of items. Norms and dropout still cover all events of a user."""

    def __init__(self, bag: InputLayer, items: ItemSlice, weight: nn.Parameter):
        nn.Module.__init__(self)
        self.items, self.dropout, self.sparse = items, bag.dropout, bag.sparse
        self.weight, self.bias = weight, bag.bias  # (stop - start, H), (H,)

    def weighted(self, batch: Batch, values: Tensor) -> Tensor:
        events, local = self.items.local(batch)
        return self.items.reduce(self.sums(local, values[events])) + self.bias


class ShardedDecoder(MLPDecoder):
    """A decoder whose output layer holds a slice of items. Its `logits` cover all items, on each rank."""

    def __init__(self, decoder: MLPDecoder, items: ItemSlice, weight: nn.Parameter, bias: nn.Parameter):
        nn.Module.__init__(self)
        self.items, self.latent_dim, self.temperature = items, decoder.latent_dim, decoder.temperature
        self.hidden, self.activation = decoder.hidden, decoder.activation
        self.weight, self.bias = weight, bias  # (stop - start, H), (stop - start,)

    def logits(self, hidden: Tensor) -> Tensor:  # (B, H) -> (B, I)
        return self.items.gather(super().logits(hidden))


def shard(network: VAE, communicator: Communicator) -> VAE:
    """Shard a network: keep only the rows of this rank's items in both embedding tables. Also on the meta device.

    All ranks then train it on the same batches, with the same noise, and do not exchange gradients: those of the tables
    belong to one rank each, the others are equal on all ranks. `network.scores` returns scores of all items, on each
    rank; `network.decoder.output` is the output layer of the slice. Its likelihood has to be `recvae.nn.nll`, chunked.

    Returns
    -------
    VAE
        The same network, changed in place.

    Raises
    ------
    InvalidParameterError
        For fewer items than ranks.
    NotSupportedError
        For a custom likelihood, decoder or first layer of the encoder.
    """
    encoder, bag, decoder = network.encoder, input_layer(network.encoder), network.decoder
    if not isinstance(decoder, MLPDecoder):
        raise NotSupportedError(
            f"Expected an MLPDecoder where ranks have slices of items, got {type(decoder).__name__}."
        )
    items = ItemSlice(communicator, len(decoder.bias))
    weight = _slice(decoder.weight, items)
    first = weight if bag.weight is decoder.weight else _slice(bag.weight, items)  # tied embeddings stay tied
    assert isinstance(encoder, nn.Module)
    encoder.register_module("bag", ShardedInputLayer(bag, items, first))
    network.decoder = ShardedDecoder(decoder, items, weight, _slice(decoder.bias, items))
    likelihood = with_options(network.likelihood, items=items)
    if likelihood is network.likelihood:
        raise NotSupportedError(
            "Expected the likelihood recvae.nn.nll where ranks have slices of the items, got another."
        )
    network.likelihood = likelihood
    return network


def sharded_parameters(network: nn.Module) -> dict[str, ItemSlice]:
    """The sharded parameters by name, with the slice of this rank; empty if the network is not sharded."""
    bag = getattr(getattr(network, "encoder", None), "bag", None)
    return dict.fromkeys(SPLIT, bag.items) if isinstance(bag, ShardedInputLayer) else {}


def full_state_dict(network: VAE) -> dict[str, Tensor]:
    """The complete weights, with the rows of all ranks, in host memory of each rank."""
    sharded = sharded_parameters(network)
    return {
        name: (sharded[name].communicator.all_gather(tensor) if name in sharded else tensor.detach()).cpu()
        for name, tensor in network.state_dict().items()
    }


def initialize_sharded(network: VAE, seed: int) -> None:
    """Initialise the rows of this rank as `initialize` would in a network that is not sharded."""
    sharded = sharded_parameters(network)
    for name, parameter in network.named_parameters():
        items = sharded.get(name)
        shape = tuple(parameter.shape) if items is None else (items.n_items, *parameter.shape[1:])
        initialize_rows(parameter, seed, name, shape, 0 if items is None else items.start)


def _slice(parameter: nn.Parameter, items: ItemSlice) -> nn.Parameter:
    return nn.Parameter(parameter.detach()[items.start : items.stop].clone(), parameter.requires_grad)
