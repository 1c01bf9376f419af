"""The contract that every model keeps: fit on rows, recommend for rows. Its prose is here, once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.errors import (
    InvalidDataError,
    InvalidParameterError,
    InvalidTypeError,
    NotFittedError,
    OutOfRangeError,
    UnknownNameError,
)
from recvae.interactions import Ids, Interactions
from recvae.params import check_params, check_whole, fitted, get_params, hyper, parameters
from recvae.rows import VALUES, check_rows, transform_values
from recvae.saving import File, read_model, write_model
from recvae.split import Holdout
from recvae.topk import Ranking, Scorer, rank
from recvae.train import Epoch
from recvae.version import __version__

Items = Sequence[int] | NDArray[np.integer]
FitCallback = Callable[..., None]


@dataclass(frozen=True)
class FitRun:
    """What `fit` was asked for besides the rows."""

    values: str
    show_progress: bool
    callback: FitCallback | None
    valid: Holdout | None
    on_epoch: Callable[[Epoch], None] | None


@parameters
class Recommender(ABC):
    """A model that ranks items for rows of a users x items matrix.

    A user is a row, never a number that the model looks up: whoever was not there at training is scored like anyone
    else. (Baselines that cannot do so say it: see `KnownUsers`.) A constructor stores its arguments and does nothing
    more; they are checked by `fit`.
    """

    values: str | None = hyper(
        None,
        'how values are read, in training and in scoring: "binary", "log1p" or "raw"; by default as the data '
        "declare it, and binary where they do not",
        choices=VALUES,
        optional=True,
    )
    known: ClassVar[dict[str, type[Recommender]]] = {}  # classes by name, for `load`
    validates: ClassVar[bool] = False  # whether `fit` looks at validation users

    values_: str = fitted()  # how values were read
    n_items_: int = fitted()
    item_ids_: Ids | None = fitted()  # raw ids and titles of the columns, where the data had them
    titles_: Ids | None = fitted()
    trained_on_: str | None = fitted()  # fingerprint of the Interactions, where it was such

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Recommender.known[cls.__name__] = cls

    def fit(
        self,
        user_items: Any,
        show_progress: bool = True,
        callback: FitCallback | None = None,
        *,
        valid: Holdout | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> Self:
        """Learn from the rows of `user_items`, and return the model.

        user_items : Interactions, or a scipy csr_matrix or csr_array (users, items) of values >= 0
        show_progress : draw a progress bar if standard error is a terminal
        callback : called as callback(iteration, seconds, loss) after each pass, where a model has passes
        valid : held-out users for models that choose by validation; the others do not look at them
        on_epoch : called with each epoch's record (`recvae.train.Epoch`: ELBO terms, validation), by models that have
            epochs. What it raises ends the fit, comes out of it, and leaves the model as it was.

        Raises InvalidTypeError or InvalidDataError for data that cannot be used, InvalidParameterError for a
        hyper-parameter out of range, TrainingError if the loss is not finite.
        """
        check_params(self)
        data = user_items if isinstance(user_items, Interactions) else None
        rows = check_rows(user_items if data is None else data.matrix, convert=True)
        if rows.nnz == 0:
            raise InvalidDataError(
                f"Expected at least one event to learn from, got a matrix of {rows.shape} without any."
            )
        if valid is not None and not isinstance(valid, Holdout):
            raise InvalidTypeError(f"Expected valid to be a Holdout such as split.valid, got {type(valid).__name__}.")
        if valid is not None and valid.fold_in.shape[1] != rows.shape[1]:
            raise InvalidDataError(
                f"Expected validation rows over {rows.shape[1]} items as in training, got {valid.fold_in.shape[1]}."
            )
        values = self.values or ("binary" if data is None else data.values)
        fitted = self._fit(transform_values(rows, values), FitRun(values, show_progress, callback, valid, on_epoch))
        # all at once and at the end: a fit that fails leaves the model as it was
        self.__dict__.update(
            fitted,
            values_=values,
            n_items_=rows.shape[1],
            item_ids_=None if data is None else data.item_ids,
            titles_=None if data is None else data.titles,
            trained_on_=None if data is None else data.fingerprint(),
        )
        return self

    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: Items | None = None,
        recalculate_user: bool = False,
        items: Items | None = None,
    ) -> Ranking:
        """The N best items for each row, as implicit's `recommend` gives them.

        userid : a number, for one user, or a list of them; says only the form of the answer (but see `KnownUsers`)
        user_items : csr_matrix or csr_array with one row for each userid, over the items of training
        filter_already_liked_items : leave out the items of the row
        filter_items : leave out these as well; items : rank only these (not both)
        recalculate_user : accepted as in implicit; rows are always encoded anew (but see `KnownUsers`)

        Returns (ids int32, scores float32) by descending score, equal scores by ascending id; of shape (N,) for one
        user and (len(userid), N) for a list. Where there are no more items to give, id -1 and score -FLT_MAX.
        With `items`, N is at most their number.

        Raises NotFittedError; InvalidTypeError or InvalidDataError for rows that do not fit; OutOfRangeError for
        items the model does not have; InvalidParameterError for N < 1.
        """
        self._check_fitted()
        rows = check_rows(user_items, self.n_items_)
        scalar = np.ndim(userid) == 0
        n_users = 1 if scalar else len(userid)
        if rows.shape[0] != n_users:
            raise InvalidDataError(
                f"user_items must contain 1 row for every user in userids: expected {n_users}, got {rows.shape[0]}."
            )
        N = check_whole("N", N, 1)
        allowed = self._allowed(filter_items, items)
        if items is not None and allowed is not None:
            N = min(N, int(allowed.sum()))
        scorer = self._scorer(np.atleast_1d(userid), recalculate_user)
        rows_as_read = transform_values(rows, self.values_)
        ids, scores = rank(scorer, rows_as_read, N, filter_seen=filter_already_liked_items, allowed=allowed)
        return (ids[0], scores[0]) if scalar else (ids, scores)

    def chosen_params(self) -> dict[str, Any]:
        """The hyper-parameters by which a fit without validation gives the model that validation chose."""
        return get_params(self)

    def save(self, file: File) -> None:
        """Write the fitted model to a path or an open binary file: one safetensors file, described by JSON inside.

        The ids and titles of the items and the reading of values travel along; `recvae.load` reads it back. A path is
        written atomically. Raises NotFittedError, OutputError.
        """
        self._check_fitted()
        description = {
            "class": type(self).__name__,
            "parameters": get_params(self, run_options=False),
            "values": self.values_,
            "n_items": self.n_items_,
            "item_ids": None if self.item_ids_ is None else self.item_ids_.tolist(),
            "titles": None if self.titles_ is None else self.titles_.tolist(),
            "trained_on": self.trained_on_,
            "version": __version__,
        }
        write_model(file, self._tensors(), description)

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """The fitted state by name, from which `_restore` makes it again."""

    @abstractmethod
    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        """The inverse of `_tensors`. -> fitted attributes by name"""

    @abstractmethod
    def _fit(self, rows: sparse.csr_matrix, run: FitRun) -> dict[str, Any]:
        """Learn from canonical rows whose values have been read. -> fitted attributes by name"""

    @abstractmethod
    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        """Score all items for canonical rows whose values have been read; -inf where there is no score. -> (B, I)"""

    def _scorer(self, users: NDArray[Any], recalculate: bool) -> Scorer:
        """How to score the rows of `users`, which only a model of known users looks at."""
        return lambda rows, _: self._score(rows)

    def _check_fitted(self) -> None:
        if not hasattr(self, "n_items_"):
            raise NotFittedError(f"Expected a fitted {type(self).__name__}; call fit first.")

    def _allowed(self, filter_items: Items | None, items: Items | None) -> NDArray[np.bool_] | None:
        """The items that may be ranked. -> (I,), or None where all may"""
        if filter_items is not None and len(filter_items) == 0:
            filter_items = None
        if filter_items is None and items is None:
            return None
        if filter_items is not None and items is not None:
            raise InvalidParameterError("Can't specify both filter_items and items; leave filter_items out of items.")
        chosen = np.asarray(filter_items if items is None else items)
        if not chosen.size:
            raise InvalidParameterError("Expected at least one item to rank, got items without any.")
        if chosen.dtype.kind not in "iu":
            raise InvalidTypeError(f"Expected item indices as whole numbers, got {chosen.dtype}.")
        if chosen.min() < 0 or chosen.max() >= self.n_items_:
            raise OutOfRangeError(
                f"Some of selected itemids are not in the model: expected 0 to {self.n_items_ - 1}, "
                f"got {chosen.min()} to {chosen.max()}."
            )
        mask = np.zeros(self.n_items_, dtype=bool)
        mask[chosen.astype(np.int64)] = True
        return mask if filter_items is None else ~mask


def load(file: File) -> Recommender:
    """Read a model that `save` wrote, from a path or an open binary file, with its hyper-parameters, ids and titles.

    A class of your own is found once its module is imported. Raises DataNotFoundError, InvalidDataError for a damaged
    or foreign file, UnknownNameError for a model class that is not known here.
    """
    tensors, description = read_model(file)
    if description.get("class") not in Recommender.known:
        raise UnknownNameError.among("model class", description.get("class"), Recommender.known)
    try:
        params: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in description["parameters"].items()
        }
        model = Recommender.known[description["class"]](**params)
        check_params(model)
        n_items = description["n_items"]
        item_ids, titles = _array(description["item_ids"]), _array(description["titles"])
        fitted = model._restore(tensors, n_items)
        if any(ids is not None and len(ids) != n_items for ids in (item_ids, titles)):
            raise ValueError(f"there are ids or titles for another number of items than {n_items}")
        state = {"values_": description["values"], "n_items_": n_items, "item_ids_": item_ids, "titles_": titles}
        state["trained_on_"] = description["trained_on"]
    except (TypeError, KeyError, ValueError, AttributeError, RuntimeError) as error:
        raise InvalidDataError(
            f"The file holds a {description['class']} that this version of recvae, {__version__}, cannot make again: "
            f"{error}"
        ) from error
    model.__dict__.update(fitted | state)
    return model


def _array(values: list[Any] | None) -> Ids | None:
    """Texts as objects, as `Interactions` has them, and whole numbers as numbers."""
    if values is None or any(isinstance(value, str) for value in values):
        return None if values is None else np.array(values, dtype=object)
    return np.array(values, dtype=np.uint64 if max(values) > np.iinfo(np.int64).max else np.int64)
