"""Linear item-to-item models in closed form: the Gram matrix of the items, and the weights without a diagonal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

from recvae.errors import TrainingError
from recvae.utils.memory import require_memory
from recvae.utils.progress import track

Array = NDArray[np.float32]
BLOCK = 512  # items whose part of an I x I matrix is worked on at a time
RESOLVED = 1e-6  # the share of an item's size that has to be its own, for float32 to tell it from none


def gram(rows: sparse.csr_matrix, weights: NDArray[Any] | None = None) -> Array:
    """X^T diag(weights) X of rows X (U, I), in the only I x I array that there is.

    Parameters
    ----------
    weights : NDArray[Any] or None
        (U,) one for each user; None for ones.

    Returns
    -------
    Array
        (I, I).

    Raises
    ------
    NotEnoughMemoryError
        Before anything is computed.
    """
    n_items = rows.shape[1]
    require_memory(4 * n_items**2, f"the {n_items:,} x {n_items:,} weights of items on items", 'form="sparse"')
    rows = rows.astype(np.float32, copy=False)
    items = _weighted(rows, weights).T.tocsr()  # (I, U)
    made = np.zeros((n_items, n_items), dtype=np.float32)
    for start in range(0, n_items, BLOCK):
        block = slice(start, start + BLOCK)
        (items[block] @ rows).toarray(out=made[block])
    return made


def dense_weights(gram: Array, diagonal: NDArray[Any] | float) -> Array:
    """The weights B of which X B is nearest to X, less a ridge penalty, with diag(B) = 0.

        P = (G + diag(diagonal))^-1,  B = I - P / diag(P)

    (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, equation 8), where the division is by
    columns: column j weighs the other items in the score of item j.

    Parameters
    ----------
    gram : Array
        (I, I) float32, symmetric; written over where it is in C order, else copied.
    diagonal : NDArray[Any] or float
        (I,) or one number, the penalty on the weights of each item.

    Returns
    -------
    Array
        (I, I), in `gram`'s memory.

    Raises
    ------
    TrainingError
        Where the matrix is not positive definite.
    """
    gram = np.ascontiguousarray(gram, dtype=np.float32)
    np.einsum("ii->i", gram)[:] += diagonal
    # LAPACK counts columns first, so that its lower triangle is the upper one here; with `overwrite` nothing is copied
    sizes = gram.diagonal().copy()
    _, failed = lapack.spotrf(gram.T, lower=1, clean=0, overwrite_a=1)
    _check_definite(failed, gram.diagonal(), sizes)
    lapack.spotri(gram.T, lower=1, overwrite_c=1)
    _mirror(gram)
    gram /= -gram.diagonal()
    np.fill_diagonal(gram, 0)
    return gram


def sparse_weights(
    rows: sparse.csr_matrix,
    diagonal: NDArray[Any] | float,
    neighbours: int,
    weights: NDArray[Any] | None = None,
    show_progress: bool = False,
) -> sparse.csr_matrix:
    """As `dense_weights`, where each item is predicted by its `neighbours` alone: for catalogues too wide for I x I.

        B_Nj = (G_NN + diag(diagonal)_NN)^-1 G_Nj

    is the exact ridge regression of item j on its neighbours N, that is -P_Nj / P_jj where P is the inverse over N and
    j. N are the items nearest to j by the cosine, G_ij / sqrt(G_ii G_jj). A sparse approximation in the spirit of
    Steck, "Markov Random Fields for Collaborative Filtering", NeurIPS 2019, and of SANSA (Spisak et al., "Scalable
    Approximate NonSymmetric Autoencoder for Collaborative Filtering", RecSys 2023).

    Parameters
    ----------
    rows, weights
        (U, I) and (U,) as in `gram`; its G is held sparse.
    diagonal : NDArray[Any] or float
        (I,) or one number, as in `dense_weights`.
    neighbours : int
        How many items may predict one; with fewer that users of it have, these are all.

    Returns
    -------
    sparse.csr_matrix
        (I, I).

    Raises
    ------
    NotEnoughMemoryError
    TrainingError
    RecvaeError
        As `dense_weights`.
    """
    together = _sparse_gram(rows, weights)
    n_items = rows.shape[1]
    penalty = np.broadcast_to(np.float32(diagonal), n_items)
    norms = np.sqrt(together.diagonal())  # (I,)
    found = [
        _ridge(together, item, norms, penalty, neighbours)
        for item in track(range(n_items), "solving for items", show_progress)
    ]
    starts = np.cumsum([0, *(len(chosen) for chosen, _ in found)])
    chosen, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return sparse.csc_matrix((values, chosen, starts), shape=(n_items, n_items)).tocsr()


def gram_diagonal(rows: sparse.csr_matrix, weights: NDArray[Any] | None = None) -> Array:
    """The diagonal of the Gram matrix alone: for binary rows without weights, in how many rows each item is. -> (I,)"""
    return np.asarray(_weighted(rows, weights).multiply(rows).sum(axis=0), dtype=np.float32).ravel()


def _sparse_gram(rows: sparse.csr_matrix, weights: NDArray[Any] | None) -> sparse.csr_matrix:
    """The Gram matrix as it is where most pairs of items have no user in common."""
    items = _weighted(rows, weights).T.tocsr()  # (I, U)
    sample = items[:: max(1, items.shape[0] // BLOCK)]
    pairs = (sample @ rows).nnz * items.shape[0] // sample.shape[0]
    require_memory(
        8 * pairs,
        f"about {pairs:,} pairs of items with users in common",
        'fewer items, such as by min_item, or form="dense"',
    )
    return items @ rows


def _ridge(
    together: sparse.csr_matrix, item: int, norms: Array, penalty: Array, neighbours: int
) -> tuple[NDArray[np.int32], Array]:
    """The neighbours of an item and their weights in its score."""
    cells = slice(together.indptr[item], together.indptr[item + 1])
    chosen, shared = together.indices[cells], together.data[cells]
    others = chosen != item
    chosen, shared = chosen[others], shared[others]
    if len(chosen) > neighbours:
        best = np.argpartition(-shared / norms[chosen], neighbours)[:neighbours]
        chosen, shared = chosen[best], shared[best]
    if not len(chosen):
        return chosen, shared
    system = together[chosen][:, chosen].toarray(order="F")
    system[np.diag_indices_from(system)] += penalty[chosen]
    sizes = system.diagonal().copy()
    factor, solution, failed = lapack.sposv(system, shared, overwrite_a=1)
    _check_definite(failed, factor.diagonal(), sizes)
    return chosen, solution


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


def _check_definite(failed: int, factor: Array, sizes: Array) -> None:
    """Refuse a Cholesky decomposition that LAPACK gave up, or of which float32 left nothing but rounding errors.

    Parameters
    ----------
    factor, sizes : Array
        The diagonals of the decomposition and of what was decomposed.
    """
    if failed or (factor**2 < RESOLVED * sizes).any():
        raise TrainingError(
            "Expected a Gram matrix that with its penalty is positive definite, got one with items that are all but "
            "sums of others; raise l2."
        )
