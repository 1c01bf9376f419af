"""What an encoder says of a user: a Gaussian over the latent space (VAE), or a point in it (plain autoencoder)."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from recvae.nn.noise import Noise

LOG_2PI = math.log(2 * math.pi)


class Posterior(Protocol):
    """q(z | x) of B users over K latent dimensions."""

    @property
    def mean(self) -> Tensor: ...  # (B, K)

    def sample(self, noise: Noise) -> Tensor: ...  # (B, K)


class Gaussian(NamedTuple):
    """N(mean, exp(logvar)), independent in each latent dimension."""

    mean: Tensor  # (B, K)
    logvar: Tensor  # (B, K)

    @classmethod
    def halves(cls, x: Tensor) -> Gaussian:
        """Means and log-variances side by side, as a layer gives them. (B, 2 K) ->"""
        return cls(*x.chunk(2, dim=1))

    def log_density(self, z: Tensor) -> Tensor:
        """log N(z_k; mean_k, exp(logvar_k)) in each dimension. (B, K) -> (B, K)"""
        return -0.5 * ((z - self.mean).square() / self.logvar.exp() + self.logvar + LOG_2PI)

    def sample(self, noise: Noise) -> Tensor:
        """z = mu + sigma * eps, eps ~ N(0, I): the randomness stays outside, so gradients reach mu and sigma.

        References
        ----------
        Kingma & Welling 2014, section 2.4 (the reparameterisation trick).
        """
        return self.at(noise.normal(self.mean.shape[1]).to(self.mean.dtype))

    def at(self, eps: Tensor) -> Tensor:
        """mu + sigma * eps, for noise that is given. (B, K) -> (B, K)"""
        return self.mean + torch.exp(0.5 * self.logvar) * eps


class Point(NamedTuple):
    """All mass on one point: the code of a deterministic autoencoder."""

    mean: Tensor  # (B, K)

    def sample(self, noise: Noise) -> Tensor:
        """The point itself."""
        return self.mean


class TwoLevels(NamedTuple):
    """q(z1, z2 | x) = q(z2 | x) q(z1 | x, z2) in K dimensions each, with z2 drawn already; z is z1 and z2 side by side.

    As q(z1 | x, z2) is known at that z2 alone, `mean` is that of z1 there.
    """

    upper: Gaussian  # q(z2 | x)
    z2: Tensor  # (B, K)
    lower: Gaussian  # q(z1 | x, z2)

    @property
    def mean(self) -> Tensor:  # (B, 2 K)
        return torch.cat([self.lower.mean, self.z2], dim=1)

    @property
    def logvar(self) -> Tensor:  # (B, 2 K), of z1 at that z2, and of z2
        return torch.cat([self.lower.logvar, self.upper.logvar], dim=1)

    def sample(self, noise: Noise) -> Tensor:  # (B, 2 K)
        return torch.cat([self.lower.sample(noise), self.z2], dim=1)


def normals(random: np.random.Generator, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Standard normal noise of numpy's making: row by row it is the same in blocks of any size, on any device."""
    return torch.from_numpy(random.standard_normal(shape, dtype=np.float32)).to(device)


def gaussian_kl(posterior: Gaussian, prior: Gaussian) -> Tensor:
    """KL(posterior || prior) of each user in closed form. -> (B,)"""
    ratio = posterior.logvar - prior.logvar
    distance = (posterior.mean - prior.mean).square() / prior.logvar.exp()
    return 0.5 * (ratio.exp() + distance - 1 - ratio).sum(1)


def standard_normal_kl(posterior: Gaussian) -> Tensor:
    """KL(q(z | x) || N(0, I)) of each user in closed form.

    Returns
    -------
    Tensor
        (B,).

    References
    ----------
    Kingma & Welling 2014, appendix B.
    """
    mean, logvar = posterior
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)
