"""What a model is before it can be asked anything: hyper-parameters, `fit`, the hooks that a paper's file fills in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.interactions import Ids, Interactions
from recvae.data.rows import VALUES, check_rows, transform_values
from recvae.data.shards import Shards
from recvae.data.splits import Holdout
from recvae.distributed.communicator import current_communicator
from recvae.errors import (
    InvalidDataError,
    InvalidParameterError,
    InvalidTypeError,
    NotFittedError,
    NotSupportedError,
)
from recvae.models.base.abilities import absence, hook
from recvae.models.base.params import (
    changed_params,
    check_params,
    fitted,
    flat_params,
    get_params,
    hyper,
    parameters,
)
from recvae.models.base.state import become, changes, reads
from recvae.training.callbacks import Callback, Epoch, FitInfo, as_callbacks, dispatch
from recvae.training.checkpoint import Checkpoint, as_checkpoint
from recvae.utils.paths import check_apart, output_path
from recvae.utils.topk import Scorer

FitCallback = Callable[..., None]
Callbacks = Sequence[Callback | Callable[[Epoch], object]]


@dataclass(frozen=True)
class FitRun:
    """What `fit` was asked for besides the rows."""

    values: str
    show_progress: bool
    callback: FitCallback | None = None
    valid: Holdout | None = None
    callbacks: Sequence[Callback] = ()
    checkpoint: Checkpoint | None = None
    part: str = "network"  # of the model, for the records of its epochs


@parameters
class Model(ABC):
    """Hyper-parameters, `fit` and fitted state of every model, and its hooks.

    A model has to define the abstract hooks; with each of the others it gains a verb (see `recvae.models.base`).
    """

    values: str | None = hyper(
        None, 'how values are read: "binary", "log1p", "raw"; None for what the data say', choices=VALUES, optional=True
    )
    registry: ClassVar[dict[str, type[Model]]] = {}  # classes by name, for `load`
    resumable: ClassVar[bool] = False  # whether `fit` can be gone on with after a stop
    out_of_core: ClassVar[bool] = False  # whether it takes rows that are more than memory holds
    validation_metric: ClassVar[str] = ""  # the metric by which `fit` looks at validation users, if it does

    values_: str = fitted()  # how values were read
    n_items_: int = fitted()
    item_ids_: Ids | None = fitted()  # raw ids and titles of the columns, where the data had them
    titles_: Ids | None = fitted()
    trained_on_: str | None = fitted()  # fingerprint of the Interactions, where it was such
    params_: dict[str, Any] = fitted()  # the hyper-parameters of the fit, whatever is set after it
    _trained: sparse.csr_matrix | None = fitted()  # the rows of the fit, in this process alone

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Model.registry[cls.__name__] = cls

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds, in memory (joblib, Ray): no rows or places of users, nor what is made anew."""
        left_out = ("_trained", "_index", "_item_index")
        return {name: value for name, value in dict(self.__dict__).items() if name not in left_out}

    @changes
    def fit(
        self,
        user_items: Any,
        show_progress: bool = True,
        callback: FitCallback | None = None,
        *,
        valid: Holdout | None = None,
        callbacks: Callbacks = (),
        checkpoint: Checkpoint | str | Path | None = None,
    ) -> Self:
        """Learn from the rows of `user_items`, and return the model.

        Parameters
        ----------
        user_items
            Interactions, or a scipy csr_matrix or csr_array (users, items) of values >= 0; for networks also
            `recvae.data.shards.Shards`, which may be more than memory holds.
        show_progress : bool
            Show how it goes, where standard error is a terminal, and in a notebook.
        callback : FitCallback or None
            implicit's: called as callback(iteration, seconds, loss) after each pass, where a model has passes.
        valid : Holdout or None
            Held-out users for models that choose by validation; the others do not look at them. Where both sides have
            ids of the items, columns are matched by them.
        callbacks : Callbacks
            Who listens (`recvae.training.callbacks`): `JsonLines(path)`, `TensorBoard(folder)`, functions of an `Epoch`
            (ELBO terms, validation) such as print. Models without epochs tell when they begin and end. What a callback
            raises ends the fit, comes out of it, and leaves the model as it was.
        checkpoint : Checkpoint or str or Path or None
            For networks, a folder to keep the training in, or a `recvae.Checkpoint`, which also says how often. The
            same fit, called again after a stop, goes on from there and gives the same model.

        Raises
        ------
        InvalidTypeError, InvalidDataError
            For data that cannot be used.
        InvalidParameterError
            For a hyper-parameter out of range and for a checkpoint of another fit.
        TrainingError
            If the loss is not finite.
        NotSupportedError
            For shards or a checkpoint where a model is no network.
        """
        check_params(self)
        kept = self._check_checkpoint(checkpoint)
        if kept is not None and isinstance(user_items, Shards):
            check_apart({"the checkpoint": output_path(kept.folder)}, [user_items.folder])
        rows, values = self._readable(user_items)
        valid = self._check_valid(valid, rows.shape[1], user_items)
        heard = as_callbacks(callbacks)
        run = FitRun(
            values, show_progress, callback, valid, heard if current_communicator().is_main_process else [], kept
        )
        with dispatch(run.callbacks, self._start("fit", rows, run)):
            fitted = self._fit(rows, run)
        state = {
            "values_": values,
            "n_items_": rows.shape[1],
            "item_ids_": getattr(user_items, "item_ids", None),
            "titles_": getattr(user_items, "titles", None),
            "trained_on_": None if sparse.issparse(user_items) else user_items.fingerprint(),
            "params_": get_params(self),
            # a copy: the owner of the rows may change them
            "_trained": None if isinstance(rows, Shards) or absence(type(self), "_user_vectors") else rows.copy(),
            "_index": None,
            "_index_given": False,
        }
        become(self, fitted | state)  # at the end: a fit that fails leaves the model as it was
        return self

    def _readable(self, user_items: Any) -> tuple[sparse.csr_matrix | Shards, str]:
        """What was given to `fit`, checked, and how its values are read: rows with values read, or shards."""
        if isinstance(user_items, Shards):
            self._check_shards(user_items)
            return user_items, user_items.values
        data = user_items if isinstance(user_items, Interactions) else None
        rows = check_rows(user_items if data is None else data.matrix, convert=True)
        if rows.nnz == 0:
            raise InvalidDataError(
                f"Expected at least one event to learn from, got a matrix of {rows.shape} without any."
            )
        values = self.values or ("binary" if data is None else data.values)
        return transform_values(rows, values), values

    def _check_shards(self, shards: Shards) -> None:
        if not self.out_of_core:
            raise NotSupportedError(
                f"{type(self).__name__} needs all rows at once, which shards are not: give it "
                f"shards.rows(0, shards.n_users) where these fit into memory."
            )
        if self.values not in (None, shards.values):
            raise InvalidParameterError(
                f"Expected values={shards.values!r} as the shards in {shards.folder} were written, or None, got "
                f"{self.values!r}."
            )

    def _check_checkpoint(self, checkpoint: Checkpoint | str | Path | None) -> Checkpoint | None:
        if checkpoint is not None and not self.resumable:
            raise NotSupportedError(f"{type(self).__name__} has no training to go on with; expected checkpoint=None.")
        return as_checkpoint(checkpoint)

    def _check_valid(self, valid: Any, n_items: int, user_items: Any) -> Holdout | None:
        """The held-out users that were given to `fit`, checked, over the columns of what it learns from.

        Raises
        ------
        InvalidTypeError
        InvalidDataError
        InvalidParameterError
            For a hyper-parameter that needs them.
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

    def _start(self, verb: str, rows: sparse.csr_matrix | Shards, run: FitRun) -> FitInfo:
        """What is to be told of a fit before it."""
        valid = run.valid if self.validation_metric else None
        return FitInfo(
            model=type(self).__name__,
            verb=verb,
            parameters=flat_params(self),
            values=run.values,
            users=rows.shape[0],
            items=rows.shape[1],
            events=rows.nnz,
            valid_users=None if valid is None else valid.fold_in.shape[0],
            metric=None if valid is None else self.validation_metric,
        )

    @reads
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The hyper-parameters by name, as scikit-learn has it.

        Parameters
        ----------
        deep : bool
            Whether to add the options of configs, such as `training__impl`. Without them, the dictionary is what the
            constructor takes: `type(model)(**model.get_params(deep=False))` is a model with the same settings.

        Returns
        -------
        dict of str to object
        """
        return get_params(self, deep)

    @changes
    def set_params(self, **params: Any) -> Self:
        """Store other hyper-parameters, for the next fit.

        Parameters
        ----------
        **params
            Values by name; an option of a config by its full name, such as `training__impl="sampled"`.

        Returns
        -------
        Recommender
            The model itself.

        Raises
        ------
        UnknownNameError
            For a name that the model does not have.
        """
        become(self, changed_params(self, params))
        return self

    @reads
    def chosen_params(self) -> dict[str, Any]:
        """The hyper-parameters by which a fit without validation gives the model that validation chose."""
        return get_params(self)

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """The fitted state by name, from which `_restore` makes it again."""

    @abstractmethod
    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        """The inverse of `_tensors`. -> fitted attributes by name"""

    @abstractmethod
    def _fit(self, rows: Any, run: FitRun) -> dict[str, Any]:
        """Learn from canonical rows whose values have been read, or, in a network, shards. -> attributes by name"""

    @abstractmethod
    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        """Score all items for canonical rows whose values have been read; -inf where there is no score. -> (B, I)"""

    def _scorer(self, users: NDArray[Any], recalculate: bool) -> Scorer:
        """How to score the rows of `users`, which only a model of known users looks at."""
        return lambda rows, _: self._score(rows)

    @hook("vectors of its items")
    def _similarity(self, items: NDArray[np.int64]) -> Tensor:
        """How alike all items are to some of them; -inf where that is not known. -> (len(items), I)"""
        raise NotImplementedError

    @hook("a place for users, by their events alone, in a space")
    def _user_vectors(self, rows: sparse.csr_matrix) -> Tensor:
        """Where canonical rows are whose values have been read, such as means of posteriors. -> (B, K)"""
        raise NotImplementedError

    @hook("network to learn on; a fresh fit takes seconds")
    def _learn_on(self, rows: sparse.csr_matrix, epochs: int | None, run: FitRun) -> dict[str, Any]:
        """Take in the columns (U, I + n) beyond the model's own, and learn from rows. -> fitted attributes by name"""
        raise NotImplementedError

    @hook("network whose items are vectors that features could stand for")
    def _place_items(self, features: sparse.csr_matrix) -> dict[str, Any]:
        """Take in the items (I + n, F) beyond the model's own, by their features. -> fitted attributes by name"""
        raise NotImplementedError

    @hook("vectors of known users")
    def _known_users(self) -> Tensor:
        """The vectors that a model has learned for the users of its fit. -> (U, K)"""
        raise NotImplementedError

    @hook("scores that come from the items of a row")
    def _contributions(self, row: sparse.csr_matrix, item: int) -> tuple[float, NDArray[np.float64]]:
        """The score of an item for one canonical row, and what each item of the row adds to it. -> score, (n_u,)"""
        raise NotImplementedError

    def _check_fitted(self) -> None:
        if not hasattr(self, "n_items_"):
            raise NotFittedError(f"Expected a fitted {type(self).__name__}; call fit first.")

    def _rows(self, user_items: Any) -> sparse.csr_matrix:
        """Rows that a fitted model was given: canonical, their values read as in training."""
        self._check_fitted()
        if isinstance(user_items, Interactions):
            raise InvalidTypeError(
                "Expected rows as a csr_matrix or csr_array, got Interactions; give their .matrix, after "
                ".align(model.item_ids_) where they are not the data of the fit."
            )
        return transform_values(check_rows(user_items, self.n_items_), self.values_)

    def _forget(self) -> None:
        """Let go of the rows of the fit."""
        self.__dict__.pop("_trained", None)

    def _trained_rows(self, verb: str) -> sparse.csr_matrix:
        """The rows of the fit, where that was in this process. Raises NotFittedError."""
        rows: sparse.csr_matrix | None = self.__dict__.get("_trained")
        if rows is None:
            raise NotFittedError(
                f"Expected rows for {verb}: this {type(self).__name__} came from a file, a pickle or a copy, or was "
                f"fitted on shards, and these hold no users."
            )
        return rows
