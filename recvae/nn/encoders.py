"""Encoders and the posteriors that they return: a user's sparse row -> q(z | x)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, silu

from recvae.data.batches import Batch
from recvae.errors import NotSupportedError
from recvae.nn.layers import InputLayer, dense_layers, gated_layers
from recvae.nn.rng import CounterRNG

LOG_2PI = math.log(2 * math.pi)


class Posterior(Protocol):
    """q(z | x) of B users over K latent dimensions."""

    @property
    def mean(self) -> Tensor: ...  # (B, K)

    @property
    def logvar(self) -> Tensor: ...  # (B, K), logarithm of the variance

    def log_density(self, z: Tensor) -> Tensor:
        """log q(z_k | x) in each dimension. (B, K) -> (B, K)"""
        ...

    def sample(self, rng: CounterRNG) -> Tensor:
        """A differentiable draw of z. -> (B, K)"""
        ...

    def reparameterize(self, eps: Tensor) -> Tensor:
        """z for the given noise `eps` (B, K): standard normal for a draw, scaled to stay closer or go further."""
        ...


class Encoder(Protocol):
    """A torch module that returns the posterior of a batch of users; your own encoder only needs such a `forward`.

    Tied embeddings, the sampled likelihood, tensor parallelism, `add_items` and exports also need its first layer, an
    `InputLayer` called `bag`. A `VampPrior` needs a method `head`, (B, H) -> Gaussian, that applies the
    layers after that one. With a method `posterior`, (B, H) -> q(z | x), that applies the layers after `bag` and draws
    nothing else than `rng` gives, a training step computes them for pieces of the batch on several cores.
    """

    def __call__(self, batch: Batch, rng: CounterRNG | None = None) -> Posterior:
        """q(z | x) of B rows. Without `rng`, as at inference, there is no dropout."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def eval(self) -> object: ...


def input_layer(encoder: Encoder) -> InputLayer:
    """The first layer of an encoder. Raises NotSupportedError if it has no `InputLayer` called `bag`."""
    bag = getattr(encoder, "bag", None)
    if not isinstance(bag, InputLayer):
        raise NotSupportedError(
            f"Expected an encoder whose first layer is an InputLayer called bag, got {type(bag).__name__}."
        )
    return bag


# posteriors -----------------------------------------------------------------------------------------------------------


class Gaussian(NamedTuple):
    """N(mean, exp(logvar)), independent in each latent dimension."""

    mean: Tensor  # (B, K)
    logvar: Tensor  # (B, K)

    @classmethod
    def split(cls, x: Tensor) -> Gaussian:
        """From means and log-variances side by side in one tensor (B, 2 K)."""
        return cls(*x.chunk(2, dim=1))

    def log_density(self, z: Tensor) -> Tensor:
        """log N(z_k; mean_k, exp(logvar_k)) in each dimension. (B, K) -> (B, K)"""
        return -0.5 * ((z - self.mean).square() / self.logvar.exp() + self.logvar + LOG_2PI)

    def sample(self, rng: CounterRNG) -> Tensor:
        """z = mu + sigma * eps, eps ~ N(0, I): eps does not depend on mu and sigma, so gradients reach both.

        References
        ----------
        Kingma & Welling 2014, section 2.4 (the reparameterisation trick).
        """
        return self.reparameterize(rng.normal(self.mean.shape[1]).to(self.mean.dtype))

    def reparameterize(self, eps: Tensor) -> Tensor:
        """mu + sigma * eps. (B, K) -> (B, K)"""
        return self.mean + torch.exp(0.5 * self.logvar) * eps


class Point(NamedTuple):
    """All mass on one point: the code of a deterministic autoencoder."""

    mean: Tensor  # (B, K)

    @property
    def logvar(self) -> Tensor:
        """-inf: a variance of 0."""
        return torch.full_like(self.mean, -torch.inf)

    def log_density(self, z: Tensor) -> Tensor:
        """Raise NotSupportedError: a point has no density."""
        raise NotSupportedError("Expected an encoder that gives a distribution, got one that gives points.")

    def sample(self, rng: CounterRNG) -> Tensor:
        """The point itself."""
        return self.mean

    def reparameterize(self, eps: Tensor) -> Tensor:
        """The point itself."""
        return self.mean


class TwoLevels(NamedTuple):
    """q(z1, z2 | x) = q(z2 | x) q(z1 | x, z2) in K dimensions each, with z2 drawn; z is z1 and z2 side by side.

    `mean` and `logvar` of z1 are those of q(z1 | x, z2) at the drawn z2.
    """

    upper: Gaussian  # q(z2 | x)
    z2: Tensor  # (B, K)
    lower: Gaussian  # q(z1 | x, z2)
    lower_at: Callable[[Tensor], Gaussian]  # any z2 (B, K) -> q(z1 | x, z2)

    @property
    def mean(self) -> Tensor:  # (B, 2 K)
        return torch.cat([self.lower.mean, self.z2], dim=1)

    @property
    def logvar(self) -> Tensor:  # (B, 2 K), of z1 at that z2, and of z2
        return torch.cat([self.lower.logvar, self.upper.logvar], dim=1)

    def log_density(self, z: Tensor) -> Tensor:  # (B, 2 K) -> (B, 2 K)
        """log q(z1 | x, z2) and log q(z2 | x) in each dimension, at the z2 of z."""
        z1, z2 = z.chunk(2, dim=1)
        return torch.cat([self.lower_at(z2).log_density(z1), self.upper.log_density(z2)], dim=1)

    def sample(self, rng: CounterRNG) -> Tensor:  # (B, 2 K)
        """A draw of z1 given the drawn z2, and that z2."""
        return torch.cat([self.lower.sample(rng), self.z2], dim=1)

    def reparameterize(self, eps: Tensor) -> Tensor:  # (B, 2 K) -> (B, 2 K)
        """z2 first, then z1 given z2."""
        eps1, eps2 = eps.chunk(2, dim=1)
        z2 = self.upper.reparameterize(eps2)
        return torch.cat([self.lower_at(z2).reparameterize(eps1), z2], dim=1)


# encoders -------------------------------------------------------------------------------------------------------------


class _TanhLayers(nn.Module):
    """Input layer -> tanh layers -> linear layer of `out_dim`."""

    def __init__(self, n_items: int, hidden_dims: Sequence[int], out_dim: int, dropout: float | None):
        super().__init__()
        dims = [*hidden_dims, out_dim]
        self.bag = InputLayer(n_items, dims[0], dropout)
        self.layers = dense_layers(dims)

    def tanh_layers(self, h: Tensor) -> Tensor:
        """Applies the layers after the input layer. (B, H) -> (B, out_dim)"""
        for layer in self.layers:
            h = layer(torch.tanh(h))
        return h


class GaussianEncoder(_TanhLayers):
    """q(z | x) = N(mu(x), diag(sigma(x)^2)) from tanh layers.

    Parameters
    ----------
    n_items
        I.
    hidden_dims
        Widths of the hidden layers; without any, q is linear in x.
    latent_dim
        K.
    dropout
        Share of a user's events that is dropped in training.

    References
    ----------
    Liang et al. 2018, section 2.2.
    """

    def __init__(self, n_items: int, hidden_dims: Sequence[int], latent_dim: int, dropout: float | None):
        super().__init__(n_items, hidden_dims, 2 * latent_dim, dropout)

    def forward(self, batch: Batch, rng: CounterRNG | None = None) -> Gaussian:
        return self.posterior(self.bag(batch, rng))

    def posterior(self, h: Tensor, rng: CounterRNG | None = None) -> Gaussian:
        return self.head(h)

    def head(self, h: Tensor) -> Gaussian:
        """Applies the layers after the input layer. (B, H) ->"""
        return Gaussian.split(self.tanh_layers(h))


class CodeEncoder(_TanhLayers):
    """A point z = tanh(f(x)): the code of a deterministic autoencoder. Parameters as those of `GaussianEncoder`.

    References
    ----------
    Liang et al. 2018, section 4.3.
    """

    def __init__(self, n_items: int, hidden_dims: Sequence[int], latent_dim: int, dropout: float | None):
        super().__init__(n_items, hidden_dims, latent_dim, dropout)

    def forward(self, batch: Batch, rng: CounterRNG | None = None) -> Point:
        return self.posterior(self.bag(batch, rng))

    def posterior(self, h: Tensor, rng: CounterRNG | None = None) -> Point:
        return Point(torch.tanh(self.tanh_layers(h)))


class DenselyConnectedEncoder(nn.Module):
    """q(z | x) from `depth` layers of equal width, each of which takes the sum of the outputs of all earlier ones.

    h_1 = LN(swish(W_1 x)), h_l = LN(swish(W_l h_{l-1} + h_1 + ... + h_{l-1})).

    References
    ----------
    Shenbin et al. 2020, section 3.2.
    """

    def __init__(self, n_items: int, hidden_dim: int, depth: int, latent_dim: int, dropout: float | None):
        super().__init__()
        self.bag = InputLayer(n_items, hidden_dim, dropout)
        self.layers = dense_layers([hidden_dim] * depth)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_dim, eps=0.1) for _ in range(depth))
        (self.last,) = dense_layers([hidden_dim, 2 * latent_dim])

    def forward(self, batch: Batch, rng: CounterRNG | None = None) -> Gaussian:
        return self.posterior(self.bag(batch, rng))

    def posterior(self, h: Tensor, rng: CounterRNG | None = None) -> Gaussian:
        return Gaussian.split(self.last(self.features(h)))

    def features(self, h: Tensor) -> Tensor:
        """The output of the last hidden layer, from that of the input layer. (B, H) -> (B, H)"""
        first, *norms = self.norms
        h = total = first(silu(h))  # (B, H)
        for layer, norm in zip(self.layers, norms, strict=True):
            h = norm(silu(layer(h) + total))
            total = total + h
        return h


class GatedTwoLevelEncoder(nn.Module):
    """q(z2 | x) and q(z1 | x, z2), of `latent_dim` each, from gated layers h -> (W h + b) * sigmoid(V h + c).

    Both levels share the gated layers on x. Kim & Suh 2019 have separate networks, which would double the width of the
    input layer, with its row for each item. With random numbers, z2 is a draw from q(z2 | x), without them its mean.

    References
    ----------
    Kim & Suh 2019, section 3.
    """

    def __init__(self, n_items: int, hidden_dims: Sequence[int], latent_dim: int, dropout: float | None):
        super().__init__()
        first, width = hidden_dims[0], hidden_dims[-1]
        self.bag = InputLayer(n_items, 2 * first, dropout)
        self.layers = gated_layers(hidden_dims)
        (self.joint,) = gated_layers([width + latent_dim, width])
        self.upper, self.lower = (dense_layers([width, 2 * latent_dim])[0] for _ in range(2))

    def forward(self, batch: Batch, rng: CounterRNG | None = None) -> TwoLevels:
        return self.posterior(self.bag(batch, rng), rng)

    def posterior(self, h: Tensor, rng: CounterRNG | None = None) -> TwoLevels:
        h = self._features(h)  # (B, H)
        upper = Gaussian.split(self.upper(h))
        z2 = upper.mean if rng is None else upper.sample(rng)

        def lower_at(z2: Tensor) -> Gaussian:
            return Gaussian.split(self.lower(glu(self.joint(torch.cat([h, z2], dim=1)))))

        return TwoLevels(upper, z2, lower_at(z2), lower_at)

    def head(self, h: Tensor) -> Gaussian:
        """Applies the layers after the input layer, up to q(z2 | x). (B, 2 H) ->"""
        return Gaussian.split(self.upper(self._features(h)))

    def _features(self, h: Tensor) -> Tensor:
        h = glu(h)
        for layer in self.layers:
            h = glu(layer(h))
        return h
