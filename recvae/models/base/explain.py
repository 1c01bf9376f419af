"""Explanations of a score: what each item of the row contributes to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.validation import as_array, row_of
from recvae.errors import InvalidTypeError, OutOfRangeError
from recvae.utils.checks import check_integer
from recvae.utils.topk import BLOCK_BYTES

if TYPE_CHECKING:
    from recvae.models.base import Recommender

Explanation = tuple[float, list[tuple[int, float]], None]


def explain(model: Recommender, userid: Any, user_items: Any, itemid: Any, N: int) -> Explanation:
    """See `Recommender.explain`."""
    if getattr(user_items, "format", "") == "csr" and user_items.ndim == 2 and user_items.shape[0] != 1:
        user_items = row_of(user_items, check_index("userid", userid, user_items.shape[0]))
    rows = model._rows(user_items)
    item, N = check_index("itemid", itemid, model.n_items_), check_integer("N", N, 1)
    score, contributions = model._contributions(rows, item)
    best = np.argsort(-contributions, kind="stable")[:N]
    return score, [(int(rows.indices[position]), float(contributions[position])) for position in best], None


def by_leaving_out(model: Recommender, row: sparse.csr_matrix, item: int) -> tuple[float, NDArray[np.float64]]:
    """An item's score for a row of n_u items, and by how much it is lower without each of them. -> score, (n_u,)"""
    step = max(1, BLOCK_BYTES // (4 * row.shape[1]))
    blocks = [row, *(leave_one_out(row, range(start, start + step)) for start in range(0, row.nnz, step))]
    scores = np.concatenate([model._score(rows)[:, item].cpu().numpy() for rows in blocks])
    return float(scores[0]), scores[0].astype(np.float64) - scores[1:]


def leave_one_out(row: sparse.csr_matrix, positions: range) -> sparse.csr_matrix:
    """Copies of a row, each without the item at one of these positions in it. (1, I) -> (len(positions), I)"""
    n = row.nnz
    left_out = np.arange(positions.start, min(positions.stop, n))
    kept = np.nonzero(np.arange(n) != left_out[:, None])[1]
    indptr = np.arange(len(left_out) + 1) * (n - 1)
    return sparse.csr_matrix((row.data[kept], row.indices[kept], indptr), shape=(len(left_out), row.shape[1]))


def check_index(name: str, index: Any, n: int) -> int:
    """One index from 0 to n - 1. Raises InvalidTypeError, OutOfRangeError."""
    number: NDArray[Any] = as_array(index, name)
    if number.ndim or number.dtype.kind not in "iu":
        raise InvalidTypeError(f"Expected {name} to be one integer, got {index!r}.")
    if not 0 <= int(number) < n:
        raise OutOfRangeError(f"Expected {name} from 0 to {n - 1}, got {index}.")
    return int(number)
