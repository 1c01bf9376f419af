"""Mult-VAE: a variational autoencoder with a multinomial likelihood (Liang et al. 2018)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from recvae.errors import InvalidParameterError, NotFittedError
from recvae.models.autoencoder.options import (
    DefaultEpochs,
    OutputOptions,
    epochs_option,
    latent_dim,
    learning_rate_option,
    starts_spectrally,
)
from recvae.models.autoencoder.shape import Shape, dropout_option, latent_dim_option
from recvae.models.autoencoder.variational import Variational
from recvae.models.base import FitRun
from recvae.models.base.file_tensors import scalar
from recvae.models.base.params import check_params, config, fitted, get_params, hyper, parameters
from recvae.models.base.spaces import uniform
from recvae.models.base.state import reads
from recvae.nn import SCHEDULES, VAE, GaussianEncoder, MLPDecoder, StandardNormal
from recvae.nn.schedules import linear_schedule
from recvae.training.state import best_epoch


@parameters
class MultVAE(Variational):
    """Mult-VAE (Liang, Krishnan, Hoffman & Jebara, "Variational Autoencoders for Collaborative Filtering", WWW 2018).

        q(z | x) = N(mu(x), diag(sigma(x)^2))               encoder, tanh layers on the row at unit norm
        z = mu(x) + sigma(x) * eps,  eps ~ N(0, I)
        x | z ~ Multinomial(n_u, softmax(f(z)))             decoder, tanh layers
        maximise  E[log p(x | z)] - beta KL(q(z | x) || N(0, I))

    with beta annealed up to a cap below 1. Items are scored by f(mu(x)): inference has no noise.

    With `kl_cap=None` the cap is found as in section 2.2.2 of the paper: a first run anneals beta
    linearly up to 1, and the beta at which validation peaks is the cap of a second run, which gives the model. It is
    `kl_cap_` after the fit. `fit` without `valid` then raises InvalidParameterError. Callbacks are called in both runs;
    the epochs of the first have the part "kl_cap".
    """

    _default_epochs = DefaultEpochs(20, 10, 50, filter=16)
    epochs: int | None = epochs_option("passes", _default_epochs)
    learning_rate: float | None = learning_rate_option(  # type: ignore[assignment]
        "where initial weights give a spectral filter"
    )
    latent_dim: int | None = latent_dim_option()
    hidden_dims: tuple[int, ...] = hyper(
        (600,),
        "widths of the encoder's hidden layers; the decoder mirrors them",
        low=1,
        search=[(), (200,), (600,), (600, 600)],
    )
    dropout: float | None = dropout_option("in training")
    kl_cap: float | None = hyper(
        0.2,
        "largest weight beta of the KL term; None finds it on validation users, which takes two runs",
        low=0,
        kind=float,
        optional=True,
        search=uniform(0, 1),
    )
    kl_schedule: str = hyper(
        "linear",
        'schedule of beta: "linear" and "cyclical" rise from 0 to the cap once or four times, "constant" is the cap',
        choices=tuple(SCHEDULES),
    )
    kl_anneal: float = hyper(
        0.85,
        "share of the run (of a cycle) in which beta rises: the paper's 40,000 of 46,600 steps",
        low=0.001,
        high=1,
        search=uniform(0.2, 1),
    )

    output: OutputOptions = config(OutputOptions, "options of the output layer")

    kl_cap_: float = fitted()  # given, or chosen by validation; older model files may lack it

    def _network(self, n_items: int) -> VAE:
        # q(z | x): mean and log-variance of z from the row at unit norm, with dropout on its events (section 2.2)
        width = latent_dim(self, n_items)
        encoder = GaussianEncoder(n_items, self.hidden_dims, width, self.dropout)
        # f(z): the mirrored layers, and one logit for each item
        temperature = self.output.temperature if self.output.logits == "cosine" else None
        decoder = MLPDecoder(width, self.hidden_dims[::-1], n_items, temperature=temperature)
        # the draw of z and the two terms of the ELBO are in `VAE.forward` of recvae.nn.vae
        return VAE(encoder, decoder, self._likelihood(), StandardNormal())

    def _starts_as_filter(self, shape: Shape) -> bool:
        has_tanh_layers = bool(self.hidden_dims) and type(self)._network is MultVAE._network  # not a subclass's own
        return has_tanh_layers and starts_spectrally(self, shape.items) and shape.suits_a_filter

    def _learns_slowly(self, shape: Shape) -> bool:
        return self._starts_as_filter(shape)

    def _beta(self, progress: float, shape: Shape) -> float:
        """The weight of the KL term at `progress`, the share of the run that is done.

        The trainer calls this in each step (it is `TrainConfig.beta`), and `Elbo.loss` of recvae.nn.vae applies it:
        mean(nll + beta * kl). A schedule is a function in recvae.nn.schedules.
        """
        if self.kl_cap is None:
            # the first run, which finds the cap: linear up to 1 whatever the schedule, as in the paper
            return linear_schedule(progress, 1.0, self.kl_anneal)
        return SCHEDULES[self.kl_schedule](progress, self.kl_cap, self.kl_anneal)

    @reads
    def chosen_params(self) -> dict[str, Any]:
        """As for every autoencoder, with the cap that was found."""
        return super().chosen_params() | {"kl_cap": self.kl_cap_}

    def _last_beta(self, shape: Shape) -> float:
        if self.kl_cap is not None:
            return super()._last_beta(shape)
        if not hasattr(self, "kl_cap_"):  # an older model file
            raise NotFittedError("Expected the kl_cap that was found, which the file lacks; set_params(kl_cap=...).")
        return self.kl_cap_

    def _tensors(self) -> dict[str, Tensor]:
        cap = {"kl_cap": torch.tensor(self.kl_cap_, dtype=torch.float64)} if hasattr(self, "kl_cap_") else {}
        return super()._tensors() | cap

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        cap = self.kl_cap
        if "kl_cap" in tensors:
            cap = scalar(tensors, "kl_cap")
            check_params(type(self)(kl_cap=cap))
        network = {name: tensor for name, tensor in tensors.items() if name != "kl_cap"}
        return super()._restore(network, n_items) | ({} if cap is None else {"kl_cap_": float(cap)})

    def _fit(self, rows: Any, run: FitRun) -> dict[str, Any]:
        if self.kl_cap is not None:
            return super()._fit(rows, run) | {"kl_cap_": float(self.kl_cap)}
        if run.valid is None:
            raise InvalidParameterError(
                "Expected validation users to choose kl_cap by, got none; give fit's valid=, or a number such as "
                "kl_cap=0.2."
            )
        history = super()._fit(rows, replace(run, part="kl_cap"))["history_"]
        # the second run starts from initial weights, with the beta at which validation peaked as its cap
        return type(self)(**get_params(self) | {"kl_cap": best_epoch(history).beta})._fit(rows, run)
