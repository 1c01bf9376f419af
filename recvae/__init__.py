"""Variational autoencoders for recommender systems."""

from recvae.cards import Card, load_card
from recvae.datasets import load_dataset
from recvae.evaluation import Evaluation, Metric, PairedTest, evaluate, paired_bootstrap
from recvae.interactions import Interactions
from recvae.models import MultDAE, MultVAE
from recvae.recommender import Recommender
from recvae.split import Holdout, Split, strong_split

__version__ = "0.1.0"

__all__ = [
    "Card",
    "Evaluation",
    "Holdout",
    "Interactions",
    "Metric",
    "MultDAE",
    "MultVAE",
    "PairedTest",
    "Recommender",
    "Split",
    "evaluate",
    "load_card",
    "load_dataset",
    "paired_bootstrap",
    "strong_split",
]
