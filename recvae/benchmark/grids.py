"""The models by name, each with the grid of settings from which a benchmark chooses on validation users."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recvae.errors import InvalidParameterError, UnknownNameError

if TYPE_CHECKING:
    from recvae.models.base import Recommender

# the models that this package is about; the others are baselines
OURS = ("HybridVAE", "RecVAE", "HVamp", "MultVAE", "MultDAE")


def _product(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """All combinations of these values, the last varying fastest."""
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


SLIM_PENALTIES: dict[str, Sequence[float]] = {"l1": (0.1, 1.0, 5.0), "l2": (30.0, 100.0, 300.0, 1000.0)}
# the settings to try of each model; with a single one there is no choice
GRIDS: dict[str, list[dict[str, Any]]] = {
    "HybridVAE": [{}],
    "RecVAE": [{}],
    "HVamp": [{}],
    "MultVAE": [{}],
    "MultDAE": [{}],
    "EASE": _product(l2=(10.0, 17.0, 28.0, 47.0, 80.0, 130.0, 220.0, 380.0, 630.0, 1060.0, 1780.0, 3000.0)),
    "EDLAE": _product(l2=(30.0, 100.0, 300.0, 1000.0), dropout=(0.25, 0.33, 0.5)),
    "ALS": [
        {"factors": factors, "regularization": regularization, "alpha": alpha}
        for factors in (64, 256)
        # the penalty is not scaled by counts: tens of thousands of users need a larger one than thousands
        for regularization, alpha in (
            (30.0, 3.0),
            (30.0, 6.0),
            (60.0, 8.0),
            (100.0, 10.0),
            (200.0, 10.0),
            (400.0, 20.0),
        )
    ],
    "SLIM": _product(**SLIM_PENALTIES),
    "ItemKNN": _product(weighting=("cosine", "tfidf", "bm25"), K=(20, 50, 100, 200)),
    "P3alpha": _product(alpha=(0.35, 0.5, 0.75, 1.0), K=(50, 100, 200)),
    "RP3beta": _product(alpha=(0.5, 0.75), beta=(0.15, 0.3, 0.5), K=(100, 200)),
    "GFCF": _product(alpha=(0.05, 0.1, 0.2, 0.3), k=(64, 128, 256)),
    "BPR": _product(factors=(64, 128), learning_rate=(0.01, 0.02), regularization=(0.0001, 0.001, 0.01)),
    "LMF": _product(factors=(16, 32, 64), regularization=(0.6, 5.0), neg_prop=(5, 20)),
    "Popularity": [{}],
}


# On the embedded sample, 2,200 training users x 600 items, these replace the defaults: smaller networks, larger steps
# and fewer neighbours rank the models as the defaults do, in a fraction of the time
SAMPLE: dict[str, list[dict[str, Any]]] = {
    "HybridVAE": [{"epochs": 10, "latent_dim": 100, "hidden_dim": 200, "learning_rate": 3e-3}],
    "RecVAE": [{"epochs": 16, "latent_dim": 100, "hidden_dim": 200, "learning_rate": 3e-3}],
    "HVamp": [
        {"epochs": 6, "latent_dim": 100, "hidden_dims": (200,), "n_components": 100, "learning_rate": 4e-3},
    ],
    "MultVAE": [{"epochs": 20, "hidden_dims": (300,), "batch_size": 200, "learning_rate": 1.5e-3}],
    "MultDAE": [{"epochs": 10, "batch_size": 200, "learning_rate": 2e-3}],
    "SLIM": _product(**SLIM_PENALTIES, neighbours=(50,)),
}

# the models that all others are compared with
BASELINES = tuple(name for name in GRIDS if name not in OURS)
# classes from outside of this package, by name, registered at first use
OWN_MODELS: dict[str, type[Recommender]] = {}


def model_name(model: str | type[Recommender]) -> str:
    """The name of a model in its own capitalisation.

    Parameters
    ----------
    model : str or class
        A name, in any capitalisation; or a class of your own, also as text "module:Class", which imports the module,
        also from the working directory.

    Raises
    ------
    UnknownNameError
        For a name that does not exist.
    InvalidParameterError
        For text that names no model class, and for a class that lacks methods or shares its name with a model of this
        package.
    """
    if isinstance(model, str) and ":" not in model:
        names = {known.lower(): known for known in (*GRIDS, *OWN_MODELS)}
        if model.strip().lower() not in names:
            raise UnknownNameError.among("model", model, names.values())
        return names[model.strip().lower()]
    from recvae.models.base import Recommender

    cls = _imported(model.strip()) if isinstance(model, str) else model
    if not (isinstance(cls, type) and issubclass(cls, Recommender)):
        raise InvalidParameterError(f"Expected a model, a class derived from recvae.Recommender, got {model!r:.200}.")
    if lacking := sorted(getattr(cls, "__abstractmethods__", ())):
        raise InvalidParameterError(f"Expected a model that defines {', '.join(lacking)}, got {cls.__name__} without.")
    if cls.__name__ not in (*OURS, *BASELINES):
        OWN_MODELS[cls.__name__] = cls
    elif cls is not model_class(cls.__name__):
        raise InvalidParameterError(f"Expected a class with a name of its own, got another {cls.__name__}; rename it.")
    return cls.__name__


def model_names(models: Sequence[str | type[Recommender]] | None) -> list[str]:
    """The names of models as `model_name` gives them; None or ["all"] for all of the package. Raises as that does."""
    names = [model.strip().lower() for model in models or () if isinstance(model, str)]
    if models is None or (names == ["all"] and len(models) == 1):
        return list(GRIDS)
    return [model_name(model) for model in models]


def model_class(name: str) -> type[Recommender]:
    """The class of a model, by its name as `model_name` gives it."""
    if name in OWN_MODELS:
        return OWN_MODELS[name]
    modules = (import_module("recvae.models"), import_module("recvae.models.baselines"))
    cls: type[Recommender] = next(getattr(module, name) for module in modules if name in module.__all__)
    return cls


def _imported(path: str) -> object:
    """The object at "module:name"."""
    module, _, name = path.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)  # a console script, unlike `python -m`, has no working directory on the path
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidParameterError(
            f"Expected a model as module:Class, such as my_module:MyModel, got {path!r:.200}: {error}."
        ) from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def first_model(name: str) -> Recommender:
    """A model with the first settings of its grid. Raises as `model_name`."""
    name = model_name(name)
    return model_class(name)(**GRIDS.get(name, [{}])[0])


def models_to_try(
    name: str, params: Mapping[str, str], presets: Mapping[str, list[dict[str, Any]]] | None = None
) -> list[Recommender]:
    """A model for each of its settings in the grid, with those of `params` that it has; duplicates are left out.

    Parameters
    ----------
    name
        Name of the model as `model_name` gives it.
    params
        Hyper-parameters as text, such as {"epochs": "20"}; each has to exist in at least one model.
    presets
        Settings by name of the model that replace those of the grid, such as `SAMPLE`.

    Raises
    ------
    UnknownNameError
        For a hyper-parameter that no model has.
    InvalidParameterError
        For text that cannot be parsed as its value, and for random_state, which is set by the seeds of the benchmark.
    """
    from recvae.models.base.params import get_params, options, parse_param, unknown_param, with_params

    if "random_state" in params:
        raise InvalidParameterError("Expected the seeds by first_seed and seeds (--seed, --seeds), got random_state.")
    classes = [model_class(known) for known in (*GRIDS, *OWN_MODELS)]
    for param in params:
        if not any(param in options(cls) for cls in classes):
            raise unknown_param(param, *classes)
    models: list[Recommender] = []
    for settings in (GRIDS | dict(presets or {})).get(name, [{}]):
        model = model_class(name)(**settings)
        parsed = {param: parse_param(model, param, text) for param, text in params.items() if param in options(model)}
        model = with_params(model, parsed)
        if get_params(model) not in [get_params(other) for other in models]:
            models.append(model)
    return models
