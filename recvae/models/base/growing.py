"""Models that outlive their data: they learn on from new rows, and take in items that were not there at training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from scipy import sparse

from recvae.data.ids import Ids, id_array, match_ids
from recvae.data.interactions import Interactions
from recvae.data.rows import check_rows, transform_values
from recvae.data.validation import checked_sparse
from recvae.errors import InvalidDataError, InvalidTypeError
from recvae.models.base.abilities import needs
from recvae.models.base.base import Callbacks, FitCallback, FitRun, Model
from recvae.models.base.params import check_params
from recvae.models.base.state import become, changes
from recvae.training.callbacks import as_callbacks, dispatch
from recvae.utils.checks import check_integer

Names = Sequence[Any] | Ids | None


class Grows(Model):
    """Learning on, and new items."""

    @needs("_learn_on")
    @changes
    def partial_fit(
        self,
        user_items: Any,
        *,
        epochs: int | None = None,
        item_ids: Names = None,
        titles: Names = None,
        show_progress: bool = True,
        callback: FitCallback | None = None,
        callbacks: Callbacks = (),
    ) -> Self:
        """Learn on from new rows, in which there may be new items, and return the model.

        Parameters
        ----------
        user_items
            Interactions, whose columns are matched by raw id, and those that the model does not know are new items, in
            their order there, with their titles; or a csr_matrix or csr_array (users, I + n), whose last n columns are
            new items. Users are whoever is in the rows; values are read as in `fit`.
        epochs : int or None
            Further passes (of RecVAE and HybridVAE, rounds of them); by default a tenth of the model's `epochs`,
            rounded up; 0 for new items alone.
        item_ids, titles : Names
            Of new items, (n,), where a matrix brings them to a model that knows raw ids.
        show_progress, callback, callbacks
            As in `fit`.

        Raises
        ------
        InvalidDataError
            For fewer columns than the model has, for rows without events, for ids that are not known where they have to
            be.
        RecvaeError
            As `fit`.

        Notes
        -----
        New items come after the others, which keep their places, and, until the first pass, their scores: a new item
        begins as the mean of the 20 old ones that are nearest to it by the cosine over the users of these rows. The
        passes are those of `fit` at the KL weight it ended with, with Adam at the model's learning rate and from a
        fresh state, and `random_state` decides all draws. What is not in the rows is in time forgotten: give old ones
        among them.

        Of a HybridVAE the network learns on; its linear path gets the new items, and is else that of `fit`, as are
        `history_` and `best_epoch_` of all models. `trained_on_` becomes None, for there is no longer one source, and
        the users of an index are to be given again (`index_users`). What goes wrong leaves the model as it was.
        """
        check_params(self)
        epochs = None if epochs is None else check_integer("epochs", epochs, 0)
        rows, names = self._wider_rows(user_items, item_ids, titles)
        if rows.nnz == 0:
            raise InvalidDataError(
                f"Expected at least one event to learn from, got a matrix of {rows.shape} without any."
            )
        run = FitRun(self.values_, show_progress, callback, None, as_callbacks(callbacks))
        with dispatch(run.callbacks, self._start("partial_fit", rows, run)):
            learned = self._learn_on(transform_values(rows, self.values_), epochs, run)
        self._take_in(learned | names | {"trained_on_": None, "_index": None}, rows.shape[1])
        return self

    @needs("_place_items")
    @changes
    def add_items(self, item_features: Any, *, item_ids: Names = None, titles: Names = None) -> Self:
        """Take in items that nobody has touched yet, by their features, and return the model.

        Parameters
        ----------
        item_features
            csr_matrix or csr_array (I + n, F) of any numbers; the first I rows are those of the model's items, in its
            order.
        item_ids, titles : Names
            Of the new items, (n,), where the model knows raw ids.

        Raises
        ------
        InvalidDataError
            For another number of rows, numbers that are not finite, and ids that are missing or known already.
        NotEnoughMemoryError

        Notes
        -----
        The new items come after the others, whose scores stay. Their vectors, in the first layer and in the output
        layer, and their bias are predicted from the features by a ridge regression over the old items, whose penalty is
        chosen by leaving these out one by one. Columns count as they are scaled: 0 and 1, or standardised. In a
        HybridVAE the linear path takes the mean of the 20 items that are nearest by the cosine of features. New items
        are ranked well among themselves, but timidly among all (see `recommend`'s `items`); `partial_fit` with rows
        that have them does the rest.
        """
        features = _features(item_features, self.n_items_)
        n_items = int(features.shape[0])
        names = self._names(n_items - self.n_items_, item_ids, titles)
        self._take_in(self._place_items(features) | names, n_items)
        return self

    def _take_in(self, learned: dict[str, Any], n_items: int) -> None:
        """Become the grown model."""
        trained: sparse.csr_matrix | None = self.__dict__.get("_trained")
        if trained is not None:
            learned = learned | {"_trained": _widened(trained, n_items)}
        become(self, learned | {"n_items_": n_items})

    def _wider_rows(self, user_items: Any, ids: Names, titles: Names) -> tuple[sparse.csr_matrix, dict[str, Any]]:
        """Rows over the model's items and then the new ones; and what ids and titles become."""
        if not isinstance(user_items, Interactions):
            rows = check_rows(user_items, convert=True)
            if rows.shape[1] < self.n_items_:
                raise InvalidDataError(
                    f"Expected {self.n_items_} columns for the model's items, and more for new ones, got "
                    f"{rows.shape[1]}."
                )
            return rows, self._names(rows.shape[1] - self.n_items_, ids, titles)
        if ids is not None or titles is not None:
            raise InvalidDataError("Expected item_ids and titles beside a matrix alone; Interactions have their own.")
        if self.item_ids_ is None:
            raise InvalidDataError("Expected a matrix, for this model was fitted on one and knows no raw ids.")
        place = match_ids(user_items.item_ids, self.item_ids_)
        new = np.flatnonzero(place < 0)
        place[new] = self.n_items_ + np.arange(len(new))
        known = None if user_items.titles is None or self.titles_ is None else user_items.titles[new]
        cells = user_items.matrix.tocoo()
        shape = (user_items.n_users, self.n_items_ + len(new))
        matrix = sparse.csr_matrix((cells.data, (cells.row, place[cells.col])), shape=shape)
        return check_rows(matrix), self._names(len(new), user_items.item_ids[new], known)

    def _names(self, n: int, ids: Names, titles: Names) -> dict[str, Any]:
        """The model's ids and titles with those of n new items at their end."""
        for name, own, given in (("item_ids", self.item_ids_, ids), ("titles", self.titles_, titles)):
            if given is not None and own is None:
                raise InvalidDataError(f"Expected no {name} for a model that has none of its own items.")
            if given is not None and len(given) != n:
                raise InvalidDataError(f"Expected {n} {name}, one for each new item, got {len(given)}.")
        if self.item_ids_ is None or n == 0:
            return {}
        if ids is None:
            raise InvalidDataError(f"Expected item_ids for {n} new items, as the model knows its items by raw ids.")
        grown: dict[str, Any] = {"item_ids_": _joined(self.item_ids_, ids)}
        if self.titles_ is not None:
            texts = [*self.titles_.tolist(), *(ids if titles is None else titles)]
            grown["titles_"] = np.array([str(text) for text in texts], dtype=object)
        return grown


def _joined(known: Ids, new: Sequence[Any] | Ids) -> Ids:
    """All ids; as text, where those on one side are numbers and on the other text, as `match_ids` has it."""
    names = [*known.tolist(), *np.asarray(new, dtype=object).tolist()]
    if any(isinstance(name, str) for name in names):
        names = [str(name) for name in names]
    seen: set[Any] = set()
    for name in names:
        if name in seen:
            raise InvalidDataError(f"Expected new items with ids of their own, got {name!r} twice.")
        seen.add(name)
    return id_array(names, "item_ids")


def _features(item_features: Any, n_items: int) -> sparse.csr_matrix:
    """Features as a canonical matrix of float64, a row for each item. Raises InvalidTypeError, InvalidDataError."""
    if not sparse.issparse(item_features) or item_features.format != "csr" or item_features.ndim != 2:
        raise InvalidTypeError(
            f"item_features needs to be a CSR sparse matrix, got {type(item_features).__name__}; make one with "
            f"scipy.sparse.csr_matrix(...)."
        )
    if item_features.shape[0] <= n_items or item_features.shape[1] == 0:
        raise InvalidDataError(
            f"Expected features of the model's {n_items} items and then of new ones, got a matrix of "
            f"{item_features.shape}."
        )
    checked = checked_sparse(item_features, "item_features")
    if checked.data.dtype.kind not in "buif" or not np.isfinite(checked.data).all():
        raise InvalidDataError("Expected features that are finite numbers, got others.")
    features = sparse.csr_matrix(checked, dtype=np.float64, copy=True)
    features.sum_duplicates()
    features.eliminate_zeros()
    return features


def _widened(rows: sparse.csr_matrix, n_items: int) -> sparse.csr_matrix:
    """The same rows with more columns."""
    return sparse.csr_matrix((rows.data, rows.indices, rows.indptr), shape=(rows.shape[0], n_items))
