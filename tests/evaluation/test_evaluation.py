import warnings

import numpy as np
import pytest
from scipy import sparse, stats

import recvae
from recvae import Holdout, evaluate
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError, UnknownNameError
from recvae.evaluation.evaluate import evaluate_ranker
from recvae.models.baselines import ALS, ItemKNN


def holdout(fold_in, held_out):
    fold_in, held_out = sparse.csr_matrix(fold_in, dtype=np.float32), sparse.csr_matrix(held_out, dtype=np.float32)
    return Holdout(fold_in, held_out, np.arange(100, 100 + fold_in.shape[0]), 0, np.array([4, 2, 1, 1]), 4)


SMALL = holdout([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], [[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])


class Fixed:
    """An object that has nothing but implicit's `recommend`."""

    def __init__(self, ids, scores=None):
        self.ids = np.array(ids)
        self.scores = np.zeros(self.ids.shape) if scores is None else np.array(scores)

    def recommend(self, userid, user_items, N=10, filter_already_liked_items=True, recalculate_user=False):
        return self.ids[userid, :N], self.scores[userid, :N]


def test_users_with_nothing_held_out_are_excluded_and_counted():
    result = evaluate(Fixed([[1, 2, 3], [0, 2, 3], [1, 3, 0]]), SMALL, ["recall@1", "ndcg@3"])
    assert result.excluded == 1
    assert result.users.tolist() == [100, 102]
    assert result["recall@1"].values.tolist() == [1, 0]
    assert result["ndcg@3"].values == pytest.approx([(1 + 1 / 2) / (1 + 1 / np.log2(3)), 1 / 2])
    assert result["recall@1"].mean == 0.5
    assert result["recall@1"].stderr == pytest.approx(stats.sem([1, 0]))
    assert list(result) == ["recall@1", "ndcg@3"]
    assert len(result) == 2
    assert "0.5000 ± 0.5000 (2 users)" in repr(result)


def test_items_with_the_padding_score_are_not_recommended():
    worst = np.finfo(np.float32).min
    result = evaluate(Fixed([[1], [0], [0]], [[worst], [0], [worst]]), SMALL, ["recall@1"])
    assert result["recall@1"].values.tolist() == [0, 0]
    assert result.lists["coverage"] == 0


def test_k_beyond_the_items():
    result = evaluate(Fixed([[1, 2, 3], [0, 2, 3], [1, 3, 0]]), SMALL, ["recall@1000", "precision@1000"])
    assert result["recall@1000"].values.tolist() == [1, 1]
    assert result["precision@1000"].values.tolist() == [0.002, 0.001]


def test_a_holdout_in_any_order_scores_the_same():
    model = Fixed([[1, 2, 3], [0, 2, 3], [1, 3, 0]])
    expected = evaluate(model, SMALL, ["ndcg@3"])["ndcg@3"].values
    messy = sparse.csr_matrix(([1.0, 1, 0, 1, 1], [3, 1, 2, 0, 0], [0, 3, 3, 5]), shape=(3, 4))
    result = evaluate(model, Holdout(SMALL.fold_in, messy, SMALL.users, 0, SMALL.item_counts, 4), ["ndcg@3"])
    assert result["ndcg@3"].values.tolist() == expected.tolist()
    assert result.excluded == 1


def test_one_metric_may_stand_alone():
    assert list(evaluate(Fixed([[1], [0], [0]]), SMALL, "recall@1")) == ["recall@1"]


def test_implicit_s_models_that_cannot_fold_in_are_refused(split):
    bpr = pytest.importorskip("implicit").cpu.bpr.BayesianPersonalizedRanking(factors=4, iterations=1)
    bpr.fit(split.train.matrix, show_progress=False)
    with pytest.raises(InvalidTypeError, match="can score held-out users, got BayesianPersonalizedRanking"):
        evaluate(bpr, split.test)


def test_blocks_do_not_change_the_result(split):
    model = recvae.MultVAE(epochs=2, random_state=0).fit(split.train)
    whole, blocks = (evaluate(model, split.test, block_users=size) for size in (1000, 7))
    for name, metric in whole.items():
        assert (metric.values == blocks[name].values).all()
    assert whole.lists == blocks.lists


def test_what_cannot_be_evaluated():
    model = Fixed([[1], [0], [0]])
    with pytest.raises(UnknownNameError, match="did you mean recall"):
        evaluate(model, SMALL, ["recal@20"])
    with pytest.raises(InvalidParameterError, match="at least one metric"):
        evaluate(model, SMALL, [])
    with pytest.raises(InvalidDataError, match="nothing to evaluate"):
        evaluate(model, holdout([[1, 0, 0, 0]], [[0, 0, 0, 0]]), ["recall@1"])
    with pytest.raises(InvalidTypeError, match=r"Holdout such as split\.test, got csr_matrix"):
        evaluate(model, SMALL.fold_in)
    for block_users in (0, -1, 1.5):
        with pytest.raises(InvalidParameterError, match="block_users"):
            evaluate(model, SMALL, block_users=block_users)
    with pytest.raises(InvalidDataError, match="Expected 2 ranked lists"):
        evaluate_ranker(lambda users, rows, N: np.zeros((1, N), dtype=int), SMALL)
    with pytest.raises(InvalidDataError, match="at most once in a ranked list"):
        evaluate_ranker(lambda users, rows, N: np.zeros((len(users), 2), dtype=int), SMALL, ["recall@2"])


@pytest.mark.parametrize("kind", ["als", "bm25"])
def test_implicit_s_own_models_are_scored_as_ours_behind_the_contract(split, kind):
    implicit = pytest.importorskip("implicit")
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        if kind == "als":
            theirs = implicit.cpu.als.AlternatingLeastSquares(8, random_state=0, regularization=1.0)
            ours = ALS(factors=8, regularization=1.0, alpha=1.0, random_state=0).fit(split.train)
        else:
            theirs = implicit.nearest_neighbours.BM25Recommender(K=20)
            ours = ItemKNN(K=20, weighting="bm25").fit(split.train)
        binary = split.train.matrix
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", implicit.utils.ParameterWarning)
            theirs.fit(binary, show_progress=False)
        results = [evaluate(model, split.test, ["ndcg@20", "recall@5"]) for model in (theirs, ours)]
    for name in results[0]:
        assert results[0][name].mean == pytest.approx(results[1][name].mean, abs=1e-3)
