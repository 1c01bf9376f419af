"""Scores of a network, and its metric on validation users."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.batches import DeviceRows
from recvae.data.rows import transform_values
from recvae.data.shards import Shards
from recvae.data.splits import Holdout
from recvae.evaluation.evaluate import evaluate_ranker
from recvae.nn import VAE
from recvae.nn.bfloat16 import ScreenedLogits
from recvae.nn.layers import in_bfloat16
from recvae.nn.sharded import ShardedDecoder
from recvae.utils.topk import Rough, Scorer, rank

SCREENING_USERS = 256  # from this number on, screening in bfloat16 pays for preparing the output layer


def item_counts(rows: sparse.csr_matrix | Shards) -> NDArray[np.int64]:
    """The number of users of each item. -> (I,)"""
    return rows.item_counts if isinstance(rows, Shards) else np.bincount(rows.indices, minlength=rows.shape[1])


def network_scores(network: VAE, rows: sparse.csr_matrix) -> Tensor:
    """Scores of all items, on the network's device. (B, I) -> (B, I)"""
    device = network.decoder.weight.device
    with torch.no_grad():
        return network.scores(DeviceRows(rows, device).all())


def network_scorer(network: VAE, n_users: int) -> Scorer:
    """The scoring function for `rank`.

    For many users it screens the items in bfloat16 first, where that is faster; the rankings are the same.
    """
    if isinstance(network.decoder, ShardedDecoder):  # this rank holds a part of the output layer only
        return lambda rows, _: network_scores(network, rows)
    weight, bias = (part.detach() for part in network.decoder.output)
    # on a CPU only: a GPU may also accumulate in bfloat16, which the error bound does not cover
    if n_users < SCREENING_USERS or weight.device.type != "cpu" or not in_bfloat16("auto", weight.device):
        return lambda rows, _: network_scores(network, rows)
    logits = ScreenedLogits(weight, bias)

    def score(rows: sparse.csr_matrix, _: slice) -> Rough:
        with torch.no_grad():
            return logits(network.hidden(DeviceRows(rows, weight.device).all()))

    return score


def validation_score(network: VAE, valid: Holdout, values: str, metric: str) -> float:
    """The mean of a metric over validation users. values : how values are read, as in training"""

    def ranker(_: NDArray[np.int64], rows: sparse.csr_matrix, N: int) -> NDArray[np.int32]:
        return rank(network_scorer(network, rows.shape[0]), transform_values(rows, values), N)[0]

    return evaluate_ranker(ranker, valid, [metric])[metric].mean
