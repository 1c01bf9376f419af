"""GF-CF: a linear filter and an ideal low-pass filter on the graph of items, without training (Shen et al. 2021)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.models.base import FitRun, Recommender
from recvae.models.base.file_tensors import csr_from, csr_tensors, taken
from recvae.models.base.params import fitted, hyper, parameters
from recvae.models.base.spaces import integers, uniform
from recvae.models.baselines.implicit_library import one_blas_thread
from recvae.utils.finite import check_fitted
from recvae.utils.memory import require_memory

DENSE = 2_000  # users or items up to which all singular vectors are computed, of a dense Gram matrix
SAMPLED = 512  # items by which the size of the Gram matrix is estimated


@parameters
class GFCF(Recommender):
    """GF-CF: two filters on the graph of items, in closed form.

        R~ = D_U^-1/2 R D_I^-1/2
        scores = r (R~^T R~ + alpha D_I^-1/2 V V^T D_I^1/2)

    R is the users x items matrix, D_U and D_I the diagonal matrices of the sums of its rows and columns, and V (I, k)
    the right singular vectors of R~ with the k largest singular values. The first term is a linear filter, which sums
    over the users that the row shares items with; the second is an ideal low-pass filter, which smooths the row.

    R~^T R~ is stored as a sparse matrix, exact and of items only: a file has no users. The filters are not summed into
    one I x I matrix, which would be dense.

    References
    ----------
    Shen, Wu, Zhang, Shan, Zhang, Letaief & Li, "How Powerful is Graph Convolution for Recommendation?", CIKM 2021,
    section 4.
    """

    alpha: float = hyper(0.3, "weight of the low-pass filter", low=0, search=uniform(0.0, 1.0))
    k: int = hyper(
        256,
        "singular vectors of the low-pass filter, at most one for each user and item",
        low=1,
        search=integers(16, 1024),
    )
    gram_: sparse.csr_matrix = fitted()  # R~^T R~ (I, I)
    encoder_: Tensor = fitted()  # D_I^-1/2 V (I, k)
    decoder_: Tensor = fitted()  # alpha D_I^1/2 V (I, k)

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        users, items = (np.sqrt(np.asarray(rows.sum(axis, dtype=np.float64)).ravel()) for axis in (1, 0))
        rows = _scaled(rows, _inverse(users), _inverse(items))  # R~ (U, I), float64
        require_memory(16 * (2 * self.k + 1) * min(rows.shape), "the singular vectors of users and items", "a lower k")
        # float32 but where singular vectors come from it
        gram = _gram(rows if _from_gram(rows) else rows.astype(np.float32))
        vectors = _right_singular_vectors(rows, self.k, gram)  # V (I, k)
        encoder, decoder = _inverse(items)[:, None] * vectors, self.alpha * items[:, None] * vectors
        learned: dict[str, Any] = {"gram_": gram.astype(np.float32)}
        learned |= {"encoder_": torch.from_numpy(encoder.astype(np.float32))}
        learned |= {"decoder_": torch.from_numpy(decoder.astype(np.float32))}
        for tensor in (torch.from_numpy(learned["gram_"].data), learned["encoder_"], learned["decoder_"]):
            check_fitted(tensor, "look for huge values in the data")
        return learned

    def _tensors(self) -> dict[str, Tensor]:
        return csr_tensors(self.gram_) | {"encoder": self.encoder_, "decoder": self.decoder_}

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        encoder = taken(tensors, "encoder", (n_items, None))
        decoder = taken(tensors, "decoder", (n_items, encoder.shape[1]))
        return {"gram_": csr_from(tensors, (n_items, n_items)), "encoder_": encoder, "decoder_": decoder}

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        scores = torch.from_numpy((rows @ self.gram_).toarray())  # (B, I)
        return scores.addmm_(torch.from_numpy(rows @ self.encoder_.numpy()), self.decoder_.T)

    def _similarity(self, items: NDArray[np.int64]) -> Tensor:
        """Cosines of the columns of R~; those of items without users are 0."""
        scale = _inverse(np.sqrt(self.gram_.diagonal())).astype(np.float32)
        return torch.from_numpy(_scaled(self.gram_[items], scale[items], scale).toarray())

    def _contributions(self, row: sparse.csr_matrix, item: int) -> tuple[float, NDArray[np.float64]]:
        """What each item of the row adds to the score by both filters."""
        column = self.gram_[row.indices][:, [item]].toarray()[:, 0].astype(np.float64)
        column += (self.encoder_[row.indices].double() @ self.decoder_[item].double()).numpy()
        parts = row.data * column
        return float(parts.sum()), parts


def _right_singular_vectors(matrix: sparse.csr_matrix, k: int, gram: sparse.csr_matrix) -> NDArray[np.float64]:
    """The right singular vectors with the k largest singular values, without those whose singular value is 0.

    Parameters
    ----------
    matrix : csr_matrix
        (U, I), float64.
    k : int
        Number of vectors; for matrices with more than `DENSE` rows and columns, at most one less than they have.
    gram : csr_matrix
        (I, I), matrix.T @ matrix; read where `_from_gram(matrix)`.

    Returns
    -------
    array
        (I, at most k), orthonormal columns; the same in each run, on any number of cores.
    """
    from scipy.linalg import eigh  # only a fit needs these
    from scipy.sparse.linalg import svds

    least = min(matrix.shape)
    with one_blas_thread():
        if least <= DENSE:
            wide = not _from_gram(matrix)
            dense = (matrix @ matrix.T if wide else gram).toarray()
            squares, vectors = eigh(dense, driver="evd")  # all of them: faster than some
            squares, vectors = squares[-k:], vectors[:, -k:]
            kept = squares > 1e-12 * max(squares[-1], 1e-300)  # the others are rounding errors
            values, vectors = np.sqrt(squares[kept]), vectors[:, kept]
            return np.asarray((matrix.T @ vectors) / values if wide else vectors)
        # a start vector of its own, for the same vectors in each run; float32 takes half the time of float64
        start = np.random.default_rng(0).standard_normal(least).astype(np.float32)
        count = min(k, least - 1)
        _, values, transposed = svds(matrix.astype(np.float32), count, v0=start, return_singular_vectors="vh")
        return np.ascontiguousarray(transposed[values > 1e-4 * values.max()].T, dtype=np.float64)


def _from_gram(matrix: sparse.csr_matrix) -> bool:
    """Whether singular vectors of a matrix (U, I) are computed from its Gram matrix of items."""
    return bool(matrix.shape[1] <= min(DENSE, matrix.shape[0]))


def _gram(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """R~^T R~ of R~ (U, I). -> (I, I)"""
    items = rows.T.tocsr()
    sample = items[:: max(1, items.shape[0] // SAMPLED)]
    pairs = (sample @ rows).nnz * items.shape[0] // sample.shape[0]
    require_memory(
        8 * pairs, f"about {pairs:,} pairs of items with users in common", "fewer items, such as by min_item"
    )
    return items @ rows


def _scaled(matrix: sparse.csr_matrix, left: NDArray[Any], right: NDArray[Any]) -> sparse.csr_matrix:
    """diag(left) matrix diag(right)."""
    data = matrix.data * np.repeat(left, np.diff(matrix.indptr)) * right[matrix.indices]
    return sparse.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def _inverse(values: NDArray[Any]) -> NDArray[Any]:
    """1 / values, and 0 for 0."""
    return np.divide(1, values, out=np.zeros_like(values), where=values > 0)
