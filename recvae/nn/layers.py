"""What stands around the first layer: normalised rows, dropout by given noise, the decoder; and how weights begin."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recvae.data.batches import Batch
from recvae.nn.noise import Noise
from recvae.nn.products import by_columns, linear
from recvae.nn.scratch import scratch

DRAWN_ROWS = 4096  # of a parameter, from one stream


class Decoder(nn.Module):
    """z -> hidden state, by tanh or `gated` layers; and the output layer that turns it into one logit for each item.

    Likelihoods take the hidden state and the `output` layer's weight (I, H) and bias (I,), so that no B x I matrix of
    logits h W^T + b has to exist as a whole. With a `temperature` t they are cos(h, W_i) / t + b_i: hidden states and
    weights are at unit norm, those of 1 / t.
    """

    def __init__(
        self,
        latent_dim: int,
        hidden_dims: Sequence[int],
        n_items: int,
        *,
        gated: bool = False,
        temperature: float | None = None,
    ):
        super().__init__()
        dims = [latent_dim, *hidden_dims]
        self.latent_dim = latent_dim
        self.hidden = gated_layers(dims) if gated else dense_layers(dims)
        self.activation = F.glu if gated else torch.tanh
        self.temperature = temperature
        self.weight = nn.Parameter(torch.full((n_items, dims[-1]), torch.nan))  # (I, H), for `initialize`
        self.bias = nn.Parameter(torch.full((n_items,), torch.nan))  # (I,)

    def forward(self, z: Tensor) -> Tensor:  # (B, K) -> (B, H)
        for layer in self.hidden:
            z = self.activation(layer(z))
        return z if self.temperature is None else F.normalize(z) / self.temperature

    @property
    def output(self) -> tuple[Tensor, Tensor]:
        """Weight (I, H) and bias (I,) that turn hidden states into logits."""
        return self.weight if self.temperature is None else unit_rows(self.weight), self.bias

    @property
    def linear(self) -> bool:
        """Whether logits are z W^T + b."""
        return not len(self.hidden) and self.temperature is None

    def settle(self) -> None:
        """Lay the output layer out for scoring, for those who will not train it."""
        self.weight = nn.Parameter(by_columns(self.weight.detach()))

    def logits(self, hidden: Tensor) -> Tensor:  # (B, H) -> (B, I)
        return linear(hidden, *self.output)


def unit_rows(weight: Tensor) -> Tensor:
    """Each row (I, H) divided by its Euclidean norm, a row of zeros left as it is."""
    unit: Tensor = _UnitRows.apply(weight)  # type: ignore[no-untyped-call]
    return unit


class _UnitRows(torch.autograd.Function):
    """F.normalize with one pass over the table each way: what autograd makes of it costs as much as a training step."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(weight, dim=1, keepdim=True).clamp(min=1e-12)
        unit = weight / norms
        ctx.save_for_backward(unit, norms)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """What of the gradient is not along the row, divided by its norm."""
        unit, norms = ctx.saved_tensors
        along = torch.bmm(grad[:, None], unit[:, :, None])[:, :, 0]  # (I, 1)
        room = scratch("gradient of weights of any norm", grad.shape, grad.dtype, grad.device, for_step=True)
        return torch.addcmul(grad, unit, along, value=-1, out=room).div_(norms)


class Dense(nn.Linear):
    """A linear layer of which only the product may be in a lower precision (under autocast), never what it gives."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias).to(x.dtype)


def dense_layers(dims: Sequence[int]) -> nn.ModuleList:
    """One linear layer from each size to the next."""
    return nn.ModuleList(_dense(a, b) for a, b in itertools.pairwise(dims))


def gated_layers(dims: Sequence[int]) -> nn.ModuleList:
    """Layers for `glu`, which halves them: h -> (W h + b) * sigmoid(V h + c). Source: Dauphin et al. 2017."""
    return nn.ModuleList(_dense(a, 2 * b) for a, b in itertools.pairwise(dims))


def _dense(width: int, out: int) -> Dense:
    """With weights of NaN, for `initialize`: torch would draw from its global generator. On the default device."""
    layer: Dense = nn.utils.skip_init(Dense, width, out, device=torch.get_default_device())
    for parameter in layer.parameters():
        nn.init.constant_(parameter, torch.nan)
    return layer


def normalized(batch: Batch) -> Tensor:
    """Each user's values divided by their Euclidean norm. -> (E,)"""
    norms = batch.sum(batch.values.square()).sqrt()
    return batch.values / norms[batch.rows]


def dropout(values: Tensor, rate: float, batch: Batch, noise: Noise) -> Tensor:
    """Drop each event's value (E,) with probability `rate`, scale the others by 1 / (1 - rate).

    On the events of sparse rows this is dropout on the dense row: where nothing is, nothing can be dropped.
    """
    return values * noise.kept(batch, rate) / (1 - rate)


def initialize(network: nn.Module, seed: int, only_missing: bool = False) -> None:
    """Xavier-uniform weights, biases of N(0, .001^2), as Liang et al. 2018 do it; scales of a LayerNorm are 1.

    Parameters
    ----------
    only_missing : bool
        Leave parameters alone that have been initialised: those of the layers here are NaN before.
    """
    for name, parameter in network.named_parameters():
        if not only_missing or bool(parameter.detach().flatten()[:1].isnan().any()):
            initialize_rows(parameter, seed, name, tuple(parameter.shape))


@torch.no_grad()
def initialize_rows(rows: Tensor, seed: int, name: str, shape: tuple[int, ...], start: int = 0) -> None:
    """What `initialize` gives the rows from `start` on of the parameter of that name and whole shape.

    A row's numbers follow from the seed, the name and its place, whoever holds it.
    """
    key = np.array([seed, crc32(name.encode())], dtype=np.uint64)
    bound = math.sqrt(6 / sum(shape))
    if len(shape) == 1 and not name.endswith("bias"):
        rows.fill_(1)
        return
    for block in range(start // DRAWN_ROWS, -(-(start + len(rows)) // DRAWN_ROWS)):
        first = block * DRAWN_ROWS
        random = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, block]))
        size = (min(DRAWN_ROWS, shape[0] - first), *shape[1:])
        drawn = random.standard_normal(size, np.float32) if len(shape) == 1 else random.random(size, np.float32)
        drawn = drawn * np.float32(0.001) if len(shape) == 1 else (2 * drawn - 1) * np.float32(bound)
        here = slice(max(start, first), min(start + len(rows), first + DRAWN_ROWS))
        rows[here.start - start : here.stop - start] = torch.from_numpy(drawn[here.start - first : here.stop - first])
