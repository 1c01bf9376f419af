"""Loads what the public names of `recvae` stand for; which these are is said there, by its `__all__`."""
# ruff: noqa: F401

import recvae.baselines
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
