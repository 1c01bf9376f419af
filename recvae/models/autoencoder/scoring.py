"""How a network scores rows, ranks by its scores, and is held against validation users."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.batches import DeviceRows
from recvae.data.rows import transform_values
from recvae.data.splits import Holdout
from recvae.evaluation.evaluate import evaluate_ranker
from recvae.nn import VAE
from recvae.nn.bfloat16 import ScreenedLogits
from recvae.nn.products import in_bfloat16
from recvae.nn.sharded import ShardedDecoder
from recvae.utils.topk import Rough, Scorer, rank

MANY = 256  # users from which on it pays to prepare the output layer for rough scores


def network_scores(network: VAE, rows: sparse.csr_matrix) -> Tensor:
    """Scores of all items for rows, on the network's device. -> (B, I)"""
    device = network.decoder.weight.device
    with torch.no_grad():
        return network.scores(DeviceRows(rows, device).all())


def network_scorer(network: VAE, n_users: int) -> Scorer:
    """What ranks by the network's scores: for many users roughly at first, where that is faster."""
    if isinstance(network.decoder, ShardedDecoder):  # whose output layer is not all there
        return lambda rows, _: network_scores(network, rows)
    weight, bias = (part.detach() for part in network.decoder.output)
    # on a CPU alone: a GPU may sum in bfloat16 too, which the bound does not know of
    if n_users < MANY or weight.device.type != "cpu" or not in_bfloat16("auto", weight.device):
        return lambda rows, _: network_scores(network, rows)
    logits = ScreenedLogits(weight, bias)

    def score(rows: sparse.csr_matrix, _: slice) -> Rough:
        with torch.no_grad():
            return logits(network.hidden(DeviceRows(rows, weight.device).all()))

    return score


def validation(network: VAE, valid: Holdout, values: str, metric: str) -> float:
    """The mean of a metric on validation users."""

    def ranker(_: NDArray[np.int64], rows: sparse.csr_matrix, N: int) -> NDArray[np.int32]:
        return rank(network_scorer(network, rows.shape[0]), transform_values(rows, values), N)[0]

    return evaluate_ranker(ranker, valid, [metric])[metric].mean
