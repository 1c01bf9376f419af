"""HybridVAE: RecVAE plus a linear path of full rank, blended by a weight calibrated on users whom neither has seen."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.rows import transform_values
from recvae.models.autoencoder.base import Validation
from recvae.models.autoencoder.memory_estimate import MemoryEstimate
from recvae.models.autoencoder.new_items import extend_linear_weights
from recvae.models.autoencoder.options import DefaultEpochs, epochs_option
from recvae.models.autoencoder.scoring import network_scores
from recvae.models.autoencoder.variational import Scores
from recvae.models.base import FitRun
from recvae.models.base.file_tensors import scalar
from recvae.models.base.params import check_params, fitted, hyper, parameters, with_params
from recvae.models.base.spaces import uniform
from recvae.models.base.state import reads
from recvae.models.blending import (
    PARTS,
    CalibrationUsers,
    best_joint_ndcg,
    best_weight,
    hill_climb,
    ndcg_by_user,
    nearest_to_zero,
)
from recvae.models.closed_form import FORMS, WIDE, is_sparse, solution_path, with_item_power
from recvae.models.edlae import EDLAE
from recvae.models.rec_vae import RecVAE
from recvae.nn import VAE
from recvae.nn.item_vectors import ItemVectors
from recvae.training.callbacks import Epoch
from recvae.utils.progress import busy
from recvae.utils.topk import Scorer
from recvae.utils.workers import use_workers

PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)  # values to choose from for l2=None
ITEM_POWERS = (-0.2, 0.0, 0.2, 0.4)  # and for item_power=None
MAX_CALIBRATION_USERS = 300  # taken from the training users, if no validation users can be used
SMOOTHING = 0.5  # share of an epoch in the moving average of NDCG over epochs, by which one of them is chosen
ENOUGH_USERS = 30  # for a choice among epochs; of fewer, chance alone would choose
COMPARING_ROWS, COMPARING_SHARE = 2_500, 0.15  # rows to compare penalties by, at most; of the training users
COMPARED = 2_000  # most popular items, by which penalties are compared
FEW_NEIGHBOURS = 100  # of an item in the sparse form, while penalties are compared
LINEAR = "linear."  # prefix of the linear path's tensors in a file
NUMBERS = ("weight", "l2", "item_power")  # names of scalars in a file


@parameters
class HybridVAE(RecVAE):
    """A VAE for low-dimensional structure, plus a linear path of full rank for direct effects between items.

        f(x) = W mu(x) + b + a x B,   diag(B) = 0

    W mu(x) + b are the logits of RecVAE (Shenbin et al. 2020), B the weights of EDLAE (Steck 2020) in closed form,
    where each user weighs n_u^-user_power; that a VAE gains from a linear path is shown in Vancura & Kordik, "Deep
    Variational Autoencoder with Shallow Parallel Path for Top-N Recommendation (VASP)", ICANN 2021. The linear path
    ranks better for the users whom it was solved on than for others. So `a` is not trained: it is
    chosen by NDCG@100 for calibration users, on whom neither part was trained. These are the validation users if they
    are not in the training data, else `calibration_share` of the training users: the network does not learn from them,
    and the linear path only once `a` is chosen.
    """

    form: str = hyper(
        "auto",
        'of the linear path\'s weights: "dense", items x items in memory; "sparse", each item predicted by its '
        f'neighbours alone; "auto" is sparse above {WIDE:,} items',
        choices=FORMS,
    )
    neighbours: int = hyper(200, "largest number of items that predict an item, in the sparse form", low=1)
    _default_epochs = DefaultEpochs(6, 8, 25)
    epochs: int | None = epochs_option("rounds of passes", _default_epochs)
    l2: float | None = hyper(
        None,
        "ridge penalty lambda on the weights of the linear path; None chooses what ranks best for calibration users",
        low=0,
        kind=float,
        optional=True,
        search=[None, *PENALTIES],
    )
    linear_dropout: float = hyper(
        0.5, "share p of the events that dropout hides from the linear path", low=0, high=0.99, search=uniform(0.1, 0.7)
    )
    user_power: float = hyper(
        0.5, "exponent p of the user weights n_u^-p in the linear path", low=0, high=1, search=uniform(0.0, 1.0)
    )
    item_power: float | None = hyper(
        None,
        "exponent q of the numbers of users of items in the linear path, whose weights are n_i^q B_ij n_j^-q; None "
        "chooses what ranks best for calibration users, as l2=None does",
        low=-1,
        high=1,
        kind=float,
        optional=True,
        search=[None, *ITEM_POWERS],
    )
    calibration_share: float = hyper(
        0.05,
        f"share of the training users, at most {MAX_CALIBRATION_USERS}, held out for calibration if there are no "
        "validation users outside the training data",
        low=0.001,
        high=0.5,
        file_key="aside",
    )

    validates_itself = True
    out_of_core = False  # the linear path is solved from all rows at once

    linear_: EDLAE = fitted()
    weight_: float = fitted()  # the weight a

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        with use_workers():  # for all parts: no sum depends on the number of cores
            return self._fit_parts(rows, run)

    def _fit_parts(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        self._checked_plan(rows, True, extras_allocated=False)
        # 1. calibration users, from whom neither part learns
        learned, users = self._calibration_users(rows, run)
        # 2. the linear path: before the network, so that too little memory for it is known before the long training
        chosen = self._chosen_linear(learned, users, run.show_progress)
        is_final = learned is rows
        trial = chosen if is_final else with_params(chosen, {"neighbours": self._nearest()})
        linear = _solved(trial, learned, run)
        # 3. the network, trained as RecVAE; the epoch is kept that ranks best together with the linear path
        network_state = self._fit_network(learned, run, self._joint_validation(linear, users, run))
        # 4. the weight of the linear path in the sum of scores
        weight = best_weight(partial(network_scores, network_state["network_"]), linear._score, users, learned)
        # 5. once all is chosen, the linear path learns from the calibration users too
        if not is_final:
            del linear, trial
            linear = _solved(chosen, rows, run)
        return network_state | {"linear_": linear, "weight_": weight}

    def _joint_validation(self, linear: EDLAE, users: CalibrationUsers, run: FitRun) -> Validation | None:
        """NDCG@100 of a network's scores plus the linear path's by the best of a few weights.

        It is that of the validation users of the fit; else of calibration users, as a moving average over epochs, since
        these are few. Without either, or with fewer than `ENOUGH_USERS`, it is None: the last epoch is kept.
        """
        smoothing = SMOOTHING
        if run.valid is not None:
            smoothing = 1.0
            users = CalibrationUsers(transform_values(run.valid.fold_in, run.values), run.valid.held_out)
        elif users.n_active < ENOUGH_USERS * PARTS:
            return None

        def validation(network: VAE, history: Sequence[Epoch]) -> float:
            ndcg = best_joint_ndcg(partial(network_scores, network), linear._score, users)
            average = history[-1].valid if history else None
            return ndcg if average is None else average + smoothing * (ndcg - average)

        return validation

    def _calibration_users(self, rows: sparse.csr_matrix, run: FitRun) -> tuple[sparse.csr_matrix, CalibrationUsers]:
        """Split the rows into those to learn from, (U', I), and calibration users."""
        if run.valid is not None and run.valid.train_rows is None:  # validation users are not in training
            return rows, CalibrationUsers(transform_values(run.valid.fold_in, run.values), run.valid.held_out)
        random = np.random.default_rng(self._seed())  # the same on all ranks
        order = random.permutation(np.flatnonzero(np.diff(rows.indptr) > 1))  # a single event cannot be held out
        n_users = min(MAX_CALIBRATION_USERS, math.ceil(self.calibration_share * len(order))) if len(order) > 1 else 0
        learned = np.setdiff1d(np.arange(rows.shape[0]), order[:n_users])
        return rows[learned], CalibrationUsers.holding_out(rows[order[:n_users]], random, PARTS)

    def _nearest(self) -> int:
        """Neighbours of an item, while penalties are compared."""
        return min(self.neighbours, FEW_NEIGHBOURS)

    def _linear(self, l2: float, item_power: float) -> EDLAE:
        """An unfitted linear path."""
        return EDLAE(
            values="raw",  # the rows' values have been transformed already
            l2=l2,
            dropout=self.linear_dropout,
            user_power=self.user_power,
            item_power=item_power,
            form=self.form,
            neighbours=self.neighbours,
        )

    def _chosen_linear(self, rows: sparse.csr_matrix, users: CalibrationUsers, show_progress: bool) -> EDLAE:
        """The linear path with the penalty and the item exponent that rank best for calibration users, unfitted.

        Further users of the rows are added to them, so that chance decides less. Penalties are tried by a hill climb,
        and then exponents, which need no new solution: the one nearest to 0 that is not clearly behind the best. All
        are compared by the most popular items alone, and in the sparse form with fewer neighbours.
        """
        penalties = PENALTIES if self.l2 is None else (self.l2,)
        powers = ITEM_POWERS if self.item_power is None else (self.item_power,)
        if len(penalties) == len(powers) == 1:
            return self._linear(*penalties, *powers)
        in_sparse_form = is_sparse(self.form, rows.shape[1])
        rows, users = self._comparison(rows, users)
        trial = self._linear(penalties[0], 0.0)

        def ndcg_with(solution: Tensor | sparse.csr_matrix, power: float) -> NDArray[np.float64]:
            trial.weights_ = with_item_power(solution, rows, power)
            return ndcg_by_user(trial._score, users)

        def ndcg_at(i: int) -> float:
            say(f"penalty {penalties[i]:g}")
            return float(ndcg_with(solutions[i](), self.item_power or 0.0).sum())

        with busy(f"{type(self).__name__}, linear path", show_progress) as say:
            say(f"{len(penalties)} penalties")
            models = [self._linear(l2, 0.0) for l2 in penalties]
            solutions = solution_path(models, rows, in_sparse_form, self._nearest())
            best = hill_climb(ndcg_at, len(penalties))
            solution = solutions[best]()
            power = nearest_to_zero({power: ndcg_with(solution, power) for power in powers})
        return self._linear(penalties[best], power)

    def _comparison(
        self, rows: sparse.csr_matrix, users: CalibrationUsers
    ) -> tuple[sparse.csr_matrix, CalibrationUsers]:
        """Rows to solve for trial weights from, and users to compare these by, over the most popular items."""
        if rows.shape[1] > COMPARED:
            popular = _most_popular(rows, COMPARED)
            rows = rows[:, popular]
            users = CalibrationUsers(users.fold_in[:, popular], users.held_out[:, popular])
        n_more = min(COMPARING_ROWS - users.fold_in.shape[0], int(COMPARING_SHARE * rows.shape[0]))
        if n_more <= 0:
            return rows, users
        random = np.random.default_rng((self._seed(), 1))
        order = random.permutation(rows.shape[0])
        more = CalibrationUsers.holding_out(rows[order[:n_more]], random)
        both = (sparse.vstack(pair, format="csr") for pair in zip(users, more, strict=True))
        return rows[np.sort(order[n_more:])], CalibrationUsers(*both)

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        return self._add_linear(super()._score(rows), rows)

    def _add_linear(self, network_scores: Tensor, rows: sparse.csr_matrix) -> Tensor:
        """f(x) = W mu(x) + b + a x B. (B, I) -> (B, I)"""
        return network_scores + self.weight_ * self.linear_._score(rows).to(network_scores.device)

    def _scorer(self, users: NDArray[Any], recalculate: bool) -> Scorer:
        return lambda rows, _: self._score(rows)

    def _explorer(self, strength: float, random: np.random.Generator) -> Scores:
        network_scores = super()._explorer(strength, random)
        return lambda rows, users: self._add_linear(network_scores(rows, users), rows)

    def _similarity(self, items: NDArray[np.int64]) -> Tensor:
        """The mean of the network's cosines and the linear path's."""
        network_cosines = super()._similarity(items)
        return (network_cosines + self.linear_._similarity(items).to(network_cosines.device)) / 2

    @reads
    def chosen_params(self) -> dict[str, Any]:
        """As for RecVAE, with the penalty and the item exponent that were chosen."""
        return super().chosen_params() | {"l2": self.linear_.l2, "item_power": self.linear_.item_power}

    def _with_items(self, new: ItemVectors, shares: Callable[[], sparse.csr_matrix]) -> dict[str, Any]:
        linear, neighbours = copy.copy(self.linear_), shares()
        linear.weights_ = extend_linear_weights(linear.weights_, neighbours, self.neighbours)
        linear.n_items_ = sum(neighbours.shape)
        return super()._with_items(new, shares) | {"linear_": linear}

    def _extra_bytes(self, n_items: int, network: MemoryEstimate) -> int:
        """Bytes of the linear path's weights, which are solved for before the training and after it."""
        chosen, scaled = None in (self.l2, self.item_power), self.item_power != 0
        if is_sparse(self.form, n_items):
            weights = 8 * n_items * min(self.neighbours, n_items)
            solved = 3 * weights  # the sparse matrix is concatenated from parts
            # all penalties share indices while they are compared
            few = min(n_items, COMPARED)
            compared = 4 * (len(PENALTIES) + 5) * few * min(self._nearest(), few) + 4 * few**2
        else:
            weights = 4 * n_items**2
            solved = 2 * weights if scaled else weights  # a scaled copy
            compared = 12 * min(n_items, COMPARED) ** 2  # with a Gram matrix
        after_training = network.weights + network.rows + solved
        return max(weights, max(after_training, compared if chosen else 0) - network.peak)

    def _tensors(self) -> dict[str, Tensor]:
        linear = {LINEAR + name: tensor for name, tensor in self.linear_._tensors().items()}
        numbers = {"weight": self.weight_, "l2": self.linear_.l2, "item_power": self.linear_.item_power}
        return super()._tensors() | linear | {n: torch.tensor(x, dtype=torch.float64) for n, x in numbers.items()}

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        weight = scalar(tensors, "weight")
        # older files have no exponent
        item_power = scalar(tensors, "item_power") if "item_power" in tensors else 0.0
        linear = self._linear(scalar(tensors, "l2"), item_power)
        check_params(linear)
        of_linear = {name.removeprefix(LINEAR): tensor for name, tensor in tensors.items() if name.startswith(LINEAR)}
        of_network = {n: t for n, t in tensors.items() if n not in NUMBERS and not n.startswith(LINEAR)}
        _set_fitted(linear, n_items, **linear._restore(of_linear, n_items))
        return super()._restore(of_network, n_items) | {"linear_": linear, "weight_": weight}


def _most_popular(rows: sparse.csr_matrix, n: int) -> NDArray[np.int64]:
    """The n items with the most users, ascending; those of equal number in the order of the columns. -> (n,)"""
    users = np.bincount(rows.indices, minlength=rows.shape[1])
    return np.sort(np.argsort(-users, kind="stable")[:n])


def _solved(linear: EDLAE, rows: sparse.csr_matrix, run: FitRun) -> EDLAE:
    """The linear path, fitted to these rows, which it does not keep."""
    linear.fit(rows, run.show_progress)
    linear._drop_training_rows()
    return linear


def _set_fitted(linear: EDLAE, n_items: int, **learned: Any) -> None:
    """Give the linear path what a fit would."""
    unknown = dict.fromkeys(("item_ids_", "titles_", "trained_on_"))
    linear.__dict__.update(learned | unknown, preparation_={}, values_="raw", n_items_=n_items)
