"""RecVAE's parts: the prior, the phases, and what the likelihood leaves out for a part that does not learn."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.stats import norm

from recvae import HVamp, HybridVAE, MultDAE, MultVAE, RecVAE, load, nn
from recvae.data.batches import DeviceRows
from recvae.errors import InvalidDataError
from recvae.models.autoencoder import options
from recvae.models.autoencoder.shape import Shape
from recvae.models.base.params import with_params
from recvae.nn.rng import CounterRNG
from recvae.training.state import Phase

ROWS = sparse.random(40, 20, 0.3, format="csr", random_state=0, dtype=np.float32)
ROWS.data[:] = 1
BY_TURNS = {"encoder_passes": 3, "decoder_passes": 1}  # as in the paper


def setup(**params):
    model = RecVAE(latent_dim=3, hidden_dim=7, depth=3, random_state=0, **BY_TURNS | params)
    state = model.trainer(ROWS).state
    network, (optimizer,) = state.network, state.optimizers
    rows = DeviceRows(ROWS, torch.device("cpu"))
    network.prior.update(network.encoder, rows)
    return network, optimizer, rows


def test_the_composite_prior_is_a_mixture_in_each_dimension():
    drawn = torch.Generator().manual_seed(0)
    z, mean, logvar = (torch.randn(6, 4, generator=drawn, dtype=torch.float64) for _ in range(3))
    found = nn.Composite().conditional_log_density(z, nn.Gaussian(mean, logvar))
    for b in range(6):
        for k in range(4):
            x = z[b, k].item()
            old = norm.pdf(x, mean[b, k].item(), np.exp(logvar[b, k].item() / 2))
            mixture = 3 / 20 * norm.pdf(x) + 3 / 4 * old + 1 / 10 * norm.pdf(x, 0, np.exp(5))
            assert found[b, k].item() == pytest.approx(np.log(mixture), rel=1e-10)


def test_the_density_of_a_mixture_integrates_to_one():
    grid = torch.linspace(-2000, 2000, 2_000_001, dtype=torch.float64)[:, None]
    old = nn.Gaussian(torch.full_like(grid, 1.5), torch.full_like(grid, -2.0))
    mass = torch.trapezoid(nn.Composite().conditional_log_density(grid, old)[:, 0].exp(), grid[:, 0])
    assert mass.item() == pytest.approx(1, abs=1e-4)


def test_the_kl_term_is_an_estimate_from_the_draw():
    """Where the posterior is the old one, it is at most -log of the old one's weight in each dimension."""
    network, _, rows = setup()
    batch = rows.all()
    posterior = network.encoder.eval()(batch)
    z = posterior.sample(CounterRNG.for_batch(0, batch))
    by_hand = (posterior.log_density(z) - network.prior.conditional_log_density(z, posterior)).sum(1)
    assert torch.allclose(network.prior(posterior, z, batch, network.encoder), by_hand, atol=1e-5)
    assert (by_hand <= 3 * -np.log(3 / 4) + 1e-5).all()


def test_the_prior_follows_the_users_of_a_batch_and_not_the_batch():
    network, _, rows = setup()
    network.encoder.eval()
    order = torch.tensor([7, 3, 31])
    (batch,) = rows.batches(order, 8)
    posterior = network.encoder(batch)
    whole = network.encoder(rows.all())
    assert torch.allclose(posterior.mean, whole.mean[order], atol=1e-6)
    z = posterior.sample(CounterRNG.for_batch(0, batch))
    with_users = network.prior.conditional_log_density(z, nn.Gaussian(whole.mean[order], whole.logvar[order]))
    found = network.prior(posterior, z, batch, network.encoder)
    assert torch.allclose(found, (posterior.log_density(z) - with_users).sum(1), atol=1e-5)


def test_a_prior_that_was_not_updated_says_so():
    network, _, rows = setup()
    network.prior.old = None
    with pytest.raises(InvalidDataError, match="call update"):
        network(rows.all(), CounterRNG.for_batch(0, rows.all()))


@pytest.mark.parametrize(("learns", "rests"), [("encoder", "decoder"), ("decoder", "encoder")])
def test_in_a_phase_one_part_learns_and_the_other_rests(learns, rests):
    network, optimizer, rows = setup()
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    Phase((learns,)).apply(network)
    assert getattr(network, learns).training
    assert not getattr(network, rests).training
    network(rows.all(), CounterRNG.for_batch(0, rows.all())).loss(0.005).backward()
    optimizer.step()
    for name, weight in network.named_parameters():
        assert torch.equal(weight, before[name]) == name.startswith(rests), name


def test_a_rest_leaves_no_trace_in_the_gradients():
    """The exact likelihood skips products for what does not learn; the others stay as they were."""
    drawn = torch.Generator().manual_seed(1)
    hidden, weight = (torch.randn(n, 5, generator=drawn) for n in (40, 20))
    bias, batch = torch.randn(20, generator=drawn), DeviceRows(ROWS, torch.device("cpu")).all()

    def gradients(*needed):
        parts = [part.clone().requires_grad_(need) for part, need in zip((hidden, weight, bias), needed, strict=True)]
        nn.nll(*parts, batch).mean().backward()
        return [part.grad for part in parts]

    for precision_free in ((True, False, False), (False, True, True)):
        every, some = gradients(True, True, True), gradients(*precision_free)
        for whole, part, needed in zip(every, some, precision_free, strict=True):
            assert torch.equal(whole, part) if needed else part is None


def test_kl_is_weighed_by_events():
    network, _, rows = setup()
    elbo = network(rows.all(), CounterRNG.for_batch(0, rows.all()))
    n = torch.from_numpy(np.diff(ROWS.indptr)).float()
    assert torch.allclose(elbo.loss(0.1), (elbo.nll + 0.1 * n * elbo.kl).mean())


def test_epochs_count_rounds_and_schedules_see_all_passes():
    calls = []
    model = RecVAE(latent_dim=3, hidden_dim=7, depth=2, epochs=3, batch_size=20, random_state=0, **BY_TURNS)
    model._beta = lambda progress, shape: calls.append(progress) or 0.005
    model.fit(ROWS, show_progress=False)
    assert len(model.history_) == 3
    assert len(calls) == 3 * 4 * 2  # rounds, passes, steps
    assert calls == pytest.approx([step / 24 for step in range(24)])


def test_without_passes_of_the_decoder_the_encoders_train_both():
    model = RecVAE(latent_dim=3, hidden_dim=7, depth=2, encoder_passes=2, decoder_passes=0, random_state=0)
    trainer = model.trainer(ROWS)
    assert len(trainer.config.passes) == 2
    network, rows = trainer.state.network, DeviceRows(ROWS, torch.device("cpu"))
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    trainer.start_epoch(rows)
    with trainer.in_pass(1):
        assert network.encoder.training  # with dropout
        trainer.step(rows.all(), 0.005)
    assert not any(torch.equal(weight, before[name]) for name, weight in network.named_parameters())


IN_TURNS = [("encoder",), ("encoder",), ("encoder",), ("decoder",)]
AT_ONCE = [("encoder", "decoder")]


@pytest.mark.parametrize(
    ("model", "n_items", "events_of_an_item", "passes", "given"),
    [
        (RecVAE, 2_000, 300, AT_ONCE, {}),
        (RecVAE, 2_001, 100, IN_TURNS, {}),
        (RecVAE, 2_001, 99, AT_ONCE, {}),
        (HybridVAE, 2_000, 300, AT_ONCE, {}),
        (HybridVAE, 2_001, 100, IN_TURNS, {}),
        (HybridVAE, 2_001, 99, AT_ONCE, {}),
        (RecVAE, 2_000, 300, AT_ONCE * 2, {"encoder_passes": 2}),
        (RecVAE, 2_000, 300, IN_TURNS, {"decoder_passes": 1}),
        (RecVAE, 2_001, 300, AT_ONCE, {"decoder_passes": 0}),
    ],
)
def test_both_parts_are_trained_at_once_on_few_items_and_on_sparse_data(
    model, n_items, events_of_an_item, passes, given
):
    phases = model(**given)._phases(Shape(1_000, n_items, events_of_an_item * n_items))
    assert [phase.trainable for phase in phases for _ in range(phase.passes)] == passes


def test_dense_data_get_the_dropout_of_the_papers():
    assert Shape(5_000, 1_000, 100_000).dropout() == 0.5  # 20 events of a user, 100 of an item
    assert Shape(5_000, 1_001, 100_000).dropout() == 0.8


@pytest.mark.parametrize(("model", "dense", "thin", "random"), [(MultVAE, 20, 10, 50), (RecVAE, 15, 10, 40)])
def test_epochs_follow_from_initial_weights_and_data(model, dense, thin, random):
    rows = sparse.random(300, 20, 0.5, format="csr", random_state=0)  # 150 events of an item, 10 of a user
    assert model().trainer(rows).config.epochs == dense
    assert model().trainer(rows[:100]).config.epochs == thin
    assert model(likelihood="logistic").trainer(rows[:100]).config.epochs == random
    assert model(epochs=3).trainer(rows).config.epochs == 3


@pytest.mark.parametrize(("events", "gamma"), [(4, 0.05), (20, 0.01), (40, 0.005), (200, 0.005)])
def test_the_kl_term_weighs_more_for_each_event_where_users_have_few(events, gamma):
    rows = sparse.random(20, 400, events / 400, format="csr", random_state=0)
    assert RecVAE().trainer(rows).config.beta(0.5) == pytest.approx(gamma)
    assert RecVAE(gamma=0.02).trainer(rows).config.beta(0.5) == 0.02


@pytest.mark.parametrize(("events", "dropout"), [(3, 0.8), (20, 0.8), (35, 0.65), (50, 0.5), (300, 0.5)])
@pytest.mark.parametrize("model", [MultVAE, MultDAE, RecVAE, HVamp])
def test_more_dropout_where_users_have_fewer_events(model, events, dropout):
    rows = sparse.random(20, 400, events / 400, format="csr", random_state=0)
    trained = model().trainer(rows).network
    assert trained.encoder.bag.dropout == pytest.approx(dropout, abs=0.001)
    assert model(dropout=0.3).trainer(rows).network.encoder.bag.dropout == 0.3


def test_a_loaded_model_that_learns_on_has_the_dropout_of_its_data(tmp_path):
    rows = sparse.random(40, 30, 0.2, format="csr", random_state=0)
    MultVAE(epochs=1, hidden_dims=(8,), latent_dim=4, random_state=0).fit(rows).save(tmp_path / "model")
    model = load(tmp_path / "model")
    model.partial_fit(rows, epochs=1)
    assert model.network_.encoder.bag.dropout == 0.8


def narrow(model):
    return {"hidden_dims": (2,)} if model is MultVAE else {"hidden_dim": 2, "depth": 1}


@pytest.mark.parametrize(
    ("model", "n_items", "params", "width"),
    [
        (RecVAE, 24_999, {}, 200),
        (RecVAE, 25_000, {}, 512),
        (HybridVAE, 25_000, {}, 512),
        (MultVAE, 25_000, {}, 512),
        (MultVAE, 24_999, {}, 200),
        (RecVAE, 25_000, {"training__initial_weights": "random"}, 200),
        (RecVAE, 25_000, {"likelihood": "logistic"}, 200),
        (RecVAE, 25_000, {"latent_dim": 7}, 7),
        (RecVAE, 250_000, {}, 200),
    ],
)
def test_wide_catalogues_get_more_dimensions_where_singular_vectors_are_the_start(model, n_items, params, width):
    with torch.device("meta"):
        network = with_params(model(), narrow(model) | params)._network(n_items)
    assert network.decoder.latent_dim == width


@pytest.mark.parametrize("model", [RecVAE, HybridVAE, MultVAE])
def test_a_model_that_has_gained_items_keeps_its_dimensions(model, monkeypatch, tmp_path):
    monkeypatch.setattr(options, "WIDE_CATALOGUE", 22)
    monkeypatch.setattr(options, "LATENT_DIM", 3)
    grown = sparse.csr_matrix(np.pad(ROWS.toarray(), ((0, 0), (0, 4)), constant_values=1))
    fitted = model(epochs=1, random_state=0, **narrow(model)).fit(ROWS)
    fitted.partial_fit(grown, epochs=1)
    fitted.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.network_.decoder.latent_dim == 3
    for found, expected in zip(loaded.recommend([0], grown[:1]), fitted.recommend([0], grown[:1]), strict=True):
        np.testing.assert_array_equal(found, expected)
    loaded.partial_fit(grown, epochs=1)
    assert model(epochs=1, **narrow(model)).fit(grown).network_.decoder.latent_dim == 512
