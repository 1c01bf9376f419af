"""What is alike: items by their vectors, users by where the model places them."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.validation import as_array
from recvae.errors import InvalidDataError, InvalidTypeError, NotFittedError, NotSupportedError, OutOfRangeError
from recvae.models.base.abilities import needs
from recvae.models.base.base import Model
from recvae.models.base.ranking import Items, allowed_items, check_users
from recvae.models.base.state import become, changes, reads
from recvae.utils.checks import check_integer
from recvae.utils.topk import Ranking, Scorer, rank

ENCODED = 2048  # rows at a time


class FindsSimilar(Model):
    """Neighbours of items and of users."""

    _index: Tensor | None  # where users are, (U, K)
    _index_given: bool  # and whether these are users that were given, not those of the fit

    @needs("_similarity")
    @reads
    def similar_items(
        self,
        itemid: Any,
        N: int = 10,
        recalculate_item: bool = False,
        item_users: Any = None,
        filter_items: Items | None = None,
        items: Items | None = None,
    ) -> Ranking:
        """The N items most like one, itself first (but for its equals), as implicit's `similar_items` gives them.

        Parameters
        ----------
        itemid
            An index, or a list of them; says the form of the answer too.
        recalculate_item, item_users
            implicit's, for items of other users; refused (NotSupportedError).
        filter_items : Items or None
            Leave out these.
        items : Items or None
            Only these (not both).

        Returns
        -------
        Ranking
            (ids int32, similarities float32), (N,) or (len(itemid), N), padded with -1 and -FLT_MAX; the cosine of the
            items' vectors, whatever these are in a model.

        Raises
        ------
        OutOfRangeError
            For items the model does not have.
        """
        if recalculate_item or item_users is not None:
            raise NotSupportedError(
                f"{type(self).__name__} does not make an item's vector anew from its users; expected item_users=None."
            )
        chosen = _indices("items", itemid, self.n_items_)
        return _ranked(
            lambda _, places: self._similarity(chosen[places]), itemid, self.n_items_, N, filter_items, items
        )

    @needs("_user_vectors")
    @changes
    def index_users(self, user_items: Any) -> Self:
        """Remember where the users of these rows are, for `similar_users`: row u is user u there.

        Parameters
        ----------
        user_items
            csr_matrix or csr_array (U, I). Keeps (U, K) float32, in memory only.

        Returns
        -------
        Self
            The model.
        """
        become(self, {"_index": self._placed(self._rows(user_items)), "_index_given": True})
        return self

    @needs("_user_vectors")
    @changes
    def partial_fit_users(self, userids: Any, user_items: Any) -> None:
        """Place users anew among those that `similar_users` knows, by their rows of today; the model stays.

        Parameters
        ----------
        userids
            (B,) users of the index, or beyond its end for new ones.
        user_items
            csr (B, I), a row for each.
        """
        rows = self._rows(user_items)
        users = check_users(userids, rows)
        if users.ndim != 1 or (users.size and (users.dtype.kind not in "iu" or users.min() < 0)):
            raise InvalidTypeError(f"Expected userids as integers from 0 on, got {userids!r}.")
        if len(np.unique(users)) < len(users):
            raise InvalidDataError("Expected each user once in userids, got some of them twice.")
        index, placed = self._user_index(), self._placed(rows)
        new = np.sort(users[users >= len(index)])
        if len(new) and new[-1] != len(index) + len(new) - 1:
            raise OutOfRangeError(
                f"Expected new users to follow the {len(index)} of the index without a gap, got {new[-1]}."
            )
        grown = torch.cat([index, index.new_empty(len(new), index.shape[1])])
        grown[torch.from_numpy(users.astype(np.int64))] = placed
        become(self, {"_index": grown, "_index_given": True})

    @needs("_user_vectors", "_known_users")
    @reads
    def similar_users(
        self, userid: Any, N: int = 10, filter_users: Items | None = None, users: Items | None = None
    ) -> Ranking:
        """The N users most like one, itself first, as implicit's `similar_users` gives them.

        Parameters
        ----------
        userid
            A row, or rows, of what `index_users` was given; without that, of what the model was fitted on in this
            process.
        filter_users : Items or None
            Leave out these.
        users : Items or None
            Only these (not both).

        Returns
        -------
        Ranking
            (ids int32, cosines float32), (N,) or (len(userid), N), padded with -1 and -FLT_MAX.

        Raises
        ------
        OutOfRangeError
            For users who are not in the index.
        NotFittedError
            Where there is none.
        """
        index = self._user_index()
        chosen = torch.from_numpy(_indices("users", userid, len(index)))
        return _ranked(lambda _, places: index[chosen[places]] @ index.T, userid, len(index), N, filter_users, users)

    def _user_index(self) -> Tensor:
        """Where users are, at unit norm. -> (U, K)"""
        index: Tensor | None = self.__dict__.get("_index")
        if index is None and self.__dict__.get("_index_given"):
            raise NotFittedError(
                "Expected index_users(rows) again: the model has learned on since, or is a copy, and knows no rows of "
                "that index."
            )
        if index is None:
            self._index = index = self._placed(self._trained_rows("similar_users (see index_users)"))
        return index

    def _placed(self, rows: sparse.csr_matrix) -> Tensor:
        """-> (B, K) on the host, at unit norm"""
        starts = range(0, max(1, rows.shape[0]), ENCODED)
        return unit(torch.cat([self._user_vectors(rows[start : start + ENCODED]).cpu() for start in starts]))


def unit(vectors: Tensor) -> Tensor:
    """Vectors at unit norm, one of zeros left as it is. (B, K) -> (B, K)"""
    return torch.nn.functional.normalize(vectors, dim=1)


def cosines(vectors: Tensor, items: NDArray[np.int64]) -> Tensor:
    """Cosines of some items' vectors with those of all. (I, F) -> (len(items), I)"""
    vectors = unit(vectors)
    return vectors[items] @ vectors.T


def _ranked(scorer: Scorer, asked: Any, n: int, N: int, left_out: Items | None, only: Items | None) -> Ranking:
    """The N best of n columns for each index that was asked for."""
    rows = sparse.csr_matrix((as_array(asked, "indices").size, n), dtype=np.float32)
    allowed = allowed_items(left_out, only, (rows.shape[0], n))
    N = check_integer("N", N, 1)
    if only is not None and allowed.items is not None:
        N = min(N, int(allowed.items.sum()))
    ids, scores = rank(scorer, rows, N, filter_seen=False, allowed=allowed)
    return (ids[0], scores[0]) if np.ndim(asked) == 0 else (ids, scores)


def _indices(kind: str, asked: Any, n: int) -> NDArray[np.int64]:
    """One index or several, as an array."""
    indices = np.atleast_1d(as_array(asked, kind))
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise InvalidTypeError(f"Expected {kind} by their indices, integers, got {asked!r}.")
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        raise OutOfRangeError(f"Expected {kind} from 0 to {n - 1}, got {indices.min()} to {indices.max()}.")
    return indices.astype(np.int64)
