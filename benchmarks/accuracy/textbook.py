"""Textbook Mult-VAE, dense throughout: the reference for the accuracy and speed of the package's own.

Every batch is a dense users x items matrix, the network is `nn.Sequential`, the loss `F.log_softmax` times the dense
row. It shares only data, split and evaluator with the package.
"""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recvae import Holdout, evaluate


class TextbookMultVAE:
    """600-200-600, dropout .5, Adam 1e-3, batches of 500, KL weight from 0 to .2 over the run; best epoch kept."""

    def __init__(
        self,
        epochs: int = 100,
        batch_size: int = 500,
        kl_cap: float = 0.2,
        random_state: int = 0,
        autocast: bool = False,
        hidden_dim: int = 600,
        latent_dim: int = 200,
    ):
        self.hidden_dim, self.latent_dim = hidden_dim, latent_dim
        self.epochs, self.batch_size, self.kl_cap, self.random_state = epochs, batch_size, kl_cap, random_state
        self.autocast = autocast  # matrix products in bfloat16, and fused Adam

    def fit(self, user_items: Any, valid: Holdout) -> Self:
        user_items = _binary(user_items)
        n_users, n_items = user_items.shape
        network, optimizer = self.build(n_items)
        step, n_steps = 0, self.epochs * -(-n_users // self.batch_size)
        best, best_weights = -1.0, network.state_dict()
        for _ in range(self.epochs):
            network.train()
            for rows in np.array_split(
                np.random.RandomState(step).permutation(n_users), -(-n_users // self.batch_size)
            ):
                self.step(user_items[rows], optimizer, beta=self.kl_cap * step / n_steps)
                step += 1
            network.eval()
            score = evaluate(self, valid, ["ndcg@100"])["ndcg@100"].mean
            if score > best:
                best, best_weights = score, copy.deepcopy(network.state_dict())
        network.load_state_dict(best_weights)
        return self

    def build(self, n_items: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(self.random_state)
        h, k = self.hidden_dim, self.latent_dim
        self.encoder = nn.Sequential(nn.Dropout(0.5), nn.Linear(n_items, h), nn.Tanh(), nn.Linear(h, 2 * k))
        self.decoder = nn.Sequential(nn.Linear(k, h), nn.Tanh(), nn.Linear(h, n_items))
        for layer in [*self.encoder, *self.decoder]:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.trunc_normal_(layer.bias, std=0.001)
        network = nn.ModuleList([self.encoder, self.decoder])
        return network, torch.optim.Adam(network.parameters(), lr=1e-3, fused=self.autocast or None)

    def step(self, rows: Any, optimizer: torch.optim.Optimizer, beta: float) -> None:
        """Make one training step on binary rows."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            loss = self._loss(_dense(rows), beta)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def _loss(self, x: Tensor, beta: float) -> Tensor:
        mu, logvar = self.encoder(F.normalize(x)).chunk(2, dim=1)
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        nll = -(F.log_softmax(self.decoder(z), dim=1) * x).sum(1).mean()
        kl = (-0.5 * (1 + logvar - mu**2 - logvar.exp())).sum(1).mean()
        return nll + beta * kl

    @torch.no_grad()
    def recommend(self, userid: Any, user_items: Any, N: int = 10, recalculate_user: bool = True) -> tuple[Any, Any]:
        x = _dense(_binary(user_items))
        scores = self.decoder(self.encoder(F.normalize(x)).chunk(2, dim=1)[0])
        scores[x > 0] = -torch.inf
        best = scores.topk(N, dim=1)
        return best.indices.numpy(), best.values.numpy()


def _dense(rows: Any) -> Tensor:
    return torch.from_numpy(rows.toarray())


def _binary(rows: Any) -> Any:
    return (rows > 0).astype(np.float32)
