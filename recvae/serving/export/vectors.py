"""Items and users as vectors whose inner products are the scores: for a vector index over a large catalogue."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recvae.data.batches import DeviceRows
from recvae.data.rows import check_rows, transform_values
from recvae.errors import NotSupportedError
from recvae.models.autoencoder.base import Autoencoder
from recvae.models.base.similar import ENCODE_ROWS
from recvae.models.hybrid_vae import HybridVAE
from recvae.serving.export.program import check_network, check_scores


def item_vectors(model: Any) -> NDArray[np.float32]:
    """The rows of the output layer, each with the item's bias as its last number.

    The score of an item for a user is the inner product with the user's row of `user_vectors`.

    Parameters
    ----------
    model : Recommender
        A fitted model of a network.

    Returns
    -------
    numpy.ndarray
        (I, H + 1) float32.

    Raises
    ------
    NotFittedError, InvalidTypeError
        If it is not a fitted model.
    NotSupportedError
        If scores are not inner products of low dimension: HybridVAE, linear models, models of other libraries.
    """
    fitted = _check_vectors(model)
    weight, bias = (part.detach().cpu() for part in fitted.network_.decoder.output)
    items: NDArray[np.float32] = torch.cat([weight, bias[:, None]], dim=1).numpy()
    check_scores(fitted, lambda row: (np.arange(len(items))[None], user_vectors(fitted, row) @ items.T))
    return items


def user_vectors(model: Any, user_items: Any) -> NDArray[np.float32]:
    """The decoder's last hidden state for each row, with a 1 as its last number.

    Parameters
    ----------
    model : Recommender
        A fitted model of a network.
    user_items : csr_matrix or csr_array
        (B, I), a row for each user, over the items of training.

    Returns
    -------
    numpy.ndarray
        (B, H + 1) float32.

    Raises
    ------
    NotFittedError, NotSupportedError
        As `item_vectors`.
    InvalidTypeError, InvalidDataError
        If the rows are not a valid matrix over the items of training.
    """
    fitted = _check_vectors(model)
    rows = transform_values(check_rows(user_items, fitted.n_items_), fitted.values_)
    network = fitted.network_
    vectors = np.ones((rows.shape[0], network.decoder.weight.shape[1] + 1), dtype=np.float32)
    for start in range(0, len(vectors), ENCODE_ROWS):
        users = slice(start, start + ENCODE_ROWS)
        with torch.no_grad():
            hidden = network.hidden(DeviceRows(rows[users], network.decoder.weight.device).all())
        vectors[users, :-1] = hidden.cpu().numpy()
    return vectors


def _check_vectors(model: Any) -> Autoencoder:
    if isinstance(model, HybridVAE):
        raise NotSupportedError(
            f"{type(model).__name__} has no vectors: its linear path has full rank, so that its scores are no inner "
            f"products of few dimensions. Take the vectors of a RecVAE, or export_onnx or export_numpy."
        )
    return check_network(model)
