"""Baselines as recommenders of this package: popularity, and implicit's ALS, item-KNN, BPR and LMF.

implicit fits the models; the ranking (exactly N items, padding, ties, float32) is the code that all models share, so
that only the scores differ. A test checks that these rankings equal those of implicit's own `recommend`.
"""

from recvae.models.baselines.als import ALS
from recvae.models.baselines.item_knn import ItemKNN
from recvae.models.baselines.known_users import BPR, LMF, KnownUsers
from recvae.models.baselines.popularity import Popularity

__all__ = ["ALS", "BPR", "LMF", "ItemKNN", "KnownUsers", "Popularity"]
