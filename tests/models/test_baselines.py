import sys
import warnings

import numpy as np
import pytest
from scipy import sparse

from recvae.errors import MissingDependencyError, TrainingError
from recvae.models.baselines import ALS, BPR, LMF, ItemKNN, Popularity

N = 20


@pytest.fixture
def implicit():
    module = pytest.importorskip("implicit")
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", module.utils.ParameterWarning)
        yield module


def test_als_ranks_as_implicit_itself(implicit, split):
    theirs = implicit.cpu.als.AlternatingLeastSquares(16, regularization=2.0, alpha=3.0, iterations=5, random_state=1)
    theirs.fit(split.train.matrix, show_progress=False)
    ours = ALS(factors=16, regularization=2.0, alpha=3.0, iterations=5, random_state=1).fit(split.train)
    rows = split.test.fold_in
    users = np.arange(rows.shape[0])
    ids, scores = theirs.recommend(users, rows, N=N, recalculate_user=True)
    our_ids, our_scores = ours.recommend(users, rows, N=N)
    np.testing.assert_allclose(our_scores, scores, rtol=1e-4, atol=1e-5)
    assert (our_ids == ids).mean() > 0.99  # two of nearly equal score may change places


@pytest.mark.parametrize(
    ("weighting", "kind"),
    [("cosine", "CosineRecommender"), ("tfidf", "TFIDFRecommender"), ("bm25", "BM25Recommender")],
)
def test_item_knn_ranks_as_implicit_itself(implicit, split, weighting, kind):
    theirs = getattr(implicit.nearest_neighbours, kind)(K=15)
    theirs.fit(split.train.matrix, show_progress=False)
    ours = ItemKNN(weighting=weighting, K=15).fit(split.train)
    rows = split.test.fold_in
    ids, scores = theirs.recommend(np.arange(rows.shape[0]), rows, N=N)
    our_ids, our_scores = ours.recommend(np.arange(rows.shape[0]), rows, N=N)
    given = ids >= 0
    assert (given == (our_ids >= 0)).all()
    np.testing.assert_allclose(our_scores[given], scores[given], rtol=1e-4)
    assert (our_ids == ids).mean() > 0.97


def test_popularity_counts_users_whatever_the_values():
    matrix = sparse.csr_matrix([[9.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    ids, scores = Popularity(values="raw").fit(matrix).recommend(0, sparse.csr_matrix((1, 3)), N=3)
    assert ids.tolist() == [1, 2, 0]
    assert scores.tolist() == [3, 2, 1]


def test_a_neighbourless_item_is_not_given():
    matrix = sparse.csr_matrix([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    ids, _ = ItemKNN().fit(matrix).recommend(0, sparse.csr_matrix([[1.0, 0.0, 0.0, 0.0]]), N=3)
    assert ids.tolist() == [1, -1, -1]


def test_factors_that_are_not_numbers_are_an_error(implicit, checkerboard, monkeypatch):
    def broken(*args, **kwargs):
        raise implicit.recommender_base.ModelFitError("NaN encountered in factors")

    monkeypatch.setattr(implicit.cpu.als.AlternatingLeastSquares, "fit", broken)
    with pytest.raises(TrainingError, match="raise regularization"):
        ALS().fit(checkerboard)


def test_known_users_are_ranked_as_by_implicit_itself(implicit, split):
    cpu, options = implicit.cpu, {"factors": 8, "iterations": 20, "random_state": 1}
    for ours, theirs in (
        (BPR(**options), cpu.bpr.BayesianPersonalizedRanking(**options, num_threads=1, learning_rate=0.05)),
        (LMF(**options), cpu.lmf.LogisticMatrixFactorization(**options, num_threads=1)),
    ):
        passes = []
        rows = split.train.matrix
        ours.fit(split.train, callback=lambda *args, passes=passes: passes.append(args[0]))
        theirs.fit(rows, show_progress=False)
        assert passes == list(range(ours.iterations))
        users = np.arange(0, rows.shape[0], 3)
        ids, scores = theirs.recommend(users, rows[users], N=N)
        our_ids, our_scores = ours.recommend(users, rows[users], N=N)
        np.testing.assert_allclose(our_scores, scores, rtol=1e-4, atol=1e-5)
        assert (our_ids == ids).mean() > 0.99


def test_factors_that_run_away_are_an_error(implicit, checkerboard):
    with pytest.raises(TrainingError, match="lower learning_rate"):
        BPR(learning_rate=1e30, random_state=0).fit(checkerboard)


def test_a_system_that_cannot_be_solved_is_an_error(implicit):
    few = sparse.csr_matrix([[1.0, 0.0], [0.0, 1.0]])
    model = ALS(factors=8, regularization=0, random_state=0)
    with pytest.raises(TrainingError, match="raise regularization"):
        model.fit(few).recommend([0], few[[0]])


@pytest.mark.parametrize("model", [ALS(), ItemKNN()])
def test_without_implicit_there_is_a_kind_message(model, checkerboard, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "implicit"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "implicit", None)
    with pytest.raises(MissingDependencyError, match=r'run: pip install "recvae\[benchmark\]"'):
        model.fit(checkerboard)
