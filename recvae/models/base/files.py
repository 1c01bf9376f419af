"""Fitted models in files, and back."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from recvae.data.ids import id_array
from recvae.data.rows import VALUES
from recvae.errors import InvalidDataError, UnknownNameError, shown
from recvae.models.base.base import Model
from recvae.models.base.model_file import File, read_model, write_model
from recvae.models.base.params import check_params, get_params, params_for_file, params_from_file
from recvae.models.base.state import reads
from recvae.utils.checks import check_integer
from recvae.utils.device import find_device
from recvae.version import __version__

MOST_ITEMS = 2**31 - 1  # lists hold int32

if TYPE_CHECKING:
    from recvae.models.base import Recommender


class Saves(Model):
    """Writing a fitted model."""

    @reads
    def save(self, file: File) -> None:
        """Write the fitted model to a path or an open binary file: one safetensors file, described by JSON inside.

        The ids and titles of the items and the reading of values travel along, users do not (but for the factors of
        `KnownUsers`); `recvae.load` reads it back. A path is written atomically. The same model gives the same bytes in
        any process.

        Raises
        ------
        NotFittedError
        OutputError
        InvalidDataError
            For weights that are not finite.
        """
        self._check_fitted()
        description = {
            "class": type(self).__name__,
            "parameters": params_for_file(self, self.params_),
            "values": self.values_,
            "n_items": self.n_items_,
            "item_ids": None if self.item_ids_ is None else self.item_ids_.tolist(),
            "titles": None if self.titles_ is None else self.titles_.tolist(),
            "trained_on": self.trained_on_,
            "version": __version__,
        }
        write_model(file, self._tensors(), description)

    @classmethod
    def load(cls, fileobj_or_path: File, device: str | None = None) -> Recommender:
        """`recvae.load`, as implicit's models have it; raises InvalidDataError for a model of another class too."""
        model = load(fileobj_or_path, device)
        if not isinstance(model, cls):
            raise InvalidDataError(
                f"Expected a file of a {cls.__name__}, got one of a {type(model).__name__}; recvae.load reads any."
            )
        return model


def load(file: File, device: str | None = None) -> Recommender:
    """Read a model that `save` wrote, from a path or an open binary file, with its hyper-parameters, ids and titles.

    A class of your own is found once its module is imported. A file is data, and nothing in it is run; what it claims
    is held against what is in it before memory is taken. What it may set are hyper-parameters in their ranges, of which
    the device is none, and finite numbers.

    Parameters
    ----------
    device : str or None
        Torch device for models that have a network, such as "cpu"; by default a GPU if there is one, wherever the model
        was fitted. The others are on the CPU.

    Raises
    ------
    DataNotFoundError
    InvalidDataError
        For a damaged or foreign file.
    NotEnoughMemoryError
        For one that memory does not hold.
    UnknownNameError
        For a model class that is not known here.
    InvalidParameterError
        For a device that is not.
    """
    for models in ("recvae.models", "recvae.models.baselines"):  # a file may be of any model of ours
        import_module(models)

    if device is not None:
        find_device(device)
    tensors, description = read_model(file)
    name = description.get("class")
    known = {name: cls for name, cls in Model.registry.items() if not inspect.isabstract(cls)}
    if not isinstance(name, str) or name not in known:
        raise UnknownNameError.among("model class", name, known)
    try:
        model: Any = known[name](**_params(known[name], description["parameters"], len(tensors)))
        if device is not None and hasattr(model, "device"):
            model.device = device
        check_params(model)
        state = _state(description)
        state |= model._restore(tensors, state["n_items_"]) | {"params_": get_params(model)}
    except (TypeError, LookupError, ValueError, AttributeError, RuntimeError, ArithmeticError, MemoryError) as error:
        raise InvalidDataError(
            f"The file holds a {name} that this version of recvae, {__version__}, cannot make again: {error}"
        ) from error
    model.__dict__.update(state)
    return model


def _params(model: type, values: dict[str, Any], n_tensors: int) -> dict[str, Any]:
    """Hyper-parameters of a file: none of the machine, and no list, as of widths, longer than `n_tensors`."""
    if any(isinstance(value, list) and len(value) > n_tensors for value in values.values()):
        raise ValueError(f"there are more layers than its {n_tensors} tensors make")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return params_from_file(model, values)


def _state(description: dict[str, Any]) -> dict[str, Any]:
    """What `fit` would have set in any model, of a file. Raises ValueError, KeyError for what fit does not set."""
    n_items = check_integer("n_items", description["n_items"], 1, MOST_ITEMS)
    values, trained_on = description["values"], description["trained_on"]
    if values not in VALUES or not isinstance(trained_on, str | None):
        raise ValueError(f"values are read as {shown(values)}, trained on {shown(trained_on)}")
    state: dict[str, Any] = {"n_items_": n_items, "values_": values, "trained_on_": trained_on}
    for name in ("item_ids", "titles"):
        texts = description[name]
        if texts is not None and (not isinstance(texts, list) or len(texts) != n_items):
            raise ValueError(f"there are {name} for another number of items than {n_items}")
        state[f"{name}_"] = None if texts is None else id_array(texts, name)
    ids = description["item_ids"]
    if (ids is not None and len(set(ids)) != n_items) or not _all_text(description["titles"] or []):
        raise ValueError("there are item_ids that are not distinct, or titles that are no text")
    return state


def _all_text(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
