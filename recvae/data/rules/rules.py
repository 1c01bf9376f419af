"""`Rules` in raw ids, and how they are resolved against the items of a model."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recvae.data.histories import read_histories
from recvae.data.ids import ItemIndex, listed
from recvae.data.rules.categories import category_rows
from recvae.data.rules.resolved import ItemRules, UnknownIds, UserItems
from recvae.data.tables.frames import number_ids, read_column
from recvae.errors import InvalidParameterError, InvalidTypeError, RecvaeError, shown
from recvae.utils.checks import check_integer
from recvae.utils.greedy import Choice, kinds_of, unit_rows

Mask = NDArray[np.bool_]


class UnknownIdsWarning(UserWarning):
    """Rules have ids that the model does not know; they have no effect.

    Parameters
    ----------
    unknown : tuple of UnknownIds
        How many, in which rule, and examples. They are not part of the message, which is constant, as that of
        `UnknownItemsWarning`.
    """

    def __init__(self, unknown: tuple[UnknownIds, ...]):
        super().__init__("Some ids in the rules are unknown and have no effect; the warning's `unknown` counts them.")
        self.unknown = unknown


@dataclass(frozen=True, kw_only=True, eq=False)
class Rules:
    """What may be in a list, in raw ids: for `recommend_for`, `recommend_to_parquet` and, as files, `recvae recommend`.

    An item may be ranked for a user if the allow lists have it (where there are any), the deny lists do not, and the
    user has neither seen nor liked it; liked items that may come again are allowed. So deny is stronger than allow, and
    both are stronger than "may come again". Categories, MMR and places for new items then choose from what is left.

    Parameters
    ----------
    allow, deny : sequence or frame, optional
        The only items to rank, and items not to rank, for all users: a list of ids, or a frame with a column of items.
    user_allow, user_deny : dict or frame, optional
        The same for each user: {user: [item, ...]}, or a frame with columns of users and items. Users who are not in
        `user_allow` are not restricted by it.
    may_repeat : bool, sequence or frame
        Whether items that the user liked may be in the list, as for repeated purchases: all of them, or those given.
        Items that were seen and not liked may not.
    only_users : sequence or frame, optional
        The only users who get lists.
    categories : dict or frame, optional
        {item: label or list of labels}, or a frame with columns of items and labels; "a|b" are two labels. Items
        without a label belong to no category.
    category : str
        The name of the column of labels.
    category_cap : int, optional
        The largest number of items of one category in a list.
    mmr : float, optional
        Rank by maximal marginal relevance, with the cosine of the items' labels as their similarity: from 0 (only
        variety counts) to 1 (only the score counts), as `trade_off` of `recvae.serving.rerank.mmr`.
    mmr_pool : int
        How many of the best items it orders; those after them follow by score, if the pool does not fill the list.
    new_items : sequence or frame, optional
        Items for which places are kept, such as those that are new in the catalogue.
    new_places : int or float, optional
        How many places of each list are theirs at least, or which share, between 0 and 1, rounded up. If fewer come by
        score, the last places go to the best of them, as long as a user has such that are allowed.

    Notes
    -----
    Frames are those of pandas, polars and pyarrow; their columns are called as those of the histories. Ids are matched
    as by `ItemIndex`. A list with fewer items than asked for is shorter: what is left is not filled up.
    """

    allow: Any = None
    deny: Any = None
    user_allow: Any = None
    user_deny: Any = None
    may_repeat: Any = False
    only_users: Any = None
    categories: Any = None
    category: str = "category"
    category_cap: int | None = None
    mmr: float | None = None
    mmr_pool: int = 100
    new_items: Any = None
    new_places: int | float | None = None

    def resolve(self, index: ItemIndex, *, user: str = "user", item: str = "item") -> ItemRules:
        """Look up all ids once, for any number of calls.

        Parameters
        ----------
        index : ItemIndex
            The items of the model, as `model.known_items()` gives them.
        user, item : str
            The columns of users and items in frames.

        Returns
        -------
        ItemRules
            For `ranked_table`; its `unknown` counts the ids without effect.

        Raises
        ------
        InvalidTypeError, InvalidDataError, InvalidParameterError
            For a rule that cannot be read or misses another one; the message begins with its name.
        """
        return _Resolver(self, index, user, item).resolved()


class _Resolver:
    """Reads one rule after the other, and collects the ids that the model does not know."""

    def __init__(self, rules: Rules, index: ItemIndex, user: str, item: str):
        self.rules, self.index, self.user, self.item = rules, index, user, item
        self.unknown: list[UnknownIds] = []

    def resolved(self) -> ItemRules:
        rules = self.rules
        allow, deny = self._items("allow"), self._items("deny")
        items = allow if deny is None else ~deny if allow is None else allow & ~deny
        repeats = rules.may_repeat
        return ItemRules(
            n_items=len(self.index),
            items=items,
            user_allow=self._pairs("user_allow"),
            user_deny=self._pairs("user_deny"),
            repeatable=repeats if isinstance(repeats, bool) else self._items("may_repeat"),
            only_users=self._users(),
            choice=self._choice(),
            new_share=self._new_share(),
            unknown=tuple(self.unknown),
        )

    def _items(self, name: str) -> Mask | None:
        """Mask of the items of a rule for all users; None without the rule."""
        value = getattr(self.rules, name)
        if value is None:
            return None
        try:
            ids = self._ids(name, value)
            positions = self.index.positions(ids)
        except RecvaeError as error:
            raise _about(name, error) from error
        self._count(name, ids, positions < 0)
        mask = np.zeros(len(self.index), dtype=bool)
        mask[positions[positions >= 0]] = True
        if name == "allow" and not mask.any():
            raise InvalidParameterError(
                f"Expected allow with at least one item that the model knows, such as {shown(next(iter(self.index)))}, "
                f"got none; leave it out to rank all items."
            )
        return mask

    def _ids(self, name: str, value: Any) -> list[Any]:
        """The distinct ids of a list, or of a column of a frame."""
        if isinstance(value, Mapping) or (self.user in _columns(value) and self.item in _columns(value)):
            what = "a dict" if isinstance(value, Mapping) else f"a column {self.user!r} too"
            hint = f"user_{name}" if name in ("allow", "deny") else "one column"
            raise InvalidTypeError(f"Expected items for all users, got {what}; give it as {hint}.")
        if _columns(value):
            ids: list[Any] = number_ids(read_column(value, self.item), self.item)[1].tolist()
            return ids
        return list(dict.fromkeys(listed(value, "items")))

    def _pairs(self, name: str) -> UserItems | None:
        """The items of each user in a rule for users; None without the rule."""
        value = getattr(self.rules, name)
        if value is None:
            return None
        try:
            if isinstance(value, (list, tuple)):
                raise InvalidTypeError(
                    f"Expected a dict {{user: [item, ...]}} or a frame with columns {self.user!r} and {self.item!r}, "
                    f"got {type(value).__name__}; items for all users are {name.removeprefix('user_')}."
                )
            pairs = read_histories(value, self.index, user=self.user, item=self.item)
        except RecvaeError as error:
            raise _about(name, error) from error
        if pairs.unknown.events:
            n_rows = pairs.unknown.events + int(pairs.rows.data.sum(dtype=np.float64))
            self.unknown.append(UnknownIds(name, pairs.unknown.events, n_rows, pairs.unknown.examples, "rows"))
        return UserItems.of(pairs.users, pairs.rows)

    def _users(self) -> ItemIndex | None:
        value = self.rules.only_users
        if value is None:
            return None
        try:
            if _columns(value):
                users = ItemIndex(number_ids(read_column(value, self.user), self.user)[1])
            else:
                users = ItemIndex(list(dict.fromkeys(listed(value, "users"))))
        except RecvaeError as error:
            raise _about("only_users", error) from error
        if not len(users):
            raise InvalidParameterError("Expected only_users with at least one user, got none; leave it out for all.")
        return users

    def _choice(self) -> Choice | None:
        """How items are chosen from the ranking; None where they are taken in order."""
        rules = self.rules
        if rules.categories is None:
            for name in ("category_cap", "mmr"):
                if getattr(rules, name) is not None:
                    raise InvalidParameterError(f"Expected categories for {name}, which it counts by, got None.")
        elif rules.category_cap is None and rules.mmr is None:
            raise InvalidParameterError("Expected category_cap or mmr with categories, got neither.")
        favoured = self._items("new_items")
        if (favoured is None) != (rules.new_places is None):
            raise InvalidParameterError("Expected new_items and new_places together, got one of them.")
        if rules.categories is None:
            return None if favoured is None else Choice(favoured=favoured)
        try:
            matrix, unknown = category_rows(rules.categories, self.index, self.item, rules.category)
        except RecvaeError as error:
            raise _about("categories", error) from error
        if unknown is not None:
            self.unknown.append(unknown)
        cap = rules.category_cap
        return Choice(
            kinds=None if cap is None else kinds_of(matrix),
            cap=0 if cap is None else check_integer("category_cap", cap, 1),
            units=None if rules.mmr is None else unit_rows(matrix.toarray()),
            trade_off=1.0 if rules.mmr is None else _check_weight(rules.mmr),
            pool=check_integer("mmr_pool", rules.mmr_pool, 1),
            favoured=favoured,
        )

    def _new_share(self) -> int | float:
        places = self.rules.new_places
        if isinstance(places, numbers.Real) and not isinstance(places, numbers.Integral) and 0 < float(places) < 1:
            return float(places)
        if isinstance(places, numbers.Real) and not isinstance(places, (numbers.Integral, bool)):
            raise InvalidParameterError(
                f"Expected new_places as a number of places, or a share between 0 and 1, got {shown(places)}."
            )
        return 0 if places is None else check_integer("new_places", places, 1)

    def _count(self, name: str, ids: list[Any], unknown: Mask) -> None:
        if unknown.any():
            examples = [ids[position] for position in np.flatnonzero(unknown)]
            self.unknown.append(UnknownIds.of_ids(name, examples, len(ids)))


def _columns(value: Any) -> list[Any]:
    """The columns of a frame; none for anything else."""
    names = getattr(value, "column_names", None)
    names = getattr(value, "columns", None) if names is None else names
    return [] if names is None or callable(names) else list(names)


def _about(name: str, error: RecvaeError) -> RecvaeError:
    return type(error)(f"{name}: {error}")


def _check_weight(value: Any) -> float:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool) and not math.isnan(float(value))
    if not real or not 0 <= float(value) <= 1:
        raise InvalidParameterError(f"Expected mmr from 0 to 1, got {shown(value)}.")
    return float(value)
