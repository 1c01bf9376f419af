"""Similar items, by their vectors, and similar users, by the vectors that a model computes from their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.validation import as_array
from recvae.errors import InvalidDataError, InvalidTypeError, NotFittedError, OutOfRangeError
from recvae.models.base.recommend import Items, allowed_items, check_users
from recvae.utils.checks import check_integer
from recvae.utils.topk import Ranking, Scorer, rank

if TYPE_CHECKING:
    from recvae.models.base import Recommender

ENCODE_ROWS = 2048  # rows encoded at a time


def similar_items(model: Recommender, itemid: Any, N: int, filter_items: Items | None, items: Items | None) -> Ranking:
    """See `Recommender.similar_items`."""
    chosen = _indices("items", itemid, model.n_items_)
    return _ranked(lambda _, block: model._similarity(chosen[block]), itemid, model.n_items_, N, filter_items, items)


def similar_users(model: Recommender, userid: Any, N: int, filter_users: Items | None, users: Items | None) -> Ranking:
    """See `Recommender.similar_users`."""
    index = user_index(model)  # (U, K)
    chosen = torch.from_numpy(_indices("users", userid, len(index)))
    return _ranked(lambda _, block: index[chosen[block]] @ index.T, userid, len(index), N, filter_users, users)


def user_index(model: Recommender) -> Tensor:
    """Vectors of the users that `similar_users` knows, at unit norm. -> (U, K)"""
    if model._defines("_known_users"):
        return unit(model._known_users())
    index: Tensor | None = model.__dict__.get("_index")
    if index is None and model.__dict__.get("_index_given"):
        raise NotFittedError(
            "Expected index_users(rows) again: the model has been trained further since, or is a copy, and has no rows "
            "of that index."
        )
    if index is None:
        model._index = index = encode_users(model, model._training_rows("similar_users (see index_users)"))
    return index


def updated_index(model: Recommender, userids: Any, user_items: Any) -> Tensor:
    """The user index with the vectors of some users replaced, and new users at the end. -> (U + n, K)"""
    rows = model._rows(user_items)
    users = check_users(userids, rows)
    if users.ndim != 1 or (users.size and (users.dtype.kind not in "iu" or users.min() < 0)):
        raise InvalidTypeError(f"Expected userids as integers from 0 on, got {userids!r}.")
    if len(np.unique(users)) < len(users):
        raise InvalidDataError("Expected each user once in userids, got some of them twice.")
    index, vectors = user_index(model), encode_users(model, rows)
    new = np.sort(users[users >= len(index)])
    if len(new) and new[-1] != len(index) + len(new) - 1:
        raise OutOfRangeError(
            f"Expected new users to follow the {len(index)} of the index without a gap, got {new[-1]}."
        )
    updated = torch.cat([index, index.new_empty(len(new), index.shape[1])])
    updated[torch.from_numpy(users.astype(np.int64))] = vectors
    return updated


def encode_users(model: Recommender, rows: sparse.csr_matrix) -> Tensor:
    """Vectors of users at unit norm, on the CPU. (B, I) -> (B, K)"""
    starts = range(0, max(1, rows.shape[0]), ENCODE_ROWS)
    return unit(torch.cat([model._user_vectors(rows[start : start + ENCODE_ROWS]).cpu() for start in starts]))


def unit(vectors: Tensor) -> Tensor:
    """Vectors scaled to unit norm; zero vectors stay zero. (B, K) -> (B, K)"""
    return torch.nn.functional.normalize(vectors, dim=1)


def cosines(vectors: Tensor, items: NDArray[np.int64]) -> Tensor:
    """Cosines between the vectors of some items and those of all items. (I, F) -> (len(items), I)"""
    vectors = unit(vectors)
    return vectors[items] @ vectors.T


def _ranked(scorer: Scorer, query: Any, n: int, N: int, left_out: Items | None, only: Items | None) -> Ranking:
    """The N best of n columns for each index of the query."""
    rows = sparse.csr_matrix((as_array(query, "indices").size, n), dtype=np.float32)
    allowed = allowed_items(left_out, only, (rows.shape[0], n))
    N = check_integer("N", N, 1)
    if only is not None and allowed.items is not None:
        N = min(N, int(allowed.items.sum()))
    ids, scores = rank(scorer, rows, N, filter_seen=False, allowed=allowed)
    return (ids[0], scores[0]) if np.ndim(query) == 0 else (ids, scores)


def _indices(kind: str, query: Any, n: int) -> NDArray[np.int64]:
    """One index or several, as an array."""
    indices = np.atleast_1d(as_array(query, kind))
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise InvalidTypeError(f"Expected {kind} by their indices, integers, got {query!r}.")
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        raise OutOfRangeError(f"Expected {kind} from 0 to {n - 1}, got {indices.min()} to {indices.max()}.")
    return indices.astype(np.int64)
