"""A users x items matrix -> a larger one that is like it: a randomised Kronecker product with a small twin of itself.

After Belletti, Lakshmanan, Krichene, Chen & Anderson (2019), "Scalable Realistic Recommendation Datasets through
Fractal Expansions", arXiv:1901.08910, with which MLPerf expanded MovieLens. R is the real matrix, 1 for each event:

    twin      a small dense matrix: R's truncated SVD, its singular values kept, its singular vectors made shorter by
              the means of runs and orthonormal again; what is negative becomes 0, the largest 1
    block     block (i, j) of the expansion is R, each event kept with chance min(1, c * twin[i, j]); c is such that as
              many events are expected as are asked for
    shuffle   in each block, users and items trade places with their kin (see kin.py): no two blocks are copies,
              and activity, popularity and tastes stay with whom they belong to
    least     users with fewer than LEAST events get more, of items drawn as events of their row of blocks have them

Each block is a function of (seed, i, j): rows of blocks may be made in any order, in the memory of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from benchmarks.scale.fractal.kin import TASTES, Kin, find_kin
from recvae.errors import InvalidParameterError

LEAST = 5  # events of a user


@dataclass(frozen=True)
class Expansion:
    """What is to be made, row of blocks by row of blocks.

    base : the real matrix R, CSR (m, n), of which only the structure counts
    shape : users and items
    chances : with which an event of each block is kept (m', n')
    expected : how many events each block has in the mean (m', n')
    """

    base: sparse.csr_matrix
    shape: tuple[int, int]
    seed: int
    twin: NDArray[np.float64]
    chances: NDArray[np.float64]
    expected: NDArray[np.float64]
    users: Kin
    items: Kin

    @property
    def n_rows(self) -> int:
        """How many rows of blocks there are."""
        return len(self.chances)

    def users_of(self, row: int) -> range:
        """The users of a row of blocks."""
        m = self.base.shape[0]
        return range(row * m, min((row + 1) * m, self.shape[0]))


def expand(base: sparse.csr_matrix, n_users: int, n_items: int, n_events: int, seed: int = 0) -> Expansion:
    """Plan an expansion of just so many users and items, and about so many events.

    What users with fewer than LEAST get comes on top. Raises InvalidParameterError for sizes out of reach.
    """
    m, n = base.shape
    rows, columns = -(-n_users // m), -(-n_items // n)
    if not (1 <= rows <= m and 4 * LEAST <= n_items <= n * n):
        raise InvalidParameterError(
            f"Expected 1 to {m * m:,} users and {4 * LEAST} to {n * n:,} items, got {n_users:,} and {n_items:,}."
        )
    rank = min(max(rows, columns, 1 + TASTES), min(rows, columns) + TASTES, min(m, n) - 1)
    u, s, v = _svd(base, rank)
    random = np.random.default_rng(seed)
    users = find_kin(np.diff(base.indptr), u, random)
    items = find_kin(np.bincount(base.indices, minlength=n), v, random)
    small = _twin(u, s, v, rows, columns)
    most = _events(base, users, items, n_users - (rows - 1) * m, n_items - (columns - 1) * n, small.shape)
    chances = _chances(small, most, n_events)
    return Expansion(base, (n_users, n_items), seed, small, chances, chances * most, users, items)


def block_row(expansion: Expansion, row: int) -> sparse.csr_matrix:
    """The events of the users of a row of blocks, on all items. -> (users, n_items) CSR of ones, sorted"""
    n_users, n_items = len(expansion.users_of(row)), expansion.shape[1]
    cells = np.sort(np.concatenate([_block(expansion, row, column) for column in range(expansion.chances.shape[1])]))
    cells = _filled(expansion, row, cells)
    indptr = np.searchsorted(cells, np.arange(n_users + 1) * n_items)
    return sparse.csr_matrix((np.ones(len(cells), np.float32), cells % n_items, indptr), (n_users, n_items))


def _block(expansion: Expansion, row: int, column: int) -> NDArray[np.int64]:
    """The events of a block as user * n_items + item; the user counts within the row of blocks."""
    base, n_items = expansion.base, expansion.shape[1]
    random = np.random.default_rng([expansion.seed, row, column])
    kept = _kept(base.nnz, float(expansion.chances[row, column]), random)
    users = expansion.users.shuffled(random)[np.searchsorted(base.indptr, kept, side="right") - 1]
    items = expansion.items.shuffled(random)[base.indices[kept]] + column * base.shape[1]
    inside = (users < len(expansion.users_of(row))) & (items < n_items)
    return users[inside] * n_items + items[inside]


def _kept(n: int, chance: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Which of n things are kept, each with that chance, by drawing the gaps between them."""
    if chance <= 0:
        return np.empty(0, dtype=np.int64)
    found = [np.array([-1])]
    while found[-1][-1] < n:
        many = int(1.1 * chance * n) + 20
        found.append(found[-1][-1] + np.cumsum(random.geometric(chance, many)))
    places = np.concatenate(found[1:])
    return places[places < n]


def _filled(expansion: Expansion, row: int, cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same with more events of those who have fewer than LEAST."""
    n_users, n_items = len(expansion.users_of(row)), expansion.shape[1]
    random = np.random.default_rng([expansion.seed, row, expansion.chances.shape[1]])
    weights = np.cumsum(expansion.expected[row])
    places = expansion.items.fixed()
    while True:
        missing = np.maximum(LEAST - np.bincount(cells // n_items, minlength=n_users), 0)
        users = np.repeat(np.arange(n_users), missing)
        if not len(users):
            return cells
        columns = np.searchsorted(weights, random.random(len(users)) * weights[-1])
        drawn = expansion.base.indices[random.integers(expansion.base.nnz, size=len(users))]
        items = places[drawn] + columns * expansion.base.shape[1]
        inside = items < n_items
        cells = np.union1d(cells, users[inside] * n_items + items[inside])


def _svd(base: sparse.csr_matrix, rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Singular vectors of users (m, K) and items (n, K), and singular values (K,), the largest first."""
    ones = sparse.csr_matrix((np.ones(base.nnz), base.indices, base.indptr), base.shape)
    u, s, v = svds(ones, rank, v0=np.ones(min(base.shape)))
    order = np.argsort(-s)
    return u[:, order], s[order], v[order].T


def _twin(
    u: NDArray[np.float64], s: NDArray[np.float64], v: NDArray[np.float64], rows: int, columns: int
) -> NDArray[np.float64]:
    """A matrix (rows, columns) from 0 to 1, of the same singular values but for the cut at 0."""
    rank = min(rows, columns, len(s))
    made = (_shorter(u[:, :rank], rows) * s[:rank]) @ _shorter(v[:, :rank], columns).T
    return np.round(np.clip(made / made.max(), 0, 1), 6)  # what a machine rounds otherwise changes nothing


def _shorter(vectors: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Means of n runs of rows, made orthonormal again from the first column on. (m, K) -> (n, K)"""
    ends = np.linspace(0, len(vectors), n + 1).astype(int)
    means = np.add.reduceat(vectors, ends[:-1]) / np.diff(ends)[:, None]
    q, r = np.linalg.qr(means)
    return q * np.where(np.diag(r) < 0, -1, 1)


def _events(
    base: sparse.csr_matrix, users: Kin, items: Kin, last_users: int, last_items: int, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """How many events each block would have if all were kept; those at the ends are cut."""
    ones = sparse.csr_matrix((np.ones(base.nnz), base.indices, base.indptr), base.shape)
    inside = users.chances_below(last_users), items.chances_below(last_items)
    most = np.full(shape, float(base.nnz))
    most[-1] = (ones.T @ inside[0]).sum()
    most[:, -1] = (ones @ inside[1]).sum()
    most[-1, -1] = inside[0] @ (ones @ inside[1])
    return most


def _chances(twin: NDArray[np.float64], most: NDArray[np.float64], n_events: int) -> NDArray[np.float64]:
    """min(1, c * twin), c such that so many events are expected. Raises InvalidParameterError."""
    reachable = int(most[twin > 0].sum())
    if not 0 < n_events <= 0.9 * reachable:
        raise InvalidParameterError(
            f"Expected 1 to {int(0.9 * reachable):,} events for these users and items, got {n_events:,}; take more of "
            f"these."
        )
    low, high = 0.0, 1 / twin[twin > 0].min()
    for _ in range(200):
        middle = (low + high) / 2
        few = (np.minimum(1, middle * twin) * most).sum() < n_events
        low, high = (middle, high) if few else (low, middle)
    return np.minimum(1, high * twin)
