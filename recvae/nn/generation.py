"""Generation: rows of users sampled from a likelihood, and the standard deviation of logits over draws of z."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.batches import Batch
from recvae.nn.likelihood import UNOBSERVED
from recvae.nn.vae import VAE, MLPDecoder

EDGE = 1e-6  # logits of the gaussian family are clamped to [EDGE, 1 - EDGE], where the logit function is finite


def sample_rows(
    logits: Tensor,
    sizes: NDArray[np.int64],
    generator: np.random.Generator,
    family: str = "multinomial",
    temperature: float = 1.0,
    unobserved: float = UNOBSERVED,
) -> sparse.csr_matrix:
    """Draw rows of ones from the likelihood of a family.

    The multinomial draws items one after another, without replacement, with probabilities from the softmax of the
    logits. The logistic family draws each item independently, so the number of items is random. So does the Gaussian,
    with the probability p that corresponds to a fitted value l: the weighted mean of ones (weight 1, share p) and zeros
    (weight u = `unobserved`) is l = p / (p + u (1 - p)), so the odds of p are u l / (1 - l).

    Parameters
    ----------
    logits
        (B, I); they are divided by `temperature`.
    sizes
        (B,), the number of items of each row; used by the multinomial only.
    generator
        A numpy generator, so that draws do not depend on the device.
    family
        "multinomial", "logistic" or "gaussian".
    temperature
        Above 1, rows are more random.
    unobserved
        The Gaussian's confidence in items without an event.

    Returns
    -------
    sparse.csr_matrix
        (B, I).

    References
    ----------
    The n largest of logits + Gumbel noise are draws without replacement: Yellott 1977; Kool, van Hoof & Welling 2019,
    "Stochastic Beams and Where to Find Them".
    """
    shape, device = tuple(logits.shape), logits.device
    if family == "multinomial":
        noise = torch.from_numpy(generator.standard_exponential(shape, dtype=np.float32)).to(device)
        longest = min(int(sizes.max(initial=0)), logits.shape[1])
        noisy = logits / temperature - noise.log()  # minus the log of an exponential variable is Gumbel noise
        items = noisy.topk(longest, dim=1).indices.cpu().numpy()  # (B, longest)
        return _rows(items[np.arange(longest) < sizes[:, None]], np.minimum(sizes, longest), logits.shape[1])
    if family == "gaussian":
        logits = torch.logit(logits.clamp(EDGE, 1 - EDGE)) + math.log(unobserved)
    noise = torch.from_numpy(generator.random(shape, dtype=np.float32)).to(device)
    users, items = (noise < torch.sigmoid(logits / temperature)).nonzero().cpu().numpy().T
    return _rows(items, np.bincount(users, minlength=len(logits)), logits.shape[1])


def score_std(network: VAE, output: Tensor, batch: Batch, items: Tensor, draws: Tensor) -> Tensor:
    """Standard deviation over z ~ q(z | x) of the logits of some items for each user.

    For linear logits W z + b it is exact, sqrt(sum_k W_ik^2 sigma_k^2); else it is estimated from `draws` (D, K),
    standard normal noise that all users share.

    Parameters
    ----------
    output : Tensor
        (I, H), the weight of the decoder's output layer.
    items : Tensor
        (B, N).

    Returns
    -------
    Tensor
        (B, N).
    """
    weight = output[items]  # (B, N, H)
    if isinstance(network.decoder, MLPDecoder) and network.decoder.linear:
        variance = network.encoder(batch).logvar.exp()  # (B, K)
        return (weight.square() @ variance[:, :, None])[:, :, 0].sqrt()
    logits = [
        (weight @ network.hidden(batch, eps.expand(len(batch), -1))[:, :, None])[:, :, 0]  # (B, N)
        for eps in draws
    ]
    return torch.stack(logits).std(0)


def _rows(items: NDArray[np.int64], sizes: NDArray[np.int64], n_items: int) -> sparse.csr_matrix:
    """A matrix of ones from the concatenated items of its rows, and the number of items of each. -> (B, I)"""
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    rows = sparse.csr_matrix((np.ones(len(items), np.float32), items, indptr), shape=(len(sizes), n_items))
    rows.sort_indices()
    return rows
