"""What a distribution makes possible: places of users, lists that explore, users who never were, odd histories."""

import numpy as np
import pytest
import torch
from scipy import sparse, stats

from recvae import HVamp, HybridVAE, MultVAE, OutputOptions, RecVAE, TrainingOptions, load, nn
from recvae.data.batches import DeviceRows
from recvae.errors import (
    InvalidDataError,
    InvalidParameterError,
    InvalidTypeError,
    NotFittedError,
    NotSupportedError,
    UnknownNameError,
)
from recvae.models.autoencoder import variational
from recvae.models.base import generative, recommend
from recvae.models.base.generative import standardized
from recvae.nn.generation import sample_rows
from recvae.nn.rng import CounterRNG, initialize
from tests.models.test_contract import EVERY

VERBS = ("encode", "sample_users", "anomaly_score")
VARIATIONAL = [name for name, make in EVERY.items() if issubclass(type(make()), variational.Variational)]
MULTINOMIAL = [name for name in VARIATIONAL if EVERY[name]().likelihood == "multinomial"]
WORST = np.finfo(np.float32).min
SMALL = {"latent_dim": 4, "epochs": 3, "batch_size": 70, "random_state": 0}
KINDS = {
    "linear": lambda **more: MultVAE(hidden_dims=(), **SMALL | more),
    "deep": lambda **more: MultVAE(hidden_dims=(6,), **SMALL | more),
    "cosine": lambda **more: MultVAE(hidden_dims=(), **SMALL | more, output=OutputOptions(logits="cosine")),
    "RecVAE": lambda **more: RecVAE(hidden_dim=8, depth=2, **SMALL | more),
    "HybridVAE": lambda **more: HybridVAE(hidden_dim=8, depth=2, l2=1.0, **SMALL | more),
    "HVamp": lambda **more: HVamp(hidden_dims=(6,), n_components=5, **SMALL | more),
}
LINEAR = ["linear", "RecVAE", "HybridVAE"]  # whose logits are linear in z


@pytest.fixture
def models(fitted_models):
    return fitted_models


@pytest.fixture(scope="module")
def small(split):
    return {name: make().fit(split.train) for name, make in KINDS.items()}


def test_who_has_a_distribution():
    assert {type(EVERY[name]()).__name__ for name in VARIATIONAL} == {"MultVAE", "RecVAE", "HybridVAE", "HVamp"}
    for name, make in EVERY.items():
        assert (set(VERBS) <= make().abilities()) == (name in VARIATIONAL)


@pytest.mark.parametrize("name", [name for name in EVERY if name not in VARIATIONAL])
def test_who_has_none_says_so(name, checkerboard):
    model = EVERY[name]()
    kind = type(model).__name__
    for verb in VERBS:
        with pytest.raises(NotSupportedError, match=rf"{kind} has no {verb}: it has no distribution over a latent"):
            getattr(model, verb)(checkerboard)
    with pytest.raises(NotSupportedError, match=rf"{kind} cannot explore: it has no distribution .*, got 0\.5"):
        model.recommend([0], checkerboard[[0]], explore=0.5)


# encode --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIATIONAL)
def test_places_of_users(name, models, checkerboard):
    mean, logvar = models[name].encode(checkerboard)
    width = 16 if name == "HVamp" else 8
    assert mean.shape == logvar.shape == (50, width)
    assert mean.dtype == logvar.dtype == np.float32
    assert np.isfinite(mean).all()
    assert np.isfinite(logvar).all()
    even, odd = mean[::2], mean[1::2]
    within = np.linalg.norm(even - even.mean(0), axis=1).mean()
    assert np.linalg.norm(even.mean(0) - odd.mean(0)) > 2 * within
    assert models[name].encode(checkerboard[:0]).mean.shape == (0, width)
    assert np.isfinite(models[name].encode(sparse.csr_matrix((1, 50))).mean).all()


@pytest.mark.parametrize("name", KINDS)
def test_encoding_is_the_network_s_posterior_in_blocks_of_any_size(name, small, split, monkeypatch):
    rows = split.test.fold_in
    posterior = small[name].network_.encoder(DeviceRows(rows, torch.device("cpu")).all())
    monkeypatch.setattr(generative, "BLOCK", 7)
    mean, logvar = small[name].encode(sparse.csr_array(rows))
    np.testing.assert_allclose(mean, posterior.mean.detach(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(logvar, posterior.logvar.detach(), rtol=1e-4, atol=1e-6)


def test_two_levels_are_side_by_side(small, split):
    encoder, batch = small["HVamp"].network_.encoder, DeviceRows(split.test.fold_in, torch.device("cpu")).all()
    found, posterior = small["HVamp"].encode(split.test.fold_in), encoder(batch)
    np.testing.assert_allclose(found.mean[:, 4:], posterior.upper.mean.detach(), atol=1e-6)
    np.testing.assert_allclose(found.logvar[:, :4], posterior.lower.logvar.detach(), atol=1e-6)
    np.testing.assert_allclose(found.logvar[:, 4:], posterior.upper.logvar.detach(), atol=1e-6)


# recommend(explore=) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIATIONAL)
class TestExplore:
    def test_without_strength_it_is_the_plain_lists(self, name, models, checkerboard):
        plain = models[name].recommend(np.arange(50), checkerboard, N=9)
        found = models[name].recommend(np.arange(50), checkerboard, N=9, explore=0)
        np.testing.assert_array_equal(found.ids, plain[0])
        np.testing.assert_array_equal(found.scores, plain[1])
        assert (found.spread > 0).all()

    def test_the_form_of_the_answer(self, name, models, checkerboard):
        ids, scores, spread = models[name].recommend([3, 8], checkerboard[[3, 8]], N=40, explore=1, random_state=0)
        assert ids.shape == scores.shape == spread.shape == (2, 40)
        assert (ids.dtype, scores.dtype, spread.dtype) == (np.int32, np.float32, np.float32)
        assert (np.diff(scores, axis=1) <= 0).all()
        assert ((ids < 0) == (spread == 0)).all()
        assert ((ids < 0) == (scores == WORST)).all()
        assert (ids < 0).any()
        for row, user in enumerate([3, 8]):
            assert not set(ids[row].tolist()) & set(checkerboard[user].indices.tolist())
        one = models[name].recommend(3, checkerboard[3], N=40, explore=1.0, random_state=0)
        assert one.ids.shape == one.scores.shape == one.spread.shape == (40,)
        np.testing.assert_allclose(one.scores[one.ids >= 0], scores[0][ids[0] >= 0], rtol=1e-4, atol=1e-5)
        assert models[name].recommend([], checkerboard[:0], explore=1).spread.shape == (0, 10)
        assert models[name].recommend([0], sparse.csr_matrix((1, 50)), N=3, explore=1).ids.shape == (1, 3)

    def test_filters_hold(self, name, models, checkerboard):
        ids, _, spread = models[name].recommend([4], checkerboard[[4]], N=9, items=[4, 5, 7], explore=1)
        assert sorted(ids[0].tolist()) == [4, 5, 7]
        assert (spread > 0).all()
        ids, _, _ = models[name].recommend([4], checkerboard[[4]], N=50, filter_items=[4, 5], explore=1)
        assert not {4, 5} & set(ids[0].tolist())

    def test_the_seed_decides_and_torch_s_generator_is_left_alone(self, name, models, checkerboard):
        state = torch.get_rng_state()
        first, again, other = (
            models[name].recommend(np.arange(50), checkerboard, N=9, explore=1, random_state=seed) for seed in (0, 0, 1)
        )
        for one, two in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, two)
        assert not np.allclose(first.scores, other.scores)
        drawn = [models[name].recommend(np.arange(50), checkerboard, explore=1).scores for _ in range(2)]
        assert not np.allclose(*drawn)
        assert (torch.get_rng_state() == state).all()

    def test_great_strength_gives_numbers_or_a_sentence(self, name, models, checkerboard):
        for strength in (30, 10**6):
            try:
                found = models[name].recommend(np.arange(50), checkerboard, explore=strength, random_state=0)
            except InvalidParameterError as error:
                assert "lower explore" in str(error)  # noqa: PT017
            else:
                assert np.isfinite(found.scores).all()
                assert np.isfinite(found.spread).all()

    def test_what_is_refused(self, name, models, checkerboard):
        for strength in (-0.1, np.nan, np.inf, 1e9, "much", True):
            with pytest.raises(InvalidParameterError, match="explore to be a number from 0 to 1,000,000, got"):
                models[name].recommend([0], checkerboard[[0]], explore=strength)
        for seed in (-1, 0.5, 2**32):
            with pytest.raises(InvalidParameterError, match="random_state to be an integer"):
                models[name].recommend([0], checkerboard[[0]], explore=1, random_state=seed)
        with pytest.raises(NotFittedError):
            EVERY[name]().recommend([0], checkerboard[[0]], explore=1)
        with pytest.raises(TypeError):
            models[name].recommend([0], checkerboard[[0]], 10, True, None, False, None, 1.0)


@pytest.mark.parametrize("name", KINDS)
def test_a_draw_does_not_depend_on_blocks(name, small, split, monkeypatch):
    rows = split.test.fold_in
    whole = small[name].recommend(np.arange(len(split.test.users)), rows, N=80, explore=1.5, random_state=3)
    few = small[name].recommend(np.arange(9), rows[:9], N=80, explore=1.5, random_state=3)
    np.testing.assert_allclose(few.scores, whole.scores[:9], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(few.spread, whole.spread[:9], rtol=1e-2, atol=1e-4)  # places of near equals may change
    blocks = recommend.rank
    monkeypatch.setattr(recommend, "rank", lambda *args, **more: blocks(*args, **more, block_bytes=4 * 80 * 7))
    monkeypatch.setattr(variational, "GATHERED", 4 * 80 * 8 * 5)
    small_blocks = small[name].recommend(np.arange(len(split.test.users)), rows, N=80, explore=1.5, random_state=3)
    np.testing.assert_allclose(small_blocks.scores, whole.scores, rtol=1e-4, atol=1e-4)


def scores_at_draws(model, rows, n, strength=1.0):
    """Scores of all items by explore, whatever their place. -> (n, I)"""
    many = sparse.vstack([rows] * n, format="csr")
    ids, scores, _ = model.recommend(
        np.arange(n), many, N=80, filter_already_liked_items=False, explore=strength, random_state=0
    )
    by_item = np.empty_like(scores)
    np.put_along_axis(by_item, ids.astype(np.int64), scores, axis=1)
    return by_item


@pytest.mark.parametrize("name", KINDS)
def test_the_spread_is_that_of_the_scores_over_draws(name, small, split):
    row = split.test.fold_in[[2]]
    drawn = scores_at_draws(small[name], row, 2000).std(0)
    for strength in (0, 1, 3):  # it is the posterior's, whatever the strength
        ids, _, spread = small[name].recommend(
            [0], row, N=80, filter_already_liked_items=False, explore=strength, random_state=1
        )
        ratio = spread[0] / drawn[ids[0]]
        assert np.sqrt(np.mean((ratio - 1) ** 2)) < (0.04 if name in LINEAR else 0.3)
    if name in LINEAR:
        np.testing.assert_allclose(scores_at_draws(small[name], row, 2000, 0.1).std(0), 0.1 * drawn, rtol=1e-2)


def test_the_spread_of_a_linear_decoder_is_in_closed_form(small, split):
    model, rows = small["linear"], split.test.fold_in[:4]
    ids, _, spread = model.recommend(np.arange(4), rows, N=6, explore=2.0)
    variance = np.exp(model.encode(rows).logvar.astype(np.float64))
    weight = model.network_.decoder.weight.detach().double().numpy()
    expected = np.sqrt(np.einsum("bnk,bk->bn", weight[ids] ** 2, variance))
    np.testing.assert_allclose(spread, expected, rtol=1e-5)


@pytest.mark.parametrize("name", LINEAR)
def test_draws_are_around_the_plain_scores(name, small, split):
    row = split.test.fold_in[[5]]
    drawn, plain = scores_at_draws(small[name], row, 4000, 2.0), small[name].score(row)[0]
    spread = drawn.std(0)
    assert np.abs((drawn.mean(0) - plain) / spread).max() < 5 / np.sqrt(4000)
    assert stats.kstest((drawn[:, 7] - plain[7]) / spread[7], "norm").pvalue > 1e-4


def test_the_stronger_the_draw_the_less_of_the_plain_list_is_left(small, split):
    rows, users = split.test.fold_in, np.arange(len(split.test.users))
    for model in small.values():
        plain = model.recommend(users, rows, N=10)[0]
        lists = [model.recommend(users, rows, N=10, explore=s, random_state=0).ids for s in (0, 0.1, 1, 9)]
        left = [np.mean([np.isin(*pair).mean() for pair in zip(ids, plain, strict=True)]) for ids in lists]
        assert left[0] == 1 > left[1] > left[2] > left[3]


# sample_users --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIATIONAL)
@pytest.mark.parametrize("which", ["prior", "aggregate"])
class TestSampleUsers:
    def test_histories_are_rows(self, name, which, models):
        rows = models[name].sample_users(30, which, random_state=0)
        assert isinstance(rows, sparse.csr_matrix)
        assert (rows.shape, rows.dtype) == ((30, 50), np.float32)
        assert rows.has_canonical_format
        assert (rows.data == 1).all()
        if name in MULTINOMIAL:
            assert (np.diff(rows.indptr) == 24).all()  # all rows of the checkerboard are as long

    def test_any_temperature_that_is_let_through_gives_rows(self, name, which, models):
        for temperature in (1e-3, 1e6):
            rows = models[name].sample_users(5, which, temperature=temperature, random_state=0)
            assert rows.has_canonical_format
            assert rows.nnz or name not in MULTINOMIAL

    def test_the_seed_decides(self, name, which, models):
        state = torch.get_rng_state()
        first, again, other = (models[name].sample_users(30, which, random_state=seed) for seed in (0, 0, 1))
        assert (first != again).nnz == 0
        assert (first != other).nnz > 0
        assert (torch.get_rng_state() == state).all()

    def test_what_is_refused(self, name, which, models, checkerboard, tmp_path):
        model = models[name]
        for n in (0, -1, 2.5):
            with pytest.raises(InvalidParameterError, match="n to be an integer of at least 1"):
                model.sample_users(n, which)
        for temperature in (0, -1, np.nan, "hot"):
            with pytest.raises(InvalidParameterError, match=r"temperature to be a number from 0\.001 to 1,000,000"):
                model.sample_users(2, which, temperature=temperature)
        with pytest.raises(InvalidParameterError, match="random_state to be"):
            model.sample_users(2, which, random_state=-1)
        with pytest.raises(UnknownNameError, match="no latent called 'posterior'"):
            model.sample_users(2, "posterior")
        with pytest.raises(InvalidDataError, match="rows with events as user_items, got 3 without any"):
            model.sample_users(2, which, user_items=sparse.csr_matrix((3, 50)))
        with pytest.raises(InvalidDataError, match="Expected 50 columns"):
            model.sample_users(2, which, user_items=checkerboard[:, :20])
        model.save(tmp_path / "m")
        again = load(tmp_path / "m")
        with pytest.raises(NotFittedError, match=r"rows for sample_users, as user_items: .* contain no users"):
            again.sample_users(2, which)
        same = again.sample_users(9, which, user_items=checkerboard, random_state=0)
        assert (same != model.sample_users(9, which, random_state=0)).nnz == 0


@pytest.mark.parametrize("name", MULTINOMIAL)
def test_users_drawn_from_those_there_are_like_them(name, models):
    """On the checkerboard, items of one parity each."""
    rows = models[name].sample_users(40, "aggregate", random_state=0)
    even = np.asarray(rows[:, ::2].sum(1)).ravel()
    assert (np.maximum(even, 24 - even) / 24).mean() > 0.9
    assert 8 < (even > 12).sum() < 32


@pytest.mark.parametrize("which", ["prior", "aggregate"])
@pytest.mark.parametrize("name", KINDS)
def test_histories_are_as_long_as_those_of_the_rows(name, which, small, split):
    rows = sparse.vstack([sparse.csr_matrix((3, 80)), split.test.fold_in[:5]], format="csr")
    drawn = small[name].sample_users(500, which, user_items=rows, random_state=0)
    sizes, expected = np.diff(drawn.indptr), np.diff(split.test.fold_in[:5].indptr)
    values, times = np.unique(sizes, return_counts=True)
    assert values.tolist() == sorted(set(expected.tolist()))
    for value, found in zip(values, times, strict=True):
        assert found == pytest.approx(100 * (expected == value).sum(), abs=50)


def test_blocks_change_no_draw_from_posteriors(small, monkeypatch):
    whole = small["deep"].sample_users(40, "aggregate", random_state=0)
    monkeypatch.setattr(generative, "BLOCK_BYTES", 4 * 80 * 7)
    assert (small["deep"].sample_users(40, "aggregate", random_state=0) != whole).nnz == 0
    assert small["HVamp"].sample_users(40, "prior", random_state=0).shape == (40, 80)


def test_the_first_item_is_drawn_by_the_softmax_and_the_second_by_what_is_left():
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0]]).expand(40_000, -1)
    p = torch.softmax(logits[0].double(), 0).numpy()
    one = sample_rows(logits, np.full(40_000, 1), np.random.default_rng(0))
    np.testing.assert_allclose(np.asarray(one.mean(0)).ravel(), p, atol=0.01)
    two = sample_rows(logits, np.full(40_000, 2), np.random.default_rng(0))
    after = [p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(4) if j != i) for i in range(4)]
    np.testing.assert_allclose(np.asarray(two.mean(0)).ravel(), after, atol=0.01)
    cold = sample_rows(logits, np.full(40_000, 1), np.random.default_rng(0), temperature=0.5)
    np.testing.assert_allclose(np.asarray(cold.mean(0)).ravel(), p**2 / (p**2).sum(), atol=0.01)


def test_sizes_may_differ_and_end_with_the_items():
    drawn = sample_rows(torch.zeros(4, 5), np.array([0, 3, 5, 9]), np.random.default_rng(0))
    assert np.diff(drawn.indptr).tolist() == [0, 3, 5, 5]
    assert sample_rows(torch.zeros(2, 5), np.array([0, 0]), np.random.default_rng(0)).nnz == 0


def test_coins_fall_by_their_probability():
    p = np.array([0.9, 0.5, 0.01, 0.2])
    logits = torch.logit(torch.from_numpy(p).float()).expand(20_000, -1)
    drawn = sample_rows(logits, np.ones(20_000, dtype=np.int64), np.random.default_rng(0), "logistic")
    np.testing.assert_allclose(np.asarray(drawn.mean(0)).ravel(), p, atol=0.01)


def test_a_gaussian_fit_stands_for_the_share_of_ones_that_it_was_fitted_to():
    p, unobserved = np.array([0.9, 0.5, 0.01, 0.2]), 0.1
    x = (np.random.default_rng(0).random((100_000, 4)) < p).astype(float)
    c = np.where(x > 0, 1.0, unobserved)
    fit = (c * x).sum(0) / c.sum(0)  # minimises sum c (x - l)^2
    logits = torch.from_numpy(fit).float().expand(20_000, -1)
    drawn = sample_rows(logits, np.ones(20_000, dtype=np.int64), np.random.default_rng(0), "gaussian", 1.0, unobserved)
    np.testing.assert_allclose(np.asarray(drawn.mean(0)).ravel(), p, atol=0.01)
    beyond = torch.tensor([[-3.0, 4.0]]).expand(1000, -1)
    assert sample_rows(beyond, np.ones(1000), np.random.default_rng(0), "gaussian").sum(0).tolist() == [[0, 1000]]


def test_coins_restore_how_many_items_users_have(models):
    rows = models["MultVAE-logistic"].sample_users(400, "aggregate", random_state=0)
    assert np.diff(rows.indptr).mean() == pytest.approx(24, abs=2)


def test_places_from_priors():
    shape, random = (20_000, 3), np.random.default_rng(0)
    encoder = nn.GatedTwoLevelEncoder(9, (5,), 3, dropout=0.5)
    initialize(encoder, 0)
    for prior in (nn.StandardNormal(), nn.Composite()):
        z = prior.sample(shape, random, encoder)
        np.testing.assert_allclose(z.mean(0), 0, atol=0.03)
        np.testing.assert_allclose(np.cov(z.T), np.eye(3), atol=0.04)
    vamp = nn.VampPrior(4, 10)
    two = nn.TwoLevelPrior(vamp, 3, 6)
    initialize(two, 1)
    vamp.pseudo_inputs.data *= 8
    with torch.no_grad():
        mean, logvar = encoder.head(vamp.pseudo_inputs)
        z = vamp.sample(shape, random, encoder)
        np.testing.assert_allclose(z.mean(0), mean.mean(0), atol=0.05)
        np.testing.assert_allclose(z.var(0), logvar.exp().mean(0) + mean.var(0, correction=0), rtol=0.05)
        z1, z2 = two.sample((shape[0], 6), random, encoder).chunk(2, dim=1)
        W, V = two.hidden.weight.chunk(2)
        b, c = two.hidden.bias.chunk(2)
        below = ((z2 @ W.T + b) * torch.sigmoid(z2 @ V.T + c)) @ two.lower.weight.T + two.lower.bias
        eps = (z1 - below[:, :3]) / (0.5 * below[:, 3:]).exp()
    np.testing.assert_allclose(np.cov(eps.T), np.eye(3), atol=0.04)
    np.testing.assert_allclose(z2.mean(0), mean.mean(0), atol=0.05)


def test_without_noise_a_place_is_the_mean_and_with_it_the_posterior_s(small, split):
    rows = DeviceRows(split.test.fold_in[:1], torch.device("cpu")).all()
    for name in ("deep", "RecVAE", "HVamp"):
        encoder = small[name].network_.encoder
        width = small[name].network_.decoder.latent_dim
        with torch.no_grad():
            torch.testing.assert_close(encoder(rows).reparameterize(torch.zeros(1, width)), encoder(rows).mean)
            eps = torch.zeros(1, width)
            eps[0, 0] = 2.0  # of z1, which moves nothing else
            moved = encoder(rows).reparameterize(eps) - encoder(rows).mean
            assert moved[0, 0] == pytest.approx(2 * encoder(rows).logvar[0, 0].div(2).exp().item(), rel=1e-4)
            assert moved[0, 1:].abs().max() < 1e-5


def test_a_network_without_a_prior_says_so():
    network = nn.VAE(nn.CodeEncoder(9, (), 3, 0.5), nn.MLPDecoder(3, (), 9), nn.nll, None)
    with pytest.raises(NotSupportedError, match="network with a prior"):
        network.hidden_from_prior(2, np.random.default_rng(0))


# anomaly_score -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIATIONAL)
class TestAnomalyScore:
    def test_who_is_of_no_parity_is_odd(self, name, models, checkerboard):
        random = np.random.default_rng(0)
        odd = sparse.csr_matrix((random.permuted(np.tile(np.arange(50) < 24, (10, 1)), axis=1)).astype(np.float32))
        usual, found = models[name].anomaly_score(checkerboard), models[name].anomaly_score(odd)
        assert usual.shape == (50,)
        assert usual.dtype == np.float64
        assert found.min() > usual.max()
        assert (usual >= 0).all()

    def test_it_needs_no_draw_and_no_neighbours_in_the_list(self, name, models, checkerboard):
        whole = models[name].anomaly_score(checkerboard)
        np.testing.assert_array_equal(whole, models[name].anomaly_score(checkerboard))
        one = models[name].anomaly_score(checkerboard[7])
        np.testing.assert_allclose(one, whole[7:8], rtol=1e-2, atol=0.1)  # units of a small spread

    def test_a_row_without_events_has_zero(self, name, models, checkerboard):
        rows = sparse.vstack([sparse.csr_matrix((1, 50)), checkerboard[:2]], format="csr")
        found = models[name].anomaly_score(rows)
        assert found[0] == 0
        assert np.isfinite(found).all()
        assert models[name].anomaly_score(rows[:1]).tolist() == [0]
        assert models[name].anomaly_score(rows[:0]).shape == (0,)

    def test_what_is_refused(self, name, models, checkerboard, tmp_path):
        with pytest.raises(InvalidDataError, match="rows with events as reference, got 2 without any"):
            models[name].anomaly_score(checkerboard, sparse.csr_matrix((2, 50)))
        with pytest.raises(InvalidDataError, match="Expected 50 columns"):
            models[name].anomaly_score(checkerboard, checkerboard[:, :9])
        with pytest.raises(InvalidTypeError):
            models[name].anomaly_score(checkerboard.toarray())
        models[name].save(tmp_path / "m")
        with pytest.raises(NotFittedError, match="rows for anomaly_score, as reference"):
            load(tmp_path / "m").anomaly_score(checkerboard)
        again = load(tmp_path / "m").anomaly_score(checkerboard, checkerboard)
        np.testing.assert_allclose(again, models[name].anomaly_score(checkerboard), rtol=1e-3, atol=0.1)


def test_the_terms_behind_it_are_those_of_the_elbo(split):
    model = MultVAE(hidden_dims=(6,), **SMALL, training=TrainingOptions(precision="bfloat16")).fit(split.train)
    rows, reference = split.test.fold_in, split.valid.fold_in
    log_p = torch.log_softmax(torch.from_numpy(model.score(rows)).double(), 1).numpy()
    nll = -np.asarray(rows.multiply(log_p).sum(1)).ravel() / np.diff(rows.indptr)
    mean, logvar = (part.astype(float) for part in model.encode(rows))
    kl = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).sum(1)
    terms, usual = model._elbo_terms(rows), model._elbo_terms(reference)
    np.testing.assert_allclose(terms, np.column_stack([nll, kl]), rtol=1e-5)
    units = stats.median_abs_deviation(usual, scale="normal")  # fewer than 200 rows: one of each for all
    far = (terms - np.median(usual, axis=0)) / units
    expected = np.hypot(np.maximum(far[:, 0], 0), far[:, 1])
    np.testing.assert_allclose(model.anomaly_score(rows, reference), expected, rtol=1e-3)


def test_the_divergence_from_a_mixture_is_bounded_by_those_from_its_components():
    encoder = nn.GatedTwoLevelEncoder(9, (5,), 3, dropout=0.5)
    initialize(encoder, 0)
    rows = DeviceRows(sparse.random(6, 9, 0.5, format="csr", random_state=0), torch.device("cpu")).all()
    posterior = encoder(rows)
    for n_components in (1, 4):
        two = nn.TwoLevelPrior(nn.VampPrior(n_components, 10), 3, 6)
        initialize(two, 1)
        two.upper.pseudo_inputs.data *= 8
        with torch.no_grad():
            upper = two.upper.divergence(posterior.upper, encoder)
            below = two.divergence(posterior, encoder) - upper
            components = zip(*encoder.head(two.upper.pseudo_inputs), strict=True)
            each = [nn.gaussian_kl(posterior.upper, nn.Gaussian(*(part[None] for part in one))) for one in components]
            expected = -(-torch.stack(each)).exp().mean(0).log()
            torch.testing.assert_close(upper, expected, rtol=1e-4, atol=1e-4)
            draws = nn.Gaussian(*(part.repeat(20_000, 1) for part in posterior.upper))
            z = draws.sample(CounterRNG(2, torch.arange(len(draws.mean))))
            drawn = (draws.log_density(z).sum(1) - two.upper.log_density(z, encoder)).view(20_000, 6).mean(0)
            assert (upper > drawn - 0.2).all()  # what 20,000 draws leave open
            whole, above = two(posterior, z, rows, encoder), two.upper(posterior.upper, posterior.z2, rows, encoder)
            torch.testing.assert_close(below, whole - above, rtol=1e-3, atol=1e-4)


def test_the_unit_of_values_does_not_matter(split):
    counts = split.train.matrix.copy()
    counts.data = np.random.default_rng(0).integers(1, 9, counts.nnz).astype(np.float32)
    for likelihood in ("multinomial", "gaussian"):
        one, two = (
            MultVAE(hidden_dims=(6,), values="raw", likelihood=likelihood, **SMALL).fit(scale * counts)
            for scale in (1, 64)
        )
        np.testing.assert_allclose(one.anomaly_score(counts), two.anomaly_score(64 * counts), rtol=1e-2, atol=1e-2)


def test_rows_are_compared_with_those_of_like_activity():
    random = np.random.default_rng(0)
    sizes = random.integers(10, 100, 5000)
    values = (10 / sizes + random.normal(size=5000) / np.sqrt(sizes))[:, None] * [1.0, 7.0]
    found = standardized(values, values, sizes, sizes)
    np.testing.assert_allclose(found[:, 0], found[:, 1])
    for low, high in ((10, 30), (30, 60), (60, 100)):
        here = found[(sizes >= low) & (sizes < high), 0]
        assert np.median(here) == pytest.approx(0, abs=0.1)
        assert stats.median_abs_deviation(here, scale="normal") == pytest.approx(1, abs=0.1)
    order = np.argsort(sizes, kind="stable")
    at = np.searchsorted(sizes[order], 50), np.searchsorted(sizes[order], 50, side="right")
    near = values[order, 0][sum(at) // 2 - 100 : sum(at) // 2 + 100]
    expected = (3.0 - np.median(near)) / stats.median_abs_deviation(near, scale="normal")
    one = np.array([[3.0, 3.0]])
    assert standardized(one, values, np.array([50]), sizes)[0, 0] == pytest.approx(expected, rel=1e-4)
    for size in (1, 10_000):  # beyond both ends, the nearest
        assert np.isfinite(standardized(one, values, np.array([size]), sizes)).all()


def test_reference_rows_that_are_all_alike_give_numbers():
    found = standardized(np.array([[1.0], [1.0005], [2.0]]), np.ones((30, 1)), np.full(3, 4), np.full(30, 4))
    assert found[:, 0].tolist() == pytest.approx([0, 0.5, 1000])


def test_enough_of_a_large_reference_is_taken(small, split, monkeypatch):
    seen = []
    monkeypatch.setattr(generative, "MAX_REFERENCE", 50)
    terms = small["deep"]._elbo_terms
    monkeypatch.setattr(small["deep"], "_elbo_terms", lambda rows: (seen.append(rows.shape[0]), terms(rows))[1])
    small["deep"].anomaly_score(split.test.fold_in[:4])
    assert seen == [4, 47]  # every sixth of 280
