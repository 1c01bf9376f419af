"""What models with a sparse item-item matrix share: scores, similar items, explanations and files."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.models.base import Recommender
from recvae.models.base.file_tensors import csr_from, csr_tensors
from recvae.models.base.params import fitted, parameters


@parameters
class NeighbourScores(Recommender):
    """Base of models that score a row x by x S, with S sparse: only neighbours of the row's items have a score."""

    similarity_: sparse.csr_matrix = fitted()  # S (I, I), row i: the neighbours of item i

    def _tensors(self) -> dict[str, Tensor]:
        return csr_tensors(self.similarity_)

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        return {"similarity_": csr_from(tensors, (n_items, n_items))}

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        return _without_zeros(rows @ self.similarity_)

    def _similarity(self, items: NDArray[np.int64]) -> Tensor:
        return _without_zeros(self.similarity_[items])

    def _contributions(self, row: sparse.csr_matrix, item: int) -> tuple[float, NDArray[np.float64]]:
        column = self.similarity_[row.indices][:, [item]].toarray()[:, 0]
        parts = row.data.astype(np.float64) * column
        return float(parts.sum()), parts


def _without_zeros(scores: sparse.csr_matrix) -> Tensor:
    """Scores with -inf instead of zeros: an item that is not a neighbour has no score."""
    dense = torch.from_numpy(scores.toarray())
    return dense.masked_fill_(dense == 0, -torch.inf)
