"""The models by name, each with the settings that a benchmark chooses from on validation users."""

from __future__ import annotations

from recvae.baselines import ALS, BPR, LMF, ItemKNN, Popularity
from recvae.errors import InvalidParameterError, UnknownNameError
from recvae.models import EASE, EDLAE, MultDAE, MultVAE
from recvae.params import get_params, parse_param
from recvae.recommender import Recommender

# name -> settings to choose from on validation users; one is no choice
CANDIDATES: dict[str, list[Recommender]] = {
    "MultVAE": [MultVAE()],
    "MultDAE": [MultDAE()],
    "EASE": [EASE(l2=l2) for l2 in (10.0, 17.0, 28.0, 47.0, 80.0, 130.0, 220.0, 380.0, 630.0, 1060.0, 1780.0, 3000.0)],
    "EDLAE": [EDLAE(l2=l2, dropout=dropout) for l2 in (30.0, 100.0, 300.0, 1000.0) for dropout in (0.25, 0.33, 0.5)],
    "ALS": [
        ALS(factors=factors, regularization=regularization, alpha=alpha)
        for factors in (64, 128)
        for regularization, alpha in ((10.0, 3.0), (30.0, 3.0), (100.0, 10.0))
    ],
    "ItemKNN": [ItemKNN(weighting=weighting, K=K) for weighting in ("cosine", "tfidf", "bm25") for K in (20, 100)],
    "BPR": [
        BPR(learning_rate=learning_rate, regularization=regularization)
        for learning_rate, regularization in ((0.02, 0.01), (0.05, 0.05))
    ],
    "LMF": [
        LMF(factors=factors, regularization=regularization, neg_prop=5)
        for factors, regularization in ((16, 0.6), (32, 5.0))
    ],
    "Popularity": [Popularity()],
}


def known_model(name: str) -> str:
    """The name as `CANDIDATES` has it, whatever its capitals. Raises UnknownNameError."""
    found = {known.lower(): known for known in CANDIDATES}.get(name.strip().lower())
    if found is None:
        raise UnknownNameError.among("model", name, CANDIDATES)
    return found


def candidates(name: str, params: dict[str, str]) -> list[Recommender]:
    """The settings of a model to choose from, with those `params` that it has in all of them."""
    if "random_state" in params:
        raise InvalidParameterError("Expected the seeds by first_seed and seeds (--seed, --seeds), got random_state.")
    for param in params:
        known = {own for settings in CANDIDATES.values() for own in get_params(settings[0])}
        if param not in known:
            raise UnknownNameError.among("hyper-parameter", param, known)
    made: list[Recommender] = []
    for candidate in CANDIDATES[name]:
        settings = get_params(candidate)
        settings |= {own: parse_param(candidate, own, text) for own, text in params.items() if own in settings}
        if settings not in [get_params(other) for other in made]:
            made.append(type(candidate)(**settings))
    return made
