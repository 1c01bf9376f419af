"""Encoders: a user's sparse row -> what is believed of the user's place in the latent space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recvae.batches import Batch
from recvae.nn.bag import Bag
from recvae.nn.layers import dense_layers, dropout, normalized
from recvae.nn.posterior import Gaussian, Point


class _Encoder(nn.Module):
    """Row of unit norm -> dropout in training -> tanh layers -> linear layer of `out_dim`. The first is a Bag."""

    def __init__(self, n_items: int, hidden_dims: Sequence[int], out_dim: int, dropout: float):
        super().__init__()
        dims = [*hidden_dims, out_dim]
        self.bag = Bag(n_items, dims[0])
        self.layers = dense_layers(dims)
        self.dropout = dropout

    def features(self, batch: Batch, generator: torch.Generator | None) -> Tensor:  # (B, out_dim)
        values = normalized(batch)
        if self.training and self.dropout and generator is not None:
            values = dropout(values, self.dropout, generator)
        h = self.bag(batch, values)
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
