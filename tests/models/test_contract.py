"""What every model owes its users, on matrices whose answer is known by construction."""

import functools
import pickle
import re
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

import recvae
from recvae import EASE, EDLAE, HVamp, HybridVAE, Interactions, MultDAE, MultVAE, OutputOptions, RecVAE
from recvae.data.rows import ParameterWarning
from recvae.errors import (
    InvalidDataError,
    InvalidParameterError,
    InvalidTypeError,
    NotFittedError,
    OutOfRangeError,
    RecvaeError,
    UnknownUsersError,
)
from recvae.models.baselines import ALS, BPR, GFCF, LMF, SLIM, ItemKNN, P3alpha, Popularity, RP3beta

SMALL = {"latent_dim": 8, "epochs": 24, "batch_size": 25, "learning_rate": 0.01, "random_state": 0}
PERSONAL = {
    "MultVAE": lambda **more: MultVAE(hidden_dims=(16,), **SMALL | more),
    "MultVAE-logistic": lambda **more: MultVAE(hidden_dims=(16,), likelihood="logistic", **SMALL | more),
    "MultVAE-gaussian": lambda **more: MultVAE(hidden_dims=(16,), likelihood="gaussian", **SMALL | more),
    "MultVAE-cosine": lambda **more: MultVAE(
        hidden_dims=(16,), **SMALL | {"epochs": 60} | more, output=OutputOptions(logits="cosine")
    ),
    "MultDAE": lambda **more: MultDAE(**SMALL | more),
    "MultDAE-logistic": lambda **more: MultDAE(likelihood="logistic", **SMALL | more),
    "HVamp": lambda **more: HVamp(hidden_dims=(16,), n_components=10, **SMALL | more),
    "RecVAE": lambda **more: RecVAE(hidden_dim=16, depth=3, gamma=0.002, **SMALL | {"epochs": 12} | more),
    "HybridVAE": lambda **more: HybridVAE(hidden_dim=16, depth=3, gamma=0.002, l2=1.0, **SMALL | {"epochs": 12} | more),
    "EASE": lambda **more: EASE(l2=1.0, **more),
    "EASE-sparse": lambda **more: EASE(l2=1.0, form="sparse", neighbours=20, **more),
    "EDLAE": lambda **more: EDLAE(l2=1.0, **more),
    "EDLAE-sparse": lambda **more: EDLAE(l2=1.0, form="sparse", neighbours=20, **more),
    "ALS": lambda **more: ALS(factors=3, regularization=0.1, alpha=1.0, random_state=0, **more),
    "ItemKNN-cosine": lambda **more: ItemKNN(weighting="cosine", K=50, **more),
    "ItemKNN-tfidf": lambda **more: ItemKNN(weighting="tfidf", K=50, **more),
    "ItemKNN-bm25": lambda **more: ItemKNN(weighting="bm25", K=50, **more),
    "P3alpha": lambda **more: P3alpha(K=50, **more),
    "RP3beta": lambda **more: RP3beta(K=50, **more),
    "GFCF": lambda **more: GFCF(k=2, **more),
    "SLIM": lambda **more: SLIM(l1=0.1, l2=1.0, **more),
}
# these know only the users they were trained on
KNOWN_USERS = {
    "BPR": lambda **more: BPR(factors=8, iterations=200, learning_rate=0.1, random_state=0, **more),
    "LMF": lambda **more: LMF(factors=8, random_state=0, **more),
}
EVERY = PERSONAL | KNOWN_USERS | {"Popularity": lambda **more: Popularity(**more)}
# those of the guide's page on models of one's own, which keep the contract too
OWN = sys.modules.setdefault("of_the_guide", types.ModuleType("of_the_guide"))
PAGE = (Path(__file__).parents[2] / "docs" / "own_model.md").read_text()
for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
    if "@parameters" in snippet and not hasattr(OWN, "ScaledVAE"):
        exec(snippet, vars(OWN))
GUIDE = {
    "RandomWalk": lambda **more: OWN.RandomWalk(**more),
    "ScaledVAE": lambda **more: OWN.ScaledVAE(hidden_dims=(16,), **SMALL | more),
}
CONTRACT = EVERY | GUIDE
AUTOENCODERS = ("MultVAE", "MultDAE", "RecVAE", "HybridVAE", "HVamp")
WORST = np.finfo(np.float32).min


def brief(name, **more):
    """A model that does not need to have learned much."""
    short = {"epochs": 2} if "epochs" in CONTRACT[name]().get_params() else {}
    return CONTRACT[name](**short | more)


@pytest.fixture(params=CONTRACT)
def make(request):
    return functools.partial(brief, request.param)


@pytest.fixture(params=CONTRACT)
def model(request, fitted_models):
    return fitted_models[request.param]


@pytest.mark.parametrize("name", PERSONAL | KNOWN_USERS | GUIDE)
def test_the_checkerboard(name, checkerboard, fitted_models):
    ids, _ = fitted_models[name].recommend(np.arange(50), checkerboard, N=1)
    assert ids[:, 0].tolist() == list(range(50))


def test_someone_who_was_not_there_is_scored_like_anyone_else(checkerboard, fitted_models):
    stranger = sparse.csr_matrix(([1.0] * 5, ([0] * 5, [1, 3, 5, 7, 9])), shape=(1, 50))
    for name in PERSONAL | GUIDE:
        ids, _ = fitted_models[name].recommend(12345678, stranger, N=5)
        assert (ids % 2 == 1).all(), name


@pytest.mark.parametrize("name", KNOWN_USERS)
def test_models_of_known_users_refuse_the_others(name, checkerboard, fitted_models, split):
    model = fitted_models[name]
    for users in ([50], [-1], [0.5]):
        with pytest.raises(OutOfRangeError, match="rows in training, from 0 to 49"):
            model.recommend(users, checkerboard[[0]])
    refusal = f"{name} has factors for the users it was trained on only: it cannot score others"
    with pytest.raises(NotImplementedError, match=refusal):
        model.recommend([0], checkerboard[[0]], recalculate_user=True)
    with pytest.raises(UnknownUsersError, match=refusal):
        EVERY[name]().fit(split.train, valid=split.valid)


def test_one_user_or_many_is_a_matter_of_form(model, checkerboard):
    ids, scores = model.recommend([3, 8], checkerboard[[3, 8]], N=4)
    assert ids.shape == scores.shape == (2, 4)
    assert (ids.dtype, scores.dtype) == (np.int32, np.float32)
    assert (np.diff(scores, axis=1) <= 0).all()
    for row, user in enumerate([3, np.array(8)]):
        one, one_scores = model.recommend(user, checkerboard[user], N=4)
        assert one.shape == one_scores.shape == (4,)
        assert one.tolist() == ids[row].tolist()
        np.testing.assert_allclose(one_scores, scores[row], rtol=1e-4, atol=1e-5)


def test_seen_items_stay_out_unless_wanted(model, checkerboard):
    ids, _ = model.recommend(np.arange(50), checkerboard, N=50)
    for user in range(50):
        assert not set(ids[user].tolist()) & set(checkerboard[user].indices.tolist())
    ids, _ = model.recommend([0], checkerboard[[0]], N=50, filter_already_liked_items=False)
    assert len(set(ids[0][ids[0] >= 0].tolist()) & set(checkerboard[0].indices.tolist())) > 20


def test_lists_have_n_places_and_are_padded(model, checkerboard):
    ids, scores = model.recommend([0], checkerboard[[0]], N=70)
    assert ids.shape == (1, 70)
    n_given = int((ids >= 0).sum())
    assert n_given <= 26  # 24 are seen
    assert (ids[0, n_given:] == -1).all()
    assert (scores[0, n_given:] == WORST).all()
    assert (scores[0, :n_given] > WORST).all()


def test_filters(model, checkerboard):
    plain, _ = model.recommend([4], checkerboard[[4]], N=50)
    without, _ = model.recommend([4], checkerboard[[4]], N=50, filter_items=[4, 5])
    assert [item for item in plain[0] if item not in (4, 5, -1)] == [item for item in without[0] if item != -1]
    only, _ = model.recommend([4], checkerboard[[4]], N=10, items=[7, 4, 9])
    assert only.shape == (1, 3)
    assert set(only[0].tolist()) <= {4, 7, 9, -1}
    arrays, _ = model.recommend([4], checkerboard[[4]], N=10, items=np.array([7, 4, 9]))
    assert arrays.tolist() == only.tolist()
    both, _ = model.recommend([4], checkerboard[[4]], N=10, items=[7, 4, 9], filter_items=[])
    assert both.tolist() == only.tolist()
    nothing, _ = model.recommend([4], checkerboard[[4]], N=3, filter_items=[])
    assert nothing[0].tolist() == plain[0, :3].tolist()


def test_what_recommend_refuses(model, checkerboard):
    row = checkerboard[[0]]
    with pytest.raises(OutOfRangeError, match="not in the model: expected 0 to 49, got 0 to 50"):
        model.recommend([0], row, items=[0, 50])
    with pytest.raises(IndexError):
        model.recommend([0], row, filter_items=[-1])
    with pytest.raises(InvalidParameterError, match="both filter_items and items"):
        model.recommend([0], row, items=np.array([1]), filter_items=np.array([2]))
    with pytest.raises(InvalidParameterError, match="at least one item to rank"):
        model.recommend([0], row, items=[])
    with pytest.raises(InvalidTypeError, match="integers"):
        model.recommend([0], row, items=[0.5])
    with pytest.raises(InvalidDataError, match="1 row for every user in userids: expected 2, got 1"):
        model.recommend([0, 1], row)
    with pytest.raises(InvalidDataError, match="Expected 50 columns"):
        model.recommend([0], row[:, :49])
    with pytest.raises(InvalidDataError, match="needs to be a CSR sparse matrix"):
        model.recommend([0], row.tocoo())
    with pytest.raises(InvalidTypeError, match="needs to be a CSR sparse matrix"):
        model.recommend([0], row.toarray())
    with pytest.raises(InvalidDataError, match="zero or more"):
        model.recommend([0], -row)
    for N in (0, -1, 2.5, True):
        with pytest.raises(InvalidParameterError, match="N to be an integer of at least 1"):
            model.recommend([0], row, N=N)


def test_csr_arrays_count_as_well(model, checkerboard):
    array = sparse.csr_array(checkerboard)
    assert (model.recommend([1, 2], array[[1, 2]])[0] == model.recommend([1, 2], checkerboard[[1, 2]])[0]).all()
    assert (model.recommend(1, array[1])[0] == model.recommend(1, checkerboard[1])[0]).all()


def test_a_row_without_events_gets_an_answer(model):
    ids, _ = model.recommend([0], sparse.csr_matrix((1, 50)), N=50)
    assert ids.shape == (1, 50)
    assert (ids >= 0).sum() in (0, 50)


@pytest.mark.parametrize(
    "cells", [([0], [2], (1, 5)), ([0, 2, 3], [0, 0, 0], (4, 1)), ([4, 4, 4], [0, 1, 3], (20, 5))], ids=str
)
def test_hardly_any_data_gives_an_answer_or_a_sentence(make, cells):
    rows, columns, shape = cells
    few = sparse.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape)
    try:
        model = make().fit(few)
    except RecvaeError:
        return  # a sentence
    ids, scores = model.recommend([0], few[[0]], N=3)
    assert ids.shape == (1, 3)
    assert not np.isnan(scores).any()


def test_no_users_at_all(model):
    ids, scores = model.recommend([], sparse.csr_matrix((0, 50)), N=5)
    assert ids.shape == scores.shape == (0, 5)


def test_rows_are_read_alike_in_training_and_scoring(make, checkerboard):
    """With binary values, what the numbers are does not matter, in either place."""
    weighted = checkerboard.copy()
    weighted.data = np.random.default_rng(0).integers(1, 9, weighted.nnz).astype(np.float32)
    one, two = make().fit(checkerboard), make().fit(weighted)
    first, second = one.recommend([0], checkerboard[[0]], N=5), two.recommend([0], 3 * weighted[[0]], N=5)
    assert first[0].tolist() == second[0].tolist()
    np.testing.assert_array_equal(first[1], second[1])


def test_the_data_declare_how_they_are_read_and_the_model_can_differ(make, checkerboard):
    counts = Interactions.from_matrix(checkerboard, values="log1p")
    assert make().fit(counts).values_ == "log1p"
    assert make(values="raw").fit(counts).values_ == "raw"
    assert make().fit(checkerboard).values_ == "binary"


@pytest.mark.parametrize("name", ["MultVAE", "MultDAE", "EASE", "EDLAE-sparse", "ALS"])
def test_values_reach_the_model(name, checkerboard):
    weighted = checkerboard.copy()
    weighted.data = np.random.default_rng(0).integers(1, 9, weighted.nnz).astype(np.float32)
    raw, binary = (brief(name, values=values).fit(weighted) for values in ("raw", "binary"))
    scores = [model.recommend([0], weighted[[0]], N=5)[1] for model in (raw, binary)]
    assert not np.allclose(*scores)


@pytest.mark.parametrize("name", ["EASE", "EASE-sparse", "EDLAE", "EDLAE-sparse"])
def test_the_unit_of_values_does_not_matter_to_the_ridge_penalty(name, checkerboard):
    weighted = checkerboard.copy()
    weighted.data = np.random.default_rng(0).integers(1, 9, weighted.nnz).astype(np.float32)
    one, two = (EVERY[name](values="raw").fit(scale * weighted) for scale in (1, 64))
    (ids, scores), (ids_too, scores_too) = (model.recommend([0], weighted[[0]], N=20) for model in (one, two))
    assert ids.tolist() == ids_too.tolist()
    np.testing.assert_allclose(scores, scores_too, rtol=1e-5)


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_the_unit_of_values_does_not_matter_to_an_autoencoder(name, checkerboard):
    """Else plays would outweigh the KL term where stars do not."""
    weighted = checkerboard.copy()
    weighted.data = np.random.default_rng(0).integers(1, 9, weighted.nnz).astype(np.float32)
    one, two = (EVERY[name](values="raw", epochs=3).fit(scale * weighted) for scale in (1, 64))
    if name != "HybridVAE":  # on so few users the weight of its path leaps with the last digit
        np.testing.assert_allclose(one.score(weighted[[0]]), two.score(weighted[[0]]), rtol=1e-3, atol=1e-4)
    assert [epoch.loss for epoch in one.history_] == pytest.approx([epoch.loss for epoch in two.history_])


def test_the_same_seed_gives_the_same_answers(make, checkerboard):
    answers = [make().fit(checkerboard).recommend(np.arange(50), checkerboard, N=9) for _ in range(2)]
    assert (answers[0][0] == answers[1][0]).all()
    assert (answers[0][1] == answers[1][1]).all()


def test_fit_returns_the_model_and_leaves_the_data_alone(make, checkerboard):
    before = checkerboard.copy()
    model = make()
    assert model.fit(checkerboard) is model
    assert (checkerboard != before).nnz == 0
    assert checkerboard.dtype == before.dtype


def test_before_fit_there_is_only_an_error(make, checkerboard):
    with pytest.raises(NotFittedError, match="call fit first"):
        make().recommend([0], checkerboard[[0]])


def test_what_fit_refuses(make, checkerboard, split):
    with pytest.raises(InvalidTypeError):
        make().fit(checkerboard.toarray())
    with pytest.raises(InvalidTypeError):
        make().fit([[1, 0], [0, 1]])
    with pytest.raises(InvalidDataError, match="zero or more"):
        make().fit(-checkerboard)
    with pytest.raises(InvalidDataError, match="got nan"):
        make().fit(checkerboard * np.nan)
    for empty in (sparse.csr_matrix((5, 5)), sparse.csr_matrix((0, 5)), sparse.csr_matrix((0, 0))):
        with pytest.raises(InvalidDataError, match="at least one event"):
            make().fit(empty)
    with pytest.raises(InvalidDataError, match="validation rows over 50 items"):
        make().fit(checkerboard, valid=split.valid)
    with pytest.raises(InvalidTypeError, match=r"Holdout such as split\.valid, got Split"):
        make().fit(checkerboard, valid=split)
    with pytest.warns(ParameterWarning):
        make().fit(checkerboard.tocoo())


def test_a_fit_that_fails_leaves_the_model_as_it_was(checkerboard):
    for model in (brief(name).fit(checkerboard) for name in CONTRACT):
        before = model.recommend([0], checkerboard[[0]])[0]
        with pytest.raises(RecvaeError):
            model.fit(-checkerboard[:, :30])
        assert model.recommend([0], checkerboard[[0]])[0].tolist() == before.tolist()


@pytest.mark.parametrize("name", [*AUTOENCODERS, "ALS"])
def test_callbacks_are_called_after_each_pass(name, checkerboard):
    calls = []
    short = {"epochs": 15} if name in AUTOENCODERS else {}
    EVERY[name](**short).fit(checkerboard, callback=lambda *args: calls.append(args))
    assert [iteration for iteration, _, _ in calls] == list(range(len(calls)))
    assert len(calls) >= 15


@pytest.mark.parametrize("name", ["MultVAE", "MultDAE"])
def test_each_epoch_is_told_and_may_be_the_last(name, checkerboard, split):
    """What comes out of a callback comes out of `fit`, and leaves the model as it was."""
    told, model = [], EVERY[name](epochs=5)
    model.fit(split.train, valid=split.valid, callbacks=[told.append])
    assert told == model.history_
    assert [epoch.epoch for epoch in told] == [1, 2, 3, 4, 5]
    assert all(0 < epoch.valid < 1 for epoch in told)

    class EnoughError(Exception):
        pass

    def enough(epoch):
        told.append(epoch)
        if epoch.epoch == 2:
            raise EnoughError

    before, told = model.recommend([0], split.test.fold_in[[0]])[1], []
    with pytest.raises(EnoughError):
        model.fit(checkerboard, callbacks=[enough])
    assert [(epoch.epoch, epoch.valid) for epoch in told] == [(1, None), (2, None)]
    assert (model.recommend([0], split.test.fold_in[[0]])[1] == before).all()


def test_many_threads_may_ask_one_model(model, checkerboard):
    expected = model.recommend(np.arange(50), checkerboard, N=5)[0].tolist()
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda _: model.recommend(np.arange(50), checkerboard, N=5)[0].tolist(), range(12))
    assert all(answer == expected for answer in answers)


def test_models_survive_pickling_in_memory(model, checkerboard):
    again = pickle.loads(pickle.dumps(model))
    assert (again.recommend([0, 7], checkerboard[[0, 7]])[0] == model.recommend([0, 7], checkerboard[[0, 7]])[0]).all()


def test_scoring_knows_no_noise(fitted_models, checkerboard):
    for name in ("MultVAE", "MultDAE"):
        one, two = (fitted_models[name].recommend([0], checkerboard[[0]], N=20)[1] for _ in range(2))
        assert (one == two).all()
        assert not fitted_models[name].network_.training


def test_the_public_names_are_there():
    for name in recvae.__all__:
        assert hasattr(recvae, name)
    assert len(set(recvae.__all__)) == len(recvae.__all__)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", AUTOENCODERS)
def test_the_checkerboard_on_a_gpu(name, checkerboard):
    model = PERSONAL[name](device="cuda").fit(checkerboard)
    ids, _ = model.recommend(np.arange(50), checkerboard, N=1)
    assert ids[:, 0].tolist() == list(range(50))
