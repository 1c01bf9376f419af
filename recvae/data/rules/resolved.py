"""Rules over the items of a model: masks for blocks of users, and the choice from their rankings."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.ids import Ids, ItemIndex
from recvae.errors import InvalidParameterError
from recvae.utils.allowed import PAD_ID, PAD_SCORE, Allowed, Ranking
from recvae.utils.greedy import BLOCK, Choice, chosen_items

DEEPER = 8  # by how much longer rankings become where a list is not full

# (indices of users, N, their mask, whether their own items are excluded) -> ids and scores, (U, N) each
Rank = Callable[[NDArray[np.int64], int, Allowed, bool], Ranking]


@dataclass(frozen=True)
class UnknownIds:
    """Ids of a rule that have no effect, because the model or the input does not know them.

    Attributes
    ----------
    rule : str
        The name of the rule.
    unknown, of : int
        How many, and of how many.
    examples : tuple
        Up to three, the smallest.
    what : str
        "items", "users", or "rows" of users and items.
    """

    rule: str
    unknown: int
    of: int
    examples: tuple[Any, ...]
    what: str = "items"

    @classmethod
    def of_ids(cls, rule: str, unknown: Sequence[Any], of: int, what: str = "items") -> Self:
        """From the ids themselves."""
        return cls(rule, len(unknown), of, tuple(nsmallest(3, unknown)), what)

    def __str__(self) -> str:
        such = f", such as {', '.join(map(repr, self.examples))}," if self.examples else ""
        who = "not in the input" if self.what == "users" else "unknown to the model"
        on = " are on items" if self.what == "rows" else " are"
        return f"{self.rule}: {self.unknown:,} of {self.of:,} {self.what}{such}{on} {who}; they have no effect."


class UserItems(NamedTuple):
    """Items of some users, who are found by their raw ids."""

    users: ItemIndex
    rows: sparse.csr_matrix  # (U + 1, I); the last row, of all other users, is empty

    @classmethod
    def of(cls, users: Ids, rows: sparse.csr_matrix) -> UserItems:
        """From a row for each of the users."""
        indptr = np.append(rows.indptr, rows.indptr[-1])
        shape = (len(users) + 1, rows.shape[1])
        return cls(ItemIndex(users), sparse.csr_matrix((rows.data, rows.indices, indptr), shape))

    def take(self, users: Ids) -> tuple[sparse.csr_matrix, NDArray[np.bool_]]:
        """The items of each user, and which of them are among these users. -> (U, I), (U,)"""
        positions = self.users.positions(users)
        known = positions >= 0
        return self.rows[np.where(known, positions, len(self.users))], known

    def update(self, digest: Any) -> None:
        """Add the content to a digest."""
        digest.update(json.dumps(list(self.users)).encode())
        for array in (self.rows.indptr, self.rows.indices):
            digest.update(array.astype(np.int64).tobytes())


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemRules:
    """`Rules`, resolved against the items of a model.

    Attributes
    ----------
    n_items : int
        The number of items of the model.
    items : ndarray or None
        (I,), which items may be ranked for anyone.
    user_allow, user_deny : UserItems or None
        For some users, the only ones, and those that may not.
    repeatable : bool or ndarray
        Which items may be in the list of a user who liked them.
    only_users : ItemIndex or None
        The only users who get lists, by raw ids.
    choice : Choice or None
        How items are chosen from the ranking; None where they are taken in order.
    new_share : int or float
        The number of places that are kept for some items, or their share of a list.
    unknown : tuple of UnknownIds
        Ids in the rules that the model does not know.
    """

    n_items: int
    items: NDArray[np.bool_] | None
    user_allow: UserItems | None
    user_deny: UserItems | None
    repeatable: bool | NDArray[np.bool_] | None
    only_users: ItemIndex | None
    choice: Choice | None
    new_share: int | float
    unknown: tuple[UnknownIds, ...]

    def rank(self, rank: Rank, users: Ids, N: int, others: Allowed, filter_seen: bool = True) -> Ranking:
        """The lists of users under the rules.

        Parameters
        ----------
        rank : Rank
            Ranks items for some of the users, by their indices.
        users : ndarray
            (U,) raw ids.
        N : int
            Length of the lists.
        others : Allowed
            Further restrictions: `items` and `seen`.
        filter_seen : bool
            Whether to exclude the users' own items, apart from those that may come again.

        Returns
        -------
        Ranking
            (U, N) ids and scores, padded as by `recvae.utils.topk.rank`.
        """
        allowed, filter_seen = self._allowed(users, others), filter_seen and self.repeatable is not True
        everyone = np.arange(len(users))
        if self.choice is None:
            return rank(everyone, N, allowed, filter_seen)
        places = min(N, self.new_share if isinstance(self.new_share, int) else math.ceil(self.new_share * N))
        choice = replace(self.choice, places=places)
        return _chosen_lists(rank, allowed, filter_seen, len(users), self.n_items, N, choice)

    def select(self, users: Ids) -> NDArray[np.int64] | None:
        """The indices of the users who get lists; None for all."""
        return None if self.only_users is None else np.flatnonzero(self.only_users.positions(users) >= 0)

    def unknown_users(self, users: Ids) -> tuple[UnknownIds, ...]:
        """What `only_users` has besides these users."""
        if self.only_users is None:
            return ()
        listed = list(self.only_users)
        positions = ItemIndex(users).positions(listed)
        missing = [user for user, position in zip(listed, positions, strict=True) if position < 0]
        return (UnknownIds.of_ids("only_users", missing, len(listed), "users"),) if missing else ()

    def digest(self) -> str:
        """SHA-256 of all that changes lists."""
        digest = hashlib.sha256()
        choice = self.choice or Choice()
        numbers = [self.new_share, choice.cap, choice.trade_off, choice.pool, self.repeatable is True]
        digest.update(json.dumps(numbers).encode())
        masks = [self.items, None if isinstance(self.repeatable, bool) else self.repeatable]
        for array in (*masks, choice.kinds, choice.units, choice.favoured):
            digest.update(b"none" if array is None else str(array.shape).encode() + array.tobytes())
        for pairs in (self.user_allow, self.user_deny):
            digest.update(b"none" if pairs is None else b"pairs")
            if pairs is not None:
                pairs.update(digest)
        users = None if self.only_users is None else sorted(self.only_users)
        digest.update(json.dumps(users).encode())
        return digest.hexdigest()

    def _allowed(self, users: Ids, others: Allowed) -> Allowed:
        """The mask of these users."""
        if others.only is not None or others.never is not None:
            raise InvalidParameterError(
                "Expected items and filter_items as lists next to rules, got a matrix; use user_allow and user_deny."
            )
        items = self.items
        if others.items is not None:
            items = others.items if items is None else items & others.items
        only, limited = (None, None) if self.user_allow is None else self.user_allow.take(users)
        never = None if self.user_deny is None else self.user_deny.take(users)[0]
        repeatable = None if isinstance(self.repeatable, bool) else self.repeatable
        return Allowed(items, only, never, others.seen, limited, repeatable)


def _chosen_lists(
    rank: Rank, allowed: Allowed, filter_seen: bool, n_users: int, n_items: int, N: int, choice: Choice
) -> Ranking:
    """The lists that `choice` makes of the whole ranking of each user, which is computed only as far as needed."""
    ids = np.full((n_users, N), PAD_ID, dtype=np.int32)
    scores = np.full((n_users, N), PAD_SCORE, dtype=np.float32)
    left, depth, places = np.arange(n_users), _first_depth(choice, N), choice.places
    while len(left):
        depth, places = min(depth, n_items), min(places, n_items)
        step = max(1, BLOCK // ((depth + places) * choice.width() + (n_items if places else 0)))
        unfinished = []
        for start in range(0, len(left), step):
            users = left[start : start + step]
            candidates = _Candidates.ranked(rank, users, depth, places, allowed.take(users), filter_seen, choice)
            ids[users], scores[users], done = candidates.choose(choice, N)
            unfinished.append(users[~done])
        left, depth, places = np.concatenate(unfinished), DEEPER * depth, DEEPER * places
    return ids, scores


def _first_depth(choice: Choice, N: int) -> int:
    """How far rankings are computed at first."""
    depth = N if choice.kinds is None else 4 * N
    return depth if choice.units is None else max(depth, choice.pool or N)


class _Candidates(NamedTuple):
    """The beginnings of the rankings of some users, followed by their best favoured items that are not in these."""

    ids: NDArray[np.int64]  # (B, depth + places)
    scores: NDArray[np.float32]
    depth: int
    all_ranked: NDArray[np.bool_]  # (B,), whether nothing follows in the ranking
    all_favoured: NDArray[np.bool_]  # (B,), nor further favoured items

    @classmethod
    def ranked(
        cls,
        rank: Rank,
        users: NDArray[np.int64],
        depth: int,
        places: int,
        allowed: Allowed,
        filter_seen: bool,
        choice: Choice,
    ) -> _Candidates:
        best, scores = rank(users, depth, allowed, filter_seen)
        ids, n_items = best.astype(np.int64), _n_items(choice)
        all_ranked = ids[:, -1] < 0 if depth < n_items else np.ones(len(ids), dtype=bool)
        if not places or choice.favoured is None:
            return cls(ids, scores, depth, all_ranked, np.ones(len(ids), dtype=bool))
        mask = choice.favoured if allowed.items is None else choice.favoured & allowed.items
        others, other_scores = rank(users, places, allowed._replace(items=mask), filter_seen)
        all_favoured = others[:, -1] < 0 if places < n_items else np.ones(len(ids), dtype=bool)
        listed = np.zeros((len(ids), n_items + 1), dtype=bool)
        rows = np.arange(len(ids))[:, None]
        listed[rows, ids] = True  # -1 is the last column
        others[listed[rows, others]] = PAD_ID
        return cls(np.hstack([ids, others]), np.hstack([scores, other_scores]), depth, all_ranked, all_favoured)

    def choose(self, choice: Choice, N: int) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_]]:
        """Ids and scores of the lists (B, N), and which of them would be the same with longer rankings (B,)."""
        chosen = choice.positions(self.ids, self.scores, N, self.depth)
        if choice.units is None:  # in the order of the scores
            chosen = np.sort(np.where(chosen < 0, self.ids.shape[1], chosen), axis=1)
            chosen[chosen == self.ids.shape[1]] = -1
        ids, scores = chosen_items(self.ids, self.scores, chosen)
        enough = self.all_favoured
        if choice.favoured is not None:
            favoured = (ids >= 0) & choice.favoured[np.maximum(ids, 0)]
            enough = enough | (favoured.sum(axis=1) >= choice.places)
        return ids, scores, self.all_ranked | ((ids >= 0).all(axis=1) & enough)


def _n_items(choice: Choice) -> int:
    """The number of items of the model."""
    return len(next(part for part in (choice.kinds, choice.units, choice.favoured) if part is not None))
