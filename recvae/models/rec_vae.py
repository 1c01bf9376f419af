"""RecVAE: Mult-VAE with a composite prior and an encoder and a decoder trained in turns (Shenbin et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from recvae.models.autoencoder.options import (
    DefaultEpochs,
    epochs_option,
    latent_dim,
    learning_rate_option,
    starts_spectrally,
)
from recvae.models.autoencoder.shape import (
    FEW_EVENTS,
    FEW_ITEMS,
    MEAN_KL_WEIGHT,
    PAPER_GAMMA,
    SPARSE_EVENTS,
    WIDE_CATALOGUE,
    Shape,
    dropout_option,
    latent_dim_option,
)
from recvae.models.autoencoder.variational import Variational
from recvae.models.base.params import hyper, parameters
from recvae.models.base.spaces import integers
from recvae.nn import VAE, Composite, DenselyConnectedEncoder, MLPDecoder
from recvae.training.state import Phase


@parameters
class RecVAE(Variational):
    """RecVAE (Shenbin, Alekseev, Tutubalina, Malykh & Nikolenko, "RecVAE: A New Variational Autoencoder for Top-N
    Recommendations with Implicit Feedback", WSDM 2020).

        q(z | x) = N(mu(x), diag(sigma(x)^2))               densely connected swish layers with LayerNorm
        x | z ~ Multinomial(n_u, softmax(W z + b))          a linear decoder
        p(z | x) = 3/20 N(0, I) + 3/4 q_old(z | x) + 1/10 N(0, e^10 I)
        maximise  E[log p(x | z)] - gamma n_u KL(q(z | x) || p(z | x))

    where q_old is the posterior before the epoch. An epoch consists of `encoder_passes` over the users that train the
    encoder, with dropout on x, and then `decoder_passes` that train the decoder, without dropout. With
    `decoder_passes=0` the encoder's passes train both: one pass at a time does the work of two.
    """

    _default_epochs = DefaultEpochs(10, 10, 40, few_items=15)
    epochs: int | None = epochs_option("rounds of passes", _default_epochs)
    learning_rate: float | None = learning_rate_option(  # type: ignore[assignment]
        f"with at least {WIDE_CATALOGUE:,} items, if users have at least {SPARSE_EVENTS} events on average"
    )
    latent_dim: int | None = latent_dim_option()
    hidden_dim: int = hyper(600, "width of the encoder's layers", low=1, search=integers(100, 1000))
    depth: int = hyper(5, "number of the encoder's layers", low=1, high=1000, search=integers(2, 6))
    dropout: float | None = dropout_option("in its own passes")
    gamma: float | None = hyper(
        None,
        f"weight of the KL term for each event of a user; None is {PAPER_GAMMA:g} as in the paper, or more where users "
        f"have few events: the KL term of a user with the mean number of them then weighs {MEAN_KL_WEIGHT:g}",
        low=0,
        kind=float,
        optional=True,
        search=[None, 0.002, 0.005, 0.01, 0.02, 0.05],
    )
    encoder_passes: int | None = hyper(
        None,
        "passes of an epoch that train the encoder; None is 3, or 1 where the decoder has no passes of its own",
        low=1,
        kind=int,
        optional=True,
        search=[None, 1, 2, 3],
    )
    decoder_passes: int | None = hyper(
        None,
        "passes of an epoch that train the decoder alone; with 0, the encoder's passes train the decoder as well; None "
        f"is 1, or 0 up to {FEW_ITEMS:,} items, and where items have fewer than {FEW_EVENTS} events",
        low=0,
        kind=int,
        optional=True,
        search=[None, 0, 1, 2],
    )

    def _network(self, n_items: int) -> VAE:
        # q(z | x), section 3.2: each layer adds the outputs of all layers before it
        codes = latent_dim(self, n_items)
        encoder = DenselyConnectedEncoder(n_items, self.hidden_dim, self.depth, codes, self.dropout)
        # without hidden layers: W z + b
        decoder = MLPDecoder(codes, (), n_items)
        # section 3.3: the prior keeps the posteriors from before the epoch, so that the encoder does not forget.
        # The KL term is weighted by gamma times the number of the user's events
        return VAE(encoder, decoder, self._likelihood(), Composite(), kl_by_events=True)

    def _learns_slowly(self, shape: Shape) -> bool:
        return starts_spectrally(self, shape.items) and shape.is_wide and not shape.is_thin

    def _beta(self, progress: float, shape: Shape) -> float:
        # no annealing: the weight depends on the user, see `kl_by_events`
        return shape.gamma() if self.gamma is None else self.gamma

    def _phases(self, shape: Shape) -> Sequence[Phase]:
        decoder_passes = self.decoder_passes
        if decoder_passes is None:
            decoder_passes = 0 if shape.trains_jointly() else 1
        encoder_passes = self.encoder_passes or (3 if decoder_passes else 1)
        if not decoder_passes:  # both at once, on rows with dropout
            return (Phase(("encoder", "decoder"), encoder_passes),)
        # encoder and decoder are trained alternately; dropout is on in the encoder's passes only
        return Phase(("encoder",), encoder_passes), Phase(("decoder",), decoder_passes)
