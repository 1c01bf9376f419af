"""The low-pass filter in HybridVAE's linear path: against an exact decomposition, and where there is one."""

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae import EDLAE, HybridVAE, strong_split
from recvae.datasets.sample import make_sample
from recvae.errors import InvalidParameterError
from recvae.models import low_pass
from recvae.models.autoencoder.shape import Shape
from recvae.models.low_pass import LOW_PASS, add_low_pass, n_vectors

QUICK = {"epochs": 1, "latent_dim": 8, "hidden_dim": 16, "depth": 2, "random_state": 0, "l2": 100.0}


@pytest.fixture(scope="module")
def split():
    return strong_split(make_sample(n_users=400, n_items=100).interactions, heldout_users=80)


@pytest.fixture
def rows(split):
    """The last item has no users, the first user no items; values do not count."""
    dense = split.train.matrix.toarray()
    dense[0], dense[:, -1] = 0, 0
    return sparse.csr_matrix(2 * dense)


def exact(rows, k):
    """D_I^-q V V^T D_I^q of D_U^-p X D_I^-q by numpy."""
    events = (rows.toarray() > 0).astype(np.float64)
    users, items = events.sum(1, keepdims=True), events.sum(0)
    scale = np.divide(1, items**0.375, where=items > 0, out=np.zeros_like(items))
    vectors = np.linalg.svd(np.maximum(users, 1) ** -0.25 * events * scale)[2][:k].T
    return scale[:, None] * (vectors @ vectors.T) * items**0.375


def test_the_term_is_that_of_an_exact_decomposition(rows, monkeypatch):
    monkeypatch.setattr(low_pass, "FEWEST", 5)  # where values are far apart
    plain, filtered = (EDLAE(l2=100.0).fit(rows, show_progress=False) for _ in range(2))
    add_low_pass(filtered, rows, 0.5)
    expected = exact(rows, 5)
    of_users = [(rows[1:] @ weights).std(axis=1) for weights in (plain.weights_.numpy(), expected)]  # with events
    deviations = [np.sqrt((by_user**2).mean()) for by_user in of_users]
    expected *= 0.5 * deviations[0] / deviations[1]
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(filtered.weights_ - plain.weights_, expected, atol=0.01 * np.abs(expected).max())
    assert not filtered.weights_.diagonal().any()
    assert not expected[-1].any()


def test_vectors_of_chance_are_left_out():
    """Users of two kinds have two directions, whatever the number of vectors."""
    dense = np.zeros((40, 32), dtype=np.float32)
    dense[:30, :20] = dense[30:, 12:] = 1
    rows = sparse.csr_matrix(dense)
    plain, filtered = (EDLAE(l2=100.0).fit(rows, show_progress=False) for _ in range(2))
    assert n_vectors(*rows.shape) > 2
    add_low_pass(filtered, rows, 0.5)
    term, expected = (filtered.weights_ - plain.weights_).numpy(), exact(rows, 2)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(term / np.linalg.norm(term), expected / np.linalg.norm(expected), atol=1e-4)


@pytest.mark.parametrize(
    ("n_users", "n_items", "vectors"),
    [(5_000, 600, 64), (5_000, 3_500, 175), (50_000, 11_000, 400), (30, 600, 30), (5_000, 80, 10), (3, 5, 1)],
)
def test_the_number_of_vectors_follows_the_items(n_users, n_items, vectors):
    assert n_vectors(n_users, n_items) == vectors


@pytest.mark.parametrize(
    ("shape", "suits"),
    [
        (Shape(738, 1_417, 42_923), True),  # ml-100k
        (Shape(738, 1_417, 11_000), False),  # users have few events: thin
        (Shape(483, 5_676, 40_607), False),  # items have few
        (Shape(20, 20, 400), True),
    ],
)
def test_where_items_have_enough_events(shape, suits):
    assert shape.suits_low_pass is suits


def test_by_default_a_hybrid_on_dense_data_has_one(split):
    rows, default = split.train, HybridVAE(**QUICK)
    by_default, chosen, without = (
        HybridVAE(**QUICK, low_pass=share).fit(rows, valid=split.valid, show_progress=False).linear_
        for share in (default.low_pass, LOW_PASS, 0.0)
    )
    path = EDLAE(**{name: getattr(without, name) for name in ("l2", "user_power", "item_power", "values")})
    assert torch.equal(without.weights_, path.fit(rows.matrix, show_progress=False).weights_)
    assert torch.equal(by_default.weights_, chosen.weights_)
    assert not torch.equal(by_default.weights_, without.weights_)


def test_the_sparse_form_has_none(split):
    sparse_form = {"form": "sparse", "neighbours": 20}
    with pytest.raises(InvalidParameterError, match=r"low_pass=None or 0 .*sparse form, got 0\.5"):
        HybridVAE(**QUICK, **sparse_form, low_pass=0.5).fit(split.train, valid=split.valid, show_progress=False)
    model = HybridVAE(**QUICK, **sparse_form).fit(split.train, valid=split.valid, show_progress=False)
    assert sparse.issparse(model.linear_.weights_)
