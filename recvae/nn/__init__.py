"""The parts of a variational autoencoder for sparse rows, each to be used alone."""

from recvae.nn.bag import Bag
from recvae.nn.encoder import CodeEncoder, DenselyConnectedEncoder, GatedTwoLevelEncoder, GaussianEncoder
from recvae.nn.layers import Decoder
from recvae.nn.likelihood import LIKELIHOODS, gaussian_nll, logistic_nll, multinomial_nll
from recvae.nn.noise import Noise
from recvae.nn.posterior import Gaussian, Point, Posterior, TwoLevels, gaussian_kl, standard_normal_kl
from recvae.nn.prior import Composite, Prior, StandardNormal, TwoLevelPrior, VampPrior
from recvae.nn.schedule import SCHEDULES, constant, cyclical, linear
from recvae.nn.vae import VAE, Elbo

__all__ = [
    "LIKELIHOODS",
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
    "Noise",
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
    "gaussian_nll",
    "linear",
    "logistic_nll",
    "multinomial_nll",
    "standard_normal_kl",
]
