"""The k-core of a matrix: the largest part in which users and items all have enough events."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def k_core(matrix: sparse.csr_matrix, min_user: int, min_item: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Users with `min_user` events on items that have `min_item` events of these users, as masks of rows and columns.

    References
    ----------
    Seidman 1983, "Network structure and minimum degree": the core is unique, whatever is dropped first.
    """
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    columns = matrix.indices
    while True:
        n_cells = len(rows)
        users = np.bincount(rows, minlength=matrix.shape[0]) >= min_user
        items = np.bincount(columns, minlength=matrix.shape[1]) >= min_item
        within = users[rows] & items[columns]
        rows, columns = rows[within], columns[within]
        if len(rows) == n_cells:
            return users, items
