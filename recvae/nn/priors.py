"""Priors p(z) of a user's latent variables, and the divergence KL(q(z | x) || p(z)).

To add one, derive it from `BasePrior` and define `log_density` and `sample`: the KL term is then estimated from the
draw of z. If there is a closed form, override `forward` and `divergence` with it.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import glu

from recvae.data.batches import Batch, RowSource
from recvae.errors import InvalidDataError, InvalidTypeError, NotSupportedError
from recvae.nn.encoders import LOG_2PI, Encoder, Gaussian, Posterior, TwoLevels
from recvae.nn.layers import dense_layers, gated_layers
from recvae.nn.rng import standard_normals
from recvae.utils.workers import map_pieces

USERS_AT_A_TIME = 512  # encoded in one batch by `update`
DRAWS = 64  # of z per user, to estimate a divergence without a closed form


class Prior(Protocol):
    """p(z), as a `VAE` calls it. A prior may use the encoder; what it stores of its output is set by `update`."""

    def __call__(self, posterior: Posterior, z: Tensor, batch: Batch, encoder: Encoder) -> Tensor:
        """KL(q(z | x) || p(z)) of each training user, exact or estimated from the draw z (B, K). -> (B,)"""
        ...

    def divergence(self, posterior: Posterior, encoder: Encoder) -> Tensor:
        """KL(q(z | x) || p(z)) of any users, also new ones; deterministic. -> (B,)"""
        ...

    def sample(self, shape: tuple[int, int], generator: np.random.Generator, encoder: Encoder) -> Tensor:
        """Draws of z from p(z). -> `shape`, (n, K)"""
        ...

    def update(self, encoder: Encoder, rows: RowSource) -> None:
        """Called before each epoch, with the rows that will be trained on."""
        ...

    def epoch_state(self) -> dict[str, Tensor]:
        """What `update` has computed, by name, for a checkpoint within an epoch."""
        ...

    def load_epoch_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `epoch_state`."""
        ...

    def reset(self) -> None:
        """Called after the last epoch: drops the data of individual users."""
        ...


class BasePrior(nn.Module):
    """Base of priors: a subclass defines `log_density` and `sample`, the KL term is estimated from them."""

    def log_density(self, z: Tensor, encoder: Encoder) -> Tensor:
        """log p(z), summed over dimensions. (B, K) -> (B,)

        Priors defined by the encoder, such as `VampPrior`, use it; others ignore it.
        """
        raise NotSupportedError(f"Expected {type(self).__name__} to define log_density, or forward.")

    def sample(self, shape: tuple[int, int], generator: np.random.Generator, encoder: Encoder) -> Tensor:
        """Draws of z from p(z). -> `shape`, (n, K), float32, on the encoder's device"""
        raise NotSupportedError(f"Expected {type(self).__name__} to define sample, which sample_users needs.")

    def forward(self, posterior: Posterior, z: Tensor, batch: Batch, encoder: Encoder) -> Tensor:
        """KL(q || p) estimated from one draw: log q(z | x) - log p(z). -> (B,)"""
        return posterior.log_density(z).sum(1) - self.log_density(z, encoder)

    def divergence(self, posterior: Posterior, encoder: Encoder) -> Tensor:
        """KL(q || p) by Monte Carlo, with the same noise for all users and all calls. -> (B,)"""
        if type(self).log_density is BasePrior.log_density:
            raise NotSupportedError(
                f"Expected {type(self).__name__} to define divergence or log_density, which anomaly_score needs."
            )
        shape = DRAWS, posterior.mean.shape[1]
        draws = standard_normals(np.random.default_rng(0), shape, posterior.mean.device)
        estimates = []
        for eps in draws:
            z = posterior.reparameterize(eps.to(posterior.mean.dtype).expand_as(posterior.mean))  # (B, K)
            estimates.append(posterior.log_density(z).sum(1) - self.log_density(z, encoder))
        return torch.stack(estimates).mean(0)

    def update(self, encoder: Encoder, rows: RowSource) -> None:
        """Called before each epoch, with the rows that will be trained on."""

    def epoch_state(self) -> dict[str, Tensor]:
        """What `update` has computed, by name, for a checkpoint within an epoch."""
        return {}

    def load_epoch_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `epoch_state`."""

    def reset(self) -> None:
        """Called after the last epoch: drops the data of individual users."""


class StandardNormal(BasePrior):
    """N(0, I)."""

    def log_density(self, z: Tensor, encoder: Encoder) -> Tensor:
        return -0.5 * (z.square() + LOG_2PI).sum(1)

    def forward(self, posterior: Posterior, z: Tensor, batch: Batch, encoder: Encoder) -> Tensor:
        return standard_normal_kl(posterior)

    def divergence(self, posterior: Posterior, encoder: Encoder) -> Tensor:
        return standard_normal_kl(posterior)

    def sample(self, shape: tuple[int, int], generator: np.random.Generator, encoder: Encoder) -> Tensor:
        return standard_normals(generator, shape, device_of(encoder))


class Composite(StandardNormal):
    """In each dimension 3/20 N(0, 1) + 3/4 q_old(z | x) + 1/10 N(0, e^10), with q_old the posterior before the epoch.

    q_old of all training users, from full rows without dropout, is computed once per epoch: (U, 2 K) numbers.

    New users have no q_old, and the wide component only makes distant posteriors cheap: `sample` and `divergence` use
    N(0, I).

    References
    ----------
    Shenbin et al. 2020, section 3.3; the mixture in each dimension is from the authors' code.
    """

    WEIGHTS = (3 / 20, 3 / 4, 1 / 10)
    WIDE_LOGVAR = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.old: Gaussian | None = None  # (U, K) each

    def update(self, encoder: Encoder, rows: RowSource) -> None:
        encoder.eval()

        def posterior(users: Tensor) -> Posterior:
            (batch,) = rows.batches(users, len(users))
            return encoder(batch)

        with torch.no_grad():
            parts = map_pieces(posterior, torch.arange(len(rows)).split(USERS_AT_A_TIME))
        self.old = Gaussian(torch.cat([part.mean for part in parts]), torch.cat([part.logvar for part in parts]))

    def epoch_state(self) -> dict[str, Tensor]:
        return {} if self.old is None else self.old._asdict()

    def load_epoch_state(self, state: dict[str, Tensor]) -> None:
        self.old = Gaussian(**state) if state else None

    def reset(self) -> None:
        self.old = None

    def forward(self, posterior: Posterior, z: Tensor, batch: Batch, encoder: Encoder) -> Tensor:
        if self.old is None or batch.users is None:
            raise InvalidDataError(
                "Expected a composite prior updated on the rows that the batch is from; call update."
            )
        mean, logvar = (part[batch.users] for part in self.old)  # (B, K)
        return (posterior.log_density(z) - self.conditional_log_density(z, Gaussian(mean, logvar))).sum(1)

    def conditional_log_density(self, z: Tensor, old: Gaussian) -> Tensor:
        """log p(z) of the mixture, given the old posterior of the same users. -> (B, K)"""
        zero = torch.zeros_like(z)
        parts = (Gaussian(zero, zero), old, Gaussian(zero, zero + self.WIDE_LOGVAR))
        logs = [math.log(weight) + part.log_density(z) for weight, part in zip(self.WEIGHTS, parts, strict=True)]
        return torch.stack(logs).logsumexp(0)


class VampPrior(BasePrior):
    """p(z) = 1/C sum_c q(z | u_c): a mixture of the posteriors of C learned pseudo-inputs.

    The parameters are u_c W + b, (C, H), the output of the encoder's first layer for pseudo-input u_c: learning u_c
    itself, (C, I), would put C dense rows through that layer in each step. So the encoder has to have a method `head`
    that applies the layers after the first one, (C, H) -> Gaussian.

    Parameters
    ----------
    n_components
        C.
    width
        H, the output width of the encoder's first layer.

    References
    ----------
    Tomczak & Welling 2018, section 3.
    """

    def __init__(self, n_components: int, width: int):
        super().__init__()
        self.pseudo_inputs = nn.Parameter(torch.full((n_components, width), torch.nan))  # (C, H), for `initialize`

    def log_density(self, z: Tensor, encoder: Encoder) -> Tensor:
        return mixture_log_density(z, self._components(encoder))

    def divergence(self, posterior: Posterior, encoder: Encoder) -> Tensor:
        """-log 1/C sum_c exp(-KL(q || q_c)), an upper bound (Hershey & Olsen 2007)."""
        entropy = 0.5 * (posterior.logvar + LOG_2PI + 1).sum(1)
        components = self._components(encoder)
        return -entropy - mixture_log_density(posterior.mean, components, posterior.logvar.exp())

    def sample(self, shape: tuple[int, int], generator: np.random.Generator, encoder: Encoder) -> Tensor:
        mean, logvar = self._components(encoder)
        chosen = torch.from_numpy(generator.integers(len(mean), size=shape[0])).to(mean.device)
        return Gaussian(mean[chosen], logvar[chosen]).reparameterize(standard_normals(generator, shape, mean.device))

    def _components(self, encoder: Encoder) -> Gaussian:
        """q(z | u_c). -> (C, K) each"""
        head = getattr(encoder, "head", None)
        if head is None:
            raise NotSupportedError(
                f"Expected an encoder with a method head, which a VampPrior applies to its pseudo-inputs, got "
                f"{type(encoder).__name__}."
            )
        components: Gaussian = head(self.pseudo_inputs)
        return components


class TwoLevelPrior(BasePrior):
    """p(z2) p(z1 | z2): a prior of the upper level, and a Gaussian from a gated layer for the lower one.

    The KL term of z1 has a closed form given the draw z2.

    Parameters
    ----------
    upper
        p(z2).
    latent_dim
        K of z1 and of z2.
    hidden_dim
        Width of the gated layer.

    References
    ----------
    Tomczak & Welling 2018, section 4.
    """

    def __init__(self, upper: BasePrior, latent_dim: int, hidden_dim: int):
        super().__init__()
        self.upper = upper
        (self.hidden,) = gated_layers([latent_dim, hidden_dim])
        (self.lower,) = dense_layers([hidden_dim, 2 * latent_dim])

    def log_density(self, z: Tensor, encoder: Encoder) -> Tensor:  # (B, 2 K) -> (B,)
        z1, z2 = z.chunk(2, dim=1)
        return self.upper.log_density(z2, encoder) + self._lower_at(z2).log_density(z1).sum(1)

    def forward(self, posterior: Posterior, z: Tensor, batch: Batch, encoder: Encoder) -> Tensor:
        levels = _two_levels(posterior)
        lower = gaussian_kl(levels.lower, self._lower_at(levels.z2))
        upper: Tensor = self.upper(levels.upper, levels.z2, batch, encoder)
        return upper + lower

    def divergence(self, posterior: Posterior, encoder: Encoder) -> Tensor:
        """The term of z1 is taken at the one z2 of the posterior, not averaged over q(z2 | x)."""
        levels = _two_levels(posterior)
        lower = gaussian_kl(levels.lower, self._lower_at(levels.z2))
        return self.upper.divergence(levels.upper, encoder) + lower

    def update(self, encoder: Encoder, rows: RowSource) -> None:
        self.upper.update(encoder, rows)

    def epoch_state(self) -> dict[str, Tensor]:
        return self.upper.epoch_state()

    def load_epoch_state(self, state: dict[str, Tensor]) -> None:
        self.upper.load_epoch_state(state)

    def reset(self) -> None:
        self.upper.reset()

    def sample(self, shape: tuple[int, int], generator: np.random.Generator, encoder: Encoder) -> Tensor:
        half = (shape[0], shape[1] // 2)
        z2 = self.upper.sample(half, generator, encoder)
        eps = standard_normals(generator, half, z2.device)
        return torch.cat([self._lower_at(z2).reparameterize(eps), z2], dim=1)

    def _lower_at(self, z2: Tensor) -> Gaussian:
        """p(z1 | z2)."""
        return Gaussian.split(self.lower(glu(self.hidden(z2))))


# divergences and densities --------------------------------------------------------------------------------------------


def standard_normal_kl(posterior: Posterior) -> Tensor:
    """KL(q(z | x) || N(0, I)) of each user in closed form, q Gaussian.

    Returns
    -------
    Tensor
        (B,).

    References
    ----------
    Kingma & Welling 2014, appendix B.
    """
    mean, logvar = posterior.mean, posterior.logvar
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)


def gaussian_kl(posterior: Gaussian, prior: Gaussian) -> Tensor:
    """KL(posterior || prior) of each user in closed form. -> (B,)"""
    ratio = posterior.logvar - prior.logvar
    distance = (posterior.mean - prior.mean).square() / prior.logvar.exp()
    return 0.5 * (ratio.exp() + distance - 1 - ratio).sum(1)


def mixture_log_density(z: Tensor, components: Gaussian, variance: Tensor | float = 0.0) -> Tensor:
    """log 1/C sum_c N(z; mean_c, exp(logvar_c)).

    With a `variance` (B, K) around z, log 1/C sum_c exp(E[log N(.; mean_c, exp(logvar_c))]).
    The squares are expanded into two matrix products, so that no (B, C, K) tensor of differences is needed.

    Parameters
    ----------
    z
        (B, K).
    components
        (C, K) each.

    Returns
    -------
    Tensor
        (B,).
    """
    mean, logvar = components
    with torch.autocast(z.device.type, enabled=False):  # differences of large numbers need full precision
        precision = (-logvar).exp()  # (C, K)
        constant = (mean.square() * precision + logvar + LOG_2PI).sum(1)  # (C,)
        logs = z @ (mean * precision).T - 0.5 * ((z.square() + variance) @ precision.T + constant)  # (B, C)
    return logs.logsumexp(1) - math.log(len(mean))


def device_of(encoder: Encoder) -> torch.device:
    """The device of the parameters of an encoder."""
    return next(encoder.parameters()).device


def _two_levels(posterior: Posterior) -> TwoLevels:
    if not isinstance(posterior, TwoLevels):
        raise InvalidTypeError(
            f"Expected an encoder of two levels, such as GatedTwoLevelEncoder, for a TwoLevelPrior, got one that gives "
            f"{type(posterior).__name__}."
        )
    return posterior
