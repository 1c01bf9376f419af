"""Priors: what is believed of a user's latent variables before the row is seen, and how far a posterior is from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recvae.batches import Batch, DeviceRows
from recvae.errors import InvalidDataError
from recvae.nn.posterior import Gaussian, standard_normal_kl

RENEWED = 2048  # users encoded at a time


class Prior(nn.Module):
    """KL(q(z | x) || p(z)) of users, exactly or from the draw z. A prior that follows the encoder has to be renewed."""

    def forward(self, posterior: Gaussian, z: Tensor, batch: Batch) -> Tensor:  # -> (B,)
        raise NotImplementedError

    def renew(self, encoder: nn.Module, rows: DeviceRows) -> None:
        """Called before each epoch, with what will be trained on."""


class StandardNormal(Prior):
    """N(0, I)."""

    def forward(self, posterior: Gaussian, z: Tensor, batch: Batch) -> Tensor:
        return standard_normal_kl(posterior)


class Composite(Prior):
    """In each dimension, a mixture of N(0, 1), the posterior before this epoch, and a wide N(0, e^10): 3/20, 3/4, 1/10.

    Source: Shenbin et al. 2020, section 3.3; that dimensions mix on their own is in the authors' code. The old
    encoder does not change within an epoch, nor does its posterior of a user, for which it sees the whole row: so it is
    computed once an epoch, (U, 2 K) numbers.
    """

    WEIGHTS = (3 / 20, 3 / 4, 1 / 10)
    WIDE_LOGVAR = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.old: Gaussian | None = None

    def renew(self, encoder: nn.Module, rows: DeviceRows) -> None:
        encoder.eval()
        with torch.no_grad():
            users = torch.arange(len(rows), device=rows.starts.device)
            parts = [encoder(batch) for batch in rows.batches(users, RENEWED)]
        self.old = Gaussian(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def forward(self, posterior: Gaussian, z: Tensor, batch: Batch) -> Tensor:
        if self.old is None or batch.users is None:
            raise InvalidDataError("Expected a composite prior renewed on the rows that the batch is from; call renew.")
        mean, logvar = (part[batch.users] for part in self.old)
        return (posterior.log_density(z) - self.log_density(z, Gaussian(mean, logvar))).sum(1)

    def log_density(self, z: Tensor, old: Gaussian) -> Tensor:
        """log p(z) of the mixture, with the old posterior of the same users. -> (B, K)"""
        zero = torch.zeros_like(z)
        parts = (Gaussian(zero, zero), old, Gaussian(zero, zero + self.WIDE_LOGVAR))
        logs = [math.log(weight) + part.log_density(z) for weight, part in zip(self.WEIGHTS, parts, strict=True)]
        return torch.stack(logs).logsumexp(0)
