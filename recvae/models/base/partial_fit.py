"""Further training on new rows, and new items, by events or by features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from recvae.data.ids import Ids, id_array, match_ids
from recvae.data.rows import check_rows, transform_values
from recvae.data.validation import checked_sparse
from recvae.errors import InvalidDataError, InvalidTypeError
from recvae.models.base.model import FitRun
from recvae.models.base.params import check_params
from recvae.models.base.state import become
from recvae.utils.checks import check_integer

if TYPE_CHECKING:
    from recvae.models.base import Callbacks, FitCallback, Recommender

Names = Sequence[Any] | Ids | None


def partial_fit(
    model: Recommender,
    user_items: Any,
    epochs: int | None,
    names: Mapping[str, Names],
    show_progress: bool,
    callback: FitCallback | None,
    callbacks: Callbacks,
) -> None:
    """See `Recommender.partial_fit`. `names`: the new items' item_ids and titles."""
    from recvae.distributed.communicator import current_communicator
    from recvae.models.base.fit import fit_info
    from recvae.training.callbacks import as_callbacks, dispatch
    from recvae.utils.gradients import with_gradients

    check_params(model)
    epochs = None if epochs is None else check_integer("epochs", epochs, 0)
    rows, all_names = _wider_rows(model, user_items, names)
    if rows.nnz == 0:
        raise InvalidDataError(f"Expected at least one event to learn from, got a matrix of {rows.shape} without any.")
    active_callbacks = as_callbacks(callbacks) if current_communicator().is_main_process else []
    run = FitRun(model.values_, show_progress, callback, None, active_callbacks)
    with with_gradients(), dispatch(run.callbacks, fit_info(model, "partial_fit", rows, run)):
        learned = model._partial_fit(transform_values(rows, model.values_), epochs, run)
    _enlarge(model, learned | all_names | {"trained_on_": None, "_index": None}, rows.shape[1])


def add_items(model: Recommender, item_features: Any, names: Mapping[str, Names]) -> None:
    """See `Recommender.add_items`. `names`: the new items' item_ids and titles."""
    from recvae.utils.gradients import with_gradients

    features = _features(item_features, model.n_items_)
    n_items = int(features.shape[0])
    all_names = _all_names(model, n_items - model.n_items_, names)
    with with_gradients():
        added = model._add_items(features)
    _enlarge(model, added | all_names, n_items)


def _enlarge(model: Recommender, state: dict[str, Any], n_items: int) -> None:
    """Replace the model's state by one with more items; the training rows get empty columns for these."""
    rows: sparse.csr_matrix | None = model.__dict__.get("_trained")
    if rows is not None:
        wide = sparse.csr_matrix((rows.data, rows.indices, rows.indptr), shape=(rows.shape[0], n_items))
        state = state | {"_trained": wide}
    become(model, state | {"n_items_": n_items})


def _wider_rows(
    model: Recommender, user_items: Any, names: Mapping[str, Names]
) -> tuple[sparse.csr_matrix, dict[str, Any]]:
    """Rows over the model's items followed by the new ones, and the ids and titles of all items."""
    from recvae.data.interactions import Interactions

    n_items = model.n_items_
    if not isinstance(user_items, Interactions):
        rows = check_rows(user_items, convert=True)
        if rows.shape[1] < n_items:
            raise InvalidDataError(
                f"Expected {n_items} columns for the model's items, and more for new ones, got {rows.shape[1]}."
            )
        return rows, _all_names(model, rows.shape[1] - n_items, names)
    if any(value is not None for value in names.values()):
        raise InvalidDataError("Expected item_ids and titles only with a matrix; Interactions have their own.")
    if model.item_ids_ is None:
        raise InvalidDataError("Expected a matrix, for this model was fitted on one and knows no raw ids.")
    index = match_ids(user_items.item_ids, model.item_ids_)  # of their columns in the model; -1 for new items
    new = np.flatnonzero(index < 0)
    index[new] = n_items + np.arange(len(new))
    titles = None if user_items.titles is None or model.titles_ is None else user_items.titles[new]
    cells = user_items.matrix.tocoo()
    shape = (user_items.n_users, n_items + len(new))
    matrix = sparse.csr_matrix((cells.data, (cells.row, index[cells.col])), shape=shape)
    return check_rows(matrix), _all_names(model, len(new), {"item_ids": user_items.item_ids[new], "titles": titles})


def _all_names(model: Recommender, n: int, names: Mapping[str, Names]) -> dict[str, Any]:
    """The model's ids and titles followed by those of n new items."""
    for name, known in (("item_ids", model.item_ids_), ("titles", model.titles_)):
        new = names[name]
        if new is not None and known is None:
            raise InvalidDataError(f"Expected no {name} for a model that has none of its own items.")
        if new is not None and len(new) != n:
            raise InvalidDataError(f"Expected {n} {name}, one for each new item, got {len(new)}.")
    ids, titles = names["item_ids"], names["titles"]
    if model.item_ids_ is None or n == 0:
        return {}
    if ids is None:
        raise InvalidDataError(f"Expected item_ids for {n} new items, as the model knows its items by raw ids.")
    both: dict[str, Any] = {"item_ids_": _joined(model.item_ids_, ids)}
    if model.titles_ is not None:
        texts = [*model.titles_.tolist(), *(ids if titles is None else titles)]
        both["titles_"] = np.array([str(text) for text in texts], dtype=object)
    return both


def _joined(known: Ids, new: Sequence[Any] | Ids) -> Ids:
    """Known and new ids together; all as strings if any of them is a string, as in `match_ids`."""
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
