"""SLIM against a general optimiser of its objective."""

import numpy as np
import pytest
from scipy import optimize, sparse

from recvae.models.baselines import SLIM, slim


def make_rows(users=60, items=18):
    """Rows of ratings, with two groups of items that go together; the last user and the last item have none."""
    random = np.random.default_rng(3)
    likes = random.random((users, 2)) < 0.5
    events = random.random((users, items)) < np.where(likes[:, np.arange(items) % 2], 0.5, 0.1)
    dense = events * random.integers(1, 6, (users, items))
    dense[-1], dense[:, -1] = 0, 0
    return dense.astype(np.float32)


def optimum(x, item, l1, l2, candidates):
    """The weights of an item by L-BFGS-B."""
    others, target = x[:, candidates].astype(np.float64), x[:, item].astype(np.float64)

    def objective(w):
        left = target - others @ w
        value = left @ left / 2 + l2 / 2 * w @ w + l1 * w.sum()
        return value, l2 * w + l1 - others.T @ left

    found = optimize.minimize(
        objective, np.zeros(len(candidates)), jac=True, bounds=[(0, None)] * len(candidates), options={"ftol": 1e-14}
    )
    weights = np.zeros(x.shape[1])
    weights[candidates] = found.x
    return weights


@pytest.mark.parametrize(("l1", "l2", "items", "cells"), [(0, 2, 5, 10**7), (1, 2, 256, 1), (6, 20, 256, 1000)])
def test_weights_minimise_the_objective(l1, l2, items, cells, monkeypatch):
    monkeypatch.setattr(slim, "ITEMS", items)
    monkeypatch.setattr(slim, "CELLS", cells)
    monkeypatch.setattr(slim, "TOLERANCE", 1e-6)
    x = make_rows()
    model = SLIM(l1=l1, l2=l2, values="raw").fit(sparse.csr_matrix(x))
    scaled = x / np.sqrt((x[x > 0] ** 2).mean())
    for item in range(17):
        expected = optimum(scaled, item, l1, l2, [other for other in range(17) if other != item])
        np.testing.assert_allclose(model.similarity_[:, [item]].toarray()[:, 0], expected, atol=1e-4)
    assert not model.similarity_[:, [17]].nnz


def test_by_default_weights_are_near_the_optimum():
    x = make_rows(400, 40)
    model = SLIM(l1=1.0, l2=5.0).fit(sparse.csr_matrix(x))
    binary = (x > 0).astype(np.float32)
    for item in range(39):
        expected = optimum(binary, item, 1.0, 5.0, [other for other in range(39) if other != item])
        np.testing.assert_allclose(model.similarity_[:, [item]].toarray()[:, 0], expected, atol=0.005)


def test_only_the_nearest_items_predict_one():
    x = (make_rows() > 0).astype(np.float32)
    weights = SLIM(l1=0.1, l2=2.0, neighbours=4).fit(sparse.csr_matrix(x)).similarity_.toarray()
    norms = np.maximum(np.linalg.norm(x, axis=0), 1)
    cosines = (x.T @ x) / norms[:, None] / norms
    np.fill_diagonal(cosines, -1)
    for item in range(17):
        assert set(np.flatnonzero(weights[:, item])) <= set(np.argsort(-cosines[:, item])[:4])
        np.testing.assert_allclose(
            weights[:, item], optimum(x, item, 0.1, 2.0, np.argsort(-cosines[:, item])[:4]), atol=0.003
        )


def test_more_of_l1_leaves_fewer_weights_and_none_is_negative():
    rows = sparse.csr_matrix(make_rows())
    few, many = (SLIM(l1=l1, l2=2.0).fit(rows).similarity_ for l1 in (5.0, 0.1))
    assert 0 < few.nnz < many.nnz
    assert few.data.min() > 0
    assert many.data.min() > 0


def test_penalties_do_not_depend_on_the_unit_of_values():
    rows = sparse.csr_matrix(make_rows())
    one, other = (SLIM(l1=1.0, l2=2.0, values="raw").fit(part).similarity_.toarray() for part in (rows, rows * 10))
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_scores_are_sums_of_weights_and_unreached_items_have_none():
    rows = sparse.csr_matrix(make_rows())
    model = SLIM(l1=1.0, l2=2.0).fit(rows)
    expected = (rows > 0).astype(np.float32).toarray() @ model.similarity_.toarray()
    scores = model.score(rows)
    np.testing.assert_allclose(scores[expected > 0], expected[expected > 0], rtol=1e-5)
    assert (scores[expected == 0] == np.finfo(np.float32).min).all()


def test_without_pairs_there_are_no_weights():
    rows = sparse.eye(4, 6, format="csr", dtype=np.float32)
    model = SLIM().fit(rows)
    assert model.similarity_.shape == (6, 6)
    assert model.similarity_.nnz == 0
