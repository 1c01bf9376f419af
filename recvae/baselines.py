"""Baselines behind the package's contract: popularity, and implicit's ALS, item-KNN, BPR and LMF.

implicit fits; the ranking (N exactly, padding, ties, float32) is the one all models share, so that nothing but the
scores differs. That these rankings equal implicit's own `recommend` is a test.
"""

from __future__ import annotations

import functools
import warnings
from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.errors import MissingDependencyError, OutOfRangeError, TrainingError, UnknownUsersError
from recvae.params import fitted, get_params, hyper, parameters
from recvae.progress import bar
from recvae.recommender import FitRun, Recommender
from recvae.saving import csr_from, csr_tensors
from recvae.spaces import log, whole
from recvae.topk import Scorer


@parameters
class Popularity(Recommender):
    """Items by the number of training users who have them: the same list for everyone."""

    item_counts_: Tensor = fitted()

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        counts = np.bincount(rows.indices, minlength=rows.shape[1])
        return {"item_counts_": torch.from_numpy(counts.astype(np.float32))}

    def _tensors(self) -> dict[str, Tensor]:
        return {"item_counts": self.item_counts_}

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        return {"item_counts_": tensors["item_counts"].reshape(n_items)}

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        return self.item_counts_.repeat(rows.shape[0], 1)


@parameters
class ALS(Recommender):
    """implicit's AlternatingLeastSquares (Hu, Koren & Volinsky 2008), a row's factors solved for at scoring.

    As implicit with `recalculate_user=True`. BLAS is held to one thread around it, as implicit asks for.
    """

    factors: int = hyper(128, "dimension of the user and item factors", low=1, search=whole(16, 512))
    regularization: float = hyper(
        30.0, "L2 penalty on the factors; far above implicit's .01, which overfits", low=0, search=log(0.1, 1000)
    )
    alpha: float = hyper(3.0, "weight of an observed event over an absent one", low=0, search=log(0.1, 100))
    iterations: int = hyper(15, "passes of alternating solves", low=1)
    random_state: int | None = hyper(
        None, "seed of the initial factors; None draws one", low=0, high=2**32 - 1, kind=int, optional=True
    )
    model_: Any = fitted()  # implicit's

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        implicit = _implicit()
        with bar(run.show_progress) as progress, _one_blas_thread():
            model = self._new()
            task = progress.add_task("training ALS", total=self.iterations, note="")

            def report(iteration: int, seconds: float, loss: float | None = None) -> None:
                progress.advance(task)
                if run.callback is not None:
                    run.callback(iteration, seconds, loss)

            try:
                model.fit(rows, show_progress=False, callback=report)
            except implicit.recommender_base.ModelFitError as error:
                raise TrainingError(f"Expected finite factors, got others: {error}; raise regularization.") from error
        return {"model_": model}

    def _tensors(self) -> dict[str, Tensor]:
        return {"item_factors": torch.from_numpy(self.model_.item_factors)}

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        with _one_blas_thread():
            model = self._new()
        model.item_factors = (
            tensors["item_factors"].reshape(n_items, self.factors).numpy()
        )  # all that scoring a row needs
        return {"model_": model}

    def _new(self) -> Any:
        return _implicit().cpu.als.AlternatingLeastSquares(
            factors=self.factors,
            regularization=self.regularization,
            alpha=self.alpha,
            iterations=self.iterations,
            random_state=self.random_state,
        )

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        try:
            with _one_blas_thread():
                factors = self.model_.recalculate_user(np.arange(rows.shape[0]), rows)  # (B, factors)
        except ValueError as error:  # the solver met a matrix that is not positive definite
            raise TrainingError(
                f"Expected factors that can be solved for, got: {error}; raise regularization."
            ) from error
        return torch.from_numpy(factors) @ torch.from_numpy(self.model_.item_factors).T


@parameters
class ItemKNN(Recommender):
    """implicit's item-item nearest neighbours: an item's score is the sum of its similarities to the row's items.

    Items that are no neighbour of any item of the row have no score and are not given.
    """

    weighting: str = hyper(
        "cosine",
        "how events are weighted before the similarity is taken",
        choices=("cosine", "tfidf", "bm25"),
        search=["cosine", "tfidf", "bm25"],
    )
    K: int = hyper(100, "neighbours kept for each item", low=1, search=whole(5, 500))
    similarity_: sparse.csr_matrix = fitted()  # (I, I), row i: the neighbours of item i

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        implicit = _implicit()
        kinds = {"cosine": "CosineRecommender", "tfidf": "TFIDFRecommender", "bm25": "BM25Recommender"}
        model = getattr(implicit.nearest_neighbours, kinds[self.weighting])(K=self.K)
        with warnings.catch_warnings():
            # implicit converts the matrices that it has weighted itself, and warns of it
            warnings.simplefilter("ignore", implicit.utils.ParameterWarning)
            model.fit(rows, show_progress=False)
        return {"similarity_": model.similarity.tocsr().astype(np.float32)}

    def _tensors(self) -> dict[str, Tensor]:
        return csr_tensors(self.similarity_)

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        return {"similarity_": csr_from(tensors, (n_items, n_items))}

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        scores = torch.from_numpy((rows @ self.similarity_).toarray())
        return scores.masked_fill_(scores == 0, -torch.inf)


@parameters
class KnownUsers(Recommender):
    """Base of implicit's models that learn factors for each user, and have none for anybody else.

    Here `userid` in `recommend` is the row of the user in training, as in implicit. With `recalculate_user`, and in
    a fit with validation users who are not training users, they raise UnknownUsersError.
    """

    factors: int = hyper(64, "dimension of the user and item factors", low=1, search=whole(8, 256))
    random_state: int | None = hyper(
        None, "seed of factors and draws; None draws one", low=0, high=2**32 - 1, kind=int, optional=True
    )

    user_factors_: Tensor = fitted()  # (U, F)
    item_factors_: Tensor = fitted()  # (I, F)

    @abstractmethod
    def _model(self) -> Any:
        """implicit's model, one thread of it: with more, the seed does not decide."""

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        if run.valid is not None and run.valid.train_rows is None:
            raise self._refusal()
        model = self._model()
        with bar(run.show_progress) as progress:
            task = progress.add_task(f"training {type(self).__name__}", total=model.iterations, note="")

            def report(iteration: int, seconds: float, *_: Any) -> None:
                progress.advance(task)
                if run.callback is not None:
                    run.callback(iteration, seconds, None)  # they compute no loss

            try:
                model.fit(rows, show_progress=False, callback=report)
            except _implicit().recommender_base.ModelFitError as error:
                raise TrainingError(f"Expected finite factors, got others: {error}; lower learning_rate.") from error
        factors = {"user_factors_": model.user_factors, "item_factors_": model.item_factors}
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in factors.items()}

    def _tensors(self) -> dict[str, Tensor]:
        return {"user_factors": self.user_factors_, "item_factors": self.item_factors_}

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        return {"user_factors_": tensors["user_factors"], "item_factors_": tensors["item_factors"].view(n_items, -1)}

    def _scorer(self, users: NDArray[Any], recalculate: bool) -> Scorer:
        n_users = len(self.user_factors_)
        if recalculate:
            raise self._refusal()
        if users.size and (users.dtype.kind not in "iu" or users.min() < 0 or users.max() >= n_users):
            raise OutOfRangeError(f"Expected users by their rows in training, from 0 to {n_users - 1}, got {users}.")
        chosen = torch.from_numpy(users.astype(np.int64))
        return lambda _, places: self.user_factors_[chosen[places]] @ self.item_factors_.T

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        raise self._refusal()

    def _refusal(self) -> UnknownUsersError:
        return UnknownUsersError(
            f"{type(self).__name__} has factors for the users it was trained on only: it cannot score others, "
            f"by their events alone. Test it on a split of known users, such as per-user or temporal."
        )


@parameters
class BPR(KnownUsers):
    """implicit's BayesianPersonalizedRanking (Rendle et al. 2009), for users who are known."""

    learning_rate: float = hyper(0.05, "of SGD", low=0, search=log(0.005, 0.5))
    regularization: float = hyper(0.01, "L2 penalty on the factors", low=0, search=log(1e-4, 0.5))
    iterations: int = hyper(100, "passes over the events", low=1)

    def _model(self) -> Any:
        return _implicit().cpu.bpr.BayesianPersonalizedRanking(**_without_values(self), num_threads=1)


@parameters
class LMF(KnownUsers):
    """implicit's LogisticMatrixFactorization (Johnson 2014), for users who are known."""

    learning_rate: float = hyper(1.0, "of Adagrad", low=0, search=log(0.1, 3))
    regularization: float = hyper(0.6, "L2 penalty on the factors", low=0, search=log(0.01, 20))
    iterations: int = hyper(30, "passes over the events", low=1)
    neg_prop: int = hyper(30, "absent items drawn for each event", low=1, search=whole(1, 60))

    def _model(self) -> Any:
        return _implicit().cpu.lmf.LogisticMatrixFactorization(**_without_values(self), num_threads=1)


def _without_values(model: Recommender) -> dict[str, Any]:
    return {name: value for name, value in get_params(model).items() if name != "values"}


def _implicit() -> Any:
    try:
        import implicit.cpu.als
        import implicit.cpu.bpr
        import implicit.cpu.lmf
        import implicit.nearest_neighbours
    except ImportError as error:
        raise MissingDependencyError(
            "ALS, item-KNN, BPR and LMF need the library implicit, which is not installed; "
            'run: pip install "recvae[benchmark]"'
        ) from error
    return implicit


def _one_blas_thread() -> AbstractContextManager[Any]:
    limits: AbstractContextManager[Any] = _threadpools().limit(limits=1, user_api="blas")
    return limits


@functools.cache
def _threadpools() -> Any:
    """The thread pools of the loaded libraries; looking for them takes longer than scoring one user."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
