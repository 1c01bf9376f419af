"""HybridVAE: RecVAE plus a linear path of full rank, and on thin or wide data a second network.

The weights of the sum are calibrated on users whom no part has seen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.rows import transform_values
from recvae.models.autoencoder.base import Validation
from recvae.models.autoencoder.memory_estimate import DataSizes, MemoryEstimate
from recvae.models.autoencoder.new_items import extend_linear_weights
from recvae.models.autoencoder.options import DefaultEpochs, epochs_option
from recvae.models.autoencoder.scoring import network_scores
from recvae.models.autoencoder.shape import FILTERED_EVENTS, SPARSE_EVENTS, WIDE_CATALOGUE, Shape
from recvae.models.autoencoder.variational import Scores
from recvae.models.base import FitRun
from recvae.models.base.file_tensors import scalar
from recvae.models.base.params import check_params, fitted, get_params, hyper, parameters, with_params
from recvae.models.base.spaces import uniform
from recvae.models.base.state import reads
from recvae.models.blending import (
    MAX_CALIBRATION_USERS,
    PARTS,
    CalibrationUsers,
    ScoreFunction,
    best_joint_ndcg,
    best_weight,
    weighted_sum,
)
from recvae.models.closed_form import FORMS, WIDE
from recvae.models.edlae import EDLAE
from recvae.models.hybrid_memory import bytes_of_parts
from recvae.models.linear_choice import (
    ITEM_POWERS,
    PENALTIES,
    USER_POWERS,
    USUAL_USER_POWER,
    choices,
    chosen_linear,
    fewer_neighbours,
    next_lower,
)
from recvae.models.low_pass import LOW_PASS, add_low_pass, low_pass_share
from recvae.models.mult_vae import MultVAE
from recvae.models.rec_vae import RecVAE
from recvae.nn import VAE
from recvae.nn.item_vectors import ItemVectors
from recvae.training.callbacks import Epoch
from recvae.utils.progress import busy
from recvae.utils.topk import Scorer
from recvae.utils.workers import use_workers

# validation users x items, by which weights and epochs are chosen: seconds for each ranking; linear paths, which differ
# less, are ranked once each, and are compared by more
MAX_CELLS, MAX_CELLS_OF_PATHS = 100_000_000, 400_000_000
SMOOTHING = 0.5  # share of an epoch in the moving average of NDCG over epochs, by which one of them is chosen
ENOUGH_USERS = 30  # for a choice among epochs; of fewer, chance alone would choose
ENOUGH_KNOWN = 2_000  # validation users who are training users, for all choices: one or two events of each are held out
SECOND_RATIO = 1.0  # usual standard deviation of the weighted scores of the second network / that of the others
LINEAR, SECOND = "linear.", "second."  # prefixes in a file of the tensors of the linear path and of the second network
SECOND_RUN = "second network"  # name of its run in the records of epochs, and in checkpoints
NUMBERS = ("weight", "second_weight", "l2", "user_power", "item_power")  # names of scalars in a file


@parameters
class HybridVAE(RecVAE):
    """A VAE for low-dimensional structure, plus a linear path of full rank for direct effects between items.

        f(x) = W mu(x) + b + a x B + c g(x),   diag(B) = 0

    W mu(x) + b are the logits of RecVAE (Shenbin et al. 2020), B the weights of EDLAE (Steck 2020) in closed form,
    where each user weighs n_u^-user_power; that a VAE gains from a linear path is shown in Vancura & Kordik, "Deep
    Variational Autoencoder with Shallow Parallel Path for Top-N Recommendation (VASP)", ICANN 2021. The linear path
    ranks the events that it was solved from better than others. So `a` is not trained: it is chosen by NDCG@100 for
    calibration users, from whose held-out events no part has learned. These are the validation users of a fit. Without
    any, or with few who are training users as well, they are `calibration_share` of the training users: the network
    does not learn from them at all, and the linear path only once all weights are chosen.

    Where items have events enough, B is the sum of EDLAE's weights and of a low-pass filter on the graph of items, a
    term of low rank (Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021; `low_pass`).

    Where users have few events and items too, a single network depends on chance, and on sparse data of many items two
    find more than one. There g(x), the scores of a MultVAE, are added with a weight `c` that is chosen in the same way;
    elsewhere c is 0.
    """

    form: str = hyper(
        "auto",
        'of the linear path\'s weights: "dense", items x items in memory; "sparse", each item predicted by its '
        f'neighbours alone; "auto" is sparse above {WIDE:,} items',
        choices=FORMS,
    )
    neighbours: int = hyper(200, "largest number of items that predict an item, in the sparse form", low=1)
    _default_epochs = DefaultEpochs(6, 8, 25, few_items=12)
    epochs: int | None = epochs_option("rounds of passes", _default_epochs)
    l2: float | None = hyper(
        None,
        "ridge penalty lambda on the weights of the linear path; None chooses what ranks best for calibration users by "
        "the path alone, and takes the next lower one of the list that it is chosen from",
        low=0,
        kind=float,
        optional=True,
        search=[None, *PENALTIES],
    )
    linear_dropout: float = hyper(
        0.5, "share p of the events that dropout hides from the linear path", low=0, high=0.99, search=uniform(0.1, 0.7)
    )
    user_power: float | None = hyper(
        None,
        "exponent p of the user weights n_u^-p in the linear path; None chooses what ranks best for calibration users, "
        "as l2=None does",
        low=0,
        high=1,
        kind=float,
        optional=True,
        search=[None, 0.0, *USER_POWERS, 0.7],
    )
    item_power: float | None = hyper(
        None,
        "exponent q of the numbers of users of items in the linear path, whose weights are n_i^q B_ij n_j^-q; None "
        "chooses what ranks best for calibration users",
        low=-1,
        high=1,
        kind=float,
        optional=True,
        search=[None, *ITEM_POWERS],
    )
    low_pass: float | None = hyper(
        None,
        "standard deviation of the scores of a low-pass filter in the linear path, as a share of that of its other "
        f"scores, in the dense form; None is {LOW_PASS:g} where items have at least {FILTERED_EVENTS} events on "
        "average, unless data are thin, and 0 otherwise",
        low=0,
        kind=float,
        optional=True,
        search=[None, 0.0, 0.25, 0.5, 1.0],
    )
    calibration_share: float = hyper(
        0.05,
        f"share of the training users, at most {MAX_CALIBRATION_USERS}, held out for calibration if there are no "
        f"validation users, or fewer than {ENOUGH_KNOWN:,} who are training users as well",
        low=0.001,
        high=0.5,
        file_key="aside",
    )
    second_network: str = hyper(
        "auto",
        'a second network, whose scores are added: "MultVAE", of the same widths, or "none"; "auto" is MultVAE on '
        f"sparse data whose users have fewer than {SPARSE_EVENTS} events on average, or with at least "
        f"{WIDE_CATALOGUE:,} items",
        choices=("auto", "none", "MultVAE"),
    )

    validates_itself = True
    out_of_core = False  # the linear path is solved from all rows at once

    linear_: EDLAE = fitted()
    weight_: float = fitted()  # the weight a
    second_: MultVAE | None = fitted()
    second_weight_: float = fitted()  # the weight c

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        with use_workers():  # for all parts: no sum depends on the number of cores
            return self._fit_parts(rows, run)

    def _fit_parts(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        self._checked_plan(rows, True, extras_allocated=False)
        # 1. calibration users, from whose held-out events no part learns
        learned, all_users = self._calibration_users(rows, run)
        users = self._limited(all_users, MAX_CELLS)
        # 2. the linear path: before the network, so that too little memory for it is known before the long training
        chosen = self._chosen_linear(learned, self._limited(all_users, MAX_CELLS_OF_PATHS), run.show_progress)
        is_final = learned is rows
        trial = chosen if is_final else with_params(chosen, {"neighbours": fewer_neighbours(self.neighbours)})
        shape = Shape.of(rows)
        share = low_pass_share(self.low_pass, shape, self.form)
        linear = _solved(trial, learned, share, run)
        # 3. the network, trained as RecVAE; the epoch is kept that ranks best together with the linear path
        learned_state = self._fit_network(learned, run, self._joint_validation(linear._score, users, run))
        # 4. the weight of the linear path in the sum of scores
        network = partial(network_scores, learned_state["network_"])
        weight = best_weight(network, linear._score, users, learned, shape.linear_ratio())
        # 5. on thin or wide data a second network, whose epoch and weight are chosen in the same way
        if self._has_second(shape):
            others = partial(weighted_sum, network, linear._score, weight)
            learned_state |= self._fit_second(learned, users, run, others)
            del others  # it holds the linear path
        # 6. once all is chosen, the linear path learns from the calibration users too
        if not is_final:
            del linear, trial  # its memory is needed for the new one
            linear = _solved(chosen, rows, share, run)
        return {"second_": None, "second_weight_": 0.0} | learned_state | {"linear_": linear, "weight_": weight}

    def _fit_second(
        self, rows: sparse.csr_matrix, users: CalibrationUsers, run: FitRun, others: ScoreFunction
    ) -> dict[str, Any]:
        """A second network, and its weight in the sum with the scores of the other parts. -> fitted attributes"""
        second = self._second()
        validation = self._joint_validation(others, users, run)
        state = second._fit_network(rows, replace(run, part=SECOND_RUN), validation)
        _set_fitted(second, rows.shape[1], **state)
        weight = best_weight(others, second._score, users, rows, SECOND_RATIO)
        return {"second_": second, "second_weight_": weight} if weight else {}

    def _has_second(self, shape: Shape) -> bool:
        """Whether a fit to data of this shape trains a second network."""
        suits = shape.is_thin or (shape.is_sparse and shape.is_wide)
        return self.second_network == "MultVAE" or (self.second_network == "auto" and suits)

    def _second(self) -> MultVAE:
        """An unfitted second network."""
        return MultVAE(
            values="raw",
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            latent_dim=self.latent_dim,
            hidden_dims=(self.hidden_dim,),
            dropout=self.dropout,
            likelihood=self.likelihood,
            random_state=self.random_state,
            device=self.device,
            output=self.output,
            training=replace(self.training, stop_epoch=None, averaging=self.training.averaging or 0.0),
        )

    def _joint_validation(self, others: ScoreFunction, users: CalibrationUsers, run: FitRun) -> Validation | None:
        """NDCG@100 of a network's scores plus those of other parts by the best of a few weights.

        It is that of the validation users of the fit; else of calibration users, as a moving average over epochs, since
        these are few. Without either, or with fewer than `ENOUGH_USERS`, it is None: the last epoch is kept.
        """
        smoothing, given = SMOOTHING, self._given_users(run)
        if given is not None:
            smoothing, users = 1.0, self._limited(given, MAX_CELLS)
        elif users.n_active < ENOUGH_USERS * PARTS:
            return None

        return partial(_joint_ndcg, others, users, smoothing)

    def _calibration_users(self, rows: sparse.csr_matrix, run: FitRun) -> tuple[sparse.csr_matrix, CalibrationUsers]:
        """Split the rows into those to learn from, (U', I), and calibration users."""
        given = self._given_users(run)
        if given is not None and (not given.known or given.n_active >= ENOUGH_KNOWN):
            return rows, given
        return CalibrationUsers.taken_from(rows, self.calibration_share, self._seed())  # the same on all ranks

    def _given_users(self, run: FitRun) -> CalibrationUsers | None:
        """The validation users of a fit."""
        if run.valid is None:
            return None
        fold_in, held_out = transform_values(run.valid.fold_in, run.values), run.valid.held_out
        return CalibrationUsers(fold_in, held_out, run.valid.train_rows is not None)

    def _limited(self, users: CalibrationUsers, cells: int) -> CalibrationUsers:
        """All of these users, or a sample if their scores would have more cells."""
        return users.sample(max(cells // users.fold_in.shape[1], ENOUGH_KNOWN), self._seed())

    def _linear(self, l2: float, user_power: float, item_power: float) -> EDLAE:
        """An unfitted linear path."""
        return EDLAE(
            values="raw",  # the rows' values have been transformed already
            l2=l2,
            dropout=self.linear_dropout,
            user_power=user_power,
            item_power=item_power,
            form=self.form,
            neighbours=self.neighbours,
        )

    def _chosen_linear(self, rows: sparse.csr_matrix, users: CalibrationUsers, show_progress: bool) -> EDLAE:
        """The linear path with the exponents that rank best, and the next penalty below the best one; unfitted.

        Those that are given stay as they are.
        """
        with busy(f"{type(self).__name__}, linear path", show_progress) as say:
            from_these = choices(self.l2, self.user_power, self.item_power)
            best_alone = chosen_linear(self._linear, *from_these, rows, users, self._seed(), say)
        if self.l2 is not None:
            return best_alone
        # the network has what items have in common: next to it, a path that follows the data more closely ranks better
        return with_params(best_alone, {"l2": next_lower(best_alone.l2)})

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        return self._add_others(super()._score(rows), rows)

    def _add_others(self, scores: Tensor, rows: sparse.csr_matrix) -> Tensor:
        """f(x) from the network's scores W mu(x) + b. (B, I) -> (B, I)"""
        scores = scores + self.weight_ * self.linear_._score(rows).to(scores.device)
        return scores if self.second_ is None else scores.add_(self.second_._score(rows), alpha=self.second_weight_)

    def _scorer(self, users: NDArray[Any], recalculate: bool) -> Scorer:
        return lambda rows, _: self._score(rows)

    def _explorer(self, strength: float, random: np.random.Generator) -> Scores:
        network_scores = super()._explorer(strength, random)
        return lambda rows, users: self._add_others(network_scores(rows, users), rows)

    def _similarity(self, items: NDArray[np.int64]) -> Tensor:
        """The mean of the (first) network's cosines and the linear path's."""
        network_cosines = super()._similarity(items)
        return (network_cosines + self.linear_._similarity(items).to(network_cosines.device)) / 2

    @reads
    def chosen_params(self) -> dict[str, Any]:
        """As for RecVAE, with the penalty and the exponents that were chosen."""
        return super().chosen_params() | self._numbers_of_path()

    def _numbers_of_path(self) -> dict[str, float]:
        return {name: getattr(self.linear_, name) for name in ("l2", "user_power", "item_power")}

    def _with_items(self, new: ItemVectors, shares: Callable[[], sparse.csr_matrix]) -> dict[str, Any]:
        linear, neighbours = copy.copy(self.linear_), shares()
        linear.weights_ = extend_linear_weights(linear.weights_, neighbours, self.neighbours)
        linear.n_items_ = sum(neighbours.shape)
        return super()._with_items(new, shares) | {"linear_": linear}

    def _partial_fit(self, rows: sparse.csr_matrix, epochs: int | None, run: FitRun) -> dict[str, Any]:
        grown, run_of_second = super()._partial_fit(rows, epochs, run), replace(run, part=SECOND_RUN)
        return grown | self._grown_second(lambda second: second._partial_fit(rows, epochs, run_of_second))

    def _add_items(self, features: sparse.csr_matrix) -> dict[str, Any]:
        return super()._add_items(features) | self._grown_second(lambda second: second._add_items(features))

    def _grown_second(self, grow: Callable[[MultVAE], dict[str, Any]]) -> dict[str, Any]:
        """The second network, if there is one, with what it has learned. -> fitted attributes"""
        if self.second_ is None:
            return {}
        second = copy.copy(self.second_)
        learned = grow(second)
        _set_fitted(second, len(learned["network_"].decoder.bias), **learned)
        return {"second_": second}

    def _extra_bytes(self, sizes: DataSizes, network: MemoryEstimate) -> int:
        return bytes_of_parts(self, sizes, network)

    def _tensors(self) -> dict[str, Tensor]:
        parts = {LINEAR + name: tensor for name, tensor in self.linear_._tensors().items()}
        numbers = {"weight": self.weight_, **self._numbers_of_path()}
        if self.second_ is not None:
            parts |= {SECOND + name: tensor for name, tensor in self.second_._tensors().items()}
            numbers["second_weight"] = self.second_weight_
        return super()._tensors() | parts | {n: torch.tensor(x, dtype=torch.float64) for n, x in numbers.items()}

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        weight = scalar(tensors, "weight")
        # older files have no exponents; that of users is then a hyper-parameter
        usual = {"user_power": USUAL_USER_POWER if self.user_power is None else self.user_power, "item_power": 0.0}
        powers = {name: scalar(tensors, name) if name in tensors else number for name, number in usual.items()}
        linear, second, second_weight = self._linear(scalar(tensors, "l2"), **powers), None, 0.0
        check_params(linear)
        of_network = {n: t for n, t in tensors.items() if n not in NUMBERS and not n.startswith((LINEAR, SECOND))}
        of_linear, of_second = (
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            for prefix in (LINEAR, SECOND)
        )
        _set_fitted(linear, n_items, **linear._restore(of_linear, n_items))
        if of_second:
            second, second_weight = self._second(), scalar(tensors, "second_weight")
            _set_fitted(second, n_items, **second._restore(of_second, n_items))
        parts = {"linear_": linear, "weight_": weight, "second_": second, "second_weight_": second_weight}
        return super()._restore(of_network, n_items) | parts


def _solved(linear: EDLAE, rows: sparse.csr_matrix, low_pass: float, run: FitRun) -> EDLAE:
    """The linear path with its low-pass filter, fitted to these rows, which it does not keep."""
    linear.fit(rows, run.show_progress)
    linear._drop_training_rows()
    add_low_pass(linear, rows, low_pass)
    return linear


def _joint_ndcg(
    others: ScoreFunction, users: CalibrationUsers, smoothing: float, network: VAE, history: Sequence[Epoch]
) -> float:
    """NDCG@100 of a network's scores plus those of other parts, as a moving average over epochs."""
    ndcg = best_joint_ndcg(partial(network_scores, network), others, users)
    average = history[-1].valid if history else None
    return ndcg if average is None else average + smoothing * (ndcg - average)


def _set_fitted(part: EDLAE | MultVAE, n_items: int, **learned: Any) -> None:
    """Give a part what a fit would."""
    unknown = dict.fromkeys(("item_ids_", "titles_", "trained_on_"))
    about = {"preparation_": {}, "values_": "raw", "n_items_": n_items, "params_": get_params(part)}
    part.__dict__.update(learned | unknown | about)
