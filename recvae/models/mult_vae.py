"""Mult-VAE: a variational autoencoder with a multinomial likelihood (Liang et al. 2018)."""

from __future__ import annotations

from recvae.models.autoencoder import Autoencoder
from recvae.nn import SCHEDULES, VAE, Decoder, GaussianEncoder, StandardNormal
from recvae.params import hyper, parameters


@parameters
class MultVAE(Autoencoder):
    """Mult-VAE (Liang, Krishnan, Hoffman & Jebara, "Variational Autoencoders for Collaborative Filtering", WWW 2018).

        q(z | x) = N(mu(x), diag(sigma(x)^2))               encoder, tanh layers on the row at unit norm
        z = mu(x) + sigma(x) * eps,  eps ~ N(0, I)
        x | z ~ Multinomial(n_u, softmax(f(z)))             decoder, tanh layers
        maximise  E[log p(x | z)] - beta KL(q(z | x) || N(0, I))

    with beta annealed up to a cap below 1. Items are scored by f(mu(x)): inference has no noise.
    """

    latent_dim: int = hyper(200, "dimension of z", low=1)
    hidden_dims: tuple[int, ...] = hyper(
        (600,), "widths of the encoder's hidden layers; the decoder mirrors them", low=1
    )
    dropout: float = hyper(0.5, "share of a user's events hidden from the encoder in training", low=0, high=0.99)
    logits: str = hyper(
        "dot", "of the items: h W^T + b, or with cosines in the place of h W^T", choices=("dot", "cosine")
    )
    temperature: float = hyper(0.1, "by which cosines are divided", low=1e-3)
    kl_cap: float = hyper(0.2, "largest weight beta of the KL term", low=0)
    kl_schedule: str = hyper("linear", "how beta climbs to the cap", choices=tuple(SCHEDULES))
    kl_anneal: float = hyper(
        0.85,
        "share of the run (of a cycle) in which beta climbs: the paper's 40,000 of 46,600 steps",
        low=0.001,
        high=1,
    )

    def _network(self, n_items: int) -> VAE:
        encoder = GaussianEncoder(n_items, self.hidden_dims, self.latent_dim, self.dropout)
        decoder = Decoder(self.latent_dim, self.hidden_dims[::-1], n_items, temperature=self._temperature())
        return VAE(encoder, decoder, self._likelihood(), StandardNormal())

    def _temperature(self) -> float | None:
        """That of cosine logits, None of others."""
        return self.temperature if self.logits == "cosine" else None

    def _beta(self, progress: float) -> float:
        return SCHEDULES[self.kl_schedule](progress, self.kl_cap, self.kl_anneal)
