"""The variational autoencoder: encoder, a draw from the posterior, decoder, and the two terms of the ELBO."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recvae.data.batches import Batch
from recvae.errors import NotSupportedError
from recvae.nn.layers import Decoder
from recvae.nn.likelihood import Likelihood
from recvae.nn.noise import Noise
from recvae.nn.posterior import Posterior
from recvae.nn.prior import Prior


class Elbo(NamedTuple):
    """The evidence lower bound of B users in its two terms: elbo = -nll - kl."""

    nll: Tensor  # (B,) -log p(x | z), z a draw from q(z | x)
    kl: Tensor  # (B,) KL(q(z | x) || p(z))
    kl_scale: Tensor | float = 1.0  # (B,) times which beta weighs a user's KL term

    def loss(self, beta: float) -> Tensor:
        """What is minimised: the mean over users of nll + beta * kl_scale * kl. -> scalar"""
        return (self.nll + beta * self.kl_scale * self.kl).mean()


class VAE(nn.Module):
    """An encoder, a decoder, a likelihood of rows and a prior.

    A deterministic autoencoder is the case whose encoder gives points and which has no prior (None). With
    `kl_by_events` beta weighs a user's KL term times n_u, the sum of the row.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: Decoder,
        likelihood: Likelihood,
        prior: Prior | None,
        kl_by_events: bool = False,
    ):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.prior = prior
        self.kl_by_events = kl_by_events

    def forward(self, batch: Batch, noise: Noise) -> Elbo:
        """The ELBO's terms for rows x: z ~ q(z | x), then log p(x | z) and KL(q(z | x) || p(z))."""
        posterior: Posterior = self.encoder(batch, noise)
        z = posterior.sample(noise)  # (B, K)
        hidden = self.decoder(z)  # (B, H)
        nll = self.likelihood(hidden, *self.decoder.output, batch)
        kl = torch.zeros_like(nll) if self.prior is None else self.prior(posterior, z, batch, self.encoder)
        return Elbo(nll, kl, batch.sum(batch.values) if self.kl_by_events else 1.0)

    def scores(self, batch: Batch) -> Tensor:
        """Logits of all items: no noise at inference. -> (B, I)"""
        return self.decoder.logits(self.hidden(batch))

    def hidden(self, batch: Batch, eps: Tensor | None = None) -> Tensor:
        """The decoder's last hidden state, from the posterior's mean or from mu + sigma * eps (B, K). -> (B, H)"""
        encoder: Any = self.encoder
        hidden: Tensor = self.decoder(encoder(batch).mean if eps is None else encoder.at(batch, eps))
        return hidden

    def hidden_from_prior(self, n: int, random: np.random.Generator) -> Tensor:
        """The decoder's last hidden state at n draws from the prior. -> (n, H)"""
        hidden: Tensor = self.decoder(self._known_prior().sample((n, self.decoder.latent_dim), random, self.encoder))
        return hidden

    def divergence(self, posterior: Posterior) -> Tensor:
        """KL(q(z | x) || p(z)) as the prior knows it without a draw. -> (B,)"""
        return self._known_prior().divergence(posterior, self.encoder)

    def _known_prior(self) -> Prior:
        if self.prior is None:
            raise NotSupportedError("Expected a network with a prior, got a deterministic autoencoder.")
        return self.prior
