"""BPR and LMF: implicit's models that know only the users they were trained on."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.errors import OutOfRangeError, TrainingError, UnknownUsersError
from recvae.models.base import FitRun, Recommender
from recvae.models.base.file_tensors import taken
from recvae.models.base.params import fitted, get_params, hyper, parameters
from recvae.models.base.similar import cosines
from recvae.models.base.spaces import integers, log
from recvae.models.baselines.implicit_library import implicit_library, writable
from recvae.utils.finite import check_fitted
from recvae.utils.memory import require_memory
from recvae.utils.progress import bar
from recvae.utils.topk import Scorer


@parameters
class KnownUsers(Recommender):
    """Base of implicit's models that learn factors for each training user, and have none for other users.

    `userid` in `recommend` is the row of the user in training, as in implicit. `recalculate_user`, and a fit with
    validation users who are not training users, raise UnknownUsersError.
    """

    factors: int = hyper(64, "dimension of the user and item factors", low=1, search=integers(8, 256))
    random_state: int | None = hyper(
        None, "seed of factors and draws; None draws one", low=0, high=2**32 - 1, kind=int, optional=True
    )

    user_factors_: Tensor = fitted()  # (U, F)
    item_factors_: Tensor = fitted()  # (I, F)

    @abstractmethod
    def _model(self) -> Any:
        """implicit's model with a single thread: with more threads, a seed does not determine the factors."""

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        if run.valid is not None and run.valid.train_rows is None:
            raise self._refusal()
        require_memory(4 * self.factors * sum(rows.shape), "the factors of users and items", "fewer factors")
        model = self._model()
        with bar(run.show_progress) as progress:
            task = progress.add_task(f"training {type(self).__name__}", total=model.iterations, note="")

            def report(iteration: int, seconds: float, *_: Any) -> None:
                progress.advance(task)
                if run.callback is not None:
                    run.callback(iteration, seconds, None)  # BPR and LMF report no loss

            try:
                model.fit(writable(rows), show_progress=False, callback=report)
            except implicit_library().recommender_base.ModelFitError as error:
                raise TrainingError(f"Expected finite factors, got others: {error}; lower learning_rate.") from error
        arrays = {"user_factors_": model.user_factors, "item_factors_": model.item_factors}
        factors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        for tensor in factors.values():
            check_fitted(tensor, "lower learning_rate")
        return factors

    def _tensors(self) -> dict[str, Tensor]:
        return {"user_factors": self.user_factors_, "item_factors": self.item_factors_}

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        items = taken(tensors, "item_factors", (n_items, None))
        return {"user_factors_": taken(tensors, "user_factors", (None, items.shape[1])), "item_factors_": items}

    def _scorer(self, users: NDArray[Any], recalculate: bool) -> Scorer:
        n_users = len(self.user_factors_)
        if recalculate:
            raise self._refusal()
        if users.size and (users.dtype.kind not in "iu" or users.min() < 0 or users.max() >= n_users):
            raise OutOfRangeError(f"Expected users by their rows in training, from 0 to {n_users - 1}, got {users}.")
        chosen = torch.from_numpy(users.astype(np.int64))
        return lambda _, block: self.user_factors_[chosen[block]] @ self.item_factors_.T

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        raise self._refusal()

    def _similarity(self, items: NDArray[np.int64]) -> Tensor:
        return cosines(self.item_factors_, items)

    def _known_users(self) -> Tensor:
        return self.user_factors_

    def _refusal(self) -> UnknownUsersError:
        return UnknownUsersError(
            f"{type(self).__name__} has factors for the users it was trained on only: it cannot score others "
            f"by their events. Test it on a split of known users, such as per-user or temporal, or on a Holdout "
            f"with train_rows."
        )


@parameters
class BPR(KnownUsers):
    """implicit's BayesianPersonalizedRanking (Rendle et al. 2009), for training users only."""

    learning_rate: float = hyper(0.05, "learning rate of SGD", low=0, search=log(0.005, 0.5))
    regularization: float = hyper(0.01, "L2 penalty on the factors", low=0, search=log(1e-4, 0.5))
    iterations: int = hyper(100, "passes over the events", low=1)

    def _model(self) -> Any:
        return implicit_library().cpu.bpr.BayesianPersonalizedRanking(**_without_values(self), num_threads=1)


@parameters
class LMF(KnownUsers):
    """implicit's LogisticMatrixFactorization (Johnson 2014), for training users only."""

    learning_rate: float = hyper(1.0, "learning rate of Adagrad", low=0, search=log(0.1, 3))
    regularization: float = hyper(0.6, "L2 penalty on the factors", low=0, search=log(0.01, 20))
    iterations: int = hyper(30, "passes over the events", low=1)
    neg_prop: int = hyper(30, "absent items drawn for each event", low=1, search=integers(1, 60))

    def _model(self) -> Any:
        return implicit_library().cpu.lmf.LogisticMatrixFactorization(**_without_values(self), num_threads=1)


def _without_values(model: Recommender) -> dict[str, Any]:
    return {name: value for name, value in get_params(model).items() if name != "values"}
