"""What linear models in closed form share: a Gram matrix, a penalty, and scores that are a sparse product."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.models.base import FitRun, Recommender
from recvae.models.base.model_file import csr_from, csr_tensors, taken
from recvae.models.base.params import fitted, hyper, parameters
from recvae.models.base.spaces import uniform
from recvae.models.closed_form import dense_weights, gram, gram_diagonal, sparse_weights
from recvae.nn.layers import weighted_sums
from recvae.utils.finite import check_fitted

FORMS = ("auto", "dense", "sparse")
WIDE = 12_000  # items above which "auto" is sparse: .5 GiB of weights


@parameters
class Linear(Recommender):
    """Base of models that score a row x by x B, with a zero diagonal in B: no item speaks for itself.

    In values other than binary, an event weighs 1 in the mean of squares, so that their unit does not matter to the
    penalty.
    """

    form: str = hyper(
        "auto",
        'of the weights: "dense", items x items in memory; "sparse", each item predicted by its neighbours alone; '
        f'"auto" is sparse above {WIDE:,} items',
        choices=FORMS,
    )
    neighbours: int = hyper(200, "items that may predict one, in the sparse form", low=1)
    user_power: float = hyper(
        0.0,
        "users weigh n_u to the power of minus this, so that the busiest do not speak for all",
        low=0,
        high=1,
        search=uniform(0.0, 1.0),
    )

    weights_: Tensor | sparse.csr_matrix = fitted()  # (I, I), column j: what each item says of item j

    @abstractmethod
    def _diagonal(self, sizes: NDArray[np.float32]) -> NDArray[np.float32]:
        """The penalty on the weights of each item, given the diagonal of the Gram matrix. -> (I,)"""

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        rows = rows * np.float32(1 / np.sqrt(np.mean(rows.data**2, dtype=np.float64)))
        users = _user_weights(rows, self.user_power)
        diagonal = self._diagonal(gram_diagonal(rows, users))
        if self.form == "sparse" or (self.form == "auto" and rows.shape[1] > WIDE):
            sparse_ = sparse_weights(rows, diagonal, self.neighbours, users, run.show_progress)
            check_fitted(torch.from_numpy(sparse_.data), "raise l2")
            return {"weights_": sparse_}
        dense = torch.from_numpy(dense_weights(gram(rows, users), diagonal))
        check_fitted(dense, "raise l2")
        return {"weights_": dense}

    def _tensors(self) -> dict[str, Tensor]:
        if isinstance(self.weights_, Tensor):
            return {"weights": self.weights_}
        return csr_tensors(self.weights_)

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        if "weights" in tensors:
            return {"weights_": taken(tensors, "weights", (n_items, n_items))}
        return {"weights_": csr_from(tensors, (n_items, n_items))}

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        if not isinstance(self.weights_, Tensor):
            return torch.from_numpy((rows @ self.weights_).toarray())
        items, offsets, values = (torch.from_numpy(part) for part in (rows.indices, rows.indptr, rows.data))
        return weighted_sums(self.weights_, items, offsets, values)

    def _similarity(self, items: NDArray[np.int64]) -> Tensor:
        """Cosines of the rows of I + B."""
        if isinstance(self.weights_, Tensor):
            norms = (1 + self.weights_.square().sum(1)).sqrt()  # (I,)
            rows = self.weights_[items]
            cosines = rows @ self.weights_.T + rows + self.weights_[:, items].T
        else:
            norms = torch.from_numpy(np.sqrt(1 + self.weights_.multiply(self.weights_).sum(1)).A1)
            rows = self.weights_[items]
            cosines = torch.from_numpy((rows @ self.weights_.T + rows + self.weights_[:, items].T).toarray())
        cosines[torch.arange(len(items)), torch.from_numpy(items)] += 1
        return cosines / (norms * norms[items, None])

    def _contributions(self, row: sparse.csr_matrix, item: int) -> tuple[float, NDArray[np.float64]]:
        """x_j B_ji of each item j of the row, which sum to the score."""
        weights = self.weights_[:, item]  # (I,)
        column = weights.numpy() if isinstance(weights, Tensor) else weights.toarray()[:, 0]
        parts = row.data.astype(np.float64) * column[row.indices]
        return float(parts.sum()), parts


def _user_weights(rows: sparse.csr_matrix, power: float) -> NDArray[np.float64]:
    """n_u^-power, times what makes the mean over events 1: the penalty means the same. -> (U,)"""
    n = np.diff(rows.indptr)
    weights = np.maximum(n, 1.0) ** -power  # (U,)
    return weights * n.sum() / (weights * n).sum()
