"""HybridVAE: a VAE beside a full-rank linear path, joined by a weight that is learned from users neither has seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.join import best_weight, hide
from recvae.models.autoencoder import network_scores
from recvae.models.edlae import EDLAE
from recvae.models.linear import FORMS
from recvae.models.rec_vae import RecVAE
from recvae.params import fitted, hyper, parameters
from recvae.recommender import FitRun
from recvae.rows import transform_values
from recvae.topk import Scorer

ASIDE = 500  # users whom the weight is learned from, at most, where there are no validation users
HIDDEN = 0.2  # of their events
LINEAR = "linear."  # what the names of the linear path's tensors begin with


@parameters
class HybridVAE(RecVAE):
    """A VAE for what lies in few dimensions, and a linear path of full rank for what single items say of others.

        f(x) = W mu(x) + b + a x B,   diag(B) = 0

    W mu(x) + b are the logits of RecVAE (Shenbin et al. 2020), B the weights of EDLAE (Steck 2020) in closed form,
    each user weighing n_u^-user_power in them; that a VAE gains from a linear path is in Vancura & Kordik, "Deep
    Variational Autoencoder with Shallow Parallel Path for Top-N Recommendation (VASP)", ICANN 2021. The path looks
    better to users whom it was solved on than it is. So `a` is no weight of the network: it is what ranks best for
    users whom neither part has seen, validation users where there are others than in training, else `aside` of the
    training users, who take no part in the rest.
    """

    l2: float = hyper(300.0, "ridge penalty lambda on the weights of the linear path", low=0)
    linear_dropout: float = hyper(0.5, "share p of the events that are hidden from the linear path", low=0, high=0.99)
    user_power: float = hyper(0.5, "users weigh n_u to the minus this in the linear path", low=0, high=1)
    form: str = hyper("auto", 'of the linear path, as in EDLAE: "dense", "sparse" or by the items', choices=FORMS)
    neighbours: int = hyper(400, "items that may predict one, in the sparse form", low=1)
    aside: float = hyper(
        0.05,
        f"share of the training users, at most {ASIDE}, from whom `a` is learned where validation users do not serve",
        low=0.001,
        high=0.5,
    )

    linear_: EDLAE = fitted()
    weight_: float = fitted()  # a

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        rows, fold_in, held_out = self._strangers(rows, run)
        fitted = super()._fit(rows, run)
        linear = self._linear().fit(rows, show_progress=run.show_progress)

        def voices(rows: sparse.csr_matrix) -> tuple[Tensor, Tensor]:
            first = network_scores(fitted["network_"], rows)
            return first, linear._score(rows).to(first.device)

        return fitted | {"linear_": linear, "weight_": best_weight(voices, fold_in, held_out)}

    def _strangers(
        self, rows: sparse.csr_matrix, run: FitRun
    ) -> tuple[sparse.csr_matrix, sparse.csr_matrix, sparse.csr_matrix]:
        """Rows to learn from, and what is seen and hidden of users who are not among them."""
        if run.valid is not None and run.valid.train_rows is None:
            return rows, transform_values(run.valid.fold_in, run.values), run.valid.held_out
        random = np.random.default_rng(self.random_state)
        order = random.permutation(rows.shape[0])
        n_aside = min(ASIDE, int(self.aside * rows.shape[0]))
        return rows[np.sort(order[n_aside:])], *hide(rows[order[:n_aside]], HIDDEN, random)

    def _linear(self) -> EDLAE:
        return EDLAE(
            values="raw",  # they have been read
            l2=self.l2,
            dropout=self.linear_dropout,
            user_power=self.user_power,
            form=self.form,
            neighbours=self.neighbours,
        )

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        first = super()._score(rows)
        return first + self.weight_ * self.linear_._score(rows).to(first.device)

    def _scorer(self, users: NDArray[Any], recalculate: bool) -> Scorer:
        return lambda rows, _: self._score(rows)

    def _tensors(self) -> dict[str, Tensor]:
        path = {LINEAR + name: tensor for name, tensor in self.linear_._tensors().items()}
        return super()._tensors() | path | {"weight": torch.tensor(self.weight_, dtype=torch.float64)}

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        path = {name.removeprefix(LINEAR): tensors.pop(name) for name in list(tensors) if name.startswith(LINEAR)}
        weight, linear = float(tensors.pop("weight")), self._linear()
        linear.__dict__.update(linear._restore(path, n_items), values_="raw", n_items_=n_items)
        return super()._restore(tensors, n_items) | {"linear_": linear, "weight_": weight}
