"""Popularity: items by their number of users, the same ranking for all users."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recvae.errors import InvalidDataError
from recvae.models.base import FitRun, Recommender
from recvae.models.base.file_tensors import taken
from recvae.models.base.params import fitted, parameters


@parameters
class Popularity(Recommender):
    """Items by the number of training users who have them: the same list for all users."""

    item_counts_: Tensor = fitted()

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        counts = np.bincount(rows.indices, minlength=rows.shape[1])
        return {"item_counts_": torch.from_numpy(counts.astype(np.float32))}

    def _tensors(self) -> dict[str, Tensor]:
        return {"item_counts": self.item_counts_}

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        counts = taken(tensors, "item_counts", (n_items,))
        if counts.min() < 0:
            raise InvalidDataError(f"Expected counts of zero or more, got {counts.min().item():g}.")
        return {"item_counts_": counts}

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        return self.item_counts_.repeat(rows.shape[0], 1)
