import io

import numpy as np
import psutil
import pytest
from scipy import sparse

import recvae
from recvae import EASE, EDLAE
from recvae.errors import InvalidDataError, NotEnoughMemoryError, TrainingError
from recvae.models.closed_form import dense_weights, gram, gram_diagonal, solution_path, sparse_weights

MODELS = {"EASE": EASE(l2=5.0), "EDLAE": EDLAE(l2=2.0, dropout=0.3)}
EVERYONE = 10_000  # more neighbours than there are items


@pytest.fixture(params=["binary", "raw"])
def rows(request):
    random = np.random.default_rng(0)
    # 90 users, 30 items, of which the last nobody has
    dense = (random.random((90, 30)) < random.random(30) * 0.3 + 0.35) * random.integers(1, 6, (90, 30))
    dense[:, -1] = 0
    matrix = sparse.csr_matrix(dense.astype(np.float32))
    return matrix if request.param == "raw" else matrix.astype(bool).astype(np.float32)


@pytest.fixture(params=[False, True], ids=["all users alike", "users weighted"])
def weights(request, rows):
    return np.random.default_rng(1).uniform(0.2, 3, rows.shape[0]) if request.param else None


def ridge(inputs, targets, penalty, weights):
    """argmin over b of sum_u w_u (y_u - x_u b)^2 + b^T diag(penalty) b, as a least-squares problem of its own."""
    root = np.sqrt(np.ones(len(inputs)) if weights is None else weights)[:, None]
    stacked = np.vstack([root * inputs, np.diag(np.sqrt(penalty))])
    return np.linalg.lstsq(stacked, np.concatenate([root[:, 0] * targets, np.zeros(len(penalty))]), rcond=None)[0]


def test_each_column_is_the_ridge_regression_of_its_item_on_the_others(rows, weights):
    x, penalty = rows.toarray().astype(float), np.linspace(1, 9, rows.shape[1])
    found = dense_weights(gram(rows, weights), penalty)
    assert found.dtype == np.float32
    for item in range(rows.shape[1]):
        others = np.arange(rows.shape[1]) != item
        expected = ridge(x[:, others], x[:, item], penalty[others], weights)
        np.testing.assert_allclose(found[others, item], expected, rtol=1e-3, atol=1e-5)
    assert (found.diagonal() == 0).all()


def test_the_gram_matrix_of_more_items_than_one_block_holds():
    rows = sparse.random(40, 1300, density=0.05, random_state=0, format="csr", dtype=np.float32)
    expected = (rows.T @ rows).toarray()
    np.testing.assert_allclose(gram(rows), expected, rtol=1e-5)
    np.testing.assert_allclose(gram_diagonal(rows), expected.diagonal(), rtol=1e-5)
    # and what is done with it
    inverse = np.linalg.inv(expected.astype(float) + np.eye(1300))
    weights = np.eye(1300) - inverse / inverse.diagonal()
    np.testing.assert_allclose(dense_weights(gram(rows), 1.0), weights, atol=1e-5)


def test_the_inverse_takes_no_memory_of_its_own(rows):
    one = gram(rows)
    assert np.shares_memory(dense_weights(one, 1.0), one)


def test_the_same_of_a_gram_matrix_in_another_order(rows):
    expected = dense_weights(gram(rows), 1.0)
    np.testing.assert_allclose(dense_weights(np.asfortranarray(gram(rows)), 1.0), expected, rtol=1e-5)


def test_with_all_neighbours_sparse_weights_are_the_dense_ones(rows, weights):
    penalty = np.linspace(1, 9, rows.shape[1])
    some = np.asarray(rows.sum(0)).ravel() > 0
    together = gram(rows, weights) != 0
    assert together[np.ix_(some, some)].all()  # else an item without users in common is no neighbour
    found = sparse_weights(rows, penalty, EVERYONE, weights)
    np.testing.assert_allclose(found.toarray(), dense_weights(gram(rows, weights), penalty), rtol=1e-3, atol=1e-5)


def test_few_neighbours_are_the_nearest_by_cosine_and_solved_for_exactly(rows, weights):
    x, penalty, n = rows.toarray().astype(float), np.linspace(1, 9, rows.shape[1]), 4
    norms = np.maximum(np.sqrt(gram_diagonal(rows, weights)), 1e-9)
    cosines = gram(rows, weights) / norms / norms[:, None]
    np.fill_diagonal(cosines, -1)
    found = sparse_weights(rows, penalty, n, weights).toarray()
    for item in range(rows.shape[1] - 1):
        nearest = np.flatnonzero(found[:, item])
        assert len(nearest) == n
        assert cosines[nearest, item].min() >= np.sort(cosines[:, item])[-n] - 1e-6  # some are equally near
        expected = ridge(x[:, nearest], x[:, item], penalty[nearest], weights)
        np.testing.assert_allclose(found[nearest, item], expected, rtol=1e-3, atol=1e-5)
    assert not found[:, -1].any()  # nobody has it


def test_penalties_solved_for_together_are_as_one_by_one(rows):
    models = [EDLAE(l2=l2, user_power=0.5, form="sparse", neighbours=4, values="raw") for l2 in (1.0, 30.0)]
    for model, found in zip(models, solution_path(models, rows, True, 4), strict=True):
        np.testing.assert_array_equal(found().toarray(), model.fit(rows).weights_.toarray())


def test_a_penalty_that_cannot_be_solved_for_is_an_error_where_it_is_asked_for():
    twins = sparse.csr_matrix(np.tile(np.eye(3, dtype=np.float32), (2, 2)))  # items 0 and 3 have the same users
    together = sparse.vstack([twins, sparse.csr_matrix(np.ones((1, 6), np.float32))]).tocsr()
    impossible, possible = solution_path([EASE(l2=0.0), EASE(l2=1.0)], together, True, 5)
    assert np.isfinite(possible().data).all()
    with pytest.raises(TrainingError, match="positive definite"):
        impossible()


def test_edlae_is_the_mean_over_dropout(rows):
    """The regression of each item on the others, of which dropout hides some: in expectation, from many draws."""
    x, p, l2 = rows.toarray().astype(float), 0.3, 2.0
    random = np.random.default_rng(2)
    squares = sum(kept.T @ kept for kept in ((random.random(x.shape) > p) * x for _ in range(4000))) / 4000
    model = EDLAE(l2=l2, dropout=p, values="raw").fit(rows)
    scale = np.mean(rows.data**2)  # an event weighs 1
    others = np.arange(1, rows.shape[1])
    # of a target that is never its own input: (E[d^T d] + q^2 l2) b = q x^T y, where d is what dropout left and
    # q = 1 - p; the model leaves out that its inputs come in full at scoring, and so is q b
    system = squares[np.ix_(others, others)] / scale + np.eye(len(others)) * l2 * (1 - p) ** 2
    expected = np.linalg.solve(system, (1 - p) * x[:, others].T @ x[:, 0] / scale) * (1 - p)
    np.testing.assert_allclose(model.weights_[others, 0], expected, atol=0.006)


def test_edlae_without_dropout_is_ease(rows):
    one, two = EDLAE(l2=3.0, dropout=0.0).fit(rows), EASE(l2=3.0).fit(rows)
    np.testing.assert_array_equal(one.weights_, two.weights_)


def test_busy_users_weigh_less_and_the_penalty_as_before(rows):
    n = np.diff(rows.indptr)
    weights = n**-0.5 / np.average(n**-0.5, weights=n)
    scale = np.mean(rows.data**2)
    expected = dense_weights(gram(rows, weights) / np.float32(scale), 3.0)
    found = EASE(l2=3.0, user_power=0.5, values="raw").fit(rows).weights_
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert not np.allclose(found, EASE(l2=3.0, values="raw").fit(rows).weights_, atol=1e-3)


def test_users_who_are_equally_busy_weigh_the_same(checkerboard):
    plain, weighted = (EASE(l2=3.0, user_power=power).fit(checkerboard).weights_ for power in (0.0, 0.5))
    np.testing.assert_allclose(weighted, plain, atol=1e-6)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_weights_are_scaled_by_powers_of_the_numbers_of_users(rows, form):
    n = np.maximum((rows.toarray() > 0).sum(0), 1.0)
    plain = EDLAE(l2=2.0, form=form, values="raw").fit(rows).weights_
    scaled = EDLAE(l2=2.0, form=form, values="raw", item_power=0.3).fit(rows).weights_
    plain, scaled = (each.numpy() if form == "dense" else each.toarray() for each in (plain, scaled))
    np.testing.assert_allclose(scaled, n[:, None] ** 0.3 * plain / n**0.3, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_scores_are_the_row_times_the_weights(name, form, split):
    model = type(MODELS[name])(l2=5.0, form=form, neighbours=EVERYONE).fit(split.train)
    weights = model.weights_.numpy() if form == "dense" else model.weights_.toarray()
    fold_in, n_items = split.test.fold_in, split.train.n_items
    ids, scores = model.recommend(np.arange(fold_in.shape[0]), fold_in, N=n_items, filter_already_liked_items=False)
    expected = fold_in.astype(bool).toarray() @ weights
    np.testing.assert_allclose(scores, np.take_along_axis(expected, ids, axis=1), rtol=1e-4, atol=1e-5)


def test_an_item_that_nothing_speaks_for_has_the_score_of_zero():
    rows = sparse.csr_matrix([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    for form in ("dense", "sparse"):
        ids, scores = EASE(l2=1.0, form=form).fit(rows).recommend(0, sparse.csr_matrix([[1.0, 0.0, 0.0]]), N=3)
        assert ids.tolist() == [1, 2, -1]
        assert scores[1] == 0


def test_wide_catalogues_are_sparse_of_themselves(monkeypatch, split):
    assert not sparse.issparse(EASE().fit(split.train).weights_)
    monkeypatch.setattr(recvae.models.closed_form, "WIDE", split.train.n_items - 1)
    assert sparse.issparse(EASE().fit(split.train).weights_)
    assert not sparse.issparse(EASE(form="dense").fit(split.train).weights_)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_models_come_back_from_a_file_in_their_form(form, split):
    stream = io.BytesIO()
    model = EDLAE(form=form, neighbours=10).fit(split.train)
    model.save(stream)
    if form == "sparse":
        assert len(stream.getvalue()) < 12 * 10 * split.train.n_items + 20_000  # three arrays and a description
    stream.seek(0)
    again = recvae.load(stream)
    fold_in = split.test.fold_in
    users = np.arange(fold_in.shape[0])
    assert (again.recommend(users, fold_in)[0] == model.recommend(users, fold_in)[0]).all()
    assert (again.recommend(users, fold_in)[1] == model.recommend(users, fold_in)[1]).all()


def test_weights_that_point_outside_are_a_damaged_file(split):
    model = EASE(form="sparse").fit(split.train)
    model.weights_.indices[0] = 10**6
    stream = io.BytesIO()
    model.save(stream)
    stream.seek(0)
    with pytest.raises(InvalidDataError, match="cannot restore"):
        recvae.load(stream)


def test_too_wide_a_catalogue_is_refused_before_it_is_tried(monkeypatch, split):
    n_items = split.train.n_items

    class Memory:
        available = 4 * n_items**2 - 1

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    with pytest.raises(MemoryError, match=rf'the {n_items} x {n_items} weights.* GiB available; use form="sparse"'):
        EASE(form="dense").fit(split.train)
    Memory.available = 100
    with pytest.raises(NotEnoughMemoryError, match=r"pairs of items with users in common.*min_item"):
        EASE(form="sparse").fit(split.train)
    Memory.available = 4 * n_items**2
    EASE(form="dense").fit(split.train)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_what_is_not_positive_definite_is_an_error(form):
    twins = sparse.csr_matrix([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])  # the first two items are the same
    with pytest.raises(TrainingError, match=r"positive definite, got one with .* raise l2"):
        EASE(l2=0.0, form=form).fit(twins)
