"""Methods that use the posterior, on real data: anomalous users, synthetic users, lists with exploration."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from recvae import Holdout, MultVAE, RecVAE, Split
from recvae.data.rows import transform_values
from recvae.models.autoencoder.variational import Variational

MODELS: dict[str, type[Variational]] = {"MultVAE": MultVAE, "RecVAE": RecVAE}  # with their defaults


def training_rows(split: Split) -> sparse.csr_matrix:
    """Rows of the training users, values read as the data declare it."""
    return transform_values(split.train.matrix, split.train.values).astype(np.float32)


def whole_rows(holdout: Holdout, values: str) -> sparse.csr_matrix:
    """All events of held-out users, folded in or held out."""
    return transform_values((holdout.fold_in + holdout.held_out).tocsr(), values).astype(np.float32)
