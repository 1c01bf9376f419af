"""Baselines as recommenders of this package: popularity, and implicit's ALS, item-KNN, BPR and LMF.

implicit fits; the ranking (N exactly, padding, ties, float32) is the one all models share, so that nothing but the
scores differs. That these rankings equal implicit's own `recommend` is a test.
"""

from recvae.models.baselines.als import ALS
from recvae.models.baselines.item_knn import ItemKNN
from recvae.models.baselines.known_users import BPR, LMF, KnownUsers
from recvae.models.baselines.popularity import Popularity

__all__ = ["ALS", "BPR", "LMF", "ItemKNN", "KnownUsers", "Popularity"]
