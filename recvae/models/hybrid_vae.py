"""HybridVAE: a VAE beside a full-rank linear path, joined by a weight that is learned from users neither has seen."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.rows import transform_values
from recvae.models.autoencoder.grow import wider_path
from recvae.models.autoencoder.scoring import network_scores
from recvae.models.autoencoder.variational import Scores
from recvae.models.base import FitRun
from recvae.models.base.file_tensors import scalar
from recvae.models.base.params import check_params, fitted, hyper, parameters
from recvae.models.base.spaces import log, uniform
from recvae.models.base.state import reads
from recvae.models.blending import Strangers, best_weight, climb, quality
from recvae.models.closed_form import FORMS, WIDE, is_sparse
from recvae.models.edlae import EDLAE
from recvae.models.rec_vae import RecVAE
from recvae.nn.growing import ItemVectors
from recvae.utils.progress import busy
from recvae.utils.topk import Scorer

ASIDE = 500  # users whom the weight is learned from, at most, where there are no validation users
HIDDEN = 0.2  # of their events
LADDER = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # of penalties to choose from
FEW = 100  # neighbours of an item in the sparse form, while penalties are compared
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

    epochs: int = hyper(25, "rounds of passes over the training users", low=1)
    learning_rate: float = hyper(
        1e-3, "of Adam: the join makes up for what slower steps would give", low=0, search=log(1e-4, 3e-3)
    )
    form: str = hyper(
        "auto",
        'of the weights: "dense", items x items in memory; "sparse", each item predicted by its neighbours only; '
        f'"auto" is sparse above {WIDE:,} items',
        choices=FORMS,
    )
    neighbours: int = hyper(200, "items that may predict one, in the sparse form", low=1)
    l2: float | None = hyper(
        None,
        "ridge penalty lambda on the weights of the linear path; by default what ranks best for the users that `a` is "
        "learned from",
        low=0,
        kind=float,
        optional=True,
        search=[None, *LADDER],
    )
    linear_dropout: float = hyper(
        0.5, "share p of the events that are hidden from the linear path", low=0, high=0.99, search=uniform(0.1, 0.7)
    )
    user_power: float = hyper(
        0.5, "users weigh n_u to the minus this in the linear path", low=0, high=1, search=uniform(0.0, 1.0)
    )
    aside: float = hyper(
        0.05,
        f"share of the training users, at most {ASIDE}, from whom `a` is learned where validation users do not serve",
        low=0.001,
        high=0.5,
    )

    out_of_core = False  # its linear path is solved from all rows at once

    linear_: EDLAE = fitted()
    weight_: float = fitted()  # a

    @reads
    def chosen_params(self) -> dict[str, Any]:
        """As for RecVAE, with the penalty that was chosen."""
        return super().chosen_params() | {"l2": self.linear_.l2}

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        self._affordable(rows, run.valid is not None, begun=False)
        rows, strangers = self._apart(rows, run)
        # the path first: where memory does not do for it, that is known before the network is trained
        chosen = self._chosen_path(rows, strangers, run.show_progress) if self.l2 is None else self._path(self.l2)
        linear = chosen if hasattr(chosen, "weights_") else chosen.fit(rows, run.show_progress)
        linear._drop_training_rows()
        fitted = super()._fit(rows, run)
        network = partial(network_scores, fitted["network_"])
        return fitted | {"linear_": linear, "weight_": best_weight(network, linear._score, strangers, rows)}

    def _beside(self, n_items: int, network_bytes: int) -> int:
        """The path's weights; while penalties are compared and there is no network yet, those of two."""
        if is_sparse(self.form, n_items):
            kept = 8 * n_items * min(self.neighbours, n_items)
            return max(kept, 3 * kept - network_bytes)  # they are put together from parts
        kept = 4 * n_items**2
        return max(kept, 2 * kept - network_bytes) if self.l2 is None else kept

    def _apart(self, rows: sparse.csr_matrix, run: FitRun) -> tuple[sparse.csr_matrix, Strangers]:
        """Rows to learn from, and users who are not among them."""
        if run.valid is not None and run.valid.train_rows is None:
            return rows, Strangers(transform_values(run.valid.fold_in, run.values), run.valid.held_out)
        random = np.random.default_rng(self.random_state)
        order = random.permutation(np.flatnonzero(np.diff(rows.indptr) > 1))  # who has something to hide
        n_aside = min(ASIDE, math.ceil(self.aside * len(order))) if len(order) > 1 else 0
        learned = np.setdiff1d(np.arange(rows.shape[0]), order[:n_aside])
        return rows[learned], Strangers.hiding(rows[order[:n_aside]], HIDDEN, random)

    def _path(self, l2: float, neighbours: int | None = None) -> EDLAE:
        return EDLAE(
            values="raw",  # they have been read
            l2=l2,
            dropout=self.linear_dropout,
            user_power=self.user_power,
            form=self.form,
            neighbours=neighbours or self.neighbours,
        )

    def _chosen_path(self, rows: sparse.csr_matrix, strangers: Strangers, show: bool) -> EDLAE:
        """Up or down the ladder from its middle, as long as that is better for strangers.

        Returns
        -------
        EDLAE
            Fitted, unless it was compared with fewer neighbours than it is to have.
        """
        few = min(self.neighbours, FEW)
        found: dict[int, float] = {}
        best: list[EDLAE] = []  # one alone is kept: they may be large

        def tried(rung: int) -> float:
            if rung not in found:
                say(f"penalty {LADDER[rung]:g}")
                path = self._path(LADDER[rung], few).fit(rows, show_progress=False)
                found[rung] = quality(path._score, strangers)
                if found[rung] >= max(found.values()):
                    best[:] = [path]
            return found[rung]

        with busy(f"{type(self).__name__}, linear path", show) as say:
            l2 = LADDER[climb(tried, len(LADDER))]
        whole = isinstance(best[0].weights_, Tensor) or few == self.neighbours
        return best[0] if whole and best[0].l2 == l2 else self._path(l2)

    def _with_items(self, new: ItemVectors, shares: Callable[[], sparse.csr_matrix]) -> dict[str, Any]:
        path, alike = copy.copy(self.linear_), shares()
        path.weights_, path.n_items_ = wider_path(path.weights_, alike, self.neighbours), sum(alike.shape)
        return super()._with_items(new, shares) | {"linear_": path}

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        return self._joined(super()._score(rows), rows)

    def _joined(self, first: Tensor, rows: sparse.csr_matrix) -> Tensor:
        return first + self.weight_ * self.linear_._score(rows).to(first.device)

    def _explorer(self, strength: float, random: np.random.Generator) -> Scores:
        first = super()._explorer(strength, random)
        return lambda rows, places: self._joined(first(rows, places), rows)

    def _similarity(self, items: NDArray[np.int64]) -> Tensor:
        """The mean of both voices' cosines."""
        first = super()._similarity(items)
        return (first + self.linear_._similarity(items).to(first.device)) / 2

    def _scorer(self, users: NDArray[Any], recalculate: bool) -> Scorer:
        return lambda rows, _: self._score(rows)

    def _tensors(self) -> dict[str, Tensor]:
        path = {LINEAR + name: tensor for name, tensor in self.linear_._tensors().items()}
        weight, l2 = torch.tensor([self.weight_, self.linear_.l2], dtype=torch.float64)
        return super()._tensors() | path | {"weight": weight, "l2": l2}

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        weight, linear = scalar(tensors, "weight"), self._path(scalar(tensors, "l2"))
        check_params(linear)
        path = {name.removeprefix(LINEAR): tensor for name, tensor in tensors.items() if name.startswith(LINEAR)}
        network = {n: t for n, t in tensors.items() if n not in ("weight", "l2") and not n.startswith(LINEAR)}
        nobody = dict.fromkeys(("item_ids_", "titles_", "trained_on_"))
        linear.__dict__.update(linear._restore(path, n_items) | nobody, values_="raw", n_items_=n_items)
        return super()._restore(network, n_items) | {"linear_": linear, "weight_": weight}
