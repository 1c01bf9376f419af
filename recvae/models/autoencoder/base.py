"""The base of models that are one VAE network: hyper-parameters, training, files, scores.

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
from recvae.models.autoencoder.embeddings import (
    BIASES,
    TABLES,
    are_tied,
    init_biases_by_popularity,
    optimizers,
    tie,
    tied_vectors,
    with_duplicates,
    without_duplicates,
)
from recvae.models.autoencoder.memory_estimate import DataSizes
from recvae.models.autoencoder.memory_plan import MemoryPlan, plan_memory, seconds_per_epoch
from recvae.models.autoencoder.new_items import neighbour_weights, vectors_from_features, vectors_from_neighbours
from recvae.models.autoencoder.scoring import (
    item_counts,
    network_scorer,
    network_scores,
    validation_score,
)
from recvae.models.base import FitRun, Recommender
from recvae.models.base.explain import by_leaving_out
from recvae.models.base.file_tensors import fill
from recvae.models.base.params import check_params, fitted, flat_params, hyper, parameters
from recvae.models.base.similar import cosines
from recvae.models.base.spaces import log
from recvae.models.base.state import reads
from recvae.nn import VAE, Elbo, MLPDecoder
from recvae.nn.item_vectors import ItemVectors, add_items, item_vectors
from recvae.nn.layers import PRECISIONS
from recvae.nn.likelihood import FAMILIES, UNOBSERVED, Likelihood, Options, nll
from recvae.nn.rng import initialize
from recvae.nn.samplers import SAMPLERS, make_sampler
from recvae.nn.sharded import full_state_dict, initialize_sharded, shard
from recvae.training.callbacks import Callback, Epoch, as_callbacks
from recvae.training.checkpoint import digest_rows
from recvae.training.parallel import STRATEGIES, ParallelStrategy
from recvae.training.state import Phase, TrainConfig, best_epoch
from recvae.training.trainer import Trainer, rows_on_device
from recvae.utils.device import find_device
from recvae.utils.topk import Scorer
from recvae.version import __version__

logger = logging.getLogger(__name__)


@parameters
class Autoencoder(Recommender):
    """Base of models that are one `VAE` network trained by Adam. `history_` (not saved) tells how it went."""

    likelihood: str = hyper("multinomial", "distribution of a row, given z", choices=FAMILIES)
    impl: str = hyper(
        "auto",
        'how the likelihood is computed: "exact" looks at all items in each step, "sampled" at some that stand for '
        'them, "dense" is the textbook\'s; "auto" decides between the first two by the plan',
        choices=("auto", "dense", "exact", "sampled"),
    )
    candidates: int = hyper(
        4096, "items that a sampled likelihood looks at in a step, besides those of the batch's users", low=1
    )
    sampler: str = hyper("popularity", "where these come from", choices=tuple(SAMPLERS))
    tables: str = hyper(
        "separate",
        'weights of the first layer and of the output layer, which have a row for each item: "tied" makes them one',
        choices=TABLES,
    )
    item_biases: str = hyper(
        "auto",
        'what biases of the output layer begin with: "normal", N(0, .001^2) as in the paper; "popularity", the log of '
        'how many users have each item, which is the best guess at a multinomial before any user is known; "auto" is '
        "that where the likelihood is sampled",
        choices=BIASES,
    )
    batch_size: int | None = hyper(
        None,
        "users in a step; by default a twentieth of the training users, at most 500, for enough steps on small data",
        low=1,
        kind=int,
        optional=True,
        search=[None, 50, 100, 200, 500],
    )
    parallel: str = hyper(
        "data",
        'how several processes train together: "data" parallel, each computes some users of every batch; "tensor" '
        "parallel, each holds the rows of some items of the two embedding tables, which need not fit in one process",
        choices=STRATEGIES,
        run_option=True,
    )
    device: str = hyper("auto", 'torch device; "auto" takes a GPU if there is one', run_option=True)
    precision: str = hyper(
        "auto",
        'of the matrix products in training; "bfloat16" is faster where the hardware has it, which "auto" finds out',
        choices=PRECISIONS,
        run_option=True,
    )
    unobserved: float = hyper(
        UNOBSERVED,
        "of the Gaussian likelihood: confidence in items that a user does not have, to 1 in others",
        low=1e-6,
    )
    epochs: int = hyper(50, "passes over the training users; schedules stretch with them", low=1)
    learning_rate: float = hyper(1e-3, "of Adam, as in the paper", low=0, search=log(1e-4, 1e-2))
    weight_decay: float = hyper(0.0, "decoupled, as in AdamW, on all weights", low=0, search=[0.0, 0.001, 0.01, 0.1])
    table_rate: float = hyper(3.0, "of a sampled likelihood: times the learning rate, for the tables", low=0)
    max_grad_norm: float | None = hyper(
        None, "scale the gradient of a step down to this norm where it is longer", low=0, kind=float, optional=True
    )
    stop_after: int | None = hyper(
        None,
        "stop after so many of the `epochs`, schedules unchanged: where the best epoch is known from another fit",
        low=1,
        kind=int,
        optional=True,
    )
    patience: int | None = hyper(
        None,
        "stop after so many epochs without a better NDCG@100 on validation users, which `fit` then needs",
        low=1,
        kind=int,
        optional=True,
    )
    random_state: int | None = hyper(
        None, "seed of weights, order, dropout, noise; None draws one", low=0, high=2**32 - 1, kind=int, optional=True
    )
    network_: VAE = fitted()
    plan_: MemoryPlan = fitted()  # of the fit; not in files
    history_: list[Epoch] = fitted()
    resumable = True
    out_of_core = True
    validation_metric = "ndcg@100"
    _loss = staticmethod(Elbo.loss)  # (terms of the ELBO, beta) -> what is minimised

    @abstractmethod
    def _network(self, n_items: int) -> VAE:
        """The network for `n_items`, its weights not yet initialised."""

    def _built(self, n_items: int) -> VAE:
        """The network with its embeddings tied, if they are to be."""
        network = self._network(n_items)
        if self.tables == "tied":
            tie(network)
        return network

    @reads
    def plan(self, user_items: Any, *, valid: Holdout | None = None, calibrate: bool = True) -> MemoryPlan:
        """Plan what `fit` on these data would take, before it does.

        Parameters
        ----------
        user_items, valid
            As for `fit`.
        calibrate : bool
            Whether to measure a few steps, of a network that is discarded, to tell how long an epoch takes.

        Returns
        -------
        MemoryPlan
            To be printed: number of weights, memory by what it is for, which likelihood and why, and what to change
            where it would not fit. `fit` raises NotEnoughMemoryError with that instead of running out of memory.

        Raises
        ------
        RecvaeError
            As `fit`.
        """
        check_params(self)
        rows, _ = self._rows_to_fit(user_items)
        valid = self._check_valid(valid, rows.shape[1], user_items)
        plan = self._memory_plan(rows, valid is not None)
        if calibrate and plan.fits:
            plan = replace(plan, seconds_per_epoch=seconds_per_epoch(self, rows, plan))
        return plan

    def _extra_bytes(self, n_items: int, network_bytes: int) -> int:
        """Bytes of what the model has in addition to its network, whose training takes `network_bytes`."""
        return 0

    def _checked_plan(
        self, rows: sparse.csr_matrix | Shards, validated: bool, extras_allocated: bool = True
    ) -> MemoryPlan:
        """The plan of a training that fits into memory. Raises NotEnoughMemoryError."""
        plan = self._memory_plan(rows, validated, extras_allocated)
        if not plan.fits:
            raise NotEnoughMemoryError(plan.refusal())
        return plan

    def _memory_plan(
        self, rows: sparse.csr_matrix | Shards, validated: bool, extras_allocated: bool = False
    ) -> MemoryPlan:
        n_users, n_items = rows.shape
        strategy = self._strategy()
        sizes = DataSizes(
            users=n_users,
            items=n_items,
            events=rows.nnz,
            batch=self._batch_size(n_users),
            on_disk=isinstance(rows, Shards),
            validated=validated,
            tensor_ranks=strategy.communicator.size if strategy.tensor_parallel else 1,
            data_ranks=strategy.data_parallel_group.size,
            extras_allocated=extras_allocated,
        )
        plan: MemoryPlan = strategy.communicator.broadcast(plan_memory(self, sizes, find_device(self.device)))
        return plan

    def _strategy(self) -> ParallelStrategy:
        """The ranks that train this model, in a `joined` block."""
        communicator = current_communicator()
        return ParallelStrategy(communicator, self.parallel == "tensor" and communicator.size > 1)

    def _batch_size(self, n_users: int) -> int:
        return int(self.batch_size or min(500, -(-n_users // 20)))

    def _likelihood(self) -> Likelihood:
        """The likelihood of a row, its products in the precision asked for."""
        impl = "reference" if self.impl == "dense" else "auto"  # "sampled" for batches with candidates
        options = Options(precision=self.precision, unobserved=self.unobserved)
        return partial(nll, family=self.likelihood, impl=impl, options=options)

    @property
    def best_epoch_(self) -> int:
        """The epoch (from 1) whose weights were kept; only for models that have been fitted here."""
        if not getattr(self, "history_", []):
            raise NotFittedError(f"Expected a {type(self).__name__} fitted in this process; call fit first.")
        return best_epoch(self.history_).epoch

    @reads
    def chosen_params(self) -> dict[str, Any]:
        """As for every model, with the number of epochs that was best, and no patience."""
        return super().chosen_params() | {"stop_after": self.best_epoch_, "patience": None}

    def _check_valid(self, valid: Any, n_items: int, user_items: Any) -> Holdout | None:
        if valid is None and self.patience is not None:
            raise InvalidParameterError(
                f"Expected validation users for patience={self.patience}, got none; give fit's valid= (--split or "
                f"--heldout-users), or leave patience out."
            )
        return super()._check_valid(valid, n_items, user_items)

    def _beta(self, progress: float) -> float:
        """Weight of the KL term after a share of the run."""
        return 0.0

    def _last_beta(self) -> float:
        """That with which a fit ends."""
        return self._beta(1.0)

    def _phases(self) -> Sequence[Phase]:
        """What an epoch is made of."""
        return (Phase(),)

    @reads
    def trainer(self, user_items: Any) -> Trainer:
        """The trainer with which `fit` would begin on these rows, its network untrained: to make steps by hand.

        Parameters
        ----------
        user_items
            As in `fit`, which raises the same errors.
        """
        check_params(self)
        rows, _ = self._rows_to_fit(user_items)
        impl, seed = self._memory_plan(rows, False).impl, self._seed()
        return self._trainer(self._untrained(rows.shape[1], seed), rows, impl, seed)

    def _fit(self, rows: sparse.csr_matrix | Shards, run: FitRun) -> dict[str, Any]:
        strategy, found = self._strategy(), self._checked_plan(rows, run.valid is not None)
        about = "%s: %d users x %d items, %d events; %s likelihood, %s"
        if strategy.communicator.is_main_process:
            logger.info(about, type(self).__name__, *rows.shape, rows.nnz, found.impl, found.why)
        if strategy.tensor_parallel and found.impl != "exact":
            raise InvalidParameterError(
                f'Expected impl="exact" in tensor parallel training, got {found.impl!r}: take that, or parallel="data".'
            )
        seed = self._seed()
        network = self._untrained(rows.shape[1], seed)
        if self.item_biases == "popularity" or (self.item_biases == "auto" and found.impl == "sampled"):
            init_biases_by_popularity(network, item_counts(rows), self.likelihood)
        trainer = self._trainer(network, rows, found.impl, seed, part=run.part)
        validate = None
        if run.valid is not None:
            validate = partial(validation_score, network, run.valid, run.values, self.validation_metric)
        history = self._train(trainer, rows, run, validate)
        whole = _settled(self._whole(network, rows.shape[1], strategy))
        return {"network_": whole, "history_": history, "plan_": found}

    def _partial_fit(self, rows: sparse.csr_matrix, epochs: int | None, run: FitRun) -> dict[str, Any]:
        by_item = rows.T.tocsr().sign()  # (I + n, U)
        shares = neighbour_weights(by_item[self.n_items_ :], by_item[: self.n_items_])
        vectors = vectors_from_neighbours(item_vectors(self.network_), shares, np.diff(by_item.indptr))
        grown = self._with_items(vectors, lambda: shares)
        passes = -(-self.epochs // 10) if epochs is None else epochs
        if passes:
            impl, beta = self._memory_plan(rows, False).impl, self._last_beta()
            changes: dict[str, Any] = {"epochs": passes, "beta": beta, "stop_epoch": None, "patience": None}
            trainer = self._trainer(grown["network_"], rows, impl, self._seed(), ParallelStrategy(), **changes)
            self._train(trainer, rows, run)
        return grown | {"network_": _settled(grown["network_"])}

    def _add_items(self, features: sparse.csr_matrix) -> dict[str, Any]:
        vectors = vectors_from_features(self.network_, features)
        grown = self._with_items(
            vectors, lambda: neighbour_weights(features[self.n_items_ :], features[: self.n_items_])
        )
        return grown | {"network_": _settled(grown["network_"])}

    def _with_items(self, new: ItemVectors, shares: Callable[[], sparse.csr_matrix]) -> dict[str, Any]:
        """New items with their vectors; `shares` (n, I) are of those that they are alike. -> fitted attributes"""
        tied = self.params_["tables"] == "tied"
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
        """What trains a network on rows by this model's parameters, and `changes` to the config.

        Parameters
        ----------
        impl : str
            How the likelihood is computed, not "auto".
        strategy : ParallelStrategy, optional
            By default that of the processes that this runs in.
        part : str
            Of the model, as records of epochs and checkpoints name it.
        """
        n_users, batch_size = rows.shape[0], self._batch_size(rows.shape[0])
        sampler = None
        if impl == "sampled":
            sampler = make_sampler(self.sampler, self.candidates, item_counts(rows), n_users, batch_size)
        config = TrainConfig(
            epochs=self.epochs,
            batch_size=batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            beta=self._beta,
            stop_epoch=self.stop_after,
            patience=self.patience,
            phases=self._phases(),
            max_grad_norm=self.max_grad_norm,
            precision=self.precision,
            seed=seed,
        )
        rates = self.learning_rate, self.weight_decay, self.table_rate
        return Trainer(
            network,
            replace(config, **changes),
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
        """Through the loop, from where it was if it was stopped."""
        return trainer.run(
            rows_on_device(rows, trainer.state.device),
            identity=partial(self._identity, rows, trainer, run),
            validate=validate,
            metric=self.validation_metric,
            callbacks=[*_as_implicit(run), *run.callbacks],
            checkpoint=run.checkpoint,
            show_progress=run.show_progress,
        )

    def _identity(self, rows: sparse.csr_matrix | Shards, trainer: Trainer, run: FitRun) -> dict[str, Any]:
        """All that a training follows from, as JSON can hold it."""
        valid = None if run.valid is None else digest_rows(run.valid.fold_in, run.valid.held_out)
        params = flat_params(self, run_options=False)
        return {
            "recvae": __version__,
            "model": type(self).__name__,
            "parameters": {name: list(value) if isinstance(value, tuple) else value for name, value in params.items()},
            "impl": "sampled" if trainer.sampler is not None else "exact",
            "rows": rows.fingerprint() if isinstance(rows, Shards) else digest_rows(rows),
            "validation users": valid,
            "part": run.part,
        }

    def _seed(self) -> int:
        """`random_state`, or one that is drawn, the same on all ranks."""
        if self.random_state is not None:
            return int(self.random_state)
        seed: int = current_communicator().broadcast(secrets.randbits(32))
        return seed

    def _untrained(self, n_items: int, seed: int) -> VAE:
        """The network with fresh weights, on the model's device."""
        strategy, device = self._strategy(), find_device(self.device)
        if not strategy.tensor_parallel:
            network = self._built(n_items).to(device)
            initialize(network, seed)
            return network
        with torch.device("meta"):  # no rank has to hold the whole
            network = shard(self._built(n_items), strategy.communicator).to_empty(device=device)
        if self.tables == "tied":
            tie(network)
        initialize_sharded(network, seed)
        return network

    def _whole(self, network: VAE, n_items: int, strategy: ParallelStrategy) -> VAE:
        """The network with the rows of all ranks, on the host."""
        if not strategy.tensor_parallel:
            return network
        tensors = full_state_dict(network)
        with torch.device("meta"):
            whole = self._built(n_items)
        whole.load_state_dict(tensors, assign=True)
        if self.tables == "tied":
            tie(whole)
        return whole

    def _tensors(self) -> dict[str, Tensor]:
        return without_duplicates(dict(self.network_.state_dict()), are_tied(self.network_))

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        with torch.device("meta"):  # shapes alone: what a file claims costs nothing until its tensors are seen to fit
            network = self._built(n_items)
        fill(network, with_duplicates(tensors, self.tables == "tied"))
        if self.tables == "tied":
            tie(network)
        return {"network_": _settled(network.to(find_device(self.device))), "history_": []}

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


def _settled(network: VAE) -> VAE:
    """A network that is done with training, ready to score."""
    if isinstance(network.decoder, MLPDecoder) and not are_tied(network):
        network.decoder.prepare_for_inference()
    return network.eval()


def _as_implicit(run: FitRun) -> list[Callback]:
    """What `callback` of `fit` hears: the epochs of the model's own run, counted from 0."""
    call = run.callback
    if call is None or run.part != "network":
        return []
    return as_callbacks([lambda epoch: call(epoch.epoch - 1, epoch.seconds, epoch.loss)])
