"""P3alpha, RP3beta and GFCF against their formulas, in dense numpy."""

import numpy as np
import pytest
from scipy import sparse

from recvae.models.baselines import GFCF, P3alpha, RP3beta, gf_cf, random_walk


def make_rows(users=40, items=25, values=False):
    """Rows of random events; the last user and the last item have none."""
    random = np.random.default_rng(3)
    dense = (random.random((users, items)) < 0.25) * (random.integers(1, 6, (users, items)) if values else 1.0)
    dense[-1], dense[:, -1] = 0, 0
    return dense.astype(np.float32)


def walk(x, alpha, beta, k, normalize):
    """W by loops over items and users, with the k largest of each row, and of these of each column."""
    n_users, n_items = x.shape
    counts = (x > 0).sum(0)
    weights = np.zeros((n_items, n_items))
    for i in range(n_items):
        for j in range(n_items):
            for u in range(n_users):
                if i != j and x[u, i] and x[u, j]:
                    step = (x[u, i] / x[:, i].sum()) * (x[u, j] / x[u].sum())
                    weights[i, j] += step**alpha / counts[j] ** beta
    for row in weights:
        row[np.argsort(-row, kind="stable")[k:]] = 0
    sums = weights.sum(1, keepdims=True)
    weights = np.divide(weights, sums, where=sums > 0, out=weights) if normalize else weights
    for column in weights.T:
        column[np.argsort(-column, kind="stable")[k:]] = 0
    return weights


@pytest.mark.parametrize(
    ("alpha", "beta", "k", "normalize", "values"),
    [(1.0, 0.0, 25, False, False), (0.7, 0.5, 25, False, True), (1.3, 0.4, 4, True, True), (0.0, 0.0, 6, True, False)],
)
def test_walks_are_those_of_the_formula(alpha, beta, k, normalize, values, monkeypatch):
    monkeypatch.setattr(random_walk, "BLOCK", 7)
    x = make_rows(values=values)
    options = {"alpha": alpha, "K": k, "normalize": normalize, "values": "raw"}
    model = RP3beta(beta=beta, **options).fit(sparse.csr_matrix(x))
    expected = walk(x.astype(np.float64), alpha, beta, k, normalize)
    np.testing.assert_allclose(model.similarity_.toarray(), expected, rtol=1e-5)
    scores = model.score(sparse.csr_matrix(x[:5]))
    reached = x[:5] @ expected > 0
    np.testing.assert_allclose(scores[reached], (x[:5] @ expected)[reached], rtol=1e-5)
    assert (scores[~reached] == np.finfo(np.float32).min).all()
    if beta == 0:
        same = P3alpha(**options).fit(sparse.csr_matrix(x)).similarity_
        np.testing.assert_array_equal(same.toarray(), model.similarity_.toarray())


def test_of_equal_neighbours_the_first_are_kept():
    model = P3alpha(K=3, normalize=False).fit(sparse.csr_matrix(np.ones((4, 9), np.float32)))
    kept = [np.flatnonzero(row).tolist() for row in model.similarity_.toarray()]
    assert kept == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [], [], [], [], []]


def filters(r, alpha, k):
    """R~^T R~ + alpha D_I^-1/2 V V^T D_I^1/2, with the singular value decomposition of numpy."""
    users, items = (np.where(r.sum(axis) > 0, r.sum(axis), 1.0) for axis in (1, 0))
    normalised = r / np.sqrt(users[:, None] * items)
    v = np.linalg.svd(normalised)[2][:k].T
    return normalised.T @ normalised + alpha * (v / np.sqrt(items)[:, None]) @ (v.T * np.sqrt(items))


@pytest.mark.parametrize("dense_up_to", [0, 100])
@pytest.mark.parametrize(("users", "items"), [(40, 25), (20, 32)])
def test_graph_filters_are_those_of_the_formula(users, items, dense_up_to, monkeypatch):
    monkeypatch.setattr(gf_cf, "DENSE", dense_up_to)
    x = make_rows(users, items)
    model = GFCF(alpha=0.4, k=6).fit(sparse.csr_matrix(x))
    expected = filters(x.astype(np.float64), 0.4, 6)
    np.testing.assert_allclose(model.score(sparse.csr_matrix(x)), x @ expected, rtol=1e-4, atol=1e-5)
    total, parts, _ = model.explain(0, sparse.csr_matrix(x), 5, N=items)
    contributions = dict(parts)
    assert total == pytest.approx(x[0] @ expected[:, 5], rel=1e-4)
    for item in np.flatnonzero(x[0]):
        assert contributions[item] == pytest.approx(expected[item, 5], rel=1e-3, abs=1e-6)


def test_more_vectors_than_there_are_is_all_of_them():
    x = make_rows()
    one, other = (GFCF(k=k).fit(sparse.csr_matrix(x)) for k in (24, 1000))
    np.testing.assert_allclose(one.score(sparse.csr_matrix(x)), other.score(sparse.csr_matrix(x)), rtol=1e-5)
    assert one.encoder_.shape == (25, 24)  # an item without users has no part in any


def test_graph_similarities_are_cosines_of_normalised_columns():
    x = make_rows()
    model = GFCF(k=5).fit(sparse.csr_matrix(x))
    ids, scores = model.similar_items(3, N=24)
    columns = x / np.sqrt(np.maximum(x.sum(1, keepdims=True), 1))
    norms = np.linalg.norm(columns, axis=0)
    cosines = columns.T @ columns[:, 3] / np.where(norms > 0, norms * norms[3], 1)
    assert ids[0] == 3
    np.testing.assert_allclose(scores, cosines[ids], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [P3alpha, RP3beta, GFCF])
@pytest.mark.parametrize("dense_up_to", [0, 2000])
def test_the_same_data_give_the_same_model(make, dense_up_to, monkeypatch):
    monkeypatch.setattr(gf_cf, "DENSE", dense_up_to)
    options = {"k": 6} if make is GFCF else {}
    x = sparse.csr_matrix(make_rows())
    one, other = (make(**options).fit(x)._tensors() for _ in range(2))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)


@pytest.mark.parametrize("make", [P3alpha, RP3beta, GFCF])
def test_a_user_without_events(make):
    ids, scores = make(values="raw").fit(sparse.csr_matrix(make_rows())).recommend(0, sparse.csr_matrix((1, 25)), N=3)
    if make is GFCF:
        assert ids.tolist() == [0, 1, 2]
        assert scores.tolist() == [0, 0, 0]
    else:
        assert ids.tolist() == [-1, -1, -1]


def test_one_event_is_enough_to_fit():
    rows = sparse.csr_matrix(([1.0], ([0], [1])), shape=(1, 3))
    assert GFCF().fit(rows).score(rows)[0] == pytest.approx([0, 1.3, 0])
    assert RP3beta().fit(rows).similarity_.nnz == 0
