"""Encoders: a user's sparse row -> what is believed of the user's place in the latent space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from recvae.batches import Batch
from recvae.nn.bag import Bag
from recvae.nn.layers import dense_layers, dropout, normalized
from recvae.nn.posterior import Gaussian, Point


class NoisyBag(Bag):
    """The first layer of every encoder: row of unit norm -> dropout in training -> weighted sum."""

    def __init__(self, n_items: int, out_dim: int, dropout: float):
        super().__init__(n_items, out_dim)
        self.dropout = dropout

    def noisy(self, batch: Batch, generator: torch.Generator | None) -> Tensor:  # (B, out_dim)
        values = normalized(batch)
        if self.training and self.dropout and generator is not None:
            values = dropout(values, self.dropout, generator)
        return self(batch, values)


class _Encoder(nn.Module):
    """First layer -> tanh layers -> linear layer of `out_dim`."""

    def __init__(self, n_items: int, hidden_dims: Sequence[int], out_dim: int, dropout: float):
        super().__init__()
        dims = [*hidden_dims, out_dim]
        self.bag = NoisyBag(n_items, dims[0], dropout)
        self.layers = dense_layers(dims)

    def features(self, batch: Batch, generator: torch.Generator | None) -> Tensor:  # (B, out_dim)
        h = self.bag.noisy(batch, generator)
        for layer in self.layers:
            h = layer(torch.tanh(h))
        return h


class GaussianEncoder(_Encoder):
    """q(z | x) = N(mu(x), diag(sigma(x)^2)), each of `latent_dim`. Source: Liang et al. 2018, section 2.2."""

    def __init__(self, n_items: int, hidden_dims: Sequence[int], latent_dim: int, dropout: float):
        super().__init__(n_items, hidden_dims, 2 * latent_dim, dropout)

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Gaussian:
        mean, logvar = self.features(batch, generator).chunk(2, dim=1)
        return Gaussian(mean, logvar)


class CodeEncoder(_Encoder):
    """A point tanh(f(x)) of `latent_dim`: the code of a deterministic autoencoder. Source: Liang et al. 2018, 4.3."""

    def __init__(self, n_items: int, hidden_dims: Sequence[int], latent_dim: int, dropout: float):
        super().__init__(n_items, hidden_dims, latent_dim, dropout)

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Point:
        return Point(torch.tanh(self.features(batch, generator)))


class DenselyConnectedEncoder(nn.Module):
    """q(z | x) from `depth` layers of one width, each of which adds up what all before it gave.

    h_1 = LN(swish(W_1 x)), h_l = LN(swish(W_l h_{l-1} + h_1 + ... + h_{l-1})); Shenbin et al. 2020, section 3.2.
    """

    def __init__(self, n_items: int, hidden_dim: int, depth: int, latent_dim: int, dropout: float):
        super().__init__()
        self.bag = NoisyBag(n_items, hidden_dim, dropout)
        self.layers = dense_layers([hidden_dim] * depth)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_dim, eps=0.1) for _ in range(depth))
        (self.last,) = dense_layers([hidden_dim, 2 * latent_dim])

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Gaussian:
        first, *norms = self.norms
        h = total = first(silu(self.bag.noisy(batch, generator)))  # (B, H)
        for layer, norm in zip(self.layers, norms, strict=True):
            h = norm(silu(layer(h) + total))
            total = total + h
        mean, logvar = self.last(h).chunk(2, dim=1)
        return Gaussian(mean, logvar)
