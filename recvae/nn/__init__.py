"""The parts of a variational autoencoder for sparse rows, each to be used alone."""

from recvae.nn.bag import Bag
from recvae.nn.encoder import CodeEncoder, DenselyConnectedEncoder, GatedTwoLevelEncoder, GaussianEncoder
from recvae.nn.layers import Decoder
from recvae.nn.likelihood import FAMILIES, IMPLS, Likelihood, Options, nll
from recvae.nn.noise import Noise
from recvae.nn.posterior import Gaussian, Point, Posterior, TwoLevels, gaussian_kl, standard_normal_kl
from recvae.nn.prior import Composite, Prior, StandardNormal, TwoLevelPrior, VampPrior
from recvae.nn.schedule import SCHEDULES, constant, cyclical, linear
from recvae.nn.vae import VAE, Elbo

__all__ = [
    "FAMILIES",
    "IMPLS",
    "SCHEDULES",
    "VAE",
    "Bag",
    "CodeEncoder",
    "Composite",
    "Decoder",
    "DenselyConnectedEncoder",
    "Elbo",
    "GatedTwoLevelEncoder",
    "Gaussian",
    "GaussianEncoder",
    "Likelihood",
    "Noise",
    "Options",
    "Point",
    "Posterior",
    "Prior",
    "StandardNormal",
    "TwoLevelPrior",
    "TwoLevels",
    "VampPrior",
    "constant",
    "cyclical",
    "gaussian_kl",
    "linear",
    "nll",
    "standard_normal_kl",
]
