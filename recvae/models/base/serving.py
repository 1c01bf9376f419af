"""Raw ids in, raw ids out: recommendations for whoever has a history of items that have names."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recvae.data.histories import UnknownItems, as_frame, ranking_table, read_histories
from recvae.data.ids import Ids, ItemIndex
from recvae.errors import InvalidDataError, InvalidParameterError
from recvae.models.base.ranking import Ranks
from recvae.models.base.state import reads
from recvae.utils.checks import check_integer


class UnknownItemsWarning(UserWarning):
    """Histories have items that the model does not know, which were left out.

    Parameters
    ----------
    unknown : UnknownItems
        How many events are on such items, and some of these. The text is the same each time: Python keeps each text
        that it has warned of for as long as the process runs, and a service meets new items without end.
    """

    def __init__(self, unknown: UnknownItems):
        super().__init__(
            "Some events are on items that the model does not know and were left out; read_histories counts them."
        )
        self.unknown = unknown


class Serves(Ranks):
    """Recommendations by raw ids."""

    _item_index: tuple[Ids, ItemIndex]  # of which ids, made at the first call

    @reads
    def recommend_for(
        self,
        histories: Any,
        N: int = 10,
        *,
        user: str = "user",
        item: str = "item",
        value: str | None = None,
        min_value: float | None = None,
        seen: Any = None,
        filter_already_liked_items: bool = True,
        filter_items: Sequence[Any] | None = None,
        items: Sequence[Any] | None = None,
    ) -> Any:
        """The N best items for each history: a frame with columns user, rank, item, score and, where known, title.

        Parameters
        ----------
        histories
            {user: [item, ...]}, a list of such lists, whose users are then 0, 1, ..., or a frame (pandas, polars,
            pyarrow) with columns `user`, `item` and, where it is named, `value`; in raw ids.
        min_value : float or None
            With a frame that has values, such as ratings: what has at least this value was liked, and is what the model
            reads; what has less was seen, and is not recommended. A value of 0 is seen in any case.
        seen
            What users have touched besides, in raw ids, as one of the forms of `histories` (a frame with the same names
            of columns): it is not recommended either. Items that the model does not know count for nothing.
        filter_already_liked_items : bool
            Leave out the items of the history that were liked; what was seen is left out always.
        filter_items, items : Sequence[Any] or None
            Raw ids to leave out, or to rank alone; those that are not known count for nothing.

        Returns
        -------
        object
            The kind of frame that came, else a pyarrow table (`.to_pandas()`, `.to_pylist()`), a row for each item that
            is recommended: fewer than N where there are no more. Items that the model does not know are left out of the
            histories, with an UnknownItemsWarning whose `unknown` counts them (its text is always the same); a user who
            has no others, or liked nothing, is recommended what the model recommends to someone without a history, less
            what was seen. Users who are in `seen` alone come after the others, or among them where these are in
            ascending order, as those of a frame are.

        Raises
        ------
        InvalidDataError
            For a model that was trained without raw ids.
        RecvaeError
            As `read_histories` and `recommend`.
        """
        index = self.known_items()
        read = read_histories(histories, index, user=user, item=item, value=value, min_value=min_value, seen=seen)
        if read.unknown.events:
            warnings.warn(UnknownItemsWarning(read.unknown), stacklevel=3)  # this, `reads`, the caller
        table = self.ranked_table(
            read.users,
            read.rows,
            N,
            seen=read.seen,
            filter_already_liked_items=filter_already_liked_items,
            filter_items=self._places("filter_items", filter_items),
            items=self._places("items", items),
        )
        return as_frame(table, histories)

    @reads
    def ranked_table(self, users: Ids, user_items: Any, N: int, **rules: Any) -> pa.Table:
        """The N best items for each row as a table of raw ids, as `recommend_for` has it; rows are always encoded.

        Parameters
        ----------
        users : Ids
            (U,) raw ids of the rows.
        user_items
            csr (U, I); rules : as `recommend` has them.
        """
        self.known_items()
        N = min(check_integer("N", N, 1), self.n_items_)  # what is padded has no row in the table
        ids, scores = self.recommend(np.arange(len(users)), user_items, N, recalculate_user=True, **rules)
        return ranking_table(users, ids, scores, np.asarray(self.item_ids_), self.titles_)

    @reads
    def known_items(self) -> ItemIndex:
        """The places of the raw ids that the model knows. Raises InvalidDataError for one that knows none."""
        self._check_fitted()
        if self.item_ids_ is None:
            raise InvalidDataError(
                f"Expected a {type(self).__name__} that knows raw ids, got one trained on a bare matrix; fit it on "
                f"Interactions."
            )
        made: tuple[Ids, ItemIndex] | None = self.__dict__.get("_item_index")
        if made is None or made[0] is not self.item_ids_:
            self._item_index = made = (self.item_ids_, ItemIndex(self.item_ids_))
        return made[1]

    def _places(self, name: str, raw: Sequence[Any] | None) -> NDArray[np.int64] | None:
        """Indices of those raw ids that are known."""
        if raw is None:
            return None
        found = self.known_items().positions(raw)
        found = found[found >= 0]
        if name == "items" and not len(found):
            raise InvalidParameterError("Expected items of which the model knows at least one, got none.")
        return found
