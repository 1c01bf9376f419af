"""Linear item-to-item models in closed form: the base of EASE and EDLAE.

From top to bottom: the model, the weights in dense and in sparse form, and the Gram matrix that both need.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.errors import TrainingError
from recvae.models.base import FitRun, Recommender
from recvae.models.base.file_tensors import csr_from, csr_tensors, taken
from recvae.models.base.params import fitted, hyper, parameters
from recvae.models.base.spaces import uniform
from recvae.utils.finite import check_fitted
from recvae.utils.memory import require_memory

Array = NDArray[np.float32]
FORMS = ("auto", "dense", "sparse")
WIDE = 12_000  # items above which "auto" is sparse: .5 GiB of weights
BLOCK = 512  # rows of an I x I matrix that are processed at a time
READ = 4_000  # items up to which the sparse form reads a Gram matrix that is not sparse, in half the time
SOLVED = 32  # items whose sparse weights one core solves for at a time
RESOLVED = 1e-6  # least share of an item's diagonal left unexplained by other items that float32 can resolve


@parameters
class ClosedForm(Recommender):
    """Base of models that score a row x by x B, with a zero diagonal in B: no item predicts itself.

    The exponents of users and items are those of Park et al., "DAN: Data-Adaptive Normalization of linear
    autoencoders" (Park, Yoon, Choi & Lee, "Why is Normalization Necessary for Linear Recommenders?", SIGIR 2025): users
    weigh n_u^-p in the Gram matrix, and the weights are scaled by powers of n_i.

    Values are scaled to a mean square of 1 over events, so that the effect of the penalty does not depend on their
    unit.
    """

    form: str = hyper(
        "auto",
        'of the weights: "dense", items x items in memory; "sparse", each item predicted by its neighbours only; '
        f'"auto" is sparse above {WIDE:,} items',
        choices=FORMS,
    )
    neighbours: int = hyper(200, "largest number of items that predict an item, in the sparse form", low=1)
    user_power: float = hyper(
        0.0,
        "exponent p of the user weights n_u^-p, so that the most active users do not dominate",
        low=0,
        high=1,
        search=uniform(0.0, 1.0),
    )

    item_power: float = hyper(
        0.0,
        "exponent q of the numbers of users of items, by which weights are scaled after the fit: n_i^q B_ij n_j^-q. "
        "Above 0, less popular items are recommended more",
        low=-1,
        high=1,
        search=uniform(-0.2, 0.4),
    )

    # B (I, I); column j: the weight of each item in the score of item j
    weights_: Tensor | sparse.csr_matrix = fitted()

    @abstractmethod
    def _penalty(self, counts: NDArray[np.float32]) -> NDArray[np.float32]:
        """The penalty on the weights of each item, from the diagonal of the Gram matrix. (I,) -> (I,)"""

    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        rows, users = self._scaled(rows)  # X (U, I), (U,)
        penalty = self._penalty(gram_diagonal(rows, users))  # (I,)
        if is_sparse(self.form, rows.shape[1]):
            weights = sparse_weights(rows, penalty, self.neighbours, users, run.show_progress)
            check_fitted(torch.from_numpy(weights.data), "raise l2")
            return {"weights_": with_item_power(weights, rows, self.item_power)}
        dense = torch.from_numpy(dense_weights(gram(rows, users), penalty))
        check_fitted(dense, "raise l2")
        return {"weights_": with_item_power(dense, rows, self.item_power)}

    def _scaled(self, rows: sparse.csr_matrix) -> tuple[sparse.csr_matrix, NDArray[np.float64]]:
        """Rows whose penalty does not depend on their unit, and users' weights."""
        return of_mean_square_1(rows), _user_weights(rows, self.user_power)

    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        """x B. (B, I) -> (B, I)"""
        if not isinstance(self.weights_, Tensor):
            return torch.from_numpy((rows @ self.weights_).toarray())
        from recvae.utils.sparse_products import weighted_sums  # what only loads a model does without

        # dense: the weighted sum of the rows of B that belong to a user's items
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

    def _tensors(self) -> dict[str, Tensor]:
        if isinstance(self.weights_, Tensor):
            return {"weights": self.weights_}
        return csr_tensors(self.weights_)

    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        if "weights" in tensors:
            return {"weights_": taken(tensors, "weights", (n_items, n_items))}
        return {"weights_": csr_from(tensors, (n_items, n_items))}


def of_mean_square_1(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows (U, I) with a mean square of 1 over events: penalties of models do not depend on their unit."""
    return rows * np.float32(1 / np.sqrt(np.mean(rows.data**2, dtype=np.float64)))


def with_item_power(
    weights: Tensor | sparse.csr_matrix, rows: sparse.csr_matrix, power: float
) -> Tensor | sparse.csr_matrix:
    """n_i^power B_ij n_j^-power, with n_i the number of rows (U, I) that have item i. (I, I) -> (I, I)"""
    if not power:
        return weights
    scale = np.maximum(rows.getnnz(axis=0), 1).astype(np.float32) ** np.float32(power)  # (I,)
    if isinstance(weights, Tensor):
        factors = torch.from_numpy(scale)
        return (weights * factors[:, None]).div_(factors)
    data = weights.data * (np.repeat(scale, np.diff(weights.indptr)) / scale[weights.indices])
    return sparse.csr_matrix((data, weights.indices, weights.indptr), shape=weights.shape)


def is_sparse(form: str, n_items: int) -> bool:
    """Whether weights of this form over so many items are sparse."""
    return form == "sparse" or (form == "auto" and n_items > WIDE)


def _user_weights(rows: sparse.csr_matrix, power: float) -> NDArray[np.float64]:
    """n_u^-power, scaled to a mean of 1 over events, so that the penalty keeps its scale. -> (U,)"""
    n = np.diff(rows.indptr)
    weights = np.maximum(n, 1.0) ** -power  # (U,)
    return weights * n.sum() / (weights * n).sum()


def dense_weights(gram: Array, diagonal: NDArray[Any] | float) -> Array:
    """The weights B that minimise ||X - X B||^2 plus a ridge penalty, with diag(B) = 0.

        P = (G + diag(diagonal))^-1,  B = I - P / diag(P)

    (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, equation 8), where the division is by
    columns: column j weighs the other items in the score of item j.

    Parameters
    ----------
    gram : Array
        (I, I) float32, symmetric; overwritten if it is in C order, else copied.
    diagonal : NDArray[Any] or float
        (I,) or one number, the penalty on the weights of each item.

    Returns
    -------
    Array
        (I, I), in `gram`'s memory.

    Raises
    ------
    TrainingError
        If the matrix is not positive definite.
    """
    from recvae.utils.linalg import invert_definite  # only a fit needs it

    gram = np.ascontiguousarray(gram, dtype=np.float32)
    np.einsum("ii->i", gram)[:] += diagonal  # G + diag(diagonal), in place
    sizes = gram.diagonal().copy()
    factor = invert_definite(torch.from_numpy(gram))  # P, in place
    _check_definite(factor is not None and not bool(_below_rounding(factor.numpy(), sizes)))
    gram /= -gram.diagonal()  # -P / diag(P), column by column
    np.fill_diagonal(gram, 0)  # that is I - P / diag(P), as its diagonal is zero
    return gram


def sparse_weights(
    rows: sparse.csr_matrix,
    diagonal: NDArray[Any] | float,
    neighbours: int,
    weights: NDArray[Any] | None = None,
    show_progress: bool = False,
) -> sparse.csr_matrix:
    """As `dense_weights`, but each item is predicted by its nearest neighbours only: for catalogues too wide for I x I.

        B_Nj = (G_NN + diag(diagonal)_NN)^-1 G_Nj

    is the exact ridge regression of item j on its neighbours N, that is -P_Nj / P_jj where P is the inverse over N and
    j. N are the items nearest to j by the cosine, G_ij / sqrt(G_ii G_jj). A sparse approximation in the spirit of
    Steck, "Markov Random Fields for Collaborative Filtering", NeurIPS 2019, and of SANSA (Spisak et al., "Scalable
    Approximate NonSymmetric Autoencoder for Collaborative Filtering", RecSys 2023).

    Parameters
    ----------
    rows, weights
        (U, I) and (U,) as in `gram`; G is kept sparse.
    diagonal : NDArray[Any] or float
        (I,) or one number, as in `dense_weights`.
    neighbours : int
        Most items that may predict one item.

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
    (found,) = sparse_solutions(rows, [diagonal], neighbours, weights, show_progress)
    return found()


def sparse_solutions(
    rows: sparse.csr_matrix,
    diagonals: Sequence[NDArray[Any] | float],
    neighbours: int,
    weights: NDArray[Any] | None = None,
    show_progress: bool = False,
) -> list[Callable[[], sparse.csr_matrix]]:
    """`sparse_weights` for several penalties at once: to gather the neighbours of an item takes longer than to solve.

    Returns
    -------
    list of callable
        () -> (I, I) for each penalty. Until it is called, a matrix takes 4 bytes for a weight, and 4 that all share.
    """
    n_items = rows.shape[1]
    matrix = gram_to_read(rows, weights)
    penalties = np.stack([np.broadcast_to(np.float32(diagonal), n_items) for diagonal in diagonals])  # (P, I)
    norms = np.sqrt(matrix.diagonal())  # (I,)
    # every item with users is in its own row of G
    pairs = np.count_nonzero(matrix, axis=1) if isinstance(matrix, np.ndarray) else np.diff(matrix.indptr)
    lengths = np.minimum(np.maximum(pairs - 1, 0), neighbours)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    chosen = np.empty(starts[-1], np.int32)
    values = np.empty((len(penalties), starts[-1]), np.float32)

    def solve(start: int) -> None:
        for item in range(start, min(start + SOLVED, n_items)):
            column = slice(starts[item], starts[item + 1])
            chosen[column], values[:, column] = _ridge(matrix, item, norms, penalties, neighbours)

    from recvae.utils.progress import track  # only a fit needs these
    from recvae.utils.workers import use_workers

    with use_workers() as workers:
        for start in track(range(0, n_items, BLOCK), "solving for items", show_progress):
            for _ in workers.map(solve, range(start, min(start + BLOCK, n_items), SOLVED)):
                pass
    return [partial(_by_rows, part, chosen, starts) for part in values]


def solution_path(
    models: Sequence[ClosedForm], rows: sparse.csr_matrix, in_sparse_form: bool, neighbours: int
) -> list[Callable[[], Tensor | sparse.csr_matrix]]:
    """The weights of models that differ in their penalty alone, from one Gram matrix.

    Returns
    -------
    list of callable
        () -> (I, I) for each model. In the dense form they are solved for in the call, in the sparse form before; see
        `sparse_solutions`.
    """
    rows, users = models[0]._scaled(rows)
    diagonal = gram_diagonal(rows, users)
    penalties = [model._penalty(diagonal) for model in models]
    if in_sparse_form:
        return list(sparse_solutions(rows, penalties, neighbours, users))
    shared = gram(rows, users)
    return [partial(_solved, shared, penalty) for penalty in penalties]


def _solved(gram: Array, penalty: NDArray[np.float32]) -> Tensor:
    dense = torch.from_numpy(dense_weights(gram.copy(), penalty))
    check_fitted(dense, "raise l2")
    return dense


def _by_rows(values: Array, chosen: NDArray[np.int32], starts: NDArray[np.int64]) -> sparse.csr_matrix:
    """A square matrix from its columns; NaN stand for a system that was not positive definite. -> (I, I)"""
    _check_definite(not bool(np.isnan(values).any()))
    n_items = len(starts) - 1
    return sparse.csc_matrix((values, chosen, starts), shape=(n_items, n_items)).tocsr()


def _ridge(
    gram: sparse.csr_matrix | Array, item: int, norms: Array, penalties: Array, neighbours: int
) -> tuple[NDArray[np.integer[Any]], Array]:
    """The n neighbours N of an item, and their weights B_Nj in its score by each of P penalties. -> (n,), (P, n)"""
    chosen, shared = nearest(gram, item, norms, neighbours)
    if not len(chosen):
        return chosen, np.empty((len(penalties), 0), np.float32)
    # solve (G_NN + diag) B_Nj = G_Nj
    systems = np.repeat(among(gram, chosen)[None], len(penalties), axis=0)  # (P, n, n)
    diagonals = np.einsum("pii->pi", systems)
    diagonals += penalties[:, chosen]
    factors, failed = torch.linalg.cholesky_ex(torch.from_numpy(systems))
    targets = torch.from_numpy(shared)[:, None].expand(len(penalties), -1, 1)
    solutions: Array = torch.cholesky_solve(targets, factors)[..., 0].numpy()
    indefinite = (failed.numpy() != 0) | _below_rounding(factors.diagonal(dim1=1, dim2=2).numpy(), diagonals)
    solutions[indefinite] = np.nan  # an error only where this penalty is asked for
    return chosen, solutions


def nearest(gram: sparse.csr_matrix | Array, item: int, norms: Array, n: int) -> tuple[NDArray[np.integer[Any]], Array]:
    """The n other items with the largest cosines to an item, and their cells of its row. `norms` (I,) -> (n,), (n,)"""
    chosen, shared = _cells(gram, item)
    others = chosen != item
    chosen, shared = chosen[others], shared[others]
    if len(chosen) > n:
        best = np.argpartition(-shared / norms[chosen], n)[:n]
        chosen, shared = chosen[best], shared[best]
    return chosen, shared


def among(gram: sparse.csr_matrix | Array, items: NDArray[np.integer[Any]]) -> Array:
    """The Gram matrix of some items. (I, I), (n,) -> (n, n)"""
    return gram[np.ix_(items, items)] if isinstance(gram, np.ndarray) else gram[items][:, items].toarray()


def _cells(gram: sparse.csr_matrix | Array, item: int) -> tuple[NDArray[np.integer[Any]], Array]:
    """The items with users in common with an item, and what is in their cells of its row."""
    if isinstance(gram, np.ndarray):
        chosen = np.flatnonzero(gram[item])
        return chosen, gram[item, chosen]
    cells = slice(gram.indptr[item], gram.indptr[item + 1])
    return gram.indices[cells], gram.data[cells]


def gram(rows: sparse.csr_matrix, weights: NDArray[Any] | None = None) -> Array:
    """The Gram matrix G = X^T diag(weights) X of rows X (U, I); no other I x I array is allocated.

    Parameters
    ----------
    weights : NDArray[Any] or None
        (U,), one for each user; None for ones.

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
    matrix = np.zeros((n_items, n_items), dtype=np.float32)

    def products(start: int) -> None:
        block = slice(start, start + BLOCK)
        (items[block] @ rows).toarray(out=matrix[block])

    from recvae.utils.workers import use_workers  # only a fit needs it

    with use_workers() as workers:
        workers.map(products, range(0, n_items, BLOCK))
    return matrix


def gram_diagonal(rows: sparse.csr_matrix, weights: NDArray[Any] | None = None) -> Array:
    """The diagonal of the Gram matrix: for binary rows without weights, the number of rows with each item. -> (I,)"""
    return np.asarray(_weighted(rows, weights).multiply(rows).sum(axis=0), dtype=np.float32).ravel()


def gram_to_read(rows: sparse.csr_matrix, weights: NDArray[Any] | None = None) -> sparse.csr_matrix | Array:
    """The Gram matrix in the form from which the cells of single items are read fastest. (U, I) -> (I, I)"""
    matrix = _sparse_gram(rows, weights)
    return matrix.toarray() if rows.shape[1] <= READ else matrix


def _sparse_gram(rows: sparse.csr_matrix, weights: NDArray[Any] | None) -> sparse.csr_matrix:
    """The Gram matrix as a sparse matrix: most pairs of items have no user in common. -> (I, I)"""
    items = _weighted(rows, weights).T.tocsr()  # (I, U)
    sample = items[:: max(1, items.shape[0] // BLOCK)]
    pairs = (sample @ rows).nnz * items.shape[0] // sample.shape[0]
    require_memory(
        8 * pairs,
        f"about {pairs:,} pairs of items with users in common",
        'fewer items, such as by min_item, or form="dense"',
    )
    return items @ rows


def _weighted(rows: sparse.csr_matrix, weights: NDArray[Any] | None) -> sparse.csr_matrix:
    if weights is None:
        return rows
    data = rows.data * np.repeat(weights, np.diff(rows.indptr)).astype(np.float32)
    return sparse.csr_matrix((data, rows.indices, rows.indptr), shape=rows.shape)


def _below_rounding(factor: Array, sizes: Array) -> NDArray[np.bool_]:
    """Whether pivots of Cholesky decompositions are not above the rounding error of float32. (..., n) -> (...)

    Parameters
    ----------
    factor, sizes : Array
        The diagonals of the decomposition and of what was decomposed.
    """
    return np.any(factor**2 < RESOLVED * sizes, axis=-1)


def _check_definite(definite: bool) -> None:
    if not definite:
        raise TrainingError(
            "Expected a Gram matrix that with its penalty is positive definite, got one with items that are nearly "
            "linear combinations of others; raise l2."
        )
