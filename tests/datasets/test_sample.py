import numpy as np
import torch

from recvae import evaluate, strong_split
from recvae.datasets.sample import GENRES, make_sample
from recvae.evaluation.evaluate import evaluate_ranker
from recvae.models.baselines import Popularity
from recvae.utils.topk import rank


def test_the_same_arguments_give_the_same_data():
    one, two, other = make_sample(200, 50), make_sample(200, 50), make_sample(200, 50, seed=1)
    assert (one.interactions.matrix != two.interactions.matrix).nnz == 0
    assert one.interactions.titles.tolist() == two.interactions.titles.tolist()
    assert (one.interactions.matrix != other.interactions.matrix).nnz > 0


def test_titles_are_all_different_and_genres_are_known():
    data = make_sample().interactions
    assert len(set(data.titles)) == data.n_items == 600
    assert {genre for label in data.genres for genre in label.split("|")} == set(GENRES)


def test_popularity_and_activity_have_long_tails():
    data = make_sample().interactions
    popularity = np.sort(np.bincount(data.matrix.indices, minlength=data.n_items))[::-1]
    assert popularity[:60].sum() > 0.3 * data.n_events  # a tenth of the items has three times its share
    activity = np.diff(data.matrix.indptr)
    assert activity.min() >= 5
    assert activity.mean() > 1.2 * np.median(activity)
    assert activity.max() > 5 * np.median(activity)


def test_histories_follow_the_true_preferences():
    """The mean true weight of what people have is far above that of what they do not have."""
    sample = make_sample(300, 100)
    has = sample.interactions.matrix.toarray() > 0
    assert sample.log_weights[has].mean() > sample.log_weights[~has].mean() + 1


def test_nobody_beats_the_oracle(split):
    truth = make_sample(400, 80)
    rows = np.searchsorted(truth.interactions.user_ids, split.test.users)
    columns = np.searchsorted(truth.interactions.item_ids, split.items)
    weights = torch.from_numpy(truth.log_weights[np.ix_(rows, columns)])
    oracle = evaluate_ranker(
        lambda u, r, N: rank(lambda _, places: weights[u[places]], r, N)[0], split.test, ["ndcg@20"]
    )
    popular = evaluate(Popularity().fit(split.train), split.test, ["ndcg@20"])
    assert oracle["ndcg@20"].mean > popular["ndcg@20"].mean + 0.1
    assert strong_split(truth.interactions, 60).test.users.tolist() == split.test.users.tolist()
