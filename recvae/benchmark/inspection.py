"""Inspection of a fitted model: the active units of its latent space, and a map of its items."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.interactions import Interactions
from recvae.models.base import Recommender

ACTIVE = 0.01  # a unit with a variance above this is active
MEASURED_USERS = 10_000  # variances are over this many users, the first ones
MAPPED = 2000  # items on the map, the most popular ones: vectors of the others are mostly noise
DIMENSIONS = 50  # principal components as input of t-SNE


def active_units(model: Recommender, user_items: sparse.csr_matrix) -> dict[str, Any] | None:
    """The variance over users of each latent unit's posterior mean, largest first, and how many units are active.

    A unit is active if its variance is above .01 (Burda, Grosse & Salakhutdinov 2016, section 5.2): its value depends
    on the user.
    None for models without a posterior.
    """
    if "encode" not in model.abilities():
        return None
    mean = model.encode(user_items[:MEASURED_USERS]).mean  # (B, K)
    variances = np.sort(mean.var(axis=0, dtype=np.float64))[::-1]
    rounded = [float(f"{variance:.4g}") for variance in variances]
    return {"variances": rounded, "active": int((variances > ACTIVE).sum())}


def item_map(name: str, model: Any, data: Interactions) -> dict[str, Any] | None:
    """A map of the most popular items: their normalised rows of the model's output layer, projected to the plane.

    The projection is scikit-learn's t-SNE of principal components; without scikit-learn, and for fewer than 10 items,
    it is the first two components. Titles and genres come from `data`. None for models without a network, and for
    fewer than three items.
    """
    if not hasattr(model, "network_"):
        return None
    counts = np.bincount(data.matrix.indices, minlength=data.n_items)
    items = np.argsort(-counts, kind="stable")[:MAPPED]
    if len(items) < 3:
        return None
    with torch.no_grad():
        vectors = model.network_.decoder.output[0][torch.from_numpy(items)].cpu().float().numpy()  # (n, W)
    positions, method = _project(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
    titles = data.item_ids if data.titles is None else data.titles
    return {
        "model": name,
        "method": method,
        "of": data.n_items,
        "x": [round(float(x), 2) for x in positions[:, 0]],
        "y": [round(float(y), 2) for y in positions[:, 1]],
        "title": [str(titles[item]) for item in items],
        "genres": None if data.genres is None else [str(data.genres[item]) for item in items],
        "users": counts[items].tolist(),
    }


def has_tsne() -> bool:
    """Whether scikit-learn, which has t-SNE, is installed."""
    return importlib.util.find_spec("sklearn") is not None


def _project(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float64], str]:
    """Project vectors (n, W) to the plane. -> positions (n, 2), and the name of the method"""
    components = _principal(vectors, min(DIMENSIONS, *vectors.shape))
    if len(vectors) < 10 or not has_tsne():
        return _scaled(components[:, :2]), "PCA"
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    positions = TSNE(2, perplexity=perplexity, init="pca", max_iter=500, random_state=0).fit_transform(components)
    return _scaled(positions), f"t-SNE (scikit-learn {importlib.metadata.version('scikit-learn')}), begun at PCA"


def _principal(vectors: NDArray[np.float32], n: int) -> NDArray[np.float64]:
    """The first n principal components, each with the sign that makes its largest entry positive: never mirrored."""
    centred = torch.from_numpy(vectors - vectors.mean(0)).double()
    left, strength, _ = torch.linalg.svd(centred, full_matrices=False)
    components: NDArray[np.float64] = (left[:, :n] * strength[:n]).numpy()
    largest = np.abs(components).argmax(0)
    return components * np.where(components[largest, np.arange(n)] < 0, -1.0, 1.0)


def _scaled(positions: NDArray[Any]) -> NDArray[np.float64]:
    """Positions (n, 1 or 2) centred and scaled to -100 ... 100. -> (n, 2)"""
    positions = np.pad(positions, ((0, 0), (0, 2 - positions.shape[1]))).astype(np.float64)
    return (positions - positions.mean(0)) * (100 / max(1e-12, np.abs(positions - positions.mean(0)).max()))
