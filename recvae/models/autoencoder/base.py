"""The base of models that consist of one VAE network: hyper-parameters, training, model files, scores.

A model defines `_network` and, where they differ, `_beta` (the weight of the KL term) and `_phases` (the parts that
are trained in an epoch).
"""

from __future__ import annotations

import logging
import secrets
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.batches import DeviceRows
from recvae.data.shards import Shards
from recvae.data.splits import Holdout
from recvae.distributed.communicator import current_communicator
from recvae.errors import InvalidParameterError, NotEnoughMemoryError, NotFittedError
from recvae.models.autoencoder.memory_estimate import DataSizes, MemoryEstimate
from recvae.models.autoencoder.memory_plan import MemoryPlan, plan_training, seconds_per_epoch
from recvae.models.autoencoder.network import (
    from_file,
    gathered,
    optimizers,
    ready_to_score,
    start_from_rows,
    tie,
    tied_vectors,
    to_file,
    untrained_network,
)
from recvae.models.autoencoder.new_items import neighbour_weights, vectors_from_features, vectors_from_neighbours
from recvae.models.autoencoder.options import (
    DefaultEpochs,
    OutputOptions,
    TrainingOptions,
    epochs_option,
    n_epochs,
    run_identity,
    train_config,
)
from recvae.models.autoencoder.scoring import item_counts, network_scorer, network_scores, validation_score
from recvae.models.autoencoder.shape import Shape
from recvae.models.base import FitRun, Recommender
from recvae.models.base.explain import by_leaving_out
from recvae.models.base.fit import implicit_callbacks
from recvae.models.base.params import check_params, config, fitted, hyper, parameters
from recvae.models.base.similar import cosines
from recvae.models.base.spaces import log
from recvae.models.base.state import reads
from recvae.nn import VAE, Elbo
from recvae.nn.encoders import input_layer
from recvae.nn.item_vectors import ItemVectors, add_items, item_vectors
from recvae.nn.likelihood import FAMILIES, Likelihood, Options, nll
from recvae.nn.samplers import make_sampler
from recvae.training.callbacks import Epoch
from recvae.training.parallel import ParallelStrategy
from recvae.training.state import Phase, best_epoch, default_batch_size
from recvae.training.trainer import Trainer, rows_on_device
from recvae.utils.device import find_device
from recvae.utils.topk import Scorer

logger = logging.getLogger(__name__)

# (network, records of the epochs before) -> its metric on validation users, higher is better
Validation = Callable[[VAE, Sequence[Epoch]], float]


@parameters
class Autoencoder(Recommender):
    """Base of models that are one `VAE` network trained by Adam. `history_` (not saved) has a record of each epoch."""

    likelihood: str = hyper("multinomial", "distribution of a row, given z", choices=FAMILIES)
    _default_epochs = DefaultEpochs(20, 10, 50)
    epochs: int | None = epochs_option("passes", _default_epochs)
    batch_size: int | None = hyper(
        None,
        "users per step; by default a twentieth of the training users, at most 500, for enough steps on small data",
        low=1,
        kind=int,
        optional=True,
        search=[None, 50, 100, 200, 500],
    )
    learning_rate: float = hyper(1e-3, "learning rate of Adam, as in the paper", low=0, search=log(1e-4, 1e-2))
    patience: int | None = hyper(
        None,
        "stop after this many epochs without a better NDCG@100 on validation users, which `fit` then requires",
        low=1,
        kind=int,
        optional=True,
    )
    random_state: int | None = hyper(
        None, "seed of weights, batches, dropout, noise; None draws one", low=0, high=2**32 - 1, kind=int, optional=True
    )
    device: str = hyper("auto", 'torch device; "auto" takes a GPU if there is one', run_option=True)
    output: OutputOptions = config(OutputOptions, "options of the output layer", without=("logits", "temperature"))
    training: TrainingOptions = config(TrainingOptions, "options of the training run")

    network_: VAE = fitted()
    plan_: MemoryPlan = fitted()  # the plan of the fit; not saved
    history_: list[Epoch] = fitted()
    resumable = True
    out_of_core = True
    validates_itself = False  # whether users are held out to validate by where `fit` gets none
    validation_metric = "ndcg@100"
    _loss = staticmethod(Elbo.loss)  # (terms of the ELBO, beta) -> scalar to minimise

    @abstractmethod
    def _network(self, n_items: int) -> VAE:
        """The network for `n_items`, its weights not yet initialised."""

    def _starts_as_filter(self, shape: Shape) -> bool:
        """Whether hidden layers start by passing projections on singular vectors on, see `init_spectrally`."""
        return False

    def _learns_slowly(self, shape: Shape) -> bool:
        """Whether the learning rate is the lower one, unless it is given."""
        return False

    def _built(self, n_items: int) -> VAE:
        """The network, with tied embeddings where `output` asks for them."""
        network = self._network(n_items)
        if self.output.tied_embeddings:
            tie(network)
        return network

    @reads
    def plan(self, user_items: Any, *, valid: Holdout | None = None, calibrate: bool = True) -> MemoryPlan:
        """Estimate the memory and time of `fit` on these data, without training.

        Parameters
        ----------
        user_items
            As for `fit`.
        valid
            As for `fit`.
        calibrate : bool
            Whether to time a few steps, of a network that is then discarded, to estimate the duration of an epoch.

        Returns
        -------
        MemoryPlan
            It can be printed: number of weights, memory by purpose, how the likelihood is computed and why, and changes
            that would help if the training does not fit. `fit` then raises NotEnoughMemoryError with these changes
            instead of running out of memory.

        Raises
        ------
        RecvaeError
            As `fit`.
        """
        check_params(self)
        rows, _ = self._rows_to_fit(user_items)
        valid = self._check_valid(valid, rows.shape[1], user_items)
        plan = plan_training(self, rows, valid is not None or self.validates_itself)
        if calibrate and plan.fits:
            trainer = self._trainer(self._untrained(rows.shape[1], 0), rows, plan.impl, 0)
            plan = replace(plan, seconds_per_epoch=seconds_per_epoch(trainer, rows))
        return plan

    def _extra_bytes(self, sizes: DataSizes, network: MemoryEstimate) -> int:
        """Bytes of what the model has in addition to its network, on top of the peak of the network's training."""
        return 0

    def _checked_plan(
        self, rows: sparse.csr_matrix | Shards, validated: bool, extras_allocated: bool = True
    ) -> MemoryPlan:
        """The plan of the training. Raises NotEnoughMemoryError if it does not fit into memory."""
        plan = plan_training(self, rows, validated, extras_allocated)
        if not plan.fits:
            raise NotEnoughMemoryError(plan.refusal())
        return plan

    def _strategy(self) -> ParallelStrategy:
        """How the ranks of a `joined` block train this model; a single process outside of one."""
        communicator = current_communicator()
        return ParallelStrategy(communicator, self.training.parallel == "tensor" and communicator.size > 1)

    def _likelihood(self) -> Likelihood:
        """The likelihood of a row, with the family, implementation and precision of the hyper-parameters."""
        impl = "reference" if self.training.impl == "reference" else "auto"  # "sampled" for batches with negatives
        options = Options(precision=self.training.precision, unobserved=self.output.unobserved)
        return partial(nll, family=self.likelihood, impl=impl, options=options)

    @property
    def best_epoch_(self) -> int:
        """The epoch (from 1) whose weights were kept; only for models fitted in this process."""
        if not getattr(self, "history_", []):
            raise NotFittedError(f"Expected a {type(self).__name__} fitted in this process; call fit first.")
        return best_epoch(self.history_).epoch

    @reads
    def chosen_params(self) -> dict[str, Any]:
        """As for every model, with `stop_epoch` at the best epoch, and no patience."""
        return super().chosen_params() | {
            "training": replace(self.training, stop_epoch=self.best_epoch_),
            "patience": None,
        }

    def _check_valid(self, valid: Any, n_items: int, user_items: Any) -> Holdout | None:
        if valid is None and self.patience is not None and not self.validates_itself:
            raise InvalidParameterError(
                f"Expected validation users for patience={self.patience}, got none; give fit's valid= (--split or "
                f"--heldout-users), or leave patience out."
            )
        return super()._check_valid(valid, n_items, user_items)

    def _beta(self, progress: float, shape: Shape) -> float:
        """Weight of the KL term at `progress`, the share of the run that is done, on data of this shape."""
        return 0.0

    def _last_beta(self, shape: Shape) -> float:
        """The weight of the KL term at the end of a fit."""
        return self._beta(1.0, shape)

    def _phases(self, shape: Shape) -> Sequence[Phase]:
        """The phases of an epoch, on data of this shape."""
        return (Phase(),)

    @reads
    def trainer(self, user_items: Any) -> Trainer:
        """The trainer that `fit` would use on these rows, with an untrained network: for a training loop of your own.

        Parameters
        ----------
        user_items
            As in `fit`, which raises the same errors.
        """
        check_params(self)
        rows, _ = self._rows_to_fit(user_items)
        impl, seed = plan_training(self, rows, False).impl, self._seed()
        return self._trainer(self._initial_network(rows, seed), rows, impl, seed)

    def _fit(self, rows: sparse.csr_matrix | Shards, run: FitRun) -> dict[str, Any]:
        return self._fit_network(rows, run, self._validation(run))

    def _validation(self, run: FitRun) -> Validation | None:
        """The metric of a network for the validation users of a fit, if there are any."""
        if run.valid is None:
            return None
        valid, values = run.valid, run.values
        return lambda network, _: validation_score(network, valid, values, self.validation_metric)

    def _fit_network(
        self, rows: sparse.csr_matrix | Shards, run: FitRun, validation: Validation | None
    ) -> dict[str, Any]:
        """Train a network, and keep the weights of its best epoch by `validation`. -> fitted attributes"""
        strategy, plan = self._strategy(), self._checked_plan(rows, validation is not None)
        message = "%s: %d users x %d items, %d events; %s likelihood, %s"
        if strategy.communicator.is_main_process:
            logger.info(message, type(self).__name__, *rows.shape, rows.nnz, plan.impl, plan.why)
        if strategy.tensor_parallel and plan.impl != "chunked":
            raise InvalidParameterError(
                f'Expected training__impl="chunked" in tensor parallel training, got {plan.impl!r}: take that, or '
                f'training__parallel="data".'
            )
        seed = self._seed()
        network = self._initial_network(rows, seed)
        trainer = self._trainer(network, rows, plan.impl, seed, part=run.part)
        # a checkpoint that is resumed from replaces the history
        validate = None if validation is None else lambda: validation(network, trainer.state.history)
        history = self._train(trainer, rows, run, validate)
        network = gathered(network, partial(self._built, rows.shape[1]), strategy)
        return {"network_": network, "history_": history, "plan_": plan}

    def _partial_fit(self, rows: sparse.csr_matrix, epochs: int | None, run: FitRun) -> dict[str, Any]:
        by_item = rows.T.tocsr().sign()  # (I + n, U)
        shares = neighbour_weights(by_item[self.n_items_ :], by_item[: self.n_items_])
        vectors = vectors_from_neighbours(item_vectors(self.network_), shares, np.diff(by_item.indptr))
        extended = self._with_items(vectors, lambda: shares)
        shape = Shape.of(rows)
        passes = -(-n_epochs(self, shape) // 10) if epochs is None else epochs
        if passes:
            impl, beta = plan_training(self, rows, False).impl, self._last_beta(shape)
            changes: dict[str, Any] = {"epochs": passes, "beta": beta, "stop_epoch": None, "patience": None}
            changes["averaging"] = 0.0  # in a few passes, averages would be behind
            trainer = self._trainer(extended["network_"], rows, impl, self._seed(), ParallelStrategy(), **changes)
            self._train(trainer, rows, run)
        return extended | {"network_": ready_to_score(extended["network_"])}

    def _add_items(self, features: sparse.csr_matrix) -> dict[str, Any]:
        vectors = vectors_from_features(self.network_, features)
        extended = self._with_items(
            vectors, lambda: neighbour_weights(features[self.n_items_ :], features[: self.n_items_])
        )
        return extended | {"network_": ready_to_score(extended["network_"])}

    def _with_items(self, new: ItemVectors, shares: Callable[[], sparse.csr_matrix]) -> dict[str, Any]:
        """New items with their vectors; `shares` (n, I) are weights of their nearest old ones. -> fitted attributes"""
        tied = self.params_["output"].tied_embeddings
        network = add_items(self.network_, tied_vectors(new) if tied else new).to(find_device(self.device))
        if tied:
            tie(network)
        return {"network_": network}

    def _trainer(
        self,
        network: VAE,
        rows: sparse.csr_matrix | Shards,
        impl: str,
        seed: int,
        strategy: ParallelStrategy | None = None,
        part: str = "network",
        **changes: Any,
    ) -> Trainer:
        """The trainer of a network on rows, with this model's parameters and `changes` to the config.

        Parameters
        ----------
        impl : str
            How the likelihood is computed; not "auto".
        strategy : ParallelStrategy, optional
            By default that of the current communicator.
        part : str
            Name of the run in records of epochs and in checkpoints.
        """
        n_users, shape = rows.shape[0], Shape.of(rows)
        if getattr(self, "dropout", 0.0) is None:
            input_layer(network.encoder).dropout = shape.dropout()
        batch_size = int(self.batch_size or default_batch_size(n_users))
        sampler = None
        if impl == "sampled":
            options = self.training.sampler, self.training.num_negatives
            sampler = make_sampler(*options, item_counts(rows), n_users, batch_size)
        config = replace(train_config(self, shape, batch_size, impl, seed), **changes)
        rates = config.learning_rate, config.weight_decay, self.training.embedding_lr
        return Trainer(
            network,
            config,
            loss=self._loss,
            optimizers=optimizers(network, impl == "sampled", *rates),
            sampler=sampler,
            strategy=strategy or self._strategy(),
            title=type(self).__name__ + ("" if part == "network" else f" ({part})"),
            part=part,
        )

    def _train(
        self,
        trainer: Trainer,
        rows: sparse.csr_matrix | Shards,
        run: FitRun,
        validate: Callable[[], float] | None = None,
    ) -> list[Epoch]:
        """Run the training loop, from the last checkpoint if there is one."""
        return trainer.run(
            rows_on_device(rows, trainer.state.device),
            identity=partial(run_identity, self, rows, run, trainer.sampler is not None),
            validate=validate,
            metric=self.validation_metric,
            callbacks=[*implicit_callbacks(run), *run.callbacks],
            checkpoint=run.checkpoint,
            show_progress=run.show_progress,
        )

    def _seed(self) -> int:
        """`random_state`, or a random seed, the same on all ranks."""
        if self.random_state is not None:
            return int(self.random_state)
        seed: int = current_communicator().broadcast(secrets.randbits(32))
        return seed

    def _initial_network(self, rows: sparse.csr_matrix | Shards, seed: int) -> VAE:
        """The network with which training on these rows starts."""
        network = self._untrained(rows.shape[1], seed)
        start_from_rows(network, rows, self, self._strategy().communicator)
        return network

    def _untrained(self, n_items: int, seed: int) -> VAE:
        """The network with initial weights, on the model's device."""
        device, tied = find_device(self.device), self.output.tied_embeddings
        return untrained_network(partial(self._built, n_items), seed, self._strategy(), device, tied)

    def _tensors(self) -> dict[str, Tensor]:
        return to_file(self.network_)

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        network = from_file(partial(self._built, n_items), tensors, find_device(self.device))
        return {"network_": network, "history_": []}

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        return network_scores(self.network_, rows)

    def _similarity(self, items: NDArray[np.int64]) -> Tensor:
        with torch.no_grad():
            return cosines(self.network_.decoder.output[0], items)

    def _user_vectors(self, rows: sparse.csr_matrix) -> Tensor:
        device = self.network_.decoder.weight.device
        with torch.no_grad():
            mean: Tensor = self.network_.encoder(DeviceRows(rows, device).all()).mean
        return mean

    def _contributions(self, row: sparse.csr_matrix, item: int) -> tuple[float, NDArray[np.float64]]:
        return by_leaving_out(self, row, item)

    def _scorer(self, users: NDArray[Any], recalculate: bool) -> Scorer:
        return network_scorer(self.network_, len(users))
