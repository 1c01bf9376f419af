"""RecVAE as in its authors' code, dense throughout: a round of the package's is timed against this.

Every batch is a dense users x items matrix, the old posterior is computed again in each step, and both halves of the
network get gradients in each phase.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

GAMMA, HIDDEN, LATENT = 0.005, 600, 200
MIXTURE = ((3 / 20, 0.0), (3 / 4, None), (1 / 10, 10.0))  # weight and log-variance; None is the old posterior


class Encoder(nn.Module):
    """Five densely connected layers."""

    def __init__(self, n_items: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(HIDDEN if depth else n_items, HIDDEN) for depth in range(5))
        self.norms = nn.ModuleList(nn.LayerNorm(HIDDEN, eps=0.1) for _ in range(5))
        self.mean, self.logvar = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)

    def forward(self, x: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
        h = F.dropout(F.normalize(x), dropout)
        before: list[Tensor] = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = norm(F.silu(torch.stack([layer(h), *before]).sum(0)))
            before.append(h)
        return self.mean(h), self.logvar(h)


class TextbookRecVAE:
    """Batches of 500, Adam 5e-4, three passes for the encoder with dropout .5, one for the decoder without."""

    def __init__(self, n_items: int, batch_size: int = 500, random_state: int = 0):
        torch.manual_seed(random_state)
        self.batch_size, self.random = batch_size, np.random.RandomState(random_state)
        self.encoder, self.decoder = Encoder(n_items), nn.Linear(LATENT, n_items)
        self.old = copy.deepcopy(self.encoder).requires_grad_(False)
        self.optimizers = [torch.optim.Adam(part.parameters(), lr=5e-4) for part in (self.encoder, self.decoder)]

    def round(self, rows: Any) -> None:
        """Train the encoder in three passes, then the decoder in one."""
        of_encoder, of_decoder = self.optimizers
        for _ in range(3):
            self._pass(rows, of_encoder, 0.5)
        self.old.load_state_dict(self.encoder.state_dict())
        self._pass(rows, of_decoder, 0.0)

    def _pass(self, rows: Any, optimizer: torch.optim.Optimizer, dropout: float) -> None:
        for x in self._batches(rows):
            for each in self.optimizers:
                each.zero_grad()
            self._loss(x, dropout).backward()
            optimizer.step()

    def _batches(self, rows: Any) -> Iterator[Tensor]:
        order = self.random.permutation(rows.shape[0])
        for start in range(0, len(order), self.batch_size):
            yield torch.from_numpy(rows[order[start : start + self.batch_size]].toarray())

    def _loss(self, x: Tensor, dropout: float) -> Tensor:
        mean, logvar = self.encoder(x, dropout)
        z = mean + torch.exp(logvar / 2) * torch.randn_like(mean)
        nll = -(F.log_softmax(self.decoder(z), dim=1) * x).sum(1)
        kl = (_log_normal(z, mean, logvar) - self._log_prior(x, z)).sum(1)
        return (nll + GAMMA * x.sum(1) * kl).mean()

    def _log_prior(self, x: Tensor, z: Tensor) -> Tensor:
        old = self.old(x, 0.0)
        parts = [
            np.log(weight) + _log_normal(z, *(old if logvar is None else (torch.zeros(1), torch.full((1,), logvar))))
            for weight, logvar in MIXTURE
        ]
        return torch.stack(parts, -1).logsumexp(-1)


def _log_normal(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    return -0.5 * (logvar + np.log(2 * np.pi) + (z - mean) ** 2 / logvar.exp())
