"""Why an item was recommended: what each item of the row adds to its score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.validation import as_array, row_of
from recvae.errors import InvalidTypeError, OutOfRangeError
from recvae.models.base.abilities import needs
from recvae.models.base.base import Model
from recvae.models.base.state import reads
from recvae.utils.checks import check_integer
from recvae.utils.topk import BLOCK_BYTES

Explanation = tuple[float, list[tuple[int, float]], None]


class Explains(Model):
    """Explanations of scores."""

    @needs("_contributions")
    @reads
    def explain(self, userid: Any, user_items: Any, itemid: Any, user_weights: Any = None, N: int = 10) -> Explanation:
        """The score of an item for a user, and the N items of the user that add most to it.

        Parameters
        ----------
        userid
            The user's row in `user_items`, where that is the full matrix as in implicit.
        user_items
            csr_matrix or csr_array (users, I), or one row alone.
        itemid
            The item to explain.
        user_weights
            implicit's, ignored.

        Returns
        -------
        Explanation
            (score, [(item, what it adds), ...] by descending addition, None). In linear models additions sum to the
            score. In the others an item's is the score less that without the item, all rows with one item left out
            scored at once: they need not sum to anything.

        Raises
        ------
        OutOfRangeError
        RecvaeError
            As `recommend`.
        """
        if getattr(user_items, "format", "") == "csr" and user_items.ndim == 2 and user_items.shape[0] != 1:
            user_items = row_of(user_items, check_index("userid", userid, user_items.shape[0]))
        rows = self._rows(user_items)
        item, N = check_index("itemid", itemid, self.n_items_), check_integer("N", N, 1)
        score, parts = self._contributions(rows, item)
        best = np.argsort(-parts, kind="stable")[:N]
        return score, [(int(rows.indices[place]), float(parts[place])) for place in best], None


def by_leaving_out(model: Model, row: sparse.csr_matrix, item: int) -> tuple[float, NDArray[np.float64]]:
    """An item's score for a row, and by how much it is lower without each item of the row. -> score, (n_u,)"""
    step = max(1, BLOCK_BYTES // (4 * row.shape[1]))
    blocks = [row, *(leave_one_out(row, range(start, start + step)) for start in range(0, row.nnz, step))]
    scores = np.concatenate([model._score(rows)[:, item].cpu().numpy() for rows in blocks])
    return float(scores[0]), scores[0].astype(np.float64) - scores[1:]


def leave_one_out(row: sparse.csr_matrix, places: range) -> sparse.csr_matrix:
    """A row of n items once for each of some places among these, the item there left out. (1, I) -> (len, I)"""
    n = row.nnz
    left_out = np.arange(places.start, min(places.stop, n))
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
