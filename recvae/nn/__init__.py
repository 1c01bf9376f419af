"""The parts of a variational autoencoder for sparse rows, each to be used alone."""

from recvae.nn.bag import Bag
from recvae.nn.encoder import CodeEncoder, DenselyConnectedEncoder, GaussianEncoder
from recvae.nn.layers import Decoder
from recvae.nn.likelihood import LIKELIHOODS, gaussian_nll, logistic_nll, multinomial_nll
from recvae.nn.posterior import Gaussian, Point, Posterior, standard_normal_kl
from recvae.nn.prior import Composite, Prior, StandardNormal
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
    "Gaussian",
    "GaussianEncoder",
    "Point",
    "Posterior",
    "Prior",
    "StandardNormal",
    "constant",
    "cyclical",
    "gaussian_nll",
    "linear",
    "logistic_nll",
    "multinomial_nll",
    "standard_normal_kl",
]
