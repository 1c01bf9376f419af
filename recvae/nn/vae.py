"""The variational autoencoder: encoder, a draw from the posterior, decoder, and the two terms of the ELBO."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recvae.batches import Batch
from recvae.nn.layers import Decoder
from recvae.nn.posterior import Posterior

# (hidden, weight, bias, batch) -> (B,)
Likelihood = Callable[[Tensor, Tensor, Tensor, Batch], Tensor]
# (posterior, z) -> (B,)
Divergence = Callable[..., Tensor]


class Elbo(NamedTuple):
    """The evidence lower bound of B users in its two terms: elbo = -nll - kl."""

    nll: Tensor  # (B,) -log p(x | z), z a draw from q(z | x)
    kl: Tensor  # (B,) KL(q(z | x) || p(z))

    def loss(self, beta: float) -> Tensor:
        """What is minimised: the mean over users of nll + beta * kl. -> scalar"""
        return (self.nll + beta * self.kl).mean()


class VAE(nn.Module):
    """An encoder, a decoder, a likelihood of rows and a divergence from the prior.

    A deterministic autoencoder is the case whose encoder gives points and which has no divergence (None).
    """

    def __init__(self, encoder: nn.Module, decoder: Decoder, likelihood: Likelihood, divergence: Divergence | None):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.divergence = divergence

    def forward(self, batch: Batch, generator: torch.Generator) -> Elbo:
        """The ELBO's terms for rows x: z ~ q(z | x), then log p(x | z) and KL(q(z | x) || p(z))."""
        posterior: Posterior = self.encoder(batch, generator)
        z = posterior.sample(generator)  # (B, K)
        hidden = self.decoder(z)  # (B, H)
        nll = self.likelihood(hidden, self.decoder.weight, self.decoder.bias, batch)
        kl = torch.zeros_like(nll) if self.divergence is None else self.divergence(posterior, z)
        return Elbo(nll, kl)

    def scores(self, batch: Batch) -> Tensor:
        """Logits of all items: no noise at inference. -> (B, I)"""
        return self.decoder.logits(self.hidden(batch))

    def hidden(self, batch: Batch) -> Tensor:
        """The decoder's last hidden state, from the posterior's mean. -> (B, H)"""
        posterior: Posterior = self.encoder(batch)
        hidden: Tensor = self.decoder(posterior.mean)
        return hidden
