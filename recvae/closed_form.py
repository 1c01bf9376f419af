"""Linear item-to-item models in closed form: the Gram matrix of the items, and the weights without a diagonal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

from recvae.errors import TrainingError
from recvae.memory import require

Array = NDArray[np.float32]
BLOCK = 512  # items whose part of an I x I matrix is worked on at a time


def gram(rows: sparse.csr_matrix, weights: NDArray[Any] | None = None) -> Array:
    """X^T diag(weights) X of rows X (U, I), in the only I x I array that there is. -> (I, I)

    weights : (U,) one for each user; None for ones

    Raises NotEnoughMemoryError, before anything is computed.
    """
    n_items = rows.shape[1]
    require(4 * n_items**2, f"the {n_items:,} x {n_items:,} weights of items on items", 'form="sparse"')
    items = _weighted(rows, weights).T.tocsr()  # (I, U)
    made = np.zeros((n_items, n_items), dtype=np.float32)
    for start in range(0, n_items, BLOCK):
        block = slice(start, start + BLOCK)
        (items[block] @ rows).toarray(out=made[block])
    return made


def dense_weights(gram: Array, diagonal: NDArray[Any] | float) -> Array:
    """The weights B of which X B is nearest to X, less a ridge penalty, with diag(B) = 0. -> (I, I), in `gram`'s memory

        P = (G + diag(diagonal))^-1,  B = I - P / diag(P)

    (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, equation 8), where the division is by
    columns: column j weighs the other items in the score of item j.

    gram : (I, I) float32, symmetric, in C order; it is written over
    diagonal : (I,) or one number, the penalty on the weights of each item

    Raises TrainingError where the matrix is not positive definite.
    """
    np.einsum("ii->i", gram)[:] += diagonal
    # LAPACK counts columns first, so that its lower triangle is the upper one here; with `overwrite` nothing is copied
    _, failed = lapack.spotrf(gram.T, lower=1, clean=0, overwrite_a=1)
    if not failed:
        _, failed = lapack.spotri(gram.T, lower=1, overwrite_c=1)
    if failed:
        raise not_definite()
    _mirror(gram)
    gram /= -gram.diagonal()
    np.fill_diagonal(gram, 0)
    return gram


def gram_diagonal(rows: sparse.csr_matrix, weights: NDArray[Any] | None = None) -> Array:
    """The diagonal of the Gram matrix alone: for binary rows without weights, in how many rows each item is. -> (I,)"""
    return np.asarray(_weighted(rows, weights).multiply(rows).sum(axis=0), dtype=np.float32).ravel()


def not_definite() -> TrainingError:
    """The error for a system without a unique solution, or one that float32 cannot tell from such."""
    return TrainingError("Expected a Gram matrix that with its diagonal is positive definite, got another; raise l2.")


def _weighted(rows: sparse.csr_matrix, weights: NDArray[Any] | None) -> sparse.csr_matrix:
    if weights is None:
        return rows
    data = rows.data * np.repeat(weights, np.diff(rows.indptr)).astype(np.float32)
    return sparse.csr_matrix((data, rows.indices, rows.indptr), shape=rows.shape)


def _mirror(square: Array) -> None:
    """Copy the upper triangle into the lower one."""
    for start in range(0, len(square), BLOCK):
        stop = start + BLOCK
        corner = square[start:stop, start:stop]
        corner[:] = np.triu(corner) + np.triu(corner, 1).T
        square[stop:, start:stop] = square[start:stop, stop:].T
