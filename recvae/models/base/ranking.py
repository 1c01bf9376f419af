"""Which items are best for a row: `recommend` as implicit has it, `score` for whoever ranks elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.rows import check_rows
from recvae.data.validation import as_array
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError, OutOfRangeError
from recvae.models.base.exploring import Explored, Explores
from recvae.models.base.state import reads, snapshot
from recvae.utils.checks import check_integer
from recvae.utils.topk import BLOCK_BYTES, PAD_SCORE, Allowed, Ranking, Rough, Scorer, rank

Items = Sequence[int] | NDArray[np.integer]
# of all users at once, or a sparse matrix with a row of items for each
ItemsOf: TypeAlias = Items | sparse.csr_matrix | sparse.csr_array


class Ranks(Explores):
    """Ranking the items for rows of a users x items matrix."""

    @overload
    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = ...,
        filter_already_liked_items: bool = ...,
        filter_items: ItemsOf | None = ...,
        recalculate_user: bool = ...,
        items: ItemsOf | None = ...,
        *,
        seen: Any = ...,
        explore: None = ...,
        random_state: int | None = ...,
    ) -> Ranking: ...

    @overload
    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = ...,
        filter_already_liked_items: bool = ...,
        filter_items: ItemsOf | None = ...,
        recalculate_user: bool = ...,
        items: ItemsOf | None = ...,
        *,
        seen: Any = ...,
        explore: float,
        random_state: int | None = ...,
    ) -> Explored: ...

    @reads
    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: ItemsOf | None = None,
        recalculate_user: bool = False,
        items: ItemsOf | None = None,
        *,
        seen: Any = None,
        explore: float | None = None,
        random_state: int | None = None,
    ) -> Ranking | Explored:
        """The N best items for each row, as implicit's `recommend` gives them.

        Parameters
        ----------
        userid
            A number, for one user, or a list of them; says only the form of the answer (but see `KnownUsers`).
        user_items
            csr_matrix or csr_array with one row for each userid, over the items of training.
        filter_already_liked_items : bool
            Leave out the items of the row.
        seen
            csr_matrix or csr_array with one row for each userid, of items that the user has touched without liking
            them, such as ratings below what `user_items` has: left out always, `filter_already_liked_items=False` or
            not, which speaks of the row alone. Each stored entry counts, whatever its value: a rating of 0 is one.
        filter_items : ItemsOf or None
            Leave out these as well.
        items : ItemsOf or None
            Rank only these. A list is for all users, and there may be one of the two; a CSR matrix has a row of items
            for each user, and may stand beside the other.
        recalculate_user : bool
            Accepted as in implicit; rows are always encoded anew (but see `KnownUsers`).
        explore : float or None
            Rank by the scores at z = mu + explore * sigma * eps, one draw eps ~ N(0, I) for each row, of models with a
            distribution over z: 0 gives the plain lists, 1 is Thompson sampling (Thompson 1933).
        random_state : int or None
            Seed of these draws, in the order of the rows; None draws one.

        Returns
        -------
        Ranking or Explored
            (ids int32, scores float32) by descending score, equal scores by ascending id; of shape (N,) for one user
            and (len(userid), N) for a list. Where there are no more items to give, id -1 and score -FLT_MAX: a user for
            whom nothing is left gets a list of these alone. With a list of `items`, N is at most their number. With
            `explore`, an `Explored`: ids, scores at z, and how unsure the model is of each.

        Raises
        ------
        NotFittedError
        InvalidTypeError, InvalidDataError
            For rows that do not fit.
        OutOfRangeError
            For items the model does not have.
        InvalidParameterError
            For N < 1 or explore < 0.
        NotSupportedError
            For `explore` of a model without such a distribution.
        """
        exploration = self._exploration(explore, random_state)
        rows = self._rows(user_items)
        users = check_users(userid, rows)
        scalar = np.ndim(userid) == 0
        N = check_integer("N", N, 1)
        allowed = allowed_items(filter_items, items, (len(users), self.n_items_), seen)
        if allowed.items is not None and not sparse.issparse(items) and items is not None:
            N = min(N, int(allowed.items.sum()))
        scorer = self._scorer(users, recalculate_user)
        if exploration is not None and exploration.strength:
            scorer = self._explorer(exploration.strength, exploration.of_users)
        ids, scores = rank(scorer, rows, N, filter_seen=filter_already_liked_items, allowed=allowed)
        if exploration is None:
            return (ids[0], scores[0]) if scalar else (ids, scores)
        spread = self._spread(rows, ids, exploration.of_spread)
        return Explored(ids[0], scores[0], spread[0]) if scalar else Explored(ids, scores, spread)

    @reads
    def score(self, user_items: Any, items: Items | None = None, *, userid: Any = None) -> NDArray[np.float32]:
        """Scores of all items, or of `items` in their order, for rows: for ensembles and other rankers.

        Parameters
        ----------
        user_items
            csr_matrix or csr_array (B, I).
        items : Items or None
            Indices.
        userid
            (B,), which only `KnownUsers` look at.

        Returns
        -------
        NDArray[np.float32]
            (B, I) or (B, len(items)) float32, seen items among them, and -FLT_MAX where the model has no score.

        Raises
        ------
        RecvaeError
            As `recommend`.
        """
        rows = self._rows(user_items)
        chosen = None if items is None else check_items("items", items, self.n_items_)
        found = np.empty((rows.shape[0], self.n_items_ if chosen is None else len(chosen)), dtype=np.float32)
        users = np.arange(rows.shape[0]) if userid is None else check_users(userid, rows)
        scorer: Scorer = (lambda rows, _: self._score(rows)) if userid is None else self._scorer(users, False)
        step = max(1, BLOCK_BYTES // (4 * self.n_items_))
        for start in range(0, rows.shape[0], step):
            places = slice(start, start + step)
            scores = scorer(rows[places], places)
            block = (self._score(rows[places]) if isinstance(scores, Rough) else scores).cpu().numpy()
            found[places] = block if chosen is None else block[:, chosen]
        if found.size and not found.max() < np.inf:  # NaN compares false
            raise InvalidDataError("Expected scores that are finite, got NaN or inf; the model's weights are damaged.")
        np.maximum(found, PAD_SCORE, out=found)
        return found

    def _snapshot(self) -> Self:
        """The model as it is now, for those who ask it more than once."""
        return snapshot(self)


def allowed_items(
    filter_items: ItemsOf | None, items: ItemsOf | None, shape: tuple[int, int], seen: Any = None
) -> Allowed:
    """What may be ranked for each of `shape[0]` users among `shape[1]` items, from lists and matrices."""
    lists: dict[str, NDArray[np.int64]] = {}
    matrices: dict[str, sparse.csr_matrix] = {}
    for name, given in (("filter_items", filter_items), ("items", items)):
        if sparse.issparse(given):
            matrices[name] = _rows_of_items(name, given, shape)
        elif given is not None and (name == "items" or as_array(given, name).size):
            lists[name] = check_items(name, given, shape[1])
    if len(lists) == 2:
        raise InvalidParameterError("Can't specify both filter_items and items; leave filter_items out of items.")
    mask = None
    for name, chosen in lists.items():
        mask = np.full(shape[1], name == "filter_items")
        mask[chosen] = name == "items"
    touched = None if seen is None else _rows_of_items("seen", _structure(seen), shape)
    return Allowed(mask, matrices.get("items"), matrices.get("filter_items"), touched)


def check_users(userid: Any, rows: sparse.csr_matrix) -> NDArray[Any]:
    """A user or several as an array, one for each row. Raises InvalidDataError."""
    users = np.atleast_1d(as_array(userid, "userid"))
    if rows.shape[0] != len(users):
        raise InvalidDataError(
            f"user_items must contain 1 row for every user in userids: expected {len(users)}, got {rows.shape[0]}."
        )
    return users


def check_items(name: str, items: Items, n_items: int) -> NDArray[np.int64]:
    """Indices of items as an array, of at least one. Raises InvalidParameterError, -TypeError, OutOfRangeError."""
    chosen = as_array(items, name)
    if not chosen.size:
        raise InvalidParameterError(f"Expected at least one item to rank, got {name} without any.")
    if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
        raise InvalidTypeError(
            f"Expected {name} as a list of integers, the indices of items, got {chosen.dtype} of shape "
            f"{chosen.shape}; items of each user go into a sparse matrix."
        )
    if chosen.min() < 0 or chosen.max() >= n_items:
        raise OutOfRangeError(
            f"Some of selected itemids are not in the model: expected 0 to {n_items - 1}, "
            f"got {chosen.min()} to {chosen.max()}."
        )
    return chosen.astype(np.int64)


def _structure(given: Any) -> Any:
    """A CSR matrix in which each stored entry is 1, whatever it was; anything else as it is, to be refused."""
    if not sparse.issparse(given) or given.format != "csr":
        return given
    ones = copy.copy(given)  # shares the indices, which are checked as those of any rows
    ones.data = np.ones(np.shape(given.data), dtype=np.float32)
    return ones


def _rows_of_items(name: str, given: Any, shape: tuple[int, int]) -> sparse.csr_matrix:
    rows = check_rows(given, shape[1], name=name)
    if rows.shape[0] != shape[0]:
        raise InvalidDataError(f"Expected a row of {name} for each of {shape[0]} users, got {rows.shape[0]}.")
    return rows
