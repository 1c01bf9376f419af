"""Networks whose needs are known before they are trained: what decides how large a step is, and a plan of it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

from scipy import sparse

from recvae.data.shards import Shards
from recvae.data.splits import Holdout
from recvae.distributed.communicator import current_communicator
from recvae.errors import NotEnoughMemoryError
from recvae.models.autoencoder.calibrate import seconds_per_epoch
from recvae.models.autoencoder.footprint import Sizes
from recvae.models.autoencoder.forecast import Forecast, forecast
from recvae.models.autoencoder.tables import BIASES, TABLES, tie
from recvae.models.base import Recommender
from recvae.models.base.params import check_params, fitted, hyper, parameters
from recvae.models.base.state import reads
from recvae.nn import LIKELIHOODS, VAE
from recvae.nn.candidates import SAMPLERS
from recvae.nn.likelihood import IMPLS
from recvae.nn.products import PRECISIONS
from recvae.training.parallel import STRATEGIES, ParallelStrategy
from recvae.utils.device import find_device


@parameters
class Planned(Recommender):
    """Base of models that are one `VAE` network."""

    likelihood: str = hyper("multinomial", "distribution of a row, given z", choices=tuple(LIKELIHOODS))
    impl: str = hyper(
        "auto",
        'how the likelihood is computed: "exact" looks at all items in each step, "sampled" at some that stand for '
        'them, "dense" is the textbook\'s; "auto" decides between the first two by the plan',
        choices=IMPLS,
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

    plan_: Forecast = fitted()  # what the fit went by; not in files

    @abstractmethod
    def _network(self, n_items: int) -> VAE:
        """The network for `n_items`, its weights yet to be initialised."""

    def _built(self, n_items: int) -> VAE:
        """The network with its tables as they are asked for."""
        network = self._network(n_items)
        if self.tables == "tied":
            tie(network)
        return network

    @reads
    def plan(self, user_items: Any, *, valid: Holdout | None = None, calibrate: bool = True) -> Forecast:
        """What `fit` on these would take, before it does: print it.

        Parameters
        ----------
        user_items, valid
            As for `fit`.
        calibrate : bool
            Make a few steps, of which none is kept, to say how long an epoch takes.

        Raises
        ------
        RecvaeError
            As `fit`.

        Notes
        -----
        Parameters, memory by what it is for, which likelihood and why, and what to change where it would not fit. `fit`
        raises NotEnoughMemoryError with that in the place of dying.
        """
        check_params(self)
        rows, _ = self._rows_to_fit(user_items)
        valid = self._check_valid(valid, rows.shape[1], user_items)
        found = self._forecast(rows, valid is not None)
        if calibrate and found.fits:
            found = replace(found, seconds_per_epoch=seconds_per_epoch(self, rows, found))
        return found

    def _beside(self, n_items: int, network_bytes: int) -> int:
        """Bytes of what the model has beside a network that takes so many."""
        return 0

    def _affordable(self, rows: sparse.csr_matrix | Shards, validated: bool, begun: bool = True) -> Forecast:
        """The forecast of a training that memory does for. Raises NotEnoughMemoryError for another."""
        found = self._forecast(rows, validated, begun)
        if not found.fits:
            raise NotEnoughMemoryError(found.refusal())
        return found

    def _forecast(self, rows: sparse.csr_matrix | Shards, validated: bool, begun: bool = False) -> Forecast:
        n_users, n_items = rows.shape
        strategy = self._strategy()
        sizes = Sizes(
            users=n_users,
            items=n_items,
            events=rows.nnz,
            batch=self._batch_size(n_users),
            on_disk=isinstance(rows, Shards),
            validated=validated,
            tensor_ranks=strategy.communicator.size if strategy.tensor_parallel else 1,
            data_ranks=strategy.data_parallel_group.size,
            begun=begun,
        )
        found: Forecast = strategy.communicator.broadcast(forecast(self, sizes, find_device(self.device)))
        return found

    def _strategy(self) -> ParallelStrategy:
        """The ranks that train this model, in a `joined` block."""
        communicator = current_communicator()
        return ParallelStrategy(communicator, self.parallel == "tensor" and communicator.size > 1)

    def _batch_size(self, n_users: int) -> int:
        return int(self.batch_size or min(500, -(-n_users // 20)))
