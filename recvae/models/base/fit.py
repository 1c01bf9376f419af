"""`fit` of all models: check the input, train, and replace the model's state at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy import sparse

from recvae.data.interactions import Interactions
from recvae.data.rows import check_rows, transform_values
from recvae.data.shards import Shards
from recvae.data.splits import Holdout
from recvae.distributed.communicator import current_communicator
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError, NotSupportedError
from recvae.models.base.model import FitRun, Model
from recvae.models.base.params import check_params, flat_params, get_params
from recvae.models.base.state import become
from recvae.training.callbacks import Callback, FitInfo, as_callbacks, dispatch
from recvae.utils.gradients import with_gradients
from recvae.utils.paths import check_apart, output_path

if TYPE_CHECKING:
    from recvae.models.base import Callbacks, FitCallback, Recommender
    from recvae.training.checkpoint import Checkpoint


def fit(
    model: Recommender,
    user_items: Any,
    show_progress: bool,
    callback: FitCallback | None,
    *,
    valid: Holdout | None,
    callbacks: Callbacks,
    checkpoint: Checkpoint | str | Path | None,
) -> None:
    """See `Recommender.fit`."""
    check_params(model)
    checked_checkpoint = _check_checkpoint(model, checkpoint, user_items)
    rows, values = model._rows_to_fit(user_items)
    valid = model._check_valid(valid, rows.shape[1], user_items)
    _check_held_out(valid, rows)
    active_callbacks = as_callbacks(callbacks)
    active_callbacks = active_callbacks if current_communicator().is_main_process else []
    run = FitRun(values, show_progress, callback, valid, active_callbacks, checked_checkpoint)
    with with_gradients(), dispatch(run.callbacks, fit_info(model, "fit", rows, run)):
        learned = model._fit(rows, run)
    state = {
        "values_": values,
        "n_items_": rows.shape[1],
        "item_ids_": getattr(user_items, "item_ids", None),
        "titles_": getattr(user_items, "titles", None),
        "trained_on_": None if sparse.issparse(user_items) else user_items.fingerprint(),
        "preparation_": dict(getattr(user_items, "preparation", {})),
        "params_": get_params(model),
        # for `similar_users` and others; a copy, as the caller may change the matrix later
        "_trained": rows.copy() if not isinstance(rows, Shards) and model._defines("_user_vectors") else None,
        "_index": None,
        "_index_given": False,
    }
    become(model, learned | state)  # at the end: a fit that fails leaves the model unchanged


def rows_to_fit(model: Model, user_items: Any) -> tuple[sparse.csr_matrix | Shards, str]:
    """Check the data of a fit. -> rows with transformed values, or shards; the name of the transform"""
    if isinstance(user_items, Shards):
        _check_shards(model, user_items)
        return user_items, user_items.values
    data = user_items if isinstance(user_items, Interactions) else None
    rows = check_rows(user_items if data is None else data.matrix, convert=True)
    if rows.nnz == 0:
        raise InvalidDataError(f"Expected at least one event to learn from, got a matrix of {rows.shape} without any.")
    values = model.values or ("binary" if data is None else data.values)
    return transform_values(rows, values), values


def check_valid(valid: Any, n_items: int, user_items: Any) -> Holdout | None:
    """Check the validation users of a fit, and match their columns with the training data.

    Raises
    ------
    InvalidTypeError
    InvalidDataError
    """
    if valid is None:
        return None
    if not isinstance(valid, Holdout):
        raise InvalidTypeError(f"Expected valid to be a Holdout such as split.valid, got {type(valid).__name__}.")
    if valid.fold_in.shape[1] != n_items:
        raise InvalidDataError(
            f"Expected validation rows over {n_items} items as in training, got {valid.fold_in.shape[1]}."
        )
    checked = valid.over(None if valid.item_ids is None else getattr(user_items, "item_ids", None))
    if not checked.held_out.nnz:
        raise InvalidDataError("Expected validation users with held-out items, got none; give others, or no valid.")
    return checked


def _check_held_out(valid: Holdout | None, rows: sparse.csr_matrix | Shards) -> None:
    """That what is held out of training users' events is not in their training rows."""
    if valid is None or valid.train_rows is None or isinstance(rows, Shards):
        return
    if valid.train_rows.max(initial=-1) >= rows.shape[0]:
        raise InvalidDataError(
            f"Expected validation users who are among the {rows.shape[0]:,} training users, got train_rows up to "
            f"{valid.train_rows.max():,}; fit on split.train of the same split."
        )
    both = rows[valid.train_rows].multiply(valid.held_out).nnz
    if both:
        raise InvalidDataError(
            f"Expected held-out events of validation users that are not in training, got {both:,} that are; fit on "
            f"split.train, or without valid."
        )


def fit_info(model: Recommender, verb: str, rows: sparse.csr_matrix | Shards, run: FitRun) -> FitInfo:
    """The `FitInfo` that callbacks get before a fit."""
    valid = run.valid if model.validation_metric else None
    return FitInfo(
        model=type(model).__name__,
        verb=verb,
        parameters=flat_params(model),
        values=run.values,
        users=rows.shape[0],
        items=rows.shape[1],
        events=rows.nnz,
        valid_users=None if valid is None else valid.fold_in.shape[0],
        metric=None if valid is None else model.validation_metric,
    )


def _check_shards(model: Model, shards: Shards) -> None:
    if not model.out_of_core:
        raise NotSupportedError(
            f"{type(model).__name__} needs all rows in memory and cannot be fitted on shards: give it "
            f"shards.rows(0, shards.n_users) if these fit into memory."
        )
    if model.values not in (None, shards.values):
        raise InvalidParameterError(
            f"Expected values={shards.values!r} as the shards in {shards.folder} were written, or None, got "
            f"{model.values!r}."
        )


def _check_checkpoint(
    model: Recommender, checkpoint: Checkpoint | str | Path | None, user_items: Any
) -> Checkpoint | None:
    if checkpoint is None:
        return None
    if not model.resumable:
        raise NotSupportedError(f"{type(model).__name__} has no training to resume; expected checkpoint=None.")
    from recvae.training.checkpoint import as_checkpoint

    checked = as_checkpoint(checkpoint)
    if checked is not None and isinstance(user_items, Shards):
        check_apart({"the checkpoint": output_path(checked.folder)}, [user_items.folder])
    return checked


def implicit_callbacks(run: FitRun) -> list[Callback]:
    """The `callback` of `fit`, as implicit has it: called with the epochs of the main run, from 0."""
    call = run.callback
    if call is None or run.part != "network":
        return []
    return as_callbacks([lambda epoch: call(epoch.epoch - 1, epoch.seconds, epoch.loss)])
