"""Mult-DAE: the deterministic counterpart of Mult-VAE (Liang et al. 2018)."""

from __future__ import annotations

from recvae.models.autoencoder.base import Autoencoder
from recvae.models.autoencoder.shape import dropout_option
from recvae.models.base.params import hyper, parameters
from recvae.models.base.spaces import integers
from recvae.nn import VAE, CodeEncoder, MLPDecoder


@parameters
class MultDAE(Autoencoder):
    """Mult-DAE (Liang, Krishnan, Hoffman & Jebara, "Variational Autoencoders for Collaborative Filtering", WWW 2018).

        z = tanh(g(x)),  x | z ~ Multinomial(n_u, softmax(f(z))),  maximise log p(x | z)

    where dropout on x makes it denoising. z is a point instead of Mult-VAE's Gaussian, so there is no KL term.
    """

    latent_dim: int = hyper(200, "dimension of the code z", low=1, search=integers(32, 512))
    hidden_dims: tuple[int, ...] = hyper(
        (),
        "widths of the encoder's hidden layers; the decoder mirrors them",
        low=1,
        search=[(), (200,), (600,)],
    )
    dropout: float | None = dropout_option("in training")

    def _network(self, n_items: int) -> VAE:
        encoder = CodeEncoder(n_items, self.hidden_dims, self.latent_dim, self.dropout)
        return VAE(encoder, MLPDecoder(self.latent_dim, self.hidden_dims[::-1], n_items), self._likelihood(), None)
