"""Candidates of each user to rank instead of all items: given ones, or the held-out items among sampled negatives.

Metrics over candidates have other names than those over all items, because their values cannot be compared.

References
----------
Krichene & Rendle 2020, "On Sampled Metrics for Item Recommendation": sampled metrics may order models wrongly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.histories import read_histories
from recvae.data.ids import ItemIndex
from recvae.data.rows import check_rows
from recvae.data.splits import Holdout
from recvae.errors import InvalidDataError, InvalidParameterError
from recvae.evaluation.metrics import find_hits
from recvae.utils.checks import check_integer
from recvae.utils.topk import PAD_ID

CELLS = 1 << 24  # of the rankings of all items that are in memory at a time

# (row indices in the holdout, fold-in rows, N) -> ids (rows, N), padded with -1
Ranker = Callable[[NDArray[np.int64], sparse.csr_matrix, int], NDArray[np.integer]]


@dataclass(frozen=True, eq=False)
class Candidates:
    """The items that are ranked for each row of a holdout.

    Attributes
    ----------
    rows : scipy.sparse.csr_matrix
        (users, items) of the holdout, canonical; stored cells are candidates.
    label : str
        What names of metrics end in, such as "100 sampled negatives".
    protocol : str
        A sentence on what was ranked.
    direct : bool
        Whether the model itself ranks only these, so that the others need not be ranked.
    """

    rows: sparse.csr_matrix
    label: str
    protocol: str
    direct: bool = False

    def within(self, ranker: Ranker) -> Ranker:
        """A ranker of the candidates alone: the order in which `ranker` has them among all items."""
        if self.direct:
            return ranker

        def ranked(users: NDArray[np.int64], rows: sparse.csr_matrix, N: int) -> NDArray[np.integer]:
            everything = np.asarray(ranker(users, rows, rows.shape[1]))
            found, places = np.nonzero(find_hits(everything, self.rows[users]))
            counts = np.bincount(found, minlength=len(users))
            rank = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
            within = rank < N
            ids = np.full((len(users), N), PAD_ID, dtype=np.int32)
            ids[found[within], rank[within]] = everything[found[within], places[within]]
            return ids

        return ranked

    def block_users(self, block_users: int) -> int:
        """Number of users whose rankings of all items are made at a time."""
        return block_users if self.direct else max(1, min(block_users, CELLS // max(1, self.rows.shape[1])))


def find_candidates(holdout: Holdout, given: Any, sampled_negatives: int | None, seed: int) -> Candidates | None:
    """The candidates that `evaluate` was asked for; None for all items. Raises as `evaluate`."""
    if sampled_negatives is None:
        return None if given is None else _given(holdout, given)
    if given is not None:
        raise InvalidParameterError("Expected candidates or sampled_negatives, got both.")
    n = check_integer("sampled_negatives", sampled_negatives, 1)
    rows = _sampled(holdout, n, check_integer("seed", seed, 0))
    label = f"{n} sampled negatives"
    protocol = f"the held-out items of each user were ranked among {label}, with seed {seed}, not among all items"
    return Candidates(rows, label, protocol)


def _sampled(holdout: Holdout, n: int, seed: int) -> sparse.csr_matrix:
    """The held-out items of each user, and `n` of the items that are neither folded in nor held out, uniformly."""
    random, n_items = np.random.default_rng(seed), holdout.held_out.shape[1]
    fold_in, held_out = check_rows(holdout.fold_in), check_rows(holdout.held_out)
    lists = []
    for user in range(held_out.shape[0]):
        held = _row(held_out, user)
        if not len(held):
            lists.append(held)
            continue
        known = np.sort(np.concatenate([_row(fold_in, user), held]))
        free = n_items - len(known)
        drawn = np.arange(free) if free <= n else random.choice(free, n, replace=False)
        negatives = drawn + np.searchsorted(known - np.arange(len(known)), drawn, side="right")
        lists.append(np.sort(np.concatenate([held, negatives])))
    return _matrix(lists, n_items)


def _given(holdout: Holdout, given: Any) -> Candidates:
    held_out = check_rows(holdout.held_out)
    shape, left_out = held_out.shape, ""
    if sparse.issparse(given):
        rows = check_rows(given, name="candidates")
        if rows.shape != shape:
            raise InvalidDataError(f"Expected candidates of the holdout's shape {shape}, got {rows.shape}.")
    else:
        ids = np.arange(shape[1]) if holdout.item_ids is None else holdout.item_ids
        histories = read_histories(given, ids)
        users = np.arange(shape[0]) if isinstance(given, (list, tuple)) else holdout.users
        row_of = ItemIndex(histories.users).positions(users)
        needed = np.diff(held_out.indptr) > 0
        missing = np.flatnonzero(needed & (row_of < 0))
        if len(missing):
            raise InvalidDataError(
                f"Expected candidates for each of {int(needed.sum()):,} users with something held out, got none for "
                f"{len(missing):,}, such as {users[missing[0]]!r}."
            )
        lists = [_row(histories.rows, row) if row >= 0 else np.empty(0, dtype=np.int64) for row in row_of.tolist()]
        rows = _matrix(lists, shape[1])
        if histories.unknown.events:
            left_out = f"; {histories.unknown.events:,} on items that the holdout does not have were left out"
    outside = held_out.nnz - (held_out != 0).multiply(rows != 0).nnz
    missed = f"; {outside:,} of {held_out.nnz:,} held-out items are no candidates, and count as missed"
    protocol = f"given candidates were ranked, not all items{missed if outside else ''}{left_out}"
    return Candidates(rows, "given candidates", protocol)


def _row(matrix: sparse.csr_matrix, row: int) -> NDArray[np.int64]:
    columns: NDArray[np.int64] = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]].astype(np.int64)
    return columns


def _matrix(lists: list[NDArray[np.int64]], n_items: int) -> sparse.csr_matrix:
    indptr = np.concatenate([[0], np.cumsum([len(items) for items in lists])]).astype(np.int64)
    columns = np.concatenate([*lists, np.empty(0, dtype=np.int64)])
    values = np.ones(len(columns), dtype=np.float32)
    return sparse.csr_matrix((values, columns, indptr), shape=(len(lists), n_items))
