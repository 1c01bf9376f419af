"""Whole rows drawn from a likelihood, given logits of all items; and how far logits move with the draw of z."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.batches import Batch
from recvae.nn.likelihood import UNOBSERVED
from recvae.nn.vae import VAE

Sizes = NDArray[np.int64]
EDGE = 1e-6  # a fitted value of 0 or less, or of 1 or more, is as good as this far from it


def draw_multinomial(
    logits: Tensor,
    sizes: Sizes,
    random: np.random.Generator,
    temperature: float = 1.0,
    unobserved: float = UNOBSERVED,
) -> sparse.csr_matrix:
    """One item after the other with probability by the softmax of the logits, and none twice, as many as `sizes` says.

    Parameters
    ----------
    logits : Tensor
        (B, I), divided by `temperature`.
    sizes : Sizes
        (B,).
    unobserved : float
        The Gaussian's.

    Returns
    -------
    sparse.csr_matrix
        csr (B, I) of ones.

    Notes
    -----
    The n largest of logits + Gumbel noise are such a draw: Yellott 1977; Kool, van Hoof & Welling 2019, "Stochastic
    Beams and Where to Find Them".
    """
    noise = torch.from_numpy(random.standard_exponential(tuple(logits.shape), dtype=np.float32)).to(logits.device)
    longest = min(int(sizes.max(initial=0)), logits.shape[1])
    noisy = logits / temperature - noise.log()  # minus the logarithm of an exponential is Gumbel's
    items = noisy.topk(longest, dim=1).indices.cpu().numpy()  # (B, longest)
    return _rows(items[np.arange(longest) < sizes[:, None]], np.minimum(sizes, longest), logits.shape[1])


def draw_logistic(
    logits: Tensor,
    sizes: Sizes,
    random: np.random.Generator,
    temperature: float = 1.0,
    unobserved: float = UNOBSERVED,
) -> sparse.csr_matrix:
    """Each item by a coin of its own, so that how many there are is the coins' too. As `draw_multinomial`."""
    noise = torch.from_numpy(random.random(tuple(logits.shape), dtype=np.float32)).to(logits.device)
    users, items = (noise < torch.sigmoid(logits / temperature)).nonzero().cpu().numpy().T
    return _rows(items, np.bincount(users, minlength=len(logits)), logits.shape[1])


def draw_gaussian(
    logits: Tensor,
    sizes: Sizes,
    random: np.random.Generator,
    temperature: float = 1.0,
    unobserved: float = UNOBSERVED,
) -> sparse.csr_matrix:
    """Each item by a coin of its own, of the probability p that a fitted value l stands for. As `draw_multinomial`.

    Of values 0 and 1, weighed by u = `unobserved` and 1, the weighted mean that a fit finds is l = p / (p + u (1 - p)).
    So the odds of p are u l / (1 - l).
    """
    fit = logits.clamp(EDGE, 1 - EDGE)
    return draw_logistic(torch.logit(fit) + math.log(unobserved), sizes, random, temperature)


# by likelihood: (logits, sizes, random, temperature, unobserved) -> csr (B, I)
DRAWS: dict[str, Callable[..., sparse.csr_matrix]] = {
    "multinomial": draw_multinomial,
    "logistic": draw_logistic,
    "gaussian": draw_gaussian,
}


def score_spread(network: VAE, output: Tensor, batch: Batch, items: Tensor, points: Tensor) -> Tensor:
    """Standard deviation over z ~ q(z | x) of the logits of some items for each user.

    With linear logits W z + b exactly, sqrt(sum_k W_ik^2 sigma_k^2); else over the z of `points` (D, K), standard
    normal noise that is one for all users.

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
    if network.decoder.linear:
        variance = network.encoder(batch).logvar.exp()  # (B, K)
        return (weight.square() @ variance[:, :, None])[:, :, 0].sqrt()
    drawn = [
        (weight @ network.hidden(batch, point.expand(len(batch), -1))[:, :, None])[:, :, 0]  # (B, N)
        for point in points
    ]
    return torch.stack(drawn).std(0)


def _rows(items: NDArray[np.int64], sizes: Sizes, n_items: int) -> sparse.csr_matrix:
    """Rows of ones from the items of one after the other."""
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    rows = sparse.csr_matrix((np.ones(len(items), np.float32), items, indptr), shape=(len(sizes), n_items))
    rows.sort_indices()
    return rows
