"""Ranking of items for rows: `recommend` by indices, `recommend_for` by raw ids, and plain scores."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.ids import Ids, ItemIndex
from recvae.data.rows import check_rows
from recvae.data.validation import as_array
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError, OutOfRangeError
from recvae.models.base.generative import Exploration, Explored
from recvae.utils.checks import check_integer
from recvae.utils.topk import BLOCK_BYTES, PAD_SCORE, Allowed, Ranking, Rough, Scorer, rank

if TYPE_CHECKING:
    import pyarrow as pa

    from recvae.data.histories import UnknownItems
    from recvae.data.rules import ItemRules, Rules
    from recvae.models.base import Recommender

Items = Sequence[int] | NDArray[np.integer]
# a list for all users, or a sparse matrix with a row of items for each
ItemsOf: TypeAlias = Items | sparse.csr_matrix | sparse.csr_array


class UnknownItemsWarning(UserWarning):
    """Histories have items that the model does not know; they were left out.

    Parameters
    ----------
    unknown : UnknownItems
        The number of events on such items, and examples of these. They are not part of the message, which is constant:
        Python remembers every distinct warning message while the process runs, and a service keeps meeting new items.
    """

    def __init__(self, unknown: UnknownItems):
        super().__init__(
            "Some events are on items that the model does not know and were left out; read_histories counts them."
        )
        self.unknown = unknown


class Filters(NamedTuple):
    """Which items may be recommended, as `Recommender.recommend` documents it."""

    filter_already_liked_items: bool
    filter_items: ItemsOf | None
    items: ItemsOf | None
    seen: Any


def recommend(
    model: Recommender,
    userid: Any,
    user_items: Any,
    N: int,
    filters: Filters,
    recalculate_user: bool,
    exploration: Exploration | None,
) -> Ranking | Explored:
    """See `Recommender.recommend`."""
    rows = model._rows(user_items)  # (B, I)
    users = check_users(userid, rows)  # (B,)
    N = check_integer("N", N, 1)
    allowed = allowed_items(filters.filter_items, filters.items, (len(users), model.n_items_), filters.seen)
    if allowed.items is not None and not sparse.issparse(filters.items) and filters.items is not None:
        N = min(N, int(allowed.items.sum()))
    scorer, explores = model._scorer(users, recalculate_user), False
    if exploration is not None and exploration.strength:
        scorer, explores = model._explorer(exploration.strength, exploration.of_users), True
    ids, scores = rank(  # (B, N) each
        scorer,
        rows,
        N,
        filter_seen=filters.filter_already_liked_items,
        allowed=allowed,
        parallel=not explores,  # draws are made for one block after the other
    )
    one_user = np.ndim(userid) == 0
    if exploration is None:
        return (ids[0], scores[0]) if one_user else (ids, scores)
    spread = model._spread(rows, ids, exploration.of_spread)
    return Explored(ids[0], scores[0], spread[0]) if one_user else Explored(ids, scores, spread)


def score(model: Recommender, user_items: Any, items: Items | None, userid: Any) -> NDArray[np.float32]:
    """See `Recommender.score`."""
    rows = model._rows(user_items)
    chosen = None if items is None else check_items("items", items, model.n_items_)
    result = np.empty((rows.shape[0], model.n_items_ if chosen is None else len(chosen)), dtype=np.float32)
    users = np.arange(rows.shape[0]) if userid is None else check_users(userid, rows)
    scorer: Scorer = (lambda rows, _: model._score(rows)) if userid is None else model._scorer(users, False)
    step = max(1, BLOCK_BYTES // (4 * model.n_items_))
    for start in range(0, rows.shape[0], step):
        block = slice(start, start + step)
        scores = scorer(rows[block], block)
        # low-precision screening is for ranking only; scores are exact
        exact = (model._score(rows[block]) if isinstance(scores, Rough) else scores).cpu().numpy()
        result[block] = exact if chosen is None else exact[:, chosen]
    if result.size and not result.max() < np.inf:  # NaN compares false
        raise InvalidDataError("Expected scores that are finite, got NaN or inf; the model's weights are damaged.")
    np.maximum(result, PAD_SCORE, out=result)
    return result


def recommend_for(
    model: Recommender,
    histories: Any,
    N: int,
    columns: Mapping[str, Any],
    min_value: float | None,
    seen: Any,
    filter_already_liked_items: bool,
    raw_items: Mapping[str, Sequence[Any] | None],
    rules: Rules | None,
) -> Any:
    """See `Recommender.recommend_for`. `raw_items`: its filter_items and items by name."""
    from recvae.data.histories import as_frame, read_histories

    index, user, item = model.known_items(), str(columns["user"]), str(columns["item"])
    if columns["behavior"] is not None and columns["weights"] is None:
        columns = {**columns, "weights": model.preparation_.get("weights")}
    parsed = read_histories(histories, index, min_value=min_value, seen=seen, **columns)
    if parsed.unknown.events:
        warnings.warn(UnknownItemsWarning(parsed.unknown), stacklevel=4)  # this, the method, `reads`, the caller
    resolved = None if rules is None else rules.resolve(index, user=user, item=item)
    if resolved is not None and (unknown := resolved.unknown + resolved.unknown_users(parsed.users)):
        from recvae.data.rules import UnknownIdsWarning

        warnings.warn(UnknownIdsWarning(unknown), stacklevel=4)
    filters: dict[str, Any] = {name: _known_indices(index, name, ids) for name, ids in raw_items.items()}
    filters |= {"seen": parsed.seen, "filter_already_liked_items": filter_already_liked_items}
    return as_frame(model.ranked_table(parsed.users, parsed.rows, N, rules=resolved, **filters), histories)


def ranked_table(
    model: Recommender, users: Ids, user_items: Any, N: int, rules: ItemRules | None, filters: Mapping[str, Any]
) -> pa.Table:
    """See `Recommender.ranked_table`."""
    from recvae.data.histories import ranking_table

    model.known_items()
    N = min(check_integer("N", N, 1), model.n_items_)  # padding has no row in the table
    if rules is None:
        ids, scores = model.recommend(np.arange(len(users)), user_items, N, recalculate_user=True, **filters)
    else:
        users, ids, scores = _under_rules(model, users, user_items, N, rules, **filters)
    return ranking_table(users, ids, scores, np.asarray(model.item_ids_), model.titles_)


def _under_rules(
    model: Recommender,
    users: Ids,
    user_items: Any,
    N: int,
    rules: ItemRules,
    seen: Any = None,
    filter_items: ItemsOf | None = None,
    items: ItemsOf | None = None,
    filter_already_liked_items: bool = True,
) -> tuple[Ids, NDArray[np.int32], NDArray[np.float32]]:
    """The users who get lists, with their ids and scores."""
    rows = model._rows(user_items)  # (U, I)
    check_users(np.arange(len(users)), rows)
    allowed = allowed_items(filter_items, items, (len(users), model.n_items_), seen)
    chosen = rules.select(users)
    if chosen is not None:
        users, rows, allowed = users[chosen], rows[chosen], allowed.take(chosen)

    def rank_some(some: NDArray[np.int64], N: int, allowed: Allowed, filter_seen: bool) -> Ranking:
        part = rows if len(some) == rows.shape[0] else rows[some]
        return rank(model._scorer(some, True), part, N, filter_seen=filter_seen, allowed=allowed)

    return users, *rules.rank(rank_some, users, N, allowed, filter_already_liked_items)


def known_items(model: Recommender) -> ItemIndex:
    """See `Recommender.known_items`."""
    model._check_fitted()
    if model.item_ids_ is None:
        raise InvalidDataError(
            f"Expected a {type(model).__name__} that knows raw ids, got one trained on a bare matrix; fit it on "
            f"Interactions."
        )
    index: tuple[Ids, ItemIndex] | None = model.__dict__.get("_item_index")
    if index is None or index[0] is not model.item_ids_:
        model._item_index = index = (model.item_ids_, ItemIndex(model.item_ids_))
    return index[1]


def _known_indices(index: ItemIndex, name: str, ids: Sequence[Any] | None) -> NDArray[np.int64] | None:
    """Indices of the raw ids that the model knows; the others are ignored."""
    if ids is None:
        return None
    indices = index.positions(ids)
    indices = indices[indices >= 0]
    if name == "items" and not len(indices):
        raise InvalidParameterError("Expected items of which the model knows at least one, got none.")
    return indices


def allowed_items(
    filter_items: ItemsOf | None, items: ItemsOf | None, shape: tuple[int, int], seen: Any = None
) -> Allowed:
    """The items that may be ranked, from lists and matrices, for each of `shape[0]` users among `shape[1]` items."""
    lists: dict[str, NDArray[np.int64]] = {}
    matrices: dict[str, sparse.csr_matrix] = {}
    for name, value in (("filter_items", filter_items), ("items", items)):
        if sparse.issparse(value):
            matrices[name] = _rows_of_items(name, value, shape)
        elif value is not None and (name == "items" or as_array(value, name).size):
            lists[name] = check_items(name, value, shape[1])
    if len(lists) == 2:
        raise InvalidParameterError("Can't specify both filter_items and items; leave filter_items out of items.")
    mask = None
    for name, chosen in lists.items():
        mask = np.full(shape[1], name == "filter_items")
        mask[chosen] = name == "items"
    seen_items = None if seen is None else _rows_of_items("seen", _ones(seen), shape)
    return Allowed(mask, matrices.get("items"), matrices.get("filter_items"), seen_items)


def check_users(userid: Any, rows: sparse.csr_matrix) -> NDArray[Any]:
    """`userid`, one or several, as an array with an entry for each row. Raises InvalidDataError."""
    users = np.atleast_1d(as_array(userid, "userid"))
    if rows.shape[0] != len(users):
        raise InvalidDataError(
            f"user_items must contain 1 row for every user in userids: expected {len(users)}, got {rows.shape[0]}."
        )
    return users


def check_items(name: str, items: Items, n_items: int) -> NDArray[np.int64]:
    """Item indices as a non-empty array. Raises InvalidParameterError, InvalidTypeError, OutOfRangeError."""
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


def _ones(matrix: Any) -> Any:
    """A CSR matrix with 1 for each stored entry, whatever its value; others as they are, refused later."""
    if not sparse.issparse(matrix) or matrix.format != "csr":
        return matrix
    ones = copy.copy(matrix)  # shares the indices, which `check_rows` validates later
    ones.data = np.ones(np.shape(matrix.data), dtype=np.float32)
    return ones


def _rows_of_items(name: str, matrix: Any, shape: tuple[int, int]) -> sparse.csr_matrix:
    rows = check_rows(matrix, shape[1], name=name)
    if rows.shape[0] != shape[0]:
        raise InvalidDataError(f"Expected a row of {name} for each of {shape[0]} users, got {rows.shape[0]}.")
    return rows
