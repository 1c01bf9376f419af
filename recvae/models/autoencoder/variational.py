"""What autoencoders with a posterior q(z | x) share beyond ranking: encoding, exploration, samples, ELBO terms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.batches import Batch, DeviceRows
from recvae.errors import InvalidParameterError
from recvae.models.autoencoder.base import Autoencoder
from recvae.models.autoencoder.network import code_width
from recvae.models.base.generative import Encoding
from recvae.models.base.params import parameters, with_params
from recvae.nn.generation import sample_rows, score_std
from recvae.nn.likelihood import with_options
from recvae.nn.rng import standard_normals

Scores = Callable[[sparse.csr_matrix, slice], Tensor]
POINTS = 32  # draws of z to estimate the spread of scores, where logits are not linear in z
GATHERED = 20 << 20  # bytes of output-layer rows that are gathered at a time


@parameters
class Variational(Autoencoder):
    """Base of autoencoders whose encoder gives a distribution, and which have a prior."""

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        model = self
        if getattr(self, "latent_dim", 0) is None:
            # items may have been added since the fit: the file's codes decide, not the number of items
            model = with_params(self, {"latent_dim": code_width(tensors)})
        return super(Variational, model)._restore(tensors, n_items)

    def _posterior(self, rows: sparse.csr_matrix) -> Encoding:
        with torch.no_grad():
            posterior = self.network_.encoder(self._batch(rows))
            return Encoding(posterior.mean.cpu().numpy(), posterior.logvar.cpu().numpy())

    def _explorer(self, strength: float, random: np.random.Generator) -> Scores:
        network = self.network_

        def score(rows: sparse.csr_matrix, _: slice) -> Tensor:
            with torch.no_grad():
                eps = strength * self._noise(random, rows.shape[0])
                logits = network.decoder.logits(network.hidden(self._batch(rows), eps))
            if not logits.isfinite().all():  # logits may overflow at z far from the training data
                raise InvalidParameterError(
                    f"Expected finite scores at draws of explore={strength:g}, got others; lower explore."
                )
            return logits

        return score

    def _spread(
        self, rows: sparse.csr_matrix, ids: NDArray[np.int32], random: np.random.Generator
    ) -> NDArray[np.float32]:
        network, points = self.network_, self._noise(random, POINTS)
        spread = np.zeros(ids.shape, dtype=np.float32)
        step = max(1, GATHERED // (4 * max(1, ids.shape[1]) * network.decoder.weight.shape[1]))
        with torch.no_grad():
            spread_of = partial(score_std, network, network.decoder.output[0])
            for start in range(0, len(ids), step):
                users = slice(start, start + step)
                items = torch.from_numpy(np.maximum(ids[users], 0).astype(np.int64)).to(points.device)
                spread[users] = spread_of(self._batch(rows[users]), items, points).cpu().numpy()
        spread[ids < 0] = 0
        return spread

    def _sample(
        self,
        rows: sparse.csr_matrix,
        latent: str,
        temperature: float,
        of_users: np.random.Generator,
        of_items: np.random.Generator,
    ) -> sparse.csr_matrix:
        network, n = self.network_, rows.shape[0]
        with torch.no_grad():
            eps = self._noise(of_users, n) if latent == "aggregate" else None
            hidden = network.hidden_from_prior(n, of_users) if eps is None else network.hidden(self._batch(rows), eps)
            logits = network.decoder.logits(hidden)
        family, unobserved = self.params_["likelihood"], self.params_["output"].unobserved
        return sample_rows(logits, np.diff(rows.indptr), of_items, family, temperature, unobserved)

    def _elbo_terms(self, rows: sparse.csr_matrix) -> NDArray[np.float64]:
        """Values are scaled to a mean of 1 in each row, as those of all rows together are in training."""
        sums, n = np.asarray(rows.sum(1)).ravel(), np.diff(rows.indptr)
        scaled = sparse.csr_matrix(
            (rows.data * np.repeat(n / sums, n).astype(np.float32), rows.indices, rows.indptr), shape=rows.shape
        )
        batch, network = self._batch(scaled), self.network_
        with torch.no_grad():
            posterior = network.encoder(batch)
            likelihood = with_options(network.likelihood, precision="float32")  # else that of the fit
            nll = likelihood(network.decoder(posterior.mean), *network.decoder.output, batch)
            terms = torch.stack([nll / torch.from_numpy(n).to(nll.device), network.divergence(posterior)], dim=1)
        return terms.cpu().numpy().astype(np.float64)

    def _batch(self, rows: sparse.csr_matrix) -> Batch:
        return DeviceRows(rows, self.network_.decoder.weight.device).all()

    def _noise(self, random: np.random.Generator, n: int) -> Tensor:
        """Standard normal noise over the latent space. -> (n, K)"""
        return standard_normals(random, (n, self.network_.decoder.latent_dim), self.network_.decoder.weight.device)
