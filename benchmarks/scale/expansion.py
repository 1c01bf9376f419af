"""Expand a users x items matrix into a larger, similar one: a randomised Kronecker product with a small copy of it.

After Belletti, Lakshmanan, Krichene, Chen & Anderson (2019), "Scalable Realistic Recommendation Datasets through
Fractal Expansions", arXiv:1901.08910, with which MLPerf expanded MovieLens. R is the real matrix, 1 for each event:

    reduced   a small dense matrix: R's truncated SVD, its singular values kept, its singular vectors resized by the
              means of runs and made orthonormal again; negative entries become 0, the largest 1
    block     block (i, j) of the expansion is R, each event kept with probability min(1, c * reduced[i, j]); c is such
              that as many events are expected as are asked for
    shuffle   in each block, users and items are permuted within small groups of similar ones: no two blocks are
              copies, and users keep their activity and taste, items their popularity
    minimum   users with fewer than MIN_EVENTS events get more, of items drawn as events of their row of blocks are

Each block is a function of (seed, i, j): rows of blocks can be made in any order, one in memory at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from recvae.errors import InvalidParameterError

MIN_EVENTS = 5  # of a user
GROUP_SIZE = 8  # at most
N_TASTES = 4  # singular vectors by which similar users or items are found, after the first


@dataclass(frozen=True)
class Groups:
    """Groups of similar users, or items, and the positions that each group has in every block.

    If all users of a block were permuted freely, all would have the same activity in the sum over blocks, and no taste;
    without a permutation, the block would be a plain copy.

    members : the n users, group after group
    groups : the group of each member, ascending
    positions : the positions of the groups, in the order of `members`; they are assigned to groups by the seed only
    """

    members: NDArray[np.int64]
    groups: NDArray[np.int64]
    positions: NDArray[np.int64]

    def shuffled(self, random: np.random.Generator) -> NDArray[np.int64]:
        """The position of each user in a block: one of its group's. -> (n,)"""
        order = np.argsort(self.groups + random.random(len(self.groups)))
        return self._positions_of(self.members[order])

    def fixed(self) -> NDArray[np.int64]:
        """The position of each user by `members`, without shuffling. -> (n,)"""
        return self._positions_of(self.members)

    def probability_below(self, n: int) -> NDArray[np.float64]:
        """Probability that `shuffled` gives a user one of the first n positions, for each user. -> (members,)"""
        shares = np.bincount(self.groups, self.positions < n) / np.bincount(self.groups)
        probability = np.empty(len(self.members))
        probability[self.members] = shares[self.groups]
        return probability

    def _positions_of(self, members: NDArray[np.int64]) -> NDArray[np.int64]:
        positions = np.empty_like(members)
        positions[members] = self.positions
        return positions


def group_similar(counts: NDArray[np.int64], vectors: NDArray[np.float64], random: np.random.Generator) -> Groups:
    """Halve by the number of events, halve each half by a singular vector, and so on in turns, until groups are small.

    counts : events of each user (n,)
    vectors : singular vectors (n, K), that of the largest singular value first
    """
    n = len(counts)
    tastes = vectors[:, 1 : 1 + N_TASTES].T
    groups = np.zeros(n, dtype=np.int64)
    order = np.arange(n)
    for level in range(max(0, int(np.ceil(np.log2(n / GROUP_SIZE))))):
        turn = level // 2 % max(1, len(tastes))
        by = tastes[turn] if level % 2 and len(tastes) else counts
        order = np.lexsort((by, groups))
        groups[order] = np.arange(n) * 2 ** (level + 1) // n
    order = np.argsort(groups, kind="stable")
    return Groups(order, groups[order], random.permutation(n))


@dataclass(frozen=True)
class Expansion:
    """A plan of blocks, from which rows of blocks are made.

    base : the real matrix R, CSR (m, n), of which only the structure is used
    shape : users and items
    probabilities : the probability to keep an event of R, for each block (m', n')
    expected : the mean number of events of each block (m', n')
    """

    base: sparse.csr_matrix
    shape: tuple[int, int]
    seed: int
    reduced: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    expected: NDArray[np.float64]
    users: Groups
    items: Groups

    @property
    def n_rows(self) -> int:
        """Number of rows of blocks."""
        return len(self.probabilities)

    def users_of(self, row: int) -> range:
        """The users of a row of blocks."""
        m = self.base.shape[0]
        return range(row * m, min((row + 1) * m, self.shape[0]))


def expand(base: sparse.csr_matrix, n_users: int, n_items: int, n_events: int, seed: int = 0) -> Expansion:
    """Plan an expansion of the given numbers of users and items, and about as many events.

    Events added for users with fewer than MIN_EVENTS come on top. Raises InvalidParameterError for sizes out of range.
    """
    m, n = base.shape
    rows, columns = -(-n_users // m), -(-n_items // n)
    if not (1 <= rows <= m and 4 * MIN_EVENTS <= n_items <= n * n):
        raise InvalidParameterError(
            f"Expected 1 to {m * m:,} users and {4 * MIN_EVENTS} to {n * n:,} items, got {n_users:,} and {n_items:,}."
        )
    rank = min(max(rows, columns, 1 + N_TASTES), min(rows, columns) + N_TASTES, min(m, n) - 1)
    u, s, v = _svd(base, rank)
    random = np.random.default_rng(seed)
    users = group_similar(np.diff(base.indptr), u, random)
    items = group_similar(np.bincount(base.indices, minlength=n), v, random)
    reduced = _reduced(u, s, v, rows, columns)
    most = _events(base, users, items, n_users - (rows - 1) * m, n_items - (columns - 1) * n, reduced.shape)
    probabilities = _probabilities(reduced, most, n_events)
    return Expansion(base, (n_users, n_items), seed, reduced, probabilities, probabilities * most, users, items)


def block_row(expansion: Expansion, row: int) -> sparse.csr_matrix:
    """The events of the users of a row of blocks, on all items. -> (users, n_items) CSR of ones, sorted"""
    n_users, n_items = len(expansion.users_of(row)), expansion.shape[1]
    cells = np.sort(
        np.concatenate([_block(expansion, row, column) for column in range(expansion.probabilities.shape[1])])
    )
    cells = _filled(expansion, row, cells)
    indptr = np.searchsorted(cells, np.arange(n_users + 1) * n_items)
    return sparse.csr_matrix((np.ones(len(cells), np.float32), cells % n_items, indptr), (n_users, n_items))


def _block(expansion: Expansion, row: int, column: int) -> NDArray[np.int64]:
    """The events of a block as user * n_items + item; the user counts within the row of blocks."""
    base, n_items = expansion.base, expansion.shape[1]
    random = np.random.default_rng([expansion.seed, row, column])
    kept = _kept(base.nnz, float(expansion.probabilities[row, column]), random)
    users = expansion.users.shuffled(random)[np.searchsorted(base.indptr, kept, side="right") - 1]
    items = expansion.items.shuffled(random)[base.indices[kept]] + column * base.shape[1]
    inside = (users < len(expansion.users_of(row))) & (items < n_items)
    return users[inside] * n_items + items[inside]


def _kept(n: int, probability: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Indices that are kept out of n, each with that probability; draws the gaps between them."""
    if probability <= 0:
        return np.empty(0, dtype=np.int64)
    kept = [np.array([-1])]
    while kept[-1][-1] < n:
        many = int(1.1 * probability * n) + 20
        kept.append(kept[-1][-1] + np.cumsum(random.geometric(probability, many)))
    indices = np.concatenate(kept[1:])
    return indices[indices < n]


def _filled(expansion: Expansion, row: int, cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add events of users who have fewer than MIN_EVENTS. -> cells, sorted"""
    n_users, n_items = len(expansion.users_of(row)), expansion.shape[1]
    random = np.random.default_rng([expansion.seed, row, expansion.probabilities.shape[1]])
    weights = np.cumsum(expansion.expected[row])
    positions = expansion.items.fixed()
    while True:
        missing = np.maximum(MIN_EVENTS - np.bincount(cells // n_items, minlength=n_users), 0)
        users = np.repeat(np.arange(n_users), missing)
        if not len(users):
            return cells
        columns = np.searchsorted(weights, random.random(len(users)) * weights[-1])
        drawn = expansion.base.indices[random.integers(expansion.base.nnz, size=len(users))]
        items = positions[drawn] + columns * expansion.base.shape[1]
        inside = items < n_items
        cells = np.union1d(cells, users[inside] * n_items + items[inside])


def _svd(base: sparse.csr_matrix, rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Singular vectors of users (m, K) and items (n, K), and singular values (K,), the largest first."""
    ones = sparse.csr_matrix((np.ones(base.nnz), base.indices, base.indptr), base.shape)
    u, s, v = svds(ones, rank, v0=np.ones(min(base.shape)))
    order = np.argsort(-s)
    return u[:, order], s[order], v[order].T


def _reduced(
    u: NDArray[np.float64], s: NDArray[np.float64], v: NDArray[np.float64], rows: int, columns: int
) -> NDArray[np.float64]:
    """A matrix (rows, columns) of values from 0 to 1 whose singular values, before clipping, are proportional to s."""
    rank = min(rows, columns, len(s))
    product = (_resized(u[:, :rank], rows) * s[:rank]) @ _resized(v[:, :rank], columns).T
    return np.round(np.clip(product / product.max(), 0, 1), 6)  # so that results do not depend on a machine's rounding


def _resized(vectors: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Means of n runs of rows, made orthonormal again from the first column on. (m, K) -> (n, K)"""
    ends = np.linspace(0, len(vectors), n + 1).astype(int)
    means = np.add.reduceat(vectors, ends[:-1]) / np.diff(ends)[:, None]
    q, r = np.linalg.qr(means)
    return q * np.where(np.diag(r) < 0, -1, 1)


def _events(
    base: sparse.csr_matrix, users: Groups, items: Groups, last_users: int, last_items: int, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Expected events of each block if all were kept; blocks in the last row and column are cut off."""
    ones = sparse.csr_matrix((np.ones(base.nnz), base.indices, base.indptr), base.shape)
    inside = users.probability_below(last_users), items.probability_below(last_items)
    most = np.full(shape, float(base.nnz))
    most[-1] = (ones.T @ inside[0]).sum()
    most[:, -1] = (ones @ inside[1]).sum()
    most[-1, -1] = inside[0] @ (ones @ inside[1])
    return most


def _probabilities(reduced: NDArray[np.float64], most: NDArray[np.float64], n_events: int) -> NDArray[np.float64]:
    """min(1, c * reduced), with c such that `n_events` are expected. Raises InvalidParameterError."""
    reachable = int(most[reduced > 0].sum())
    if not 0 < n_events <= 0.9 * reachable:
        raise InvalidParameterError(
            f"Expected 1 to {int(0.9 * reachable):,} events for these users and items, got {n_events:,}; take more of "
            f"these."
        )
    low, high = 0.0, 1 / reduced[reduced > 0].min()
    for _ in range(200):
        middle = (low + high) / 2
        few = (np.minimum(1, middle * reduced) * most).sum() < n_events
        low, high = (middle, high) if few else (low, middle)
    return np.minimum(1, high * reduced)
