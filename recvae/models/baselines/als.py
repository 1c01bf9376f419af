"""ALS: implicit's alternating least squares as a `Recommender`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.errors import TrainingError
from recvae.models.base import FitRun, Recommender
from recvae.models.base.explain import by_leaving_out
from recvae.models.base.file_tensors import taken
from recvae.models.base.params import fitted, hyper, parameters
from recvae.models.base.similar import cosines
from recvae.models.base.spaces import integers, log
from recvae.models.baselines.implicit_library import implicit_library, one_blas_thread, writable
from recvae.utils.finite import check_fitted
from recvae.utils.memory import require_memory
from recvae.utils.progress import bar


@parameters
class ALS(Recommender):
    """implicit's AlternatingLeastSquares (Hu, Koren & Volinsky 2008); the factors of a row are solved for at scoring.

    Equal to implicit with `recalculate_user=True`. BLAS is limited to one thread meanwhile, as implicit recommends.
    """

    factors: int = hyper(128, "dimension of the user and item factors", low=1, search=integers(16, 512))
    regularization: float = hyper(
        30.0, "L2 penalty on the factors; far above implicit's .01, which overfits", low=0, search=log(0.1, 1000)
    )
    alpha: float = hyper(3.0, "weight of an observed event relative to an absent one", low=0, search=log(0.1, 100))
    iterations: int = hyper(15, "passes of alternating solves", low=1)
    random_state: int | None = hyper(
        None, "seed of the initial factors; None draws one", low=0, high=2**32 - 1, kind=int, optional=True
    )
    model_: Any = fitted()  # implicit's

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        implicit = implicit_library()
        require_memory(4 * self.factors * sum(rows.shape), "the factors of users and items", "fewer factors")
        with bar(run.show_progress) as progress, one_blas_thread():
            model = self._new()
            task = progress.add_task("training ALS", total=self.iterations, note="")

            def report(iteration: int, seconds: float, loss: float | None = None) -> None:
                progress.advance(task)
                if run.callback is not None:
                    run.callback(iteration, seconds, loss)

            try:
                model.fit(writable(rows), show_progress=False, callback=report)
            except implicit.recommender_base.ModelFitError as error:
                raise TrainingError(f"Expected finite factors, got others: {error}; raise regularization.") from error
        check_fitted(torch.from_numpy(model.item_factors), "raise regularization")
        return {"model_": model}

    def _tensors(self) -> dict[str, Tensor]:
        return {"item_factors": torch.from_numpy(self.model_.item_factors)}

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        with one_blas_thread():
            model = self._new()
        # scoring a row needs nothing else
        model.item_factors = taken(tensors, "item_factors", (n_items, self.factors)).numpy()
        return {"model_": model}

    def _new(self) -> Any:
        return implicit_library().cpu.als.AlternatingLeastSquares(
            factors=self.factors,
            regularization=self.regularization,
            alpha=self.alpha,
            iterations=self.iterations,
            random_state=self.random_state,
        )

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        return self._user_vectors(rows) @ torch.from_numpy(self.model_.item_factors).T

    def _user_vectors(self, rows: sparse.csr_matrix) -> Tensor:
        try:
            # factors from a file may overflow; scores that are not finite are refused later
            with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
                factors = self.model_.recalculate_user(np.arange(rows.shape[0]), writable(rows))  # (B, factors)
        except ValueError as error:  # a matrix is not positive definite
            raise TrainingError(
                f"Expected factors that can be solved for, got: {error}; raise regularization."
            ) from error
        return torch.from_numpy(factors)

    def _similarity(self, items: NDArray[np.int64]) -> Tensor:
        return cosines(torch.from_numpy(self.model_.item_factors), items)

    def _contributions(self, row: sparse.csr_matrix, item: int) -> tuple[float, NDArray[np.float64]]:
        return by_leaving_out(self, row, item)
