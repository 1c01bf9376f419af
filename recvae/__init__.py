"""Variational autoencoders for recommender systems."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recvae.version import __version__ as __version__

if TYPE_CHECKING:
    from recvae import baselines as baselines
    from recvae.cards import Card, load_card
    from recvae.checkpoint import Checkpoint
    from recvae.datasets import load_dataset, load_split
    from recvae.evaluation import Evaluation, Metric, PairedTest, evaluate, holm, paired_bootstrap
    from recvae.interactions import Interactions
    from recvae.models import EASE, EDLAE, HVamp, HybridVAE, MultDAE, MultVAE, RecVAE
    from recvae.recommender import Recommender, load
    from recvae.search import tune
    from recvae.split import (
        Holdout,
        Split,
        given_split,
        leave_last_split,
        per_user_split,
        strong_split,
        temporal_split,
    )
    from recvae.torchrun import joined
    from recvae.tuning import fit_split

__all__ = [
    "EASE",
    "EDLAE",
    "Card",
    "Checkpoint",
    "Evaluation",
    "HVamp",
    "Holdout",
    "HybridVAE",
    "Interactions",
    "Metric",
    "MultDAE",
    "MultVAE",
    "PairedTest",
    "RecVAE",
    "Recommender",
    "Split",
    "evaluate",
    "fit_split",
    "given_split",
    "holm",
    "joined",
    "leave_last_split",
    "load",
    "load_card",
    "load_dataset",
    "load_split",
    "paired_bootstrap",
    "per_user_split",
    "strong_split",
    "temporal_split",
    "tune",
]

# The public names are loaded when one is asked for, and then all of them, so that a command can say what to do when it
# is interrupted before the libraries are there, which take seconds to load.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        loaded = vars(import_module("recvae.public"))
        globals().update({public: loaded[public] for public in __all__ if public in loaded})
        if name not in globals():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
