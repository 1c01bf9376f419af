"""Variational autoencoders for recommender systems."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recvae.version import __version__ as __version__

if TYPE_CHECKING:
    from recvae.data.interactions import Interactions
    from recvae.data.rules import Rules
    from recvae.data.splits import (
        Holdout,
        Split,
        given_split,
        leave_last_split,
        per_user_split,
        strong_split,
        temporal_split,
    )
    from recvae.datasets.card import Card, load_card
    from recvae.datasets.load import load_dataset, load_split
    from recvae.distributed.launch import joined
    from recvae.evaluation.evaluate import Evaluation, Metric, evaluate
    from recvae.evaluation.significance import PairedTest, holm, paired_bootstrap
    from recvae.models import EASE, EDLAE, HVamp, HybridVAE, MultDAE, MultVAE, RecVAE
    from recvae.models import baselines as baselines
    from recvae.models.autoencoder.options import OutputOptions, TrainingOptions
    from recvae.models.base import Recommender, load
    from recvae.training.checkpoint import Checkpoint
    from recvae.training.state import TrainConfig
    from recvae.training.trainer import Trainer
    from recvae.tuning.search import tune
    from recvae.tuning.selection import fit_split

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
    "OutputOptions",
    "PairedTest",
    "RecVAE",
    "Recommender",
    "Rules",
    "Split",
    "TrainConfig",
    "Trainer",
    "TrainingOptions",
    "baselines",
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

# module -> its public names. A module is loaded at the first access to one of them: `import recvae` stays cheap
_NAMES = {
    "recvae.data.interactions": ["Interactions"],
    "recvae.data.rules": ["Rules"],
    "recvae.data.splits": [
        "Holdout",
        "Split",
        "given_split",
        "leave_last_split",
        "per_user_split",
        "strong_split",
        "temporal_split",
    ],
    "recvae.datasets.card": ["Card", "load_card"],
    "recvae.datasets.load": ["load_dataset", "load_split"],
    "recvae.distributed.launch": ["joined"],
    "recvae.evaluation.evaluate": ["Evaluation", "Metric", "evaluate"],
    "recvae.evaluation.significance": ["PairedTest", "holm", "paired_bootstrap"],
    "recvae.models.autoencoder.options": ["OutputOptions", "TrainingOptions"],
    "recvae.models.base": ["Recommender", "load"],
    "recvae.models.baselines": ["baselines"],
    "recvae.models.ease": ["EASE"],
    "recvae.models.edlae": ["EDLAE"],
    "recvae.models.h_vamp": ["HVamp"],
    "recvae.models.hybrid_vae": ["HybridVAE"],
    "recvae.models.mult_dae": ["MultDAE"],
    "recvae.models.mult_vae": ["MultVAE"],
    "recvae.models.rec_vae": ["RecVAE"],
    "recvae.training.checkpoint": ["Checkpoint"],
    "recvae.training.state": ["TrainConfig"],
    "recvae.training.trainer": ["Trainer"],
    "recvae.tuning.search": ["tune"],
    "recvae.tuning.selection": ["fit_split"],
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
# loaded at the first access too: after `import recvae`, `recvae.models` and `recvae.nn` need no import of their own
_SUBPACKAGES = ["data", "datasets", "distributed", "evaluation", "models", "nn", "serving", "training", "tuning"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _SUBPACKAGES:
            return import_module(f"{__name__}.{name}")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(_MODULES[name])
        value = module if name == "baselines" else getattr(module, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
