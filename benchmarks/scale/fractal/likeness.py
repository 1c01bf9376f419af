"""What makes interactions look real, in figures: how unequal users and items are, and how tastes gather."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

SINGULAR_VALUES = 20
TOP_HALF = (0.002, 0.5)  # ranks whose slope is measured, in shares of all items


def likeness(matrix: sparse.csr_matrix) -> dict[str, Any]:
    """Sizes, quantiles of users' events, inequality of users and items, and the largest singular values.

    It takes the matrix as it is: `data` of ones, 8 bytes an event, and a few vectors.
    """
    activity, popularity = np.diff(matrix.indptr), np.bincount(matrix.indices, minlength=matrix.shape[1])
    return {
        "users": matrix.shape[0],
        "items": matrix.shape[1],
        "events": int(matrix.nnz),
        "items_without_events": int((popularity == 0).sum()),
        "user_quantiles": np.quantile(activity, [0, 0.1, 0.5, 0.9, 0.99, 1]).tolist(),
        "user_gini": gini(activity),
        "item_quantiles": np.quantile(popularity, [0, 0.1, 0.5, 0.9, 0.99, 1]).tolist(),
        "item_gini": gini(popularity),
        "item_slope": slope(popularity),
        "singular_values": singular_values(matrix).tolist(),
    }


def gini(counts: NDArray[np.int64]) -> float:
    """0 where all have as many, towards 1 where one has all."""
    ordered = np.sort(counts).astype(float)
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def slope(counts: NDArray[np.int64]) -> float:
    """Of log(count) over log(rank), among the more frequent half."""
    ordered = np.sort(counts)[::-1]
    ranks = np.unique(np.geomspace(max(1, TOP_HALF[0] * len(ordered)), TOP_HALF[1] * len(ordered), 50).astype(int))
    heights = np.log(np.maximum(ordered[ranks - 1], 1))
    return float(np.polyfit(np.log(ranks), heights, 1)[0])


def singular_values(matrix: sparse.csr_matrix) -> NDArray[np.float64]:
    """The largest ones, descending, of ones in the place of the events."""
    found = svds(
        matrix,
        min(SINGULAR_VALUES, min(matrix.shape) - 1),
        return_singular_vectors=False,
        v0=np.ones(min(matrix.shape), matrix.dtype),
        tol=1e-3,
    )
    return np.asarray(np.sort(found)[::-1], dtype=np.float64)
