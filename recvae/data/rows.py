"""Validation of the users x items matrices that models take, and transforms of their values."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.names import VALUES
from recvae.data.validation import check_real, checked_sparse
from recvae.errors import InvalidDataError, InvalidTypeError, UnknownNameError

LARGEST = 1e15


class ParameterWarning(UserWarning):
    """Warning: an argument needed a conversion that costs time or memory."""


def check_rows(
    user_items: Any, n_items: int | None = None, *, convert: bool = False, name: str = "user_items"
) -> sparse.csr_matrix:
    """Return `user_items` as a canonical float32 csr_matrix (rows, n_items): sorted, without duplicates or zeros.

    The argument is never changed. A csr_matrix or csr_array is accepted; other sparse formats are converted with a
    warning if `convert`, and refused otherwise (a CSC matrix is often one that should have been transposed). A single
    row of a csr_array, which is one-dimensional in scipy, counts as a matrix of one row.

    Raises
    ------
    InvalidTypeError
        If it is not a sparse matrix.
    InvalidDataError
        If it is of another sparse format, has indices outside of the matrix, values that are negative, NaN or infinite,
        or another number of columns.
    """
    if not sparse.issparse(user_items):
        raise InvalidTypeError(
            f"{name} needs to be a CSR sparse matrix, got {type(user_items).__name__}; "
            f"make one with scipy.sparse.csr_matrix(...)."
        )
    if user_items.format != "csr" and user_items.ndim == 2:
        if not convert:
            raise InvalidDataError(f"{name} needs to be a CSR sparse matrix, got {user_items.format}; call .tocsr().")
        warnings.warn(f"Converting a {user_items.format} matrix to CSR.", ParameterWarning, stacklevel=3)
    if n_items is not None and user_items.shape[-1] != n_items:
        raise InvalidDataError(f"Expected {n_items} columns, one for each item, got {user_items.shape[-1]}.")
    rows = checked_sparse(user_items, name)
    check_content(rows.data)
    return canonical(rows)


def canonical(matrix: sparse.spmatrix) -> sparse.csr_matrix:
    """The same as float32 CSR with sorted indices, repeated entries summed and zeros dropped.

    The argument, whose arrays and values have been checked, is not changed; arrays are shared if nothing changes.
    """
    rows = matrix.tocsr()  # conversion from other formats sums repeated entries, in their own type
    if rows.dtype != np.float32:
        rows = sparse.csr_matrix(rows, dtype=np.float32)
    if not _is_canonical(rows):
        rows = rows.copy()  # it may share its arrays with the argument
        rows.sum_duplicates()
        rows.eliminate_zeros()
    return rows


def check_content(data: NDArray[Any]) -> None:
    """Refuse values that are not numbers, not finite, negative, or too large or small to be squared in float32."""
    check_real(data)
    if data.dtype.kind == "b" or not data.size:
        return
    if not np.isfinite(data).all():
        raise InvalidDataError(f"Expected finite values, got {data[~np.isfinite(data)][0]}.")
    if data.min() < 0:
        raise InvalidDataError(
            f"Expected values of zero or more, got {data.min():g}; drop such events first, with min_value for instance."
        )
    unusable = (data > LARGEST) | ((data < 1 / LARGEST) & (data != 0))
    if unusable.any():
        raise InvalidDataError(
            f"Expected values of zero or from {1 / LARGEST:g} to {LARGEST:g}, got {data[unusable][0]:g}; scale them "
            f"first."
        )


def transform_values(rows: sparse.csr_matrix, values: str) -> sparse.csr_matrix:
    """The same events with values transformed by "binary", "log1p" or "raw". The argument is never changed."""
    if values not in VALUES:
        raise UnknownNameError.among("values transform", values, VALUES)
    if values == "raw":
        return rows
    return sparse.csr_matrix((as_read(rows.data, values), rows.indices, rows.indptr), shape=rows.shape)


def as_read(data: NDArray[Any], values: str) -> NDArray[Any]:
    """Values transformed by "binary", "log1p" or "raw"."""
    return data if values == "raw" else np.ones_like(data) if values == "binary" else np.log1p(data)


def _is_canonical(rows: Any) -> bool:
    return bool(rows.has_canonical_format and rows.data.all())
