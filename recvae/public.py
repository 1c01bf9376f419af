"""The public names of the package, which `recvae` passes on."""

import recvae.baselines  # noqa: F401
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
