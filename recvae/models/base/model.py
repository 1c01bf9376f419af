"""`Model`: hyper-parameters and fitted state of all models, and the methods by which a new model is defined.

A new model is a subclass of `Recommender`, which adds the public methods to this class. It defines `_fit`, `_score`,
`_tensors` and `_restore`; the optional methods that it defines enable further public ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recvae.data.names import VALUES
from recvae.data.rows import check_rows, transform_values
from recvae.errors import InvalidTypeError, NotFittedError
from recvae.models.base.params import changed_params, fitted, get_params, hyper, parameters
from recvae.models.base.state import become, changes, reads
from recvae.utils.topk import Scorer

if TYPE_CHECKING:  # a closed-form model has no use for the training of networks
    from recvae.data.ids import Ids, ItemIndex
    from recvae.data.shards import Shards
    from recvae.data.splits import Holdout
    from recvae.models.base.generative import Encoding
    from recvae.training.callbacks import Callback, Epoch
    from recvae.training.checkpoint import Checkpoint

FitCallback: TypeAlias = Callable[..., None]
Callbacks: TypeAlias = "Sequence[Callback | Callable[[Epoch], object]]"


@dataclass(frozen=True)
class FitRun:
    """The arguments of `fit` other than the rows."""

    values: str
    show_progress: bool
    callback: FitCallback | None = None
    valid: Holdout | None = None
    callbacks: Sequence[Callback] = ()
    checkpoint: Checkpoint | None = None
    part: str = "network"  # name of this run in the records of its epochs


@parameters
class Model(ABC):
    """Base of `Recommender`: hyper-parameters, fitted state, and the methods that a model defines."""

    values: str | None = hyper(
        None, 'how values are read: "binary", "log1p", "raw"; None for that of the data', choices=VALUES, optional=True
    )
    registry: ClassVar[dict[str, type[Model]]] = {}  # all classes by name, for `load`
    resumable: ClassVar[bool] = False  # whether `fit` can be resumed from a checkpoint
    out_of_core: ClassVar[bool] = False  # whether `fit` takes shards, which may be larger than memory
    validation_metric: ClassVar[str] = ""  # the metric that `fit` computes on validation users, if it does

    values_: str = fitted()  # how values were read
    n_items_: int = fitted()
    item_ids_: Ids | None = fitted()  # raw ids and titles of the columns, if the data had them
    titles_: Ids | None = fitted()
    trained_on_: str | None = fitted()  # fingerprint of the Interactions or shards of the fit; None for a matrix
    preparation_: dict[str, Any] = fitted()  # filters and weights by which the data of the fit were made, if known
    params_: dict[str, Any] = fitted()  # the hyper-parameters of the fit; `set_params` does not change them
    _trained: sparse.csr_matrix | None = fitted()  # the rows of the fit, in this process only
    _index: Tensor | None = fitted()  # vectors of users for `similar_users`, (U, K), if they have been computed
    _index_given: bool = fitted()  # whether `index_users` or `partial_fit_users` set it
    _item_index: tuple[Ids, ItemIndex] = fitted()  # (item_ids_, their index), built at the first use

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Model.registry[cls.__name__] = cls

    def __getstate__(self) -> dict[str, Any]:
        """The state for a pickle (joblib, Ray): without the training rows, the user index and the index of item ids."""
        left_out = ("_trained", "_index", "_item_index")
        return {name: value for name, value in dict(self.__dict__).items() if name not in left_out}

    @reads
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The hyper-parameters by name, as in scikit-learn.

        Parameters
        ----------
        deep : bool
            Whether to add the options of configs, such as `training__impl`. Without them, the dictionary has the
            constructor's arguments: `type(model)(**model.get_params(deep=False))` is a model with the same settings.

        Returns
        -------
        dict of str to object
        """
        return get_params(self, deep)

    @changes
    def set_params(self, **params: Any) -> Self:
        """Change hyper-parameters, for the next fit.

        Parameters
        ----------
        **params
            Values by name; an option of a config by its full name, such as `training__impl="sampled"`.

        Returns
        -------
        Model
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
        """The hyper-parameters with which a fit without validation gives the model that validation selected."""
        return get_params(self)

    # What a model defines. Rows are canonical CSR matrices (sorted indices, no duplicates) with transformed values.

    @abstractmethod
    def _fit(self, rows: Any, run: FitRun) -> dict[str, Any]:
        """Learn from rows (U, I) or, if `out_of_core`, shards. -> fitted attributes by name"""

    @abstractmethod
    def _score(self, rows: sparse.csr_matrix) -> Tensor:
        """Score all items for rows; -inf if there is no score. (B, I) -> (B, I)"""

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """The fitted state by name, from which `_restore` rebuilds it."""

    @abstractmethod
    def _restore(self, tensors: dict[str, Tensor], n_items: int) -> dict[str, Any]:
        """The inverse of `_tensors`. -> fitted attributes by name"""

    # Optional methods; most of them enable a public one (see NEEDS in recommender.py).

    def _scorer(self, users: NDArray[Any], recalculate: bool) -> Scorer:
        """The scorer of the rows of `users`; only models of known users use their indices."""
        return lambda rows, _: self._score(rows)

    def _similarity(self, items: NDArray[np.int64]) -> Tensor:
        """Similarity of all items to some of them; -inf where it is undefined. -> (len(items), I)"""
        raise NotImplementedError

    def _user_vectors(self, rows: sparse.csr_matrix) -> Tensor:
        """Vectors of users, such as means of posteriors. (B, I) -> (B, K)"""
        raise NotImplementedError

    def _known_users(self) -> Tensor:
        """The vectors that the model has learned for the users of its fit. -> (U, K)"""
        raise NotImplementedError

    def _contributions(self, row: sparse.csr_matrix, item: int) -> tuple[float, NDArray[np.float64]]:
        """The score of an item for one row of n_u items, and what each of these contributes. -> score, (n_u,)"""
        raise NotImplementedError

    def _partial_fit(self, rows: sparse.csr_matrix, epochs: int | None, run: FitRun) -> dict[str, Any]:
        """Add n new items, and train on rows (U, I + n). -> fitted attributes by name"""
        raise NotImplementedError

    def _add_items(self, features: sparse.csr_matrix) -> dict[str, Any]:
        """Add n new items, by features (I + n, F) of all items. -> fitted attributes by name"""
        raise NotImplementedError

    def _posterior(self, rows: sparse.csr_matrix) -> Encoding:
        """q(z | x) of rows."""
        raise NotImplementedError

    def _sample(
        self,
        rows: sparse.csr_matrix,
        latent: str,
        temperature: float,
        of_users: np.random.Generator,
        of_items: np.random.Generator,
    ) -> sparse.csr_matrix:
        """A synthetic history for each row, with z from its posterior or from the prior. -> csr (B, I) of ones"""
        raise NotImplementedError

    def _elbo_terms(self, rows: sparse.csr_matrix) -> NDArray[np.float64]:
        """-log p(x | z) per event, at the mean of q(z | x), and KL(q(z | x) || p(z)), of non-empty rows. -> (B, 2)"""
        raise NotImplementedError

    def _explorer(self, strength: float, random: np.random.Generator) -> Scorer:
        """A scorer at z = mu + strength * sigma * eps, one eps for each row; call it for users in order."""
        raise NotImplementedError

    def _spread(
        self, rows: sparse.csr_matrix, ids: NDArray[np.int32], random: np.random.Generator
    ) -> NDArray[np.float32]:
        """Standard deviations of the scores of some items for each row, 0 for id -1. ids (B, N) -> (B, N)"""
        raise NotImplementedError

    # Helpers for models.

    def _rows(self, user_items: Any) -> sparse.csr_matrix:
        """Check rows for a fitted model. -> canonical rows, their values transformed as in training"""
        from recvae.data.interactions import Interactions

        self._check_fitted()
        if isinstance(user_items, Interactions):
            raise InvalidTypeError(
                "Expected rows as a csr_matrix or csr_array, got Interactions; give their .matrix, after "
                ".align(model.item_ids_) if they are not the data of the fit."
            )
        return transform_values(check_rows(user_items, self.n_items_), self.values_)

    def _rows_to_fit(self, user_items: Any) -> tuple[sparse.csr_matrix | Shards, str]:
        """Check the data of a fit. -> rows with transformed values, or shards; the name of the transform"""
        from recvae.models.base import fit

        return fit.rows_to_fit(self, user_items)

    def _check_valid(self, valid: Any, n_items: int, user_items: Any) -> Holdout | None:
        """Check the validation users of a fit, and match their columns with the training data."""
        from recvae.models.base import fit

        return fit.check_valid(valid, n_items, user_items)

    def _training_rows(self, purpose: str) -> sparse.csr_matrix:
        """The training rows, if the model was fitted in this process. Raises NotFittedError."""
        rows: sparse.csr_matrix | None = self.__dict__.get("_trained")
        if rows is None:
            raise NotFittedError(
                f"Expected rows for {purpose}: this {type(self).__name__} came from a file, a pickle or a copy, or was "
                f"fitted on shards, and these contain no users."
            )
        return rows

    def _drop_training_rows(self) -> None:
        self.__dict__.pop("_trained", None)

    @classmethod
    def _defines(cls, method: str) -> bool:
        """Whether the class overrides this optional method."""
        return getattr(cls, method) is not getattr(Model, method)

    def _check_fitted(self) -> None:
        if not hasattr(self, "n_items_"):
            raise NotFittedError(f"Expected a fitted {type(self).__name__}; call fit first.")
