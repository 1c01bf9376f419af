"""HVamp: Mult-VAE with two latent levels, a prior learned with the encoder, and gates (Kim & Suh 2019)."""

from __future__ import annotations

from recvae.errors import InvalidParameterError
from recvae.models.base.params import hyper, parameters
from recvae.models.base.spaces import integers
from recvae.models.mult_vae import MultVAE
from recvae.nn import VAE, GatedTwoLevelEncoder, MLPDecoder, TwoLevelPrior, VampPrior


@parameters
class HVamp(MultVAE):
    """H+Vamp (Gated) (Kim & Suh, "Enhancing VAEs for Collaborative Filtering: Flexible Priors & Gating Mechanisms",
    RecSys 2019).

        q(z2 | x), q(z1 | x, z2)                            Gaussians by layers h -> (W h + b) * sigmoid(V h + c)
        x | z1, z2 ~ Multinomial(n_u, softmax(f(z1, z2)))   decoder, one or more gated layers
        p(z1, z2) = p(z1 | z2) p(z2),  p(z2) = 1/C sum_c q(z2 | u_c)
        maximise  E[log p(x | z1, z2)] - beta KL(q(z1, z2 | x) || p(z1, z2))

    where p(z1 | z2) is a Gaussian computed by a gated layer. The pseudo-inputs u_c of the VampPrior (Tomczak & Welling
    2018) are learned in the form of the encoder's first-layer outputs for them. Items are scored by f at the means.
    """

    latent_dim: int = hyper(200, "dimension of z1 and of z2", low=1, search=integers(32, 400))
    hidden_dims: tuple[int, ...] = hyper(
        (600,),
        "widths of the encoder's gated layers, at least one; the decoder mirrors them",
        low=1,
        search=[(200,), (600,), (600, 600)],
    )
    n_components: int = hyper(1000, "pseudo-inputs C of the prior", low=1, search=integers(100, 2000))

    def _network(self, n_items: int) -> VAE:
        if not self.hidden_dims:
            raise InvalidParameterError("Expected at least one hidden layer in hidden_dims of HVamp, such as (600,).")
        first, width = self.hidden_dims[0], self.hidden_dims[-1]
        encoder = GatedTwoLevelEncoder(n_items, self.hidden_dims, self.latent_dim, self.dropout)
        temperature = self.output.temperature if self.output.logits == "cosine" else None
        decoder = MLPDecoder(2 * self.latent_dim, self.hidden_dims[::-1], n_items, gated=True, temperature=temperature)
        prior = TwoLevelPrior(VampPrior(self.n_components, 2 * first), self.latent_dim, width)
        return VAE(encoder, decoder, self._likelihood(), prior)
