"""Baselines as recommenders of this package: popularity, random walks, graph filters, SLIM, and four of implicit.

implicit fits ALS, ItemKNN, BPR and LMF. The ranking (exactly N items, padding, ties, float32) is the code that all
models share, so that only the scores differ. A test checks that these rankings equal those of implicit's `recommend`.
"""

from recvae.models.baselines.als import ALS
from recvae.models.baselines.gf_cf import GFCF
from recvae.models.baselines.item_knn import ItemKNN
from recvae.models.baselines.known_users import BPR, LMF, KnownUsers
from recvae.models.baselines.popularity import Popularity
from recvae.models.baselines.random_walk import P3alpha, RP3beta
from recvae.models.baselines.slim import SLIM

__all__ = ["ALS", "BPR", "GFCF", "LMF", "SLIM", "ItemKNN", "KnownUsers", "P3alpha", "Popularity", "RP3beta"]
