"""The models by name, each with the settings that a benchmark chooses from on validation users."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from recvae.errors import InvalidParameterError, UnknownNameError
from recvae.models import EASE, EDLAE, HVamp, HybridVAE, MultDAE, MultVAE, RecVAE
from recvae.models.base import Recommender
from recvae.models.base.params import get_params, options, parse_param, unknown_param, with_params
from recvae.models.baselines import ALS, BPR, LMF, ItemKNN, Popularity

# the models that this package is about; the others are the baselines that they are held against
OURS = ("HybridVAE", "RecVAE", "HVamp", "MultVAE", "MultDAE")

# name -> settings to choose from on validation users; one is no choice
CANDIDATES: dict[str, list[Recommender]] = {
    "HybridVAE": [HybridVAE()],
    "RecVAE": [RecVAE()],
    "HVamp": [HVamp()],
    "MultVAE": [MultVAE()],
    "MultDAE": [MultDAE()],
    "EASE": [EASE(l2=l2) for l2 in (10.0, 17.0, 28.0, 47.0, 80.0, 130.0, 220.0, 380.0, 630.0, 1060.0, 1780.0, 3000.0)],
    "EDLAE": [EDLAE(l2=l2, dropout=dropout) for l2 in (30.0, 100.0, 300.0, 1000.0) for dropout in (0.25, 0.33, 0.5)],
    "ALS": [
        ALS(factors=factors, regularization=regularization, alpha=alpha)
        for factors in (64, 256)
        # the penalty is not scaled by counts: what is enough for thousands of users is not for tens of thousands
        for regularization, alpha in (
            (30.0, 3.0),
            (30.0, 6.0),
            (60.0, 8.0),
            (100.0, 10.0),
            (200.0, 10.0),
            (400.0, 20.0),
        )
    ],
    "ItemKNN": [
        ItemKNN(weighting=weighting, K=K) for weighting in ("cosine", "tfidf", "bm25") for K in (20, 50, 100, 200)
    ],
    "BPR": [
        BPR(factors=factors, learning_rate=learning_rate, regularization=regularization)
        for factors in (64, 128)
        for learning_rate in (0.01, 0.02)
        for regularization in (0.0001, 0.001, 0.01)
    ],
    "LMF": [
        LMF(factors=factors, regularization=regularization, neg_prop=neg_prop)
        for factors in (16, 32, 64)
        for regularization in (0.6, 5.0)
        for neg_prop in (5, 20)
    ],
    "Popularity": [Popularity()],
}


# what models of one's own are compared with, as this package's are
BASELINES = tuple(name for name in CANDIDATES if name not in OURS)
DEFAULTS = (*OURS, *BASELINES)


def known_models(models: Sequence[str | type[Recommender]] | None) -> list[str]:
    """The names of models as `CANDIDATES` has them; all of them for None or "all". Raises as `known_model`."""
    names = [model.strip().lower() for model in models or () if isinstance(model, str)]
    if models is None or (names == ["all"] and len(models) == 1):
        return list(CANDIDATES)
    return [known_model(model) for model in models]


def known_model(model: str | type[Recommender]) -> str:
    """The name of a model as `CANDIDATES` has it, where a class of one's own is added with its default settings.

    Parameters
    ----------
    model : str or class
        A name, in any capitals; or a class of one's own, also as text "module:Class", which imports the module, from
        the working directory too.

    Raises
    ------
    UnknownNameError
        For a name that does not exist.
    InvalidParameterError
        For text that names no model class, and for a class with the name of another.
    """
    if isinstance(model, str) and ":" not in model:
        name = {known.lower(): known for known in CANDIDATES}.get(model.strip().lower())
        if name is None:
            raise UnknownNameError.among("model", model, CANDIDATES)
        return name
    own = _imported(model.strip()) if isinstance(model, str) else model
    if not (isinstance(own, type) and issubclass(own, Recommender)):
        raise InvalidParameterError(f"Expected a model, a class derived from recvae.Recommender, got {model!r:.200}.")
    if own.__name__ not in DEFAULTS:
        CANDIDATES[own.__name__] = [own()]
    elif own is not type(CANDIDATES[own.__name__][0]):
        raise InvalidParameterError(f"Expected a class with a name of its own, got another {own.__name__}; rename it.")
    return own.__name__


def _imported(path: str) -> object:
    """The object at "module:name"."""
    module, _, name = path.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)  # as `python -m` has it: a console script does not look there
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidParameterError(
            f"Expected a model as module:Class, such as my_module:MyModel, got {path!r:.200}: {error}."
        ) from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def candidates(name: str, params: dict[str, str]) -> list[Recommender]:
    """The settings of a model to choose from, with those `params` that it has in all of them."""
    if "random_state" in params:
        raise InvalidParameterError("Expected the seeds by first_seed and seeds (--seed, --seeds), got random_state.")
    known = [settings[0] for settings in CANDIDATES.values()]
    for param in params:
        if not any(param in options(model) for model in known):
            raise unknown_param(param, *known)
    made: list[Recommender] = []
    for candidate in CANDIDATES[name]:
        own = {param: text for param, text in params.items() if param in options(candidate)}
        changed = with_params(candidate, {param: parse_param(candidate, param, text) for param, text in own.items()})
        if get_params(changed) not in [get_params(other) for other in made]:
            made.append(changed)
    return made
