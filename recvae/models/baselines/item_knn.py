"""ItemKNN: implicit's item-item nearest neighbours as a `Recommender`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse

from recvae.models.base import FitRun
from recvae.models.base.params import hyper, parameters
from recvae.models.base.spaces import integers
from recvae.models.baselines.implicit_library import implicit_library
from recvae.models.baselines.neighbours import NeighbourScores
from recvae.utils.finite import check_fitted


@parameters
class ItemKNN(NeighbourScores):
    """implicit's item-item nearest neighbours: an item's score is the sum of its similarities to the row's items.

    Items that are not a neighbour of any item of the row have no score and are not recommended.
    """

    weighting: str = hyper(
        "cosine",
        "how events are weighted before the similarity is taken",
        choices=("cosine", "tfidf", "bm25"),
        search=["cosine", "tfidf", "bm25"],
    )
    K: int = hyper(100, "neighbours kept for each item", low=1, search=integers(5, 500))

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        implicit = implicit_library()
        model = implicit.nearest_neighbours.ItemItemRecommender(K=min(self.K, rows.shape[1]))
        model.fit(self._weighted(implicit.nearest_neighbours, rows), show_progress=False)
        similarity = model.similarity.tocsr().astype(np.float32)
        check_fitted(torch.from_numpy(similarity.data), "look for huge values in the data")
        return {"similarity_": similarity}

    def _weighted(self, weights: Any, rows: sparse.csr_matrix) -> sparse.csr_matrix:
        """The rows as implicit's CosineRecommender, TFIDFRecommender and BM25Recommender weight them, but as CSR.

        These classes convert to CSR themselves, with a warning that says how long it took, and Python cannot filter
        warnings for a single thread.
        """
        by_items = rows.T
        if self.weighting == "bm25":
            weighted = weights.bm25_weight(by_items, K1=1.2, B=0.75)
        else:
            weighted = weights.normalize(weights.tfidf_weight(by_items) if self.weighting == "tfidf" else by_items)
        return weighted.T.tocsr()
