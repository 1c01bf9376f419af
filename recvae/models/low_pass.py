"""A low-pass filter on the graph of items, in weights between items: a part of HybridVAE's linear path."""

from __future__ import annotations

import torch
from scipy import sparse
from torch import Tensor

from recvae.errors import InvalidParameterError
from recvae.models import blending
from recvae.models.autoencoder.shape import Shape
from recvae.models.closed_form import ClosedForm, is_sparse
from recvae.nn.singular import OVERSAMPLING, item_scale, scaled, singular_vectors, some_users
from recvae.utils.workers import ITEMS, cut, map_pieces

LOW_PASS = 0.5  # usual deviation of the filter's scores / that of the linear path's other scores
USERS = 50_000  # whose rows are decomposed, at most
USER_POWER, ITEM_POWER = 0.25, 0.375  # exponents p and q by which rows are scaled
ITEMS_PER_VECTOR, FEWEST, MOST = 20, 64, 400  # singular vectors: one for so many items, within these bounds
LEAST_VALUE = 1e-4  # of a singular value, as a share of the largest: those below are rounding errors
FEWEST_ITEMS_PER_VECTOR = 8  # with more vectors a filter lets nearly everything pass


def add_low_pass(path: ClosedForm, rows: sparse.csr_matrix, share: float) -> None:
    """Add a low-pass filter to the dense weights B of a fitted linear path.

        B + c (D_I^-q V V^T D_I^q),  diag = 0

    V (I, K) are the leading right singular vectors of D_U^-p X D_I^-q. With p = q = 1/2 the term is the second filter
    of GF-CF (Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021).

    Parameters
    ----------
    rows : csr_matrix
        (U, I), that the path was fitted to; their values do not count here.
    share : float
        Standard deviation of the term's scores, before the diagonal is removed, as a share of that of the path's: it
        determines c. Nothing is added if it is 0, as it is for weights in the sparse form.
    """
    if not share:
        return
    assert isinstance(path.weights_, Tensor)
    scale = item_scale(rows, ITEM_POWER)  # n_i^-q (I,)
    some = some_users(rows, USERS)
    vectors, values = singular_vectors(scaled(some, scale, USER_POWER), n_vectors(*some.shape))  # V (I, K), (K,)
    vectors = vectors[:, values > LEAST_VALUE * values.max()]
    outer = torch.from_numpy(scale)[:, None]
    encoder, decoder = outer * vectors, torch.where(outer > 0, vectors / outer, 0.0)  # D_I^-q V and D_I^q V

    def filtered(rows: sparse.csr_matrix) -> Tensor:
        return torch.from_numpy(rows @ encoder.numpy()) @ decoder.T

    weight = share * blending.ratio_of_deviations(path._score, filtered, rows)
    weights = path.weights_

    def add(piece: slice) -> None:
        weights[piece].addmm_(encoder[piece], decoder.T, alpha=weight)

    map_pieces(add, cut(len(weights), ITEMS))
    weights.fill_diagonal_(0)


def low_pass_share(given: float | None, shape: Shape, form: str) -> float:
    """The hyper-parameter `low_pass` of a HybridVAE, or its default for these data.

    Raises
    ------
    InvalidParameterError
        If there is to be a filter in weights of the sparse form.
    """
    in_sparse_form = is_sparse(form, shape.items)
    if given is None:
        return LOW_PASS if shape.suits_low_pass and not in_sparse_form else 0.0
    if given and in_sparse_form:
        raise InvalidParameterError(
            f'Expected low_pass=None or 0 for a linear path in the sparse form, got {given:g}; or set form="dense".'
        )
    return float(given)


def n_vectors(n_users: int, n_items: int) -> int:
    """The number of singular vectors of a filter."""
    usual = min(max(n_items // ITEMS_PER_VECTOR, FEWEST), MOST)
    return max(min(usual, n_users, n_items // FEWEST_ITEMS_PER_VECTOR), 1)


def bytes_to_filter(n_users: int, n_items: int, events: int) -> int:
    """Memory that `add_low_pass` takes."""
    users = min(n_users, USERS)
    vectors = n_vectors(users, n_items) + OVERSAMPLING
    # bases and their copies, two matrices of the term; images of users, also in double precision; scaled rows; scores
    return 28 * n_items * vectors + 16 * users * vectors + 40 * events + 8 * blending.USERS * n_items
