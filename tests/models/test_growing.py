"""Models that learn on and take in new items: what stays, what a new item begins with, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae import HVamp, HybridVAE, Interactions, MultVAE, OutputOptions, RecVAE, TrainingOptions, load
from recvae.errors import (
    InvalidDataError,
    InvalidParameterError,
    InvalidTypeError,
    NotFittedError,
    NotSupportedError,
    TrainingError,
)
from recvae.models.autoencoder.new_items import (
    NEIGHBOURS,
    PENALTIES,
    extend_linear_weights,
    neighbour_weights,
    ridge,
    vectors_from_features,
    vectors_from_neighbours,
)
from recvae.nn.item_vectors import ItemVectors, item_vectors
from tests.models.test_contract import EVERY, SMALL

OLD = 40  # of 50 items are there at first
NEW = [f"i{n}" for n in range(OLD, 50)]
LEARNS = {name: make for name, make in EVERY.items() if "partial_fit" in make().abilities()}
SHORT = SMALL | {"epochs": 12}
LEARNS |= {
    "HVamp-cosine": lambda **more: HVamp(
        hidden_dims=(16,), n_components=10, **SMALL | more, output=OutputOptions(logits="cosine")
    ),
    "RecVAE-gaussian": lambda **more: RecVAE(hidden_dim=16, depth=3, likelihood="gaussian", **SHORT | more),
    "MultVAE-tied": lambda **more: MultVAE(
        hidden_dims=(16,), **SMALL | more, output=OutputOptions(tied_embeddings=True)
    ),
    "RecVAE-tied": lambda **more: RecVAE(
        hidden_dim=16, depth=3, **SHORT | {"latent_dim": 16} | more, output=OutputOptions(tied_embeddings=True)
    ),
    "MultVAE-sampled": lambda **more: MultVAE(
        hidden_dims=(16,),
        **SMALL | {"learning_rate": 0.02} | more,
        training=TrainingOptions(impl="sampled", num_negatives=20),
    ),
    "HybridVAE-sparse": lambda **more: HybridVAE(hidden_dim=16, depth=3, l2=1.0, form="sparse", **SHORT | more),
}


def quick(**more):
    return MultVAE(hidden_dims=(8,), **SMALL | {"epochs": 10} | more)


@pytest.fixture
def old_rows(checkerboard):
    return checkerboard[:, :OLD].tocsr()


def named(matrix, first=0, **more):
    """Interactions whose items are called i0, i1, ... in the order of their columns."""
    ids = [f"i{n}" for n in range(first, first + matrix.shape[1])]
    return Interactions.from_matrix(matrix, item_ids=ids, titles={name: name.upper() for name in ids}, **more)


def parities():
    """Of each of 50 items, two features."""
    return sparse.csr_matrix(np.eye(2)[np.arange(50) % 2])


def assert_new_items_go_to_their_kind(model):
    """Whoever has five items of one parity gets the new ones of that parity first."""
    for parity in (0, 1):
        row = sparse.csr_matrix(([1.0] * 5, ([0] * 5, np.arange(5) * 4 + parity)), shape=(1, 50))
        ids, _ = model.recommend(0, row, N=5, items=np.arange(OLD, 50))
        assert (ids % 2 == parity).all()


def test_who_learns_on():
    assert {name.partition("-")[0] for name in LEARNS} == {"MultVAE", "MultDAE", "HVamp", "RecVAE", "HybridVAE"}


@pytest.mark.parametrize("verb", ["partial_fit", "add_items"])
def test_the_others_refuse_by_name(verb, checkerboard):
    for name in EVERY.keys() - LEARNS.keys():
        model = EVERY[name]().fit(checkerboard)
        with pytest.raises(NotSupportedError, match=rf"{type(model).__name__} has no {verb}: it has no network"):
            getattr(model, verb)(checkerboard)


@pytest.fixture(scope="module")
def fitted(checkerboard):
    """By name, a model fitted on the first items; each test grows a copy."""
    models = {name: make().fit(named(checkerboard[:, :OLD].tocsr())) for name, make in LEARNS.items()}
    return lambda name: copy.deepcopy(models[name])


@pytest.mark.parametrize("name", LEARNS)
class TestEveryModel:
    def test_new_items_leave_the_scores_of_the_others(self, name, fitted, checkerboard, old_rows):
        before = fitted(name).score(old_rows)
        wide = sparse.csr_matrix((old_rows.data, old_rows.indices, old_rows.indptr), shape=(50, 50))
        for grown in (
            fitted(name).partial_fit(named(checkerboard), epochs=0),
            fitted(name).add_items(parities(), item_ids=NEW),
        ):
            np.testing.assert_allclose(grown.score(wide)[:, :OLD], before, rtol=1e-6, atol=1e-6)
            assert grown.n_items_ == 50

    def test_new_items_go_to_those_who_have_what_goes_with_them(self, name, fitted, checkerboard):
        model = fitted(name).partial_fit(named(checkerboard), epochs=0)
        assert_new_items_go_to_their_kind(model)
        assert_new_items_go_to_their_kind(model.partial_fit(named(checkerboard)))
        assert_new_items_go_to_their_kind(fitted(name).add_items(parities(), item_ids=NEW))

    def test_files_hold_what_has_grown(self, name, fitted, checkerboard, tmp_path):
        model = fitted(name).partial_fit(named(checkerboard), epochs=1)
        model.add_items(sparse.csr_matrix(np.eye(2)[np.arange(53) % 2]), item_ids=["x", "y", "z"])
        model.save(tmp_path / "model")
        again = load(tmp_path / "model")
        rows = sparse.csr_matrix(np.eye(53, dtype=np.float32))
        assert (again.score(rows) == model.score(rows)).all()
        assert again.item_ids_.tolist()[-4:] == ["i49", "x", "y", "z"]
        assert again.titles_.tolist()[-4:] == ["I49", "x", "y", "z"]
        wide = sparse.csr_matrix((checkerboard.data, checkerboard.indices, checkerboard.indptr), shape=(50, 53))
        scores = [one.partial_fit(wide, epochs=1).score(rows) for one in (model, again)]
        assert (scores[0] == scores[1]).all()

    def test_the_same_seed_gives_the_same_model(self, name, fitted, checkerboard):
        def scores(seed):
            model = fitted(name).set_params(random_state=seed)
            return model.partial_fit(named(checkerboard), epochs=1).score(checkerboard)

        assert (scores(0) == scores(0)).all()
        assert not (scores(0) == scores(1)).all()

    def test_what_goes_wrong_leaves_the_model_as_it_was(self, name, fitted, checkerboard, old_rows):
        def stop(*_):
            raise RuntimeError("enough")

        model = fitted(name)
        before = model.score(old_rows), dict(vars(model))
        with pytest.raises(RuntimeError, match="enough"):
            model.partial_fit(named(checkerboard), callback=stop)
        for wrong in (checkerboard[:, :30], checkerboard, checkerboard * np.nan):
            with pytest.raises(InvalidDataError):
                model.partial_fit(wrong)
        with pytest.raises(InvalidDataError):
            model.add_items(parities(), item_ids=["i0"] * 10)
        assert vars(model) == before[1]
        assert (model.score(old_rows) == before[0]).all()


def test_a_loss_that_is_not_finite_leaves_the_model_as_it_was(checkerboard, old_rows):
    model = quick().fit(old_rows).set_params(learning_rate=1e30)
    before = model.score(old_rows)
    with pytest.raises(TrainingError, match="Expected a finite loss"):
        model.partial_fit(checkerboard, epochs=20)
    assert (model.score(old_rows) == before).all()


def test_learning_on_is_learning(checkerboard):
    model = quick().fit(checkerboard)
    told = []
    model.partial_fit(checkerboard, epochs=30, callbacks=[told.append])
    assert [epoch.epoch for epoch in told] == list(range(1, 31))
    assert np.mean([epoch.nll for epoch in told[-5:]]) < model.history_[-1].nll
    ids, _ = model.recommend(np.arange(50), checkerboard, N=1)
    assert (ids[:, 0] == np.arange(50)).mean() > 0.9


def test_by_default_a_tenth_of_the_epochs_at_the_last_kl_weight(checkerboard, split):
    told = []
    quick(epochs=21, kl_cap=0.3).fit(checkerboard).partial_fit(checkerboard, callbacks=[told.append])
    assert [epoch.beta for epoch in told] == [0.3] * 3
    model = quick(kl_cap=None, epochs=4).fit(split.train, valid=split.valid)
    model.partial_fit(split.train, callbacks=[told.append])
    assert told[-1].beta == model.kl_cap_
    RecVAE(hidden_dim=8, gamma=0.002, **SMALL | {"epochs": 2}).fit(checkerboard).partial_fit(
        checkerboard, callbacks=[told.append]
    )
    assert told[-1].beta == 0.002


def test_what_a_fit_tells_stays_and_the_source_is_no_longer_one(checkerboard, old_rows):
    model = quick().fit(named(old_rows))
    history, source = list(model.history_), model.trained_on_
    stop_epoch = model.chosen_params()["training"].stop_epoch
    model.add_items(sparse.csr_matrix(np.ones((41, 1))), item_ids=["new"])
    assert model.trained_on_ == source
    model.partial_fit(named(checkerboard))
    assert model.history_ == history
    assert model.best_epoch_ == stop_epoch == 10
    assert model.trained_on_ is None


def test_the_unit_of_values_does_not_matter(checkerboard, old_rows):
    counts = checkerboard.copy()
    counts.data = np.random.default_rng(0).integers(1, 9, counts.nnz).astype(np.float32)
    told = []
    for scale in (1, 64):
        quick(values="raw", epochs=2).fit(old_rows).partial_fit(scale * counts, epochs=1, callbacks=[told.append])
    assert told[0].loss == pytest.approx(told[1].loss)


def test_values_are_read_as_in_the_fit(checkerboard, old_rows):
    counts = Interactions.from_matrix(7 * checkerboard, values="raw")
    one, two = (quick(epochs=2).fit(Interactions.from_matrix(old_rows)) for _ in range(2))
    one.partial_fit(counts, epochs=1)
    two.partial_fit(Interactions.from_matrix(checkerboard), epochs=1)
    assert (one.score(checkerboard) == two.score(checkerboard)).all()


def test_users_are_known_by_their_places_of_today(checkerboard, old_rows):
    model = quick(epochs=60).fit(old_rows)
    first = model.similar_users(4, N=50)[1]
    model.partial_fit(checkerboard, epochs=5)
    ids, scores = model.similar_users(4, N=10)
    assert (ids % 2 == 0).all()
    assert not np.array_equal(first[:10], scores)


class TestIds:
    def test_columns_are_matched_by_raw_id_and_the_others_are_new(self, checkerboard, old_rows):
        model = quick(epochs=2).fit(named(old_rows))
        order = np.random.default_rng(0).permutation(50)[:30]
        data = named(checkerboard).select_items(order)
        new = order[order >= OLD]
        by_id = model.partial_fit(data, epochs=1)
        assert by_id.item_ids_.tolist() == [f"i{n}" for n in [*range(OLD), *new]]
        assert by_id.titles_.tolist() == [f"I{n}" for n in [*range(OLD), *new]]
        keep = sparse.diags(np.isin(np.arange(50), order).astype(np.float32))
        matrix = (checkerboard @ keep).tocsr()[:, [*range(OLD), *new]].tocsr()
        by_place = quick(epochs=2).fit(old_rows).partial_fit(matrix, epochs=1)
        assert (by_id.score(matrix) == by_place.score(matrix)).all()

    def test_numbers_and_text(self, checkerboard, old_rows):
        model = quick(epochs=1).fit(Interactions.from_matrix(old_rows, item_ids=np.arange(OLD)))
        as_text = Interactions.from_matrix(checkerboard[:, :41], item_ids=[*map(str, range(40)), "forty"])
        model.partial_fit(as_text, epochs=0)
        assert model.item_ids_.tolist() == [*map(str, range(40)), "forty"]
        numbers = quick(epochs=1).fit(Interactions.from_matrix(old_rows)).add_items(parities()[:41], item_ids=[2**63])
        assert numbers.item_ids_.tolist() == [*range(40), 2**63]
        assert numbers.item_ids_.dtype == np.uint64

    def test_a_model_without_ids_takes_none(self, checkerboard, old_rows):
        model = quick(epochs=1).fit(old_rows)
        with pytest.raises(InvalidDataError, match="knows no raw ids"):
            model.partial_fit(named(checkerboard))
        with pytest.raises(InvalidDataError, match="no item_ids for a model that has none"):
            model.partial_fit(checkerboard, item_ids=range(10))
        with pytest.raises(InvalidDataError, match="no titles for a model that has none"):
            model.add_items(parities(), titles=["t"] * 10)
        assert model.partial_fit(checkerboard, epochs=0).item_ids_ is None

    def test_ids_of_new_items_are_asked_for(self, checkerboard, old_rows):
        model = quick(epochs=1).fit(named(old_rows))
        for grow, wide in ((model.partial_fit, checkerboard), (model.add_items, parities())):
            with pytest.raises(InvalidDataError, match="Expected item_ids for 10 new items"):
                grow(wide)
            with pytest.raises(InvalidDataError, match="Expected 10 item_ids, one for each new item, got 3"):
                grow(wide, item_ids=["a", "b", "c"])
            with pytest.raises(InvalidDataError, match="'i7' twice"):
                grow(wide, item_ids=["i7", *"abcdefghi"])
            with pytest.raises(InvalidDataError, match="'a' twice"):
                grow(wide, item_ids=["a", "a", *"bcdefghi"])
            with pytest.raises(InvalidTypeError, match="integers or strings as item_ids"):
                quick(epochs=1).fit(Interactions.from_matrix(old_rows)).add_items(parities()[:41], item_ids=[0.5])
        with pytest.raises(InvalidDataError, match="only with a matrix"):
            model.partial_fit(named(checkerboard), item_ids=["a"])
        model.partial_fit(checkerboard, item_ids=list("abcdefghij"), titles=list("ABCDEFGHIJ"), epochs=0)
        assert model.titles_[-1] == "J"

    def test_without_new_items_names_stay(self, old_rows):
        model = quick(epochs=1).fit(named(old_rows))
        ids = model.item_ids_
        assert model.partial_fit(named(old_rows[:5]), epochs=1).item_ids_ is ids
        assert model.partial_fit(old_rows, epochs=1).n_items_ == OLD


def test_what_partial_fit_refuses(checkerboard, old_rows):
    model = quick(epochs=1).fit(old_rows)
    with pytest.raises(InvalidDataError, match=r"Expected 40 columns .*, and more for new ones, got 39"):
        model.partial_fit(old_rows[:, :39])
    with pytest.raises(InvalidDataError, match="at least one event"):
        model.partial_fit(sparse.csr_matrix((5, 50)))
    with pytest.raises(InvalidTypeError, match="CSR"):
        model.partial_fit(checkerboard.toarray())
    for epochs in (-1, 0.5, True):
        with pytest.raises(InvalidParameterError, match="epochs to be an integer"):
            model.partial_fit(checkerboard, epochs=epochs)
    with pytest.raises(NotFittedError, match="call fit first"):
        quick().partial_fit(checkerboard)


def test_what_add_items_refuses(old_rows):
    model = quick(epochs=1).fit(old_rows)
    for rows in (39, 40):
        with pytest.raises(InvalidDataError, match="features of the model's 40 items and then of new ones"):
            model.add_items(parities()[:rows])
    for wrong in (np.nan, np.inf):
        with pytest.raises(InvalidDataError, match="finite"):
            model.add_items(parities() * wrong)
    for wrong in (parities().toarray(), parities().tocsc(), [[1.0]]):
        with pytest.raises(InvalidTypeError, match="CSR"):
            model.add_items(wrong)


def test_items_that_nobody_knows_anything_of_come_late(checkerboard, old_rows):
    """Neither rows nor features say what they are like: they have the mean vector and the lowest bias."""
    empty = sparse.csr_matrix((checkerboard.data, checkerboard.indices, checkerboard.indptr), shape=(50, 51))
    plain = sparse.vstack([parities(), sparse.csr_matrix((1, 2))]).tocsr()
    for model in (
        quick().fit(old_rows).partial_fit(empty, epochs=0),
        quick().fit(old_rows).add_items(plain),
    ):
        decoder = model.network_.decoder
        assert torch.allclose(decoder.weight[50], decoder.weight[:OLD].mean(0), atol=1e-6)
        assert decoder.bias[50] == decoder.bias[:OLD].min()
        assert np.isfinite(model.score(sparse.csr_matrix(([1.0], ([0], [50])), shape=(1, 51)))).all()


# the parts ------------------------------------------------------------------------------------------------------------


def vectors(n_items, seed=0):
    g = torch.Generator().manual_seed(seed)
    return ItemVectors(*(torch.randn(*shape, generator=g) for shape in ((n_items, 3), (n_items, 2), (n_items,))))


def test_shares_are_those_of_the_nearest_by_cosine():
    random = np.random.default_rng(0)
    old = sparse.csr_matrix(random.random((70, 9)) * (random.random((70, 9)) < 0.5))
    new = sparse.csr_matrix(random.random((300, 9)) - 0.3)  # more than are worked on at a time
    shares = neighbour_weights(new, old).toarray()
    unit = old.toarray() / np.maximum(np.linalg.norm(old.toarray(), axis=1, keepdims=True), 1e-30)
    cosines = new.toarray() @ unit.T
    for place in (0, 17, 299):
        best = np.argsort(-cosines[place])[:NEIGHBOURS]
        expected = np.zeros(70)
        expected[best] = np.maximum(cosines[place][best], 0)
        np.testing.assert_allclose(shares[place], expected / expected.sum(), atol=1e-6)
    assert neighbour_weights(new[:0], old).shape == (0, 70)
    assert neighbour_weights(sparse.csr_matrix((2, 9)), old).nnz == 0


def test_a_new_item_begins_as_the_mean_of_those_it_is_like_and_as_popular_as_its_users_say():
    old, shares = vectors(4), sparse.csr_matrix([[0, 0.25, 0.75, 0], [0, 0, 0, 0]], dtype=np.float32)
    old = old._replace(bias=2 * torch.log1p(torch.tensor([1.0, 2.0, 3.0, 9.0])) - 5)
    new = vectors_from_neighbours(old, shares, np.array([1, 2, 3, 9, 5, 5]))
    assert torch.allclose(new.first[0], 0.25 * old.first[1] + 0.75 * old.first[2])
    assert torch.allclose(new.last[0], 0.25 * old.last[1] + 0.75 * old.last[2])
    assert new.bias[0] == pytest.approx(2 * np.log(6) - 5, abs=1e-5)  # old ones lie on that line
    assert torch.allclose(new.last[1], old.last.mean(0))
    assert new.bias[1] == old.bias.min()
    assert vectors_from_neighbours(old, shares, np.array([1, 2, 3, 9, 99, 0])).bias[0] == pytest.approx(
        old.bias.max().item()
    )


@pytest.mark.parametrize("n_features", [3, 40])
def test_the_regression_is_ridge_with_the_penalty_that_leaving_out_finds(n_features):
    """By brute force: every old item left out, every penalty tried."""
    random = np.random.default_rng(1)
    features = random.normal(size=(24, n_features))
    known, new = features[:20], features[20:]
    old = vectors(20)
    old = old._replace(last=old.last + torch.from_numpy(known[:, :2]).float() * 3)
    parts = [part.numpy().reshape(20, -1).astype(float) for part in old]
    scaled = np.hstack([(part - part.mean(0)) / np.linalg.norm(part - part.mean(0)) for part in parts])

    def predict(x, y, at, penalty):
        middle, level = x.mean(0), y.mean(0)
        gram = (x - middle).T @ (x - middle) + penalty * np.eye(x.shape[1])
        return level + (at - middle) @ np.linalg.solve(gram, (x - middle).T @ (y - level))

    sizes = np.linalg.svd(known - known.mean(0), compute_uv=False)
    unit = (sizes[sizes > 1e-6 * sizes[0]] ** 2).mean()

    def error(penalty):
        others = [np.arange(20) != place for place in range(20)]
        return sum(
            ((scaled[~one] - predict(known[one], scaled[one], known[~one], penalty)) ** 2).sum() for one in others
        )

    best = min((share * unit for share in PENALTIES), key=error)
    expected = predict(known, np.hstack(parts), new, best)
    found, left_out = ridge(old, sparse.csr_matrix(features))
    np.testing.assert_allclose(np.hstack([found.first, found.last, found.bias[:, None]]), expected, atol=1e-4)
    others = np.arange(20) != 7
    alone = predict(known[others], np.hstack(parts)[others], known[7], best)
    np.testing.assert_allclose(np.hstack([left_out.first[7], left_out.last[7], left_out.bias[7]]), alone, atol=1e-4)


def test_features_that_say_nothing_give_the_mean():
    old = vectors(6)
    new, left_out = ridge(old, sparse.csr_matrix(np.ones((8, 3))))
    assert torch.allclose(left_out.last[2], old.last[[0, 1, 3, 4, 5]].mean(0), atol=1e-6)
    assert torch.allclose(new.last, old.last.mean(0).expand(2, -1), atol=1e-6)


def test_the_bias_makes_up_for_what_a_mean_takes_from_high_scores(old_rows):
    """Where features say nothing, all new items are alike, and together they weigh what the old ones do in the mean."""
    model = quick(latent_dim=4).fit(old_rows)
    features = sparse.csr_matrix(np.ones((OLD + 2, 1)))
    plain, raised = ridge(item_vectors(model.network_), features)[0], vectors_from_features(model.network_, features)
    model.add_items(features)
    scores = torch.from_numpy(model.score(sparse.csr_matrix(np.eye(OLD, OLD + 2)))).double()
    assert (scores[:, OLD] == scores[:, OLD + 1]).all()
    short = scores[:, :OLD].logsumexp(1) - np.log(OLD) - scores[:, OLD]
    assert abs(float(short.mean())) < 0.1
    assert raised.bias[0] > plain.bias[0]


def test_a_linear_path_gets_the_means_of_rows_and_columns():
    random = np.random.default_rng(0)
    weights = random.normal(size=(6, 6)).astype(np.float32)
    np.fill_diagonal(weights, 0)
    shares = sparse.csr_matrix([[0.5, 0.5, 0, 0, 0, 0], [0, 0, 0, 0, 0.2, 0.8], [0] * 6], dtype=np.float32)
    whole = np.vstack([np.eye(6, dtype=np.float32), shares.toarray()])
    expected = whole @ weights @ whole.T
    np.fill_diagonal(expected, 0)
    dense = extend_linear_weights(torch.from_numpy(weights), shares, 3)
    np.testing.assert_allclose(dense, expected, atol=1e-6)
    assert torch.equal(dense[:6, :6], torch.from_numpy(weights))
    loose = extend_linear_weights(sparse.csr_matrix(weights), shares, 6)
    np.testing.assert_allclose(loose.toarray(), expected, atol=1e-6)
    kept = extend_linear_weights(sparse.csr_matrix(weights), shares, 2)
    assert (kept[:6, :6].toarray() == weights).all()
    assert (np.diff(kept[:6, 6:].T.tocsr().indptr) <= 2).all()
    assert kept[0, 6] in (0, pytest.approx(expected[0, 6]))


def test_the_path_of_a_hybrid_grows_and_its_weight_stays(checkerboard, old_rows):
    for form in ("dense", "sparse"):
        model = HybridVAE(hidden_dim=8, depth=2, l2=1.0, form=form, **SMALL | {"epochs": 2}).fit(old_rows)
        weight, before = model.weight_, model.linear_.weights_
        model.partial_fit(checkerboard, epochs=1)
        after = model.linear_.weights_
        assert model.weight_ == weight
        assert type(after) is type(before)
        assert after.shape == (50, 50)
        assert before.shape == (OLD, OLD)
        after = after.toarray() if sparse.issparse(after) else after.numpy()
        assert (after.diagonal() == 0).all()
        assert (np.abs(after[:OLD:2, OLD::2]) > 0).any()
        assert np.abs(after[:OLD:2, OLD + 1 :: 2]).max() < np.abs(after[:OLD:2, OLD::2]).max()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", LEARNS)
def test_from_one_device_to_another(name, checkerboard, old_rows, tmp_path):
    model = LEARNS[name](device="cuda").fit(old_rows).partial_fit(checkerboard)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model", device="cpu")
    assert again.network_.decoder.weight.device.type == "cpu"
    np.testing.assert_allclose(again.score(checkerboard), model.score(checkerboard), rtol=1e-3, atol=1e-3)
    assert_new_items_go_to_their_kind(again)
    back = load(tmp_path / "model", device="cuda").partial_fit(checkerboard, epochs=1)
    assert back.network_.decoder.weight.device.type == "cuda"
    assert_new_items_go_to_their_kind(back)
