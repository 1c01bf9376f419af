"""Vectors of items that nobody has touched, from features of all items."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import svd

from recvae.models.autoencoder.scoring import network_scores
from recvae.nn import VAE
from recvae.nn.growing import ItemVectors, enlarged, item_vectors, mean_where_unknown
from recvae.utils.memory import require_memory

PENALTIES = 10.0 ** np.arange(-4, 2.5, 0.5)  # of the ridge regression, in units of the features' mean variance
ONES = 256  # users of one item each, about as many

Array = NDArray[np.float64]


def by_features(network: VAE, features: sparse.csr_matrix) -> ItemVectors:
    """Vectors of new items by `ridge`, their bias raised by what regression takes from high scores.

    A predicted score is a mean, and the exponential of a mean is less than the mean of exponentials: of old items that
    were left out and predicted, the sum of exp(score) falls short of what it is. The bias makes up for that, in the
    mean over users of one item each. An item without features has the mean of all vectors, and the lowest bias.

    Parameters
    ----------
    features : sparse.csr_matrix
        (I + n, F), rows of the old items first.

    Raises
    ------
    NotEnoughMemoryError
    """
    old = item_vectors(network)
    new, left_out = ridge(old, features)
    n_items = len(old.bias)
    ones = sparse.identity(n_items, dtype=np.float32, format="csr")[:: -(-n_items // ONES)]
    scores = network_scores(enlarged(network, left_out), ones)  # (U, I) of their own, and (U, I) of those left out
    short = scores[:, :n_items].logsumexp(1) - scores[:, n_items:].logsumexp(1)
    new.bias.add_(float(short.mean()))
    return mean_where_unknown(new, old, features[n_items:])


def ridge(old: ItemVectors, features: sparse.csr_matrix) -> tuple[ItemVectors, ItemVectors]:
    """Ridge regression of the old items' vectors on their features, with an intercept.

    One penalty serves for all: that of the least squared error, relative to the spread of each kind of vector, in old
    items left out one by one, which the regression gives in closed form (Allen's PRESS, 1974).

    Parameters
    ----------
    features : sparse.csr_matrix
        (I + n, F).

    Returns
    -------
    tuple[ItemVectors, ItemVectors]
        Vectors of the new items, and of each old one, predicted from the others.
    """
    n_items, width = old.first.shape
    known, new = features[:n_items], features[n_items:]
    require_memory(
        32 * n_items * features.shape[1], f"{n_items:,} items x {features.shape[1]:,} features", "fewer features"
    )
    mean = np.asarray(known.mean(axis=0)).ravel()
    basis, sizes, axes = svd(known.toarray() - mean, full_matrices=False, overwrite_a=True)  # (I, R), (R,), (R, F)
    some = sizes > 1e-9 * np.linalg.norm(known.data)  # the others are rounding
    basis, sizes, axes = basis[:, some], sizes[some], axes[some]
    wanted = np.hstack([part.numpy().reshape(n_items, -1) for part in old]).astype(np.float64)  # (I, D)
    level = wanted.mean(0)
    wanted -= level
    spread = [np.linalg.norm(part) for part in np.split(wanted, [width, wanted.shape[1] - 1], axis=1)]
    scale = np.repeat(np.maximum(spread, 1e-30), [width, wanted.shape[1] - 1 - width, 1])
    penalty = _best_penalty(basis, sizes, wanted / scale)
    slopes = (sizes / (sizes**2 + penalty))[:, None] * (basis.T @ wanted)  # (R, D)
    errors = _left_out(basis, sizes, wanted, penalty)
    places = new @ axes.T - mean @ axes.T  # (n, R)
    return _vectors(level + places @ slopes, width), _vectors(level + wanted - errors, width)


def _vectors(side_by_side: Array, width: int) -> ItemVectors:
    """(I, H + H' + 1), H the width of the first layer ->"""
    whole = torch.from_numpy(side_by_side.astype(np.float32))
    return ItemVectors(whole[:, :width], whole[:, width:-1], whole[:, -1])


def _best_penalty(basis: Array, sizes: Array, wanted: Array) -> float:
    """The penalty with the least squared error in items left out."""
    unit = float((sizes**2).mean()) if len(sizes) else 1.0
    penalties = [share * unit for share in PENALTIES]
    return min(penalties, key=lambda penalty: float((_left_out(basis, sizes, wanted, penalty) ** 2).sum()))


def _left_out(basis: Array, sizes: Array, wanted: Array, penalty: float) -> Array:
    """Errors of items that are predicted from the others. basis (I, R), sizes (R,), wanted (I, D), centred -> (I, D)"""
    shrunk = basis * (sizes**2 / (sizes**2 + penalty))
    own = 1 / len(basis) + np.einsum("ir,ir->i", shrunk, basis)  # how much of an item's prediction is its own
    errors: Array = (wanted - shrunk @ (basis.T @ wanted)) / np.maximum(1 - own, 1e-6)[:, None]
    return errors
