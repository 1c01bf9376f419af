"""The parts of a variational autoencoder for sparse rows, each usable on its own."""

from recvae.nn.encoders import (
    CodeEncoder,
    DenselyConnectedEncoder,
    Encoder,
    GatedTwoLevelEncoder,
    Gaussian,
    GaussianEncoder,
    Point,
    Posterior,
    TwoLevels,
)
from recvae.nn.layers import InputLayer, SparseEmbeddingBag
from recvae.nn.likelihood import FAMILIES, IMPLS, Likelihood, Options, nll
from recvae.nn.priors import (
    BasePrior,
    Composite,
    Prior,
    StandardNormal,
    TwoLevelPrior,
    VampPrior,
    gaussian_kl,
    standard_normal_kl,
)
from recvae.nn.rng import CounterRNG, fold_in, initialize
from recvae.nn.schedules import SCHEDULES, constant_schedule, cyclical_schedule, linear_schedule
from recvae.nn.vae import VAE, Decoder, Elbo, MLPDecoder

__all__ = [
    "FAMILIES",
    "IMPLS",
    "SCHEDULES",
    "VAE",
    "BasePrior",
    "CodeEncoder",
    "Composite",
    "CounterRNG",
    "Decoder",
    "DenselyConnectedEncoder",
    "Elbo",
    "Encoder",
    "GatedTwoLevelEncoder",
    "Gaussian",
    "GaussianEncoder",
    "InputLayer",
    "Likelihood",
    "MLPDecoder",
    "Options",
    "Point",
    "Posterior",
    "Prior",
    "SparseEmbeddingBag",
    "StandardNormal",
    "TwoLevelPrior",
    "TwoLevels",
    "VampPrior",
    "constant_schedule",
    "cyclical_schedule",
    "fold_in",
    "gaussian_kl",
    "initialize",
    "linear_schedule",
    "nll",
    "standard_normal_kl",
]
