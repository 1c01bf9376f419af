"""Verbs that some models have and others refuse by name: similar items and users, explanations, scores."""

import copy
import pickle

import implicit.evaluation
import numpy as np
import pytest
import torch
from scipy import sparse

from recvae import EASE, HybridVAE, Interactions, MultVAE, Recommender, load
from recvae.errors import (
    InvalidDataError,
    InvalidParameterError,
    InvalidTypeError,
    NotFittedError,
    NotSupportedError,
    OutOfRangeError,
    RecvaeError,
    UnknownNameError,
    UnknownUsersError,
)
from recvae.models.baselines import ALS, BPR, ItemKNN, Popularity
from tests.models.test_contract import EVERY, KNOWN_USERS, brief

WORST = np.finfo(np.float32).min


@pytest.fixture
def models(fitted_models):
    return fitted_models


def who_can(verb):
    return [name for name, make in EVERY.items() if verb in make().abilities()]


def who_cannot(verb):
    return [name for name in EVERY if name not in who_can(verb)]


NEIGHBOURS = (
    "ItemKNN",
    "P3alpha",
    "RP3beta",
    "SLIM",
)  # their similar items are neighbours, of which an item itself is none
# of those that do not take three or more
N_ARGUMENTS = {"index_users": 1, "partial_fit_users": 2, "partial_fit": 1, "add_items": 1, "encode": 1}
N_ARGUMENTS |= {"sample_users": 2, "anomaly_score": 2}


def test_who_can_do_what():
    assert who_cannot("similar_items") == ["Popularity"]
    assert {name.partition("-")[0] for name in who_cannot("explain")} == {"BPR", "LMF", "Popularity"}
    assert {name.partition("-")[0] for name in who_cannot("similar_users")} == {
        "EASE",
        "EDLAE",
        "GFCF",
        "ItemKNN",
        "P3alpha",
        "Popularity",
        "RP3beta",
        "SLIM",
    }


@pytest.mark.parametrize("verb", ["similar_items", "similar_users", "index_users", "partial_fit_users", "explain"])
def test_what_a_model_cannot_do_it_refuses_by_name(verb, models):
    arguments = (0, 0, 0)[: N_ARGUMENTS.get(verb, 3)]
    for name in who_cannot(verb):
        kind = type(models[name]).__name__
        with pytest.raises(NotSupportedError, match=rf"{kind} has no {verb}: it has no .*\. It has fit, recommend"):
            getattr(models[name], verb)(*arguments)
        with pytest.raises(NotImplementedError):
            getattr(models[name], verb)(*arguments)


@pytest.mark.parametrize("name", who_can("similar_items"))
class TestSimilarItems:
    def test_items_of_the_same_parity_are_alike(self, name, models):
        for item in (0, 7, 31):
            ids, scores = models[name].similar_items(item, N=10)
            ids = ids[scores > (0 if name.startswith(NEIGHBOURS) else WORST)]
            assert ids[0] == item or name.startswith(NEIGHBOURS)
            assert (ids % 2 == item % 2).mean() >= 0.8

    def test_the_form_of_the_answer(self, name, models):
        model = models[name]
        ids, scores = model.similar_items([3, 4], N=6)
        assert ids.shape == scores.shape == (2, 6)
        assert (ids.dtype, scores.dtype) == (np.int32, np.float32)
        assert (np.diff(scores, axis=1) <= 0).all()
        one, one_scores = model.similar_items(3, N=6)
        assert one[0] == ids[0, 0]  # of the others many are alike
        np.testing.assert_allclose(one_scores, scores[0], rtol=1e-3)
        longer, values = model.similar_items(3, N=60)
        assert longer.shape == (60,)
        assert (longer[50:] == -1).all()
        assert (values[50:] == WORST).all()

    def test_filters(self, name, models):
        ids, _ = models[name].similar_items(2, N=5, items=[4, 6, 9])
        assert ids.shape == (3,)
        assert set(ids.tolist()) <= {4, 6, 9, -1}
        ids, _ = models[name].similar_items([2], N=50, filter_items=[4, 6])
        assert not {4, 6} & set(ids[0].tolist())

    def test_what_is_refused(self, name, models):
        for item in (50, -1, [0, 50]):
            with pytest.raises(OutOfRangeError, match="items from 0 to 49"):
                models[name].similar_items(item)
        with pytest.raises(InvalidTypeError, match="integers"):
            models[name].similar_items("a")
        with pytest.raises(InvalidParameterError, match="N to be an integer"):
            models[name].similar_items(0, N=0)
        with pytest.raises(NotSupportedError, match="does not compute an item's vector"):
            models[name].similar_items(0, recalculate_item=True, item_users=None)


@pytest.mark.parametrize("name", ["EASE", "EASE-sparse", "EDLAE", "EDLAE-sparse"])
def test_similarities_of_linear_models_are_cosines_of_i_plus_b(name, models):
    weights = models[name].weights_
    dense = weights.numpy() if isinstance(weights, torch.Tensor) else weights.toarray()
    rows = dense + np.eye(50)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids, scores = models[name].similar_items(7, N=50)
    np.testing.assert_allclose(scores, (rows @ rows[7])[ids], rtol=1e-4, atol=1e-6)


def test_similarities_of_baselines_are_those_of_implicit(models, checkerboard):
    als = models["ALS"]
    ids, scores = als.model_.similar_items(5, N=10)
    ours, our_scores = als.similar_items(5, N=10)
    np.testing.assert_allclose(our_scores, scores, rtol=1e-4)
    best = our_scores > our_scores[-1] + 1e-4  # of the last there may be equals
    assert set(ours[best].tolist()) <= set(ids.tolist())


@pytest.mark.parametrize("name", who_can("similar_users"))
class TestSimilarUsers:
    def test_users_of_the_same_taste_are_alike(self, name, models):
        ids, scores = models[name].similar_users(6, N=10)
        assert (ids % 2 == 0).all()
        assert 6 in ids
        assert (scores <= 1.0001).all()
        many, _ = models[name].similar_users([6, 9], N=10, users=[1, 6, 9])
        assert many.shape == (2, 3)
        assert many[0, 0] == 6
        assert many[1, 0] in (1, 9)
        assert 6 not in models[name].similar_users(6, N=50, filter_users=[6])[0]

    def test_what_is_refused(self, name, models):
        with pytest.raises(OutOfRangeError, match="users from 0 to 49"):
            models[name].similar_users(50)


@pytest.mark.parametrize("name", [name for name in who_can("similar_users") if name not in KNOWN_USERS])
def test_an_index_of_users_is_of_rows_and_grows(name, models, checkerboard):
    model = copy.deepcopy(models[name])
    model.index_users(checkerboard[[1, 3, 2]])
    assert model.similar_users(0, N=2)[0].tolist() in ([0, 1], [1, 0])
    model.partial_fit_users([1, 3], checkerboard[[4, 5]])
    assert set(model.similar_users(2, N=2)[0].tolist()) == {1, 2}
    assert set(model.similar_users(3, N=2)[0].tolist()) == {0, 3}
    before = model.similar_users([0, 1, 2, 3], N=4)[0].tolist()
    model.partial_fit_users([], checkerboard[:0])
    with pytest.raises(OutOfRangeError, match="without a gap, got 10000000000000"):
        model.partial_fit_users([10**13], checkerboard[[4]])
    with pytest.raises(InvalidDataError, match="each user once"):
        model.partial_fit_users([0, 0], checkerboard[[4, 5]])
    with pytest.raises(OutOfRangeError, match="follow the 4 of the index without a gap, got 5"):
        model.partial_fit_users([5], checkerboard[[4]])
    with pytest.raises(InvalidDataError, match="1 row for every user"):
        model.partial_fit_users([0, 1], checkerboard[[4]])
    assert model.similar_users([0, 1, 2, 3], N=4)[0].tolist() == before


def test_neither_files_nor_pickles_hold_users(checkerboard, tmp_path):
    model = MultVAE(hidden_dims=(8,), latent_dim=4, epochs=2, random_state=0).fit(checkerboard)
    model.save(tmp_path / "m")
    assert model.similar_users(0)[0].size  # makes an index
    for again in (load(tmp_path / "m"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        with pytest.raises(NotFittedError, match="contain no users"):
            again.similar_users(0)
        assert again.index_users(checkerboard).similar_users(0)[0].tolist() == model.similar_users(0)[0].tolist()


@pytest.mark.parametrize("name", who_can("explain"))
class TestExplain:
    def test_items_of_the_same_parity_speak_for_each_other(self, name, models):
        # three against two: with five against one a network is so sure that single items add next to nothing; what ALS
        # says of a short history is within chance
        items = [0, 1, 3, 5, 7, 9] if name == "ALS" else [0, 1, 2, 3, 5]
        row = sparse.csr_matrix((np.ones(len(items)), items, [0, len(items)]), shape=(1, 50))
        _, parts, _ = models[name].explain(0, row, 11, N=3)
        assert len(parts) == 3
        assert all(item % 2 == 1 for item, part in parts if part)
        assert parts[0][1] > 0
        assert [part for _, part in parts] == sorted((part for _, part in parts), reverse=True)

    def test_the_full_matrix_or_one_row(self, name, models, checkerboard):
        whole = models[name].explain(8, checkerboard, 8)
        one = models[name].explain("whoever", checkerboard[8], 8)
        assert whole[0] == pytest.approx(one[0], rel=1e-5)
        assert whole[0] == pytest.approx(models[name].score(checkerboard[8])[0, 8], rel=1e-4)
        assert len(whole[1]) == 10

    def test_an_item_adds_what_the_score_lacks_without_it(self, name, models, checkerboard):
        total, parts, _ = models[name].explain(3, checkerboard, 3, N=50)
        without = checkerboard[3].copy()
        without.data[without.indices == 5] = 0
        without.eliminate_zeros()
        expected = total - models[name].score(without)[0, 3]
        assert dict(parts)[5] == pytest.approx(expected, rel=1e-2, abs=2e-4)

    def test_what_is_refused(self, name, models, checkerboard):
        with pytest.raises(OutOfRangeError, match="itemid from 0 to 49"):
            models[name].explain(0, checkerboard, 50)
        with pytest.raises(OutOfRangeError, match="userid from 0 to 49"):
            models[name].explain(50, checkerboard, 0)
        with pytest.raises(InvalidParameterError, match="N to be"):
            models[name].explain(0, checkerboard, 0, N=0)

    def test_nothing_explains_nothing(self, name, models):
        total, parts, _ = models[name].explain(0, sparse.csr_matrix((1, 50)), 4)
        assert parts == []
        assert np.isfinite(total) or total == -np.inf


@pytest.mark.parametrize("name", ["EASE", "EASE-sparse", "EDLAE", "ItemKNN-cosine", "RP3beta", "GFCF", "SLIM"])
def test_explanations_of_linear_models_sum_to_the_score(name, models, checkerboard):
    total, parts, _ = models[name].explain(2, checkerboard, 2, N=50)
    assert sum(part for _, part in parts) == pytest.approx(total)


@pytest.mark.parametrize("name", [name for name in EVERY if name not in KNOWN_USERS])
def test_scores_are_those_that_are_ranked(name, models, checkerboard):
    scores = models[name].score(checkerboard)
    assert (scores.shape, scores.dtype) == ((50, 50), np.float32)
    ids, ranked = models[name].recommend(np.arange(50), checkerboard, N=50, filter_already_liked_items=False)
    kept = ids >= 0
    taken = np.take_along_axis(scores, np.maximum(ids, 0), axis=1)
    np.testing.assert_allclose(taken[kept], ranked[kept], rtol=1e-4, atol=1e-5)
    some = models[name].score(checkerboard[[4, 5]], items=[9, 0, 3])
    np.testing.assert_allclose(some, scores[[4, 5]][:, [9, 0, 3]], rtol=1e-4, atol=1e-5)
    with pytest.raises(OutOfRangeError):
        models[name].score(checkerboard, items=[50])


def test_what_is_set_after_the_fit_is_for_the_next_one(checkerboard, tmp_path):
    """A file describes the model that was fitted."""
    for name, change in (
        ("MultVAE", {"output__logits": "cosine", "latent_dim": 50}),
        ("ALS", {"alpha": 50.0}),
        ("HybridVAE", {"depth": 4}),
    ):
        model = brief(name).fit(checkerboard)
        model.set_params(**change).save(tmp_path / "m")
        again = load(tmp_path / "m")
        np.testing.assert_array_equal(again.score(checkerboard), model.score(checkerboard))
        assert all(again.get_params()[key] != value for key, value in change.items())


def test_who_changes_the_rows_after_the_fit_changes_no_model(checkerboard):
    rows = checkerboard.copy()
    model = brief("MultVAE").fit(rows)
    rows.data[rows.indices < 30] = 0
    rows.eliminate_zeros()
    assert (
        model.similar_users(3, N=20)[0].tolist() == model.index_users(checkerboard).similar_users(3, N=20)[0].tolist()
    )


def test_an_index_that_was_given_is_asked_for_again_after_learning_on(checkerboard):
    model = EVERY["MultVAE"](epochs=2).fit(checkerboard)
    model.partial_fit(checkerboard, epochs=1, show_progress=False).similar_users(3)
    model.index_users(checkerboard[[5, 6]]).partial_fit(checkerboard, epochs=1, show_progress=False)
    with pytest.raises(NotFittedError, match=r"index_users\(rows\) again"):
        model.similar_users(0)
    assert model.index_users(checkerboard[[5, 6]]).similar_users(0, N=5)[0].tolist()[2:] == [-1, -1, -1]


def test_scores_of_known_users_are_asked_for_by_number(models, checkerboard):
    for users in ([0], [0, 1]):
        with pytest.raises(InvalidDataError, match="1 row for every user"):
            models["BPR"].score(checkerboard[[0, 1, 2]], userid=users)
    scores = models["BPR"].score(checkerboard[[3]], userid=3)
    assert scores[0].argmax() == models["BPR"].recommend(3, checkerboard[3], 1, filter_already_liked_items=False)[0][0]
    with pytest.raises(UnknownUsersError):
        models["BPR"].score(checkerboard)


@pytest.mark.parametrize("name", EVERY)
class TestBusinessRules:
    def test_items_of_each_user(self, name, models, checkerboard):
        model, users = models[name], [0, 1, 2]
        only = sparse.csr_matrix(([1.0] * 5, ([0, 0, 1, 1, 1], [1, 0, 5, 7, 1])), shape=(3, 50))
        ids, scores = model.recommend(users, checkerboard[users], N=4, items=only)
        assert ids.shape == (3, 4)
        assert set(ids[0].tolist()) <= {0, 1, -1}
        assert set(ids[1].tolist()) <= {1, -1}  # it has 5 and 7
        assert (ids[2] == -1).all()
        assert (scores[ids == -1] == WORST).all()
        never = sparse.csr_array(only)
        ids, _ = model.recommend(users, checkerboard[users], N=50, filter_items=never)
        assert not {0, 1} & set(ids[0].tolist())
        assert 1 not in ids[1]

    def test_a_list_for_all_beside_a_matrix_for_each(self, name, models, checkerboard):
        never = sparse.csr_matrix(([1.0], ([0], [4])), shape=(1, 50))
        ids, _ = models[name].recommend([8], checkerboard[[8]], N=9, items=[4, 8], filter_items=never)
        assert set(ids[0].tolist()) <= {8, -1}
        assert 4 not in ids

    def test_nobody_gets_what_nobody_may(self, name, models, checkerboard):
        everything = sparse.csr_matrix(np.ones((1, 50), dtype=np.float32))
        ids, scores = models[name].recommend([0], everything, N=3)
        assert (ids == -1).all()
        assert (scores == WORST).all()

    def test_what_is_refused(self, name, models, checkerboard):
        with pytest.raises(InvalidTypeError, match="filter_items as a list"):
            models[name].recommend([0], checkerboard[[0]], filter_items=5)
        with pytest.raises(InvalidDataError, match="items needs to be a CSR sparse matrix, got coo"):
            models[name].recommend([0], checkerboard[[0]], items=checkerboard[[0]].tocoo())
        with pytest.raises(MemoryError, match=r"memory for lists of 10,000,000,000,000 for 1 users"):
            models[name].recommend([0], checkerboard[[0]], N=10**13)
        with pytest.raises(InvalidTypeError, match=r"got Interactions; give their \.matrix"):
            models[name].recommend([0], Interactions.from_matrix(checkerboard))
        with pytest.raises(InvalidDataError, match="a row of items for each of 2 users, got 1"):
            models[name].recommend([0, 1], checkerboard[[0, 1]], items=checkerboard[[0]])
        with pytest.raises(InvalidDataError, match="Expected 50 columns"):
            models[name].recommend([0], checkerboard[[0]], items=checkerboard[[0]][:, :20])
        with pytest.raises(InvalidTypeError, match="sparse matrix"):
            models[name].recommend([0], checkerboard[[0]], items=[[1, 2]])


class TestManners:
    @pytest.mark.parametrize("name", EVERY)
    def test_sklearn_s_clone(self, name, checkerboard):
        model = brief(name).fit(checkerboard)
        import sklearn.base

        again = sklearn.base.clone(model)
        assert again.get_params() == model.get_params()
        assert not hasattr(again, "n_items_")

    def test_params_are_set_by_name(self):
        model = MultVAE().set_params(latent_dim=7, kl_cap=0.1)
        assert (model.latent_dim, model.get_params(deep=True)["kl_cap"]) == (7, 0.1)
        with pytest.raises(UnknownNameError, match="did you mean latent_dim"):
            model.set_params(latent_dims=3)
        assert model.latent_dim == 7

    def test_a_class_loads_its_own_files(self, checkerboard, tmp_path):
        EASE().fit(checkerboard).save(tmp_path / "m")
        assert isinstance(EASE.load(tmp_path / "m"), EASE)
        assert isinstance(Recommender.load(tmp_path / "m"), EASE)
        with pytest.raises(InvalidDataError, match="file of a MultVAE, got one of a EASE"):
            MultVAE.load(tmp_path / "m")

    def test_scoring_leaves_torch_s_generator_and_modes_alone(self, checkerboard):
        model = HybridVAE(hidden_dim=8, latent_dim=4, depth=2, epochs=2, l2=1.0, random_state=0).fit(checkerboard)
        state = torch.get_rng_state()
        numpy_state = np.random.get_state()[1].copy()
        model.recommend([0], checkerboard[[0]])
        model.score(checkerboard)
        model.similar_items(0)
        model.similar_users(0)
        model.explain(0, checkerboard, 1)
        assert (torch.get_rng_state() == state).all()
        assert (np.random.get_state()[1] == numpy_state).all()
        assert not any(part.training for part in model.network_.modules())


PIPELINE = """
def pipeline(model, user_items):
    model.fit(user_items)
    ids, scores = model.recommend(3, user_items[3], N=5)
    many, _ = model.recommend([0, 1], user_items[[0, 1]], N=5, filter_already_liked_items=True)
    alike, _ = model.similar_items(4, N=5)
    others, _ = model.similar_users(4, N=5)
    total, parts, _ = model.explain(2, user_items, itemid=2)
    model.partial_fit_users([0], user_items[[1]])
    model.save(path)
    again = type(model).load(path)
    ids_too, _ = again.recommend(3, user_items[3], N=5)
    return [many.shape, ids.shape, alike.shape, others.shape, len(parts), ids_too.shape]
"""


def test_a_script_for_implicit_s_als_runs_when_the_model_is_made_by_another_line(checkerboard, tmp_path):
    """Everything but the import and the constructor is one text."""
    found = []
    for line in (
        "from implicit.als import AlternatingLeastSquares; model = AlternatingLeastSquares(factors=4)",
        "from recvae import MultVAE; model = MultVAE(latent_dim=4, epochs=5)",
        "from recvae import HybridVAE; model = HybridVAE(hidden_dim=8, epochs=2)",
    ):
        space = {"path": str(tmp_path / f"model{len(found)}.npz")}
        exec(line, space)
        exec(PIPELINE, space)
        found.append(space["pipeline"](space["model"], checkerboard))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", EVERY)
def test_implicit_s_own_evaluation_takes_our_models(name, models, checkerboard):
    held = sparse.csr_matrix(np.eye(50, dtype=np.float32))
    found = implicit.evaluation.ranking_metrics_at_k(models[name], checkerboard, held, K=1, show_progress=False)
    if name != "Popularity":
        assert found["precision"] == 1.0


@pytest.mark.parametrize("make", [ALS, ItemKNN, BPR, Popularity, EASE, MultVAE])
def test_an_unfitted_model_says_so(make, checkerboard):
    with pytest.raises(NotFittedError, match="call fit first"):
        make().score(checkerboard)
    for verb in make.abilities():
        with pytest.raises(RecvaeError):
            getattr(make(), verb)(*(0, checkerboard, 0)[: N_ARGUMENTS.get(verb, 3)])


def test_raw_ids_do_not_get_in_the_way(checkerboard):
    data = Interactions.from_matrix(checkerboard, item_ids=[f"i{n}" for n in range(50)])
    ids, _ = EASE(l2=1.0).fit(data).similar_items([0, 1], N=3)
    assert ids[:, 0].tolist() == [0, 1]
