"""The network of an autoencoder apart from its layers: tied embeddings, initial weights, sharding, files, optimizers.

Item embeddings are the weights (I, H) of the input layer and of the output layer, which have a row for each item. They
are separate, or tied to one parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.shards import Shards
from recvae.distributed.communicator import Communicator
from recvae.errors import InvalidParameterError
from recvae.models.autoencoder.options import starts_from_popularity, starts_spectrally
from recvae.models.autoencoder.scoring import item_counts
from recvae.models.autoencoder.shape import Shape
from recvae.models.base.file_tensors import fill
from recvae.nn import VAE, MLPDecoder
from recvae.nn.encoders import input_layer
from recvae.nn.item_vectors import ItemVectors
from recvae.nn.layers import InputLayer, SparseEmbeddingBag
from recvae.nn.optim import AdamW, RowwiseAdam
from recvae.nn.rng import initialize
from recvae.nn.sharded import full_state_dict, initialize_sharded, shard, sharded_parameters
from recvae.nn.spectral import init_spectrally
from recvae.training.parallel import ParallelStrategy

INPUT = "encoder.bag.weight"  # the parameter that files omit if it is tied to the output layer's
OUTPUT = "decoder.weight"


def tie(network: VAE) -> None:
    """Make the weights (I, H) of the input layer and of the output layer one parameter.

    Raises
    ------
    InvalidParameterError
        For layers of different widths.
    """
    first, last = input_layer(network.encoder), network.decoder
    if first.weight.shape != last.weight.shape:
        raise InvalidParameterError(
            f"Expected an input layer and an output layer of one width for output__tied_embeddings=True, got "
            f"{first.weight.shape[1]} and {last.weight.shape[1]}; make them equal, or leave the embeddings separate."
        )
    first.weight = last.weight


def are_tied(network: VAE) -> bool:
    """Whether the input layer and the output layer share one parameter."""
    bag = getattr(network.encoder, "bag", None)
    return isinstance(bag, InputLayer) and bag.weight is network.decoder.weight


def untrained_network(
    build: Callable[[], VAE], seed: int, strategy: ParallelStrategy, device: torch.device, tied: bool
) -> VAE:
    """A network with initial weights; in tensor-parallel training it has only this rank's rows of the embeddings."""
    if not strategy.tensor_parallel:
        network = build().to(device)
        initialize(network, seed)
        return network
    with torch.device("meta"):  # no rank has memory for all rows
        network = shard(build(), strategy.communicator).to_empty(device=device)
    if tied:  # `shard` has made two parameters of one
        tie(network)
    initialize_sharded(network, seed)
    return network


def start_from_rows(network: VAE, rows: sparse.csr_matrix | Shards, model: Any, communicator: Communicator) -> None:
    """Start item biases from popularity, and item embeddings from singular vectors, where the model's options say so.

    Parameters
    ----------
    network : VAE
        With random weights.
    rows : csr_matrix or Shards
        (U, I), the training rows.
    model : Autoencoder
    communicator : Communicator
        Of the ranks that train.
    """
    if starts_from_popularity(model):
        init_biases_by_popularity(network, item_counts(rows), model.likelihood)
    if starts_spectrally(model, rows.shape[1]):
        init_spectrally(network, rows, communicator, model._starts_as_filter(Shape.of(rows)))


def init_biases_by_popularity(network: VAE, counts: NDArray[np.int64], likelihood: str) -> None:
    """Initialise the item biases to log(1 + users of the item), less the mean.

    Their softmax is the popularity distribution of the items (counts plus one). Training starts from it because a step
    touches too few of millions of items for an epoch to learn which ones are popular.

    Parameters
    ----------
    network : VAE
    counts : ndarray of shape (I,)
        The number of users of each item.
    likelihood : str

    Raises
    ------
    InvalidParameterError
        If the likelihood is not multinomial.
    """
    if likelihood != "multinomial":
        raise InvalidParameterError(
            f'Expected the multinomial likelihood for output__item_biases="popularity", got {likelihood!r}; take '
            f'"normal".'
        )
    biases, shard = np.log1p(counts), sharded_parameters(network).get("decoder.bias")
    rows_of_rank = slice(None) if shard is None else slice(shard.start, shard.stop)
    with torch.no_grad():
        network.decoder.bias.copy_(torch.from_numpy(biases - biases.mean())[rows_of_rank])


def optimizers(
    network: VAE, sparse: bool, learning_rate: float, weight_decay: float, embedding_lr: float
) -> list[torch.optim.Optimizer]:
    """Adam for all parameters; with `sparse` gradients of the embeddings, a row-wise Adam for these.

    embedding_lr : learning rate of the row-wise Adam, as a multiple of `learning_rate`
    """
    for layer in network.modules():
        if isinstance(layer, SparseEmbeddingBag):
            layer.sparse = sparse
    if not sparse:
        return [AdamW(network.parameters(), learning_rate, weight_decay)]
    # by identity, as tied embeddings are one parameter
    first = input_layer(network.encoder).weight
    embeddings = list({id(p): p for p in (first, network.decoder.weight, network.decoder.bias)}.values())
    embedding_ids = {id(p) for p in embeddings}
    others = [p for p in network.parameters() if id(p) not in embedding_ids]
    return [
        AdamW(others, learning_rate, weight_decay),
        RowwiseAdam(embeddings, lr=embedding_lr * learning_rate, weight_decay=weight_decay),
    ]


def gathered(network: VAE, build: Callable[[], VAE], strategy: ParallelStrategy) -> VAE:
    """The trained network with the rows of all ranks, ready to score."""
    if strategy.tensor_parallel:
        tensors = full_state_dict(network)
        with torch.device("meta"):
            network = build()
        tied = are_tied(network)
        network.load_state_dict(tensors, assign=True)
        if tied:  # `assign` has made two parameters of one
            tie(network)
    return ready_to_score(network)


def ready_to_score(network: VAE) -> VAE:
    """The network in eval mode, its output layer laid out for scoring: it is not to be trained further."""
    if isinstance(network.decoder, MLPDecoder) and not are_tied(network):
        network.decoder.prepare_for_inference()
    return network.eval()


def to_file(network: VAE) -> dict[str, Tensor]:
    """The tensors of a network for a file, which has tied embeddings once."""
    tensors = dict(network.state_dict())
    return {name: tensor for name, tensor in tensors.items() if not (are_tied(network) and name == INPUT)}


def from_file(build: Callable[[], VAE], tensors: dict[str, Tensor], device: torch.device) -> VAE:
    """The network of a file, ready to score.

    Raises
    ------
    InvalidDataError
        For tensors of other names, shapes or types than the network's, before anything is allocated.
    """
    with torch.device("meta"):  # shapes without memory, to check the tensors of the file first
        network = build()
    tied = are_tied(network)
    fill(network, tensors | {INPUT: tensors[OUTPUT]} if tied and OUTPUT in tensors else tensors)
    if tied:
        tie(network)
    return ready_to_score(network.to(device))


def code_width(tensors: dict[str, Tensor]) -> int | None:
    """The dimension of the codes that the decoder of a file takes; None without a matrix to read it from."""
    first = tensors.get("decoder.hidden.0.weight", tensors.get(OUTPUT))
    return None if first is None or first.ndim != 2 else first.shape[1] or None


def tied_vectors(vectors: ItemVectors) -> ItemVectors:
    """Vectors of new items for tied embeddings: the mean of what the two layers would get."""
    mean = (vectors.first + vectors.last) / 2
    return ItemVectors(mean, mean, vectors.bias)
