"""Fitted models in files, and back."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from recvae.errors import InvalidDataError, UnknownNameError
from recvae.interactions import Ids
from recvae.params import check_params, get_params
from recvae.recommender.base import Model
from recvae.saving import File, read_model, write_model
from recvae.version import __version__

if TYPE_CHECKING:
    from recvae.recommender import Recommender


class Saves(Model):
    """Writing a fitted model."""

    def save(self, file: File) -> None:
        """Write the fitted model to a path or an open binary file: one safetensors file, described by JSON inside.

        The ids and titles of the items and the reading of values travel along, users do not; `recvae.load` reads it
        back. A path is written atomically. Raises NotFittedError, OutputError.
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

    @classmethod
    def load(cls, fileobj_or_path: File) -> Recommender:
        """`recvae.load`, as implicit's models have it; raises InvalidDataError for a model of another class too."""
        model = load(fileobj_or_path)
        if not isinstance(model, cls):
            raise InvalidDataError(
                f"Expected a file of a {cls.__name__}, got one of a {type(model).__name__}; recvae.load reads any."
            )
        return model


def load(file: File) -> Recommender:
    """Read a model that `save` wrote, from a path or an open binary file, with its hyper-parameters, ids and titles.

    A class of your own is found once its module is imported. Raises DataNotFoundError, InvalidDataError for a damaged
    or foreign file, UnknownNameError for a model class that is not known here.
    """
    tensors, description = read_model(file)
    known = {name: cls for name, cls in Model.known.items() if not inspect.isabstract(cls)}
    if description.get("class") not in known:
        raise UnknownNameError.among("model class", description.get("class"), known)
    try:
        params: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in description["parameters"].items()
        }
        model: Any = known[description["class"]](**params)
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
