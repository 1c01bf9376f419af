"""A split of your own: two matrices make a holdout, in any order, over any columns; anything else is refused."""

import dataclasses
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from recvae import (
    EASE,
    Holdout,
    HybridVAE,
    Interactions,
    MultDAE,
    MultVAE,
    RecVAE,
    Split,
    evaluate,
    fit_split,
    paired_bootstrap,
    per_user_split,
    strong_split,
    tune,
)
from recvae.data.shards import Shards, write_shards
from recvae.datasets.sample import make_sample
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError
from recvae.evaluation.breakdown import break_down, make_groups
from recvae.models.base.params import with_params
from recvae.models.baselines import BPR, ItemKNN
from recvae.tuning.selection import choose

SMALL = {"epochs": 3, "batch_size": 50, "latent_dim": 6, "random_state": 0}
MODELS = [
    MultVAE(hidden_dims=(12,), **SMALL),
    RecVAE(hidden_dim=12, depth=2, **SMALL),
    HybridVAE(hidden_dim=12, depth=2, **SMALL),
]


def untidy(rows, seed=0):
    """The same events as no tidy program would write them: columns in any order, cells in two parts, zeros stored."""
    random, parts = np.random.default_rng(seed), []
    for user in range(rows.shape[0]):
        row = rows[[user]]
        free = np.setdiff1d(np.arange(rows.shape[1]), row.indices)[:2]
        columns = np.concatenate([row.indices, row.indices[:1], free])
        values = np.concatenate([row.data, row.data[:1], np.zeros(len(free))])
        values[: len(row.data[:1])] /= 2
        values[row.nnz : row.nnz + len(row.data[:1])] /= 2
        order = random.permutation(len(columns))
        parts.append((columns[order], values[order]))
    indptr = np.cumsum([0, *(len(columns) for columns, _ in parts)])
    arrays = (np.concatenate(each) for each in zip(*parts, strict=True))
    columns, values = arrays
    return sparse.csr_matrix((values, columns, indptr), shape=rows.shape)


def bare(holdout, change=lambda rows: rows):
    return Holdout(change(holdout.fold_in), change(holdout.held_out))


def fitted(model, split, valid):
    return with_params(model, {}).fit(split.train, show_progress=False, valid=valid)


def scores(model, split):
    return model.score(split.test.fold_in)


@pytest.fixture(scope="module")
def split():
    return strong_split(make_sample(n_users=250, n_items=60).interactions, heldout_users=50)


@pytest.fixture(scope="module")
def validated(split):
    """A model -> one like it, fitted with the validation users of the split as they are."""
    known = {}

    def fit(model):
        name = type(model).__name__
        if name not in known:
            known[name] = fitted(model, split, split.valid)
        return known[name]

    return fit


# two matrices ----------------------------------------------------------------------------------------------------


def test_two_matrices_are_evaluated_as_the_split_they_came_from(split):
    model = EASE().fit(split.train)
    whole, own = (evaluate(model, each, ["ndcg@100", "recall@5"]) for each in (split.test, bare(split.test)))
    for name in whole:
        assert (whole[name].values == own[name].values).all()
    assert own.users.tolist() == list(range(len(split.test.users)))
    assert {name: whole.lists[name] for name in ("coverage", "gini")} == dict(own.lists)
    assert paired_bootstrap(own["ndcg@100"], own["ndcg@100"]).p_value == 1
    assert (evaluate(EASE().fit(split.train.matrix), split.test)["ndcg@100"].values == whole["ndcg@100"].values).all()


def test_what_needs_item_counts_says_so(split):
    own = bare(split.test)
    model = EASE().fit(split.train)
    found = evaluate(model, own, ["ndcg@100"], keep_lists=True)
    assert "novelty" not in found.lists
    with pytest.raises(InvalidDataError, match="item_counts and n_train in the holdout for novelty"):
        found.lists["novelty"]
    with pytest.raises(KeyError, match="surprise"):
        found.lists["surprise"]
    with pytest.raises(InvalidDataError, match="item_counts in the holdout for groups of items"):
        make_groups(own)
    counted = dataclasses.replace(own, item_counts=split.test.item_counts.tolist(), n_train=split.test.n_train)
    found = evaluate(model, counted, ["ndcg@100"], keep_lists=True)
    assert found.lists == evaluate(model, split.test, ["ndcg@100"]).lists
    assert break_down([found], make_groups(counted), "ndcg@100")["by_activity"]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_fits_validate_on_two_matrices_in_any_order(split, validated, model):
    whole, own = validated(model), fitted(model, split, bare(split.valid, untidy))
    assert [epoch.valid for epoch in own.history_] == [epoch.valid for epoch in whole.history_]
    assert own.chosen_params() == whole.chosen_params()
    assert (scores(own, split) == scores(whole, split)).all()


@pytest.mark.parametrize("change", [sparse.csr_array, untidy], ids=["arrays", "untidy"])
def test_the_other_verbs_take_two_matrices_in_any_order(split, validated, change):
    own = Split(split.train, bare(split.valid, change), bare(split.test, change))
    model = fit_split(with_params(MODELS[0], {}), own, show_progress=False)
    assert (scores(model, split) == scores(validated(MODELS[0]), split)).all()
    tried = [ItemKNN(K=5), ItemKNN(K=50)]
    assert choose(tried, own, show_progress=False).params == choose(tried, split, show_progress=False).params
    one, other = (tune(ItemKNN, each, 2, show_progress=False) for each in (split, own))
    assert one.value == other.value
    assert MultDAE().plan(split.train, valid=own.valid, calibrate=False).sizes.validated
    counted = dataclasses.replace(own.test, item_counts=split.test.item_counts)
    for name in ("held_out", "activity"):
        one, other = (getattr(make_groups(each), name) for each in (split.test, counted))
        assert (one != other).sum() == 0


def test_training_users_are_known_by_their_rows():
    data = make_sample(n_users=200, n_items=60).interactions
    split = per_user_split(data)
    own = [Holdout(each.fold_in, each.held_out, train_rows=each.train_rows) for each in (split.valid, split.test)]
    one, other = (BPR(iterations=2, random_state=0).fit(split.train, valid=each) for each in (split.valid, own[0]))
    assert evaluate(one, split.test)["ndcg@100"].mean == evaluate(other, own[1])["ndcg@100"].mean
    refit = Split(split.train, *own, refit=split.refit)
    one, other = (fit_split(MultDAE(hidden_dims=(9,), **SMALL), each, False) for each in (split, refit))
    assert (one.score(split.test.fold_in) == other.score(split.test.fold_in)).all()
    beyond = dataclasses.replace(own[0], train_rows=own[0].train_rows + 5)
    with pytest.raises(InvalidDataError, match="train_rows of valid below 200, the number of training users, got 204"):
        Split(split.train, beyond, own[1])


def test_arrays_that_are_changed_later_are_checked_again(split):
    test = pickle.loads(pickle.dumps(split.test))
    for rows in (test.fold_in, test.held_out):
        for start, stop in zip(rows.indptr, rows.indptr[1:], strict=False):
            rows.indices[start:stop] = rows.indices[start:stop][::-1].copy()
    model = EASE().fit(split.train)
    assert (evaluate(model, test)["ndcg@100"].values == evaluate(model, split.test)["ndcg@100"].values).all()
    one, other = (fitted(MODELS[0], split, valid) for valid in (split.test, test))
    assert [epoch.valid for epoch in one.history_] == [epoch.valid for epoch in other.history_]
    test.held_out.data[3] = np.nan
    for use in (lambda: evaluate(model, test), lambda: fitted(MODELS[0], split, test)):
        with pytest.raises(InvalidDataError, match="Expected finite values, got nan"):
            use()


@given(st.integers(0, 1000))
def test_the_arguments_are_not_changed(seed):
    random = np.random.default_rng(seed)
    cells = random.integers(0, 3, (6, 9))
    parts = [untidy(sparse.csr_matrix(cells == half, dtype=np.float64), seed) for half in (1, 2)]
    before = [[array.copy() for array in (part.data, part.indices, part.indptr)] for part in parts]
    own = Holdout(*parts)
    assert (own.fold_in.toarray() == (cells == 1)).all()
    assert (own.held_out.toarray() == (cells == 2)).all()
    assert own.fold_in.has_canonical_format
    assert own.fold_in.dtype == np.float32
    own.held_out.data[:] = 7
    for part, arrays in zip(parts, before, strict=True):
        for now, then in zip((part.data, part.indices, part.indptr), arrays, strict=True):
            assert (now == then).all()


# what is no holdout ----------------------------------------------------------------------------------------------

LEFT, RIGHT = sparse.csr_matrix(np.eye(4)), sparse.csr_matrix(np.eye(4)[::-1])


def with_value(value):
    rows = RIGHT.copy()
    rows.data[1] = value
    return rows


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Holdout(LEFT, LEFT), "not folded in, got 4 that are in both, such as column 0 of user 0; leave them"),
        (lambda: Holdout(LEFT, LEFT + RIGHT, users=[*"abcd"]), "got 4 that are in both, such as column 0 of user a"),
        (lambda: Holdout(LEFT[:2], RIGHT), r"of one shape, got \(2, 4\) and \(4, 4\)"),
        (lambda: Holdout(LEFT[:, :3], RIGHT), r"of one shape, got \(4, 3\) and \(4, 4\)"),
        (lambda: Holdout(LEFT, with_value(np.nan)), "Expected finite values, got nan"),
        (lambda: Holdout(LEFT, with_value(np.inf)), "Expected finite values, got inf"),
        (lambda: Holdout(with_value(-1), LEFT), "Expected values of zero or more, got -1"),
        (lambda: Holdout(LEFT.tocsc(), RIGHT), "fold_in needs to be a CSR sparse matrix, got csc"),
        (lambda: Holdout(LEFT, RIGHT.tocoo()), "held_out needs to be a CSR sparse matrix, got coo"),
        (lambda: Holdout(LEFT.toarray(), RIGHT), "fold_in needs to be a CSR sparse matrix, got ndarray"),
        (lambda: Holdout(LEFT, Interactions.from_matrix(RIGHT)), "held_out needs to be a CSR .* got Interactions"),
        (lambda: Holdout(LEFT, RIGHT, users=[1, 2, 3]), r"Expected 4 users, an id for each row, got shape \(3,\)"),
        (lambda: Holdout(LEFT, RIGHT, item_ids=[1, 2, 3]), "Expected 4 item_ids"),
        (lambda: Holdout(LEFT, RIGHT, item_ids=[1, 2, 3, 3]), "item_ids without repetition, got 3 distinct of 4"),
        (lambda: Holdout(LEFT, RIGHT, item_ids=[0.5, 1.5, 2, 3]), "item_ids to be all integers or all strings"),
        (lambda: Holdout(LEFT, RIGHT, item_counts=[1, 2, 3]), "Expected 4 numbers of 0 or more as item_counts"),
        (lambda: Holdout(LEFT, RIGHT, item_counts=[1, 2, 3, -1]), "Expected 4 numbers of 0 or more as item_counts"),
        (lambda: Holdout(LEFT, RIGHT, train_rows=[0.0, 1, 2, 3]), "4 numbers of 0 or more as train_rows, got float64"),
        (lambda: Holdout(LEFT, RIGHT, train_rows=[0, 1, 2, -3]), "Expected 4 numbers of 0 or more as train_rows"),
        (lambda: Holdout(LEFT, RIGHT, n_train=0), "n_train to be an integer of at least 1, got 0"),
    ],
)  # fmt: skip
def test_what_is_no_holdout(make, message):
    with pytest.raises((InvalidDataError, InvalidTypeError, InvalidParameterError), match=message) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_what_is_stored_as_zero_is_on_no_side():
    both = sparse.csr_matrix((np.array([1.0, 0, 1, 1]), np.array([0, 1, 2, 3]), np.arange(5)), shape=(4, 4))
    other = sparse.csr_matrix((np.array([0.0, 1, 0, 0]), np.array([0, 1, 2, 3]), np.arange(5)), shape=(4, 4))
    assert Holdout(both, other).held_out.nnz == 1


def test_nothing_held_out_is_refused_before_the_first_step(split):
    nothing = sparse.csr_matrix(split.valid.held_out.shape)
    own, called = Holdout(split.valid.fold_in, nothing), []
    no_one = Holdout(nothing[:0], nothing[:0])
    for model in (MultVAE(), EASE()):
        for valid in (own, no_one):
            with pytest.raises(InvalidDataError, match="Expected validation users with held-out items, got none"):
                model.fit(split.train, valid=valid, callback=lambda *call: called.append(call))
    assert not called
    with pytest.raises(InvalidDataError, match="nothing to evaluate"):
        evaluate(EASE().fit(split.train), no_one)


def test_held_out_events_that_are_in_training_are_refused():
    known = per_user_split(make_sample(n_users=60, n_items=40).interactions, valid_share=0.2)
    EASE().fit(known.train, valid=known.valid)
    with pytest.raises(InvalidDataError, match=r"not in training, got \d+ that are; fit on split\.train"):
        EASE().fit(known.refit, valid=known.valid)
    with pytest.raises(InvalidDataError, match="who are among the 5 training users, got train_rows up to"):
        EASE().fit(known.train.matrix[:5], valid=known.valid)


# items by their ids ----------------------------------------------------------------------------------------------


def renamed(data, name):
    return dataclasses.replace(data, item_ids=np.array([name(item) for item in data.item_ids.tolist()]))


def reordered(holdout, item_ids, seed=0):
    """The same holdout with its columns in another order, and `item_ids` of what they were."""
    order = np.random.default_rng(seed).permutation(holdout.fold_in.shape[1])
    return Holdout(
        holdout.fold_in[:, order],
        holdout.held_out[:, order],
        item_counts=holdout.item_counts[order],
        n_train=holdout.n_train,
        item_ids=np.asarray(item_ids)[order],
    )


@pytest.mark.parametrize("names", [lambda item: item, str], ids=["numbers", "text"])
def test_columns_in_another_order_are_matched(split, validated, names):
    ids = [names(item) for item in split.items.tolist()]
    valid, test = (reordered(each, ids) for each in (split.valid, split.test))
    model = EASE().fit(split.train)
    one, other = (evaluate(model, each, ["ndcg@20"], keep_lists=True) for each in (split.test, test))
    assert (one["ndcg@20"].values == other["ndcg@20"].values).all()
    assert [str(item) for item in split.items[one.ranked].ravel()] == [
        str(item) for item in test.item_ids[other.ranked].ravel()
    ]
    assert one.lists == pytest.approx(other.lists)
    for each in MODELS[:1] if names is str else MODELS[::2]:
        assert (scores(validated(each), split) == scores(fitted(each, split, valid), split)).all()
    mixed = Split(split.train, valid, test)
    assert (mixed.valid.fold_in != split.valid.fold_in).nnz == (mixed.test.held_out != split.test.held_out).nnz == 0
    assert mixed.test.item_counts.tolist() == split.test.item_counts.tolist()
    text = renamed(split.train, str)
    assert evaluate(EASE().fit(text), test)["ndcg@100"].mean == evaluate(model, split.test)["ndcg@100"].mean


def test_the_columns_of_a_refit_are_matched_too():
    split = per_user_split(make_sample(n_users=150, n_items=50).interactions)
    order = np.random.default_rng(0).permutation(split.train.n_items)
    mixed = Split(split.train, split.valid, split.test, refit=split.refit.select_items(order))
    assert mixed.refit.fingerprint() == split.refit.fingerprint()


@pytest.mark.parametrize(
    "name",
    [lambda item: item + 1000, lambda item: item + 1, lambda item: f"film {item}", lambda item: f"0{item}"],
    ids=["others", "shifted", "text", "zeros in front"],
)
def test_other_items_are_refused(split, name):
    valid, test = (
        dataclasses.replace(each, item_ids=[name(item) for item in split.items.tolist()])
        for each in (split.valid, split.test)
    )
    model = EASE().fit(split.train)
    for use in (
        lambda: evaluate(model, test),
        lambda: MultVAE(**SMALL).fit(split.train, valid=valid),
        lambda: EASE().fit(split.train, valid=valid),
        lambda: MultVAE().plan(split.train, valid=valid),
        lambda: Split(split.train, valid, split.test),
        lambda: Split(split.train, split.valid, test),
    ):
        with pytest.raises(InvalidDataError, match=r"holdout over the 60 items of the training, got one over 60 items"):
            use()


def test_more_and_fewer_items_are_refused(split):
    model = EASE().fit(split.train)
    some = Holdout(split.test.fold_in[:, :50], split.test.held_out[:, :50], item_ids=split.items[:50])
    more = EASE().fit(split.train.select_items(np.arange(50)))
    for refused, holdout in ((model, some), (more, split.test)):
        with pytest.raises(InvalidDataError, match=r"items of the training, got one over .*, of which 50 are among"):
            evaluate(refused, holdout)
    with pytest.raises(InvalidDataError, match="Expected 60 columns, one for each item, got 50"):
        evaluate(model, Holdout(some.fold_in, some.held_out))
    with pytest.raises(InvalidDataError, match="Expected valid over 60 items as in training, got 50"):
        Split(split.train, some, split.test)


def test_every_split_knows_its_items(tmp_path):
    pytest.importorskip("duckdb")
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"user": np.repeat(np.arange(60), 12), "item": random.integers(0, 40, 720) * 3})
    frame["time"] = random.permutation(len(frame)) + 1
    data = Interactions.from_frame(frame, time="time")
    for made in (strong_split(data, 9), per_user_split(data)):
        for holdout in (made.valid, made.test):
            assert holdout.item_ids.tolist() == made.items.tolist()
    data.write(tmp_path / "events.parquet")
    write_shards(tmp_path / "events.parquet", tmp_path / "shards", heldout_users=9)
    shards, split = Shards(tmp_path / "shards"), strong_split(data, 9)
    assert shards.valid.item_ids.tolist() == split.items.tolist()
    mixed = reordered(split.valid, split.items)
    one, other = (MultDAE(hidden_dims=(9,), **SMALL).fit(shards, valid=each) for each in (shards.valid, mixed))
    assert [epoch.valid for epoch in one.history_] == [epoch.valid for epoch in other.history_]
    assert (evaluate(one, shards.test)["ndcg@100"].values == evaluate(one, split.test)["ndcg@100"].values).all()
    with pytest.raises(InvalidDataError, match=r"over the .* items of the training"):
        MultDAE(**SMALL).fit(shards, valid=dataclasses.replace(mixed, item_ids=mixed.item_ids + 1))


# patience --------------------------------------------------------------------------------------------------------


def test_a_hybrid_has_patience_with_users_of_its_own(split):
    settings = SMALL | {"epochs": 60, "learning_rate": 0.02, "hidden_dim": 12, "depth": 2}
    model = HybridVAE(calibration_share=0.4, patience=1, **settings)
    model.fit(split.train, show_progress=False)
    assert len(model.history_) == model.best_epoch_ + 1 < 60


@pytest.mark.parametrize(
    "model",
    [*(model for model in MODELS if not model.validates_itself), MultDAE(**SMALL)],
    ids=lambda model: type(model).__name__,
)
def test_patience_needs_validation_users(split, model):
    patient = with_params(model, {"patience": 2})
    for use in (lambda: patient.fit(split.train), lambda: patient.plan(split.train)):
        with pytest.raises(
            InvalidParameterError, match="Expected validation users for patience=2, got none; give fit's"
        ):
            use()
    assert not hasattr(patient, "n_items_")
    patient.fit(split.train, valid=split.valid, show_progress=False)
    patient.partial_fit(split.train, epochs=1, show_progress=False)
    again = type(model)(**patient.chosen_params()).fit(split.train, show_progress=False)
    assert len(again.history_) == patient.best_epoch_


def test_patience_is_over_once_the_epoch_is_chosen():
    split = per_user_split(make_sample(n_users=150, n_items=50).interactions)
    final = fit_split(MultDAE(hidden_dims=(9,), patience=1, **SMALL), split, show_progress=False)
    assert final.patience is None
