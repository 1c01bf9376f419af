"""Encoders: a user's sparse row -> what is believed of the user's place in the latent space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, silu

from recvae.data.batches import Batch
from recvae.nn.bag import Bag
from recvae.nn.layers import dense_layers, dropout, gated_layers, normalized
from recvae.nn.noise import Noise
from recvae.nn.posterior import Gaussian, Point, TwoLevels


class NoisyBag(Bag):
    """The first layer of every encoder: row of unit norm -> dropout in training -> weighted sum."""

    def __init__(self, n_items: int, out_dim: int, dropout: float):
        super().__init__(n_items, out_dim)
        self.dropout = dropout

    def noisy(self, batch: Batch, noise: Noise | None) -> Tensor:  # (B, out_dim)
        values = normalized(batch)
        if self.training and self.dropout and noise is not None:
            values = dropout(values, self.dropout, batch, noise)
        return self(batch, values)


class _Encoder(nn.Module):
    """First layer -> tanh layers -> linear layer of `out_dim`."""

    def __init__(self, n_items: int, hidden_dims: Sequence[int], out_dim: int, dropout: float):
        super().__init__()
        dims = [*hidden_dims, out_dim]
        self.bag = NoisyBag(n_items, dims[0], dropout)
        self.layers = dense_layers(dims)

    def after(self, h: Tensor) -> Tensor:  # the first layer's output (B, H) -> (B, out_dim)
        for layer in self.layers:
            h = layer(torch.tanh(h))
        return h


class _ToGaussian(nn.Module):
    """What gives a Gaussian gives its places too."""

    def at(self, batch: Batch, eps: Tensor) -> Tensor:
        """z = mu(x) + sigma(x) * eps for standard normal noise, or noise of another strength. (B, K) -> (B, K)"""
        z: Tensor = self(batch).at(eps)
        return z


class GaussianEncoder(_Encoder, _ToGaussian):
    """q(z | x) = N(mu(x), diag(sigma(x)^2)), each of `latent_dim`. Source: Liang et al. 2018, section 2.2."""

    def __init__(self, n_items: int, hidden_dims: Sequence[int], latent_dim: int, dropout: float):
        super().__init__(n_items, hidden_dims, 2 * latent_dim, dropout)

    def forward(self, batch: Batch, noise: Noise | None = None) -> Gaussian:
        return self.beyond(self.bag.noisy(batch, noise))

    def beyond(self, h: Tensor) -> Gaussian:
        """What follows from the first layer's output (B, H)."""
        return Gaussian.halves(self.after(h))


class CodeEncoder(_Encoder):
    """A point tanh(f(x)) of `latent_dim`: the code of a deterministic autoencoder. Source: Liang et al. 2018, 4.3."""

    def __init__(self, n_items: int, hidden_dims: Sequence[int], latent_dim: int, dropout: float):
        super().__init__(n_items, hidden_dims, latent_dim, dropout)

    def forward(self, batch: Batch, noise: Noise | None = None) -> Point:
        return Point(torch.tanh(self.after(self.bag.noisy(batch, noise))))


class DenselyConnectedEncoder(_ToGaussian):
    """q(z | x) from `depth` layers of one width, each of which adds up what all before it gave.

    h_1 = LN(swish(W_1 x)), h_l = LN(swish(W_l h_{l-1} + h_1 + ... + h_{l-1})); Shenbin et al. 2020, section 3.2.
    """

    def __init__(self, n_items: int, hidden_dim: int, depth: int, latent_dim: int, dropout: float):
        super().__init__()
        self.bag = NoisyBag(n_items, hidden_dim, dropout)
        self.layers = dense_layers([hidden_dim] * depth)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_dim, eps=0.1) for _ in range(depth))
        (self.last,) = dense_layers([hidden_dim, 2 * latent_dim])

    def forward(self, batch: Batch, noise: Noise | None = None) -> Gaussian:
        first, *norms = self.norms
        h = total = first(silu(self.bag.noisy(batch, noise)))  # (B, H)
        for layer, norm in zip(self.layers, norms, strict=True):
            h = norm(silu(layer(h) + total))
            total = total + h
        return Gaussian.halves(self.last(h))


class GatedTwoLevelEncoder(nn.Module):
    """q(z2 | x) and q(z1 | x, z2), of `latent_dim` each, from gated layers h -> (W h + b) * sigmoid(V h + c).

    Both levels read x by the same gated layers, which are a network of its own for each in Kim & Suh 2019:
    the first layer, which is that of all items, would be twice as wide. Given noise, z2 is a draw from q(z2 | x),
    else its mean.
    """

    def __init__(self, n_items: int, hidden_dims: Sequence[int], latent_dim: int, dropout: float):
        super().__init__()
        first, width = hidden_dims[0], hidden_dims[-1]
        self.bag = NoisyBag(n_items, 2 * first, dropout)
        self.layers = gated_layers(hidden_dims)
        (self.joint,) = gated_layers([width + latent_dim, width])
        self.upper, self.lower = (dense_layers([width, 2 * latent_dim])[0] for _ in range(2))

    def forward(self, batch: Batch, noise: Noise | None = None) -> TwoLevels:
        h = self._features(self.bag.noisy(batch, noise))
        upper = Gaussian.halves(self.upper(h))
        z2 = upper.mean if noise is None else upper.sample(noise)
        return TwoLevels(upper, z2, self._below(h, z2))

    def at(self, batch: Batch, eps: Tensor) -> Tensor:
        """z for standard normal noise, or noise of another strength: z2 first, and z1 there. (B, 2 K) -> (B, 2 K)"""
        h = self._features(self.bag.noisy(batch, None))
        below, above = eps.chunk(2, dim=1)
        z2 = Gaussian.halves(self.upper(h)).at(above)
        return torch.cat([self._below(h, z2).at(below), z2], dim=1)

    def beyond(self, h: Tensor) -> Gaussian:
        """q(z2 | x) from the first layer's output (B, 2 H)."""
        return Gaussian.halves(self.upper(self._features(h)))

    def _below(self, h: Tensor, z2: Tensor) -> Gaussian:
        """q(z1 | x, z2) from the features of x."""
        return Gaussian.halves(self.lower(glu(self.joint(torch.cat([h, z2], dim=1)))))

    def _features(self, h: Tensor) -> Tensor:
        h = glu(h)
        for layer in self.layers:
            h = glu(layer(h))
        return h
