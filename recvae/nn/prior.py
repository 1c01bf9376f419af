"""Priors: what is believed of a user's latent variables before the row is seen, and how far a posterior is from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import glu

from recvae.data.batches import Batch, RowSource
from recvae.errors import InvalidDataError, NotSupportedError
from recvae.nn.layers import dense_layers, gated_layers
from recvae.nn.posterior import LOG_2PI, Gaussian, TwoLevels, gaussian_kl, normals, standard_normal_kl

RENEWED = 2048  # users encoded at a time


class Prior(nn.Module):
    """KL(q(z | x) || p(z)) of users, exactly or from the draw z.

    A prior may ask the encoder itself; what it keeps of the encoder has to be renewed.
    """

    def forward(self, posterior: Any, z: Tensor, batch: Batch, encoder: nn.Module) -> Tensor:  # -> (B,)
        raise NotImplementedError

    def divergence(self, posterior: Any, encoder: Any) -> Tensor:
        """KL(q(z | x) || p(z)) of users whom the prior was told nothing of, without a draw.

        In closed form, or an upper bound that is.

        Returns
        -------
        Tensor
            (B,).

        Raises
        ------
        NotSupportedError
            For a prior that has none.
        """
        raise NotSupportedError(f"Expected {type(self).__name__} to define divergence, by which anomaly_score goes.")

    def sample(self, shape: tuple[int, int], random: np.random.Generator, encoder: Any) -> Tensor:
        """Places z of users of whom nothing is known. -> `shape`, (n, K). Raises NotSupportedError as well."""
        raise NotSupportedError(f"Expected {type(self).__name__} to define sample, by which sample_users draws.")

    def renew(self, encoder: nn.Module, rows: RowSource) -> None:
        """Called before each epoch, with what will be trained on."""

    def renewed(self) -> dict[str, Tensor]:
        """What `renew` has found, by name, for a training that is gone on with within an epoch."""
        return {}

    def take_renewed(self, found: dict[str, Tensor]) -> None:
        """The inverse of `renewed`."""

    def forget(self) -> None:
        """Called after the last: what is known of single users need not be kept."""


class StandardNormal(Prior):
    """N(0, I)."""

    def forward(self, posterior: Gaussian, z: Tensor, batch: Batch, encoder: nn.Module) -> Tensor:
        return standard_normal_kl(posterior)

    def divergence(self, posterior: Gaussian, encoder: nn.Module) -> Tensor:
        return standard_normal_kl(posterior)

    def sample(self, shape: tuple[int, int], random: np.random.Generator, encoder: nn.Module) -> Tensor:
        return normals(random, shape, device_of(encoder))


class Composite(Prior):
    """In each dimension, a mixture of N(0, 1), the posterior before this epoch, and a wide N(0, e^10): 3/20, 3/4, 1/10.

    The old encoder does not change within an epoch, nor does its posterior of a user, for which it sees the whole row:
    so it is computed once an epoch, (U, 2 K) numbers.

    Of somebody new there is no posterior before, and nobody is where the wide part is: it only lets posteriors go far
    at little cost. What is left to draw from, and to measure by, is N(0, I).

    References
    ----------
    Shenbin et al. 2020, section 3.3; that dimensions mix on their own is in the authors' code.
    """

    WEIGHTS = (3 / 20, 3 / 4, 1 / 10)
    WIDE_LOGVAR = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.old: Gaussian | None = None

    def renew(self, encoder: nn.Module, rows: RowSource) -> None:
        encoder.eval()
        with torch.no_grad():
            parts = [encoder(batch) for batch in rows.batches(torch.arange(len(rows)), RENEWED)]
        self.old = Gaussian(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def renewed(self) -> dict[str, Tensor]:
        return {} if self.old is None else self.old._asdict()

    def take_renewed(self, found: dict[str, Tensor]) -> None:
        self.old = Gaussian(**found) if found else None

    def forget(self) -> None:
        self.old = None

    def forward(self, posterior: Gaussian, z: Tensor, batch: Batch, encoder: nn.Module) -> Tensor:
        if self.old is None or batch.users is None:
            raise InvalidDataError("Expected a composite prior renewed on the rows that the batch is from; call renew.")
        mean, logvar = (part[batch.users] for part in self.old)
        return (posterior.log_density(z) - self.log_density(z, Gaussian(mean, logvar))).sum(1)

    def divergence(self, posterior: Gaussian, encoder: nn.Module) -> Tensor:
        return standard_normal_kl(posterior)

    def sample(self, shape: tuple[int, int], random: np.random.Generator, encoder: nn.Module) -> Tensor:
        return normals(random, shape, device_of(encoder))

    def log_density(self, z: Tensor, old: Gaussian) -> Tensor:
        """log p(z) of the mixture, with the old posterior of the same users. -> (B, K)"""
        zero = torch.zeros_like(z)
        parts = (Gaussian(zero, zero), old, Gaussian(zero, zero + self.WIDE_LOGVAR))
        logs = [math.log(weight) + part.log_density(z) for weight, part in zip(self.WEIGHTS, parts, strict=True)]
        return torch.stack(logs).logsumexp(0)


class VampPrior(Prior):
    """p(z) = 1/C sum_c q(z | u_c): a mixture of what the encoder says of C users who do not exist, and are learned.

    Of a pseudo-input u_c the encoder sees u_c W + b, W the weight of its first layer. It is this, (C, H), that is
    learned here: the (C, I) numbers u_c would take as many dense rows through that layer in each step. So the encoder
    has to have the rest of it as `beyond`, (C, H) -> Gaussian.

    References
    ----------
    Tomczak & Welling 2018, section 3.
    """

    def __init__(self, n_components: int, width: int):
        super().__init__()
        self.pseudo_inputs = nn.Parameter(torch.empty(n_components, width))  # (C, H)

    def forward(self, posterior: Gaussian, z: Tensor, batch: Batch, encoder: nn.Module) -> Tensor:
        return posterior.log_density(z).sum(1) - self.log_density(z, encoder)

    def log_density(self, z: Tensor, encoder: Any) -> Tensor:
        """log p(z). (B, K) -> (B,)"""
        return mixture_log_density(z, encoder.beyond(self.pseudo_inputs))

    def divergence(self, posterior: Gaussian, encoder: Any) -> Tensor:
        """-log 1/C sum_c exp(-KL(q || q_c)), an upper bound (Hershey & Olsen 2007)."""
        entropy = 0.5 * (posterior.logvar + LOG_2PI + 1).sum(1)
        components = encoder.beyond(self.pseudo_inputs)
        return -entropy - mixture_log_density(posterior.mean, components, posterior.logvar.exp())

    def sample(self, shape: tuple[int, int], random: np.random.Generator, encoder: Any) -> Tensor:
        mean, logvar = encoder.beyond(self.pseudo_inputs)
        chosen = torch.from_numpy(random.integers(len(mean), size=shape[0])).to(mean.device)
        return Gaussian(mean[chosen], logvar[chosen]).at(normals(random, shape, mean.device))


class TwoLevelPrior(Prior):
    """p(z2) p(z1 | z2): a prior of the upper level, and a Gaussian by a gated layer below it.

    The KL term of z1 is in closed form at the draw z2.

    References
    ----------
    Tomczak & Welling 2018, section 4.
    """

    def __init__(self, upper: Prior, latent_dim: int, hidden_dim: int):
        super().__init__()
        self.upper = upper
        (self.hidden,) = gated_layers([latent_dim, hidden_dim])
        (self.lower,) = dense_layers([hidden_dim, 2 * latent_dim])

    def forward(self, posterior: TwoLevels, z: Tensor, batch: Batch, encoder: nn.Module) -> Tensor:
        lower = gaussian_kl(posterior.lower, self._below(posterior.z2))
        return self.upper(posterior.upper, posterior.z2, batch, encoder) + lower

    def divergence(self, posterior: TwoLevels, encoder: nn.Module) -> Tensor:
        """That of z1 is asked for at one z2."""
        lower = gaussian_kl(posterior.lower, self._below(posterior.z2))
        return self.upper.divergence(posterior.upper, encoder) + lower

    def sample(self, shape: tuple[int, int], random: np.random.Generator, encoder: nn.Module) -> Tensor:
        half = (shape[0], shape[1] // 2)
        z2 = self.upper.sample(half, random, encoder)
        return torch.cat([self._below(z2).at(normals(random, half, z2.device)), z2], dim=1)

    def _below(self, z2: Tensor) -> Gaussian:
        """p(z1 | z2)."""
        return Gaussian.halves(self.lower(glu(self.hidden(z2))))


def device_of(module: nn.Module) -> torch.device:
    """Where the parameters of a module are."""
    return next(module.parameters()).device


def mixture_log_density(z: Tensor, components: Gaussian, variance: Tensor | float = 0.0) -> Tensor:
    """log 1/C sum_c N(z; mean_c, exp(logvar_c)). z : (B, K), components of (C, K)

    With a `variance` (B, K) around z, log 1/C sum_c exp(E[log N(.; mean_c, exp(logvar_c))]).
    The squares are expanded, so that there are two products and never a (B, C, K) of differences.

    Returns
    -------
    Tensor
        (B,).
    """
    mean, logvar = components
    with torch.autocast(z.device.type, enabled=False):  # differences of large numbers
        precision = (-logvar).exp()  # (C, K)
        constant = (mean.square() * precision + logvar + LOG_2PI).sum(1)  # (C,)
        logs = z @ (mean * precision).T - 0.5 * ((z.square() + variance) @ precision.T + constant)  # (B, C)
    return logs.logsumexp(1) - math.log(len(mean))
