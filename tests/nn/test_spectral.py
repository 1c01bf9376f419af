"""Spectral initial weights: against an exact decomposition, and what a network makes of them."""

import numpy as np
import pytest
import torch
from scipy import sparse

import recvae
from recvae.data.batches import DeviceRows
from recvae.datasets.sample import make_sample
from recvae.distributed.communicator import Communicator
from recvae.models.autoencoder import shape
from recvae.models.autoencoder.shape import Shape
from recvae.nn import MLPDecoder, singular, spectral
from recvae.nn.encoders import DenselyConnectedEncoder, GaussianEncoder, input_layer
from recvae.nn.likelihood import nll
from recvae.nn.priors import Composite, StandardNormal
from recvae.nn.rng import initialize
from recvae.nn.vae import VAE

K = 6


def blocks(n_users=120, n_items=40, groups=5, seed=0):
    """Users who have most of their items in one of a few groups; the last item has no users, the last user no items."""
    random = np.random.default_rng(seed)
    same = random.integers(groups, size=n_users)[:, None] == np.arange(n_items) % groups
    dense = (random.random((n_users, n_items)) < np.where(same, 0.6, 0.05)).astype(np.float32)
    dense *= random.integers(1, 4, dense.shape)
    dense[-1], dense[:, -1] = 0, 0
    return sparse.csr_matrix(dense)


def network(n_items=40, seed=0):
    encoder = DenselyConnectedEncoder(n_items, 16, 2, K, dropout=0.5)
    built = VAE(encoder, MLPDecoder(K, (), n_items), nll, Composite())
    initialize(built, seed)
    return built


def start(network, rows):
    spectral.init_spectrally(network, rows, Communicator())


def exact(rows):
    """All right singular vectors (I, I) of D_U^-1/2 X D_I^-1/2."""
    dense = (rows.toarray() > 0).astype(np.float64)
    norms, scale = np.linalg.norm(dense, axis=1, keepdims=True), np.linalg.norm(dense, axis=0)
    scaled = np.divide(dense, norms, where=norms > 0, out=np.zeros_like(dense))
    scaled = np.divide(scaled, scale, where=scale > 0, out=scaled)
    return scaled, np.linalg.svd(scaled)[2].T


def test_embeddings_span_the_leading_singular_vectors():
    rows, started = blocks(), network()
    start(started, rows)
    scaled, vectors = exact(rows)
    values = np.linalg.norm(scaled @ vectors[:, :K], axis=0)
    noise = np.sqrt(120 / rows.nnz) + np.sqrt(40 / rows.nnz)
    assert values[3] > noise > values[5]  # five groups have four directions apart from that of popularity
    leading = vectors[:, :K] * np.minimum(1, values / noise) ** 8
    known = np.arange(39)
    for weight, norm in ((input_layer(started.encoder).weight, 1.0), (started.decoder.weight, 0.5)):
        found = weight.detach().numpy()[known, :K]
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), norm, rtol=1e-4)
        expected = leading[known] / np.linalg.norm(leading[known], axis=1, keepdims=True)
        # the vectors are known up to signs: inner products between items are not
        np.testing.assert_allclose(found @ found.T / norm**2, expected @ expected.T, atol=0.02)


def test_other_columns_and_items_without_users_keep_their_weights():
    started, before = network(), network()
    start(started, blocks())
    first, was = input_layer(started.encoder).weight, input_layer(before.encoder).weight
    assert torch.equal(first[:, K:], was[:, K:])
    assert torch.equal(first[-1], was[-1])
    assert torch.equal(started.decoder.weight[-1], before.decoder.weight[-1])


def test_posterior_means_follow_the_projection_of_a_user():
    rows, started = blocks(), network()
    start(started, rows)
    scaled, vectors = exact(rows)
    codes = scaled @ vectors[:, :K]
    with torch.no_grad():
        means = started.encoder(DeviceRows(rows, torch.device("cpu")).all()).mean.numpy()
    # groups of equal size have singular vectors that are known up to a rotation: so by regression on all of them
    codes = codes[:-1, :4] - codes[:-1, :4].mean(0)
    means = means[:-1] - means[:-1].mean(0)
    residuals = codes - means @ np.linalg.lstsq(means, codes, rcond=None)[0]
    assert (residuals**2).sum() < 0.2 * (codes**2).sum()


@pytest.mark.parametrize("hidden_dims", [(32,), (32, 16), (4,)])
def test_tanh_layers_start_as_a_low_pass_filter(hidden_dims):
    rows, users, known = blocks(n_items=400), slice(0, 119), np.arange(399)
    batch = DeviceRows(rows, torch.device("cpu")).all()
    scaled, vectors = exact(rows)
    filtered = scaled[users] @ vectors[:, :4] @ vectors[known, :4].T  # the directions that are not noise

    def started(as_filter):
        """-> the correlation of scores with those of the filter, the deviation of the leading posterior means"""
        built = VAE(
            GaussianEncoder(400, hidden_dims, K, 0.5), MLPDecoder(K, hidden_dims[::-1], 400), nll, StandardNormal()
        )
        initialize(built, 0)
        spectral.init_spectrally(built, rows, Communicator(), as_filter)
        with torch.no_grad():
            means = built.encoder(batch).mean
            scores = built.decoder.logits(built.decoder(means)).numpy()[users, known]
        correlation = np.corrcoef((scores - scores.mean(0)).ravel(), (filtered - filtered.mean(0)).ravel())[0, 1]
        return correlation, means[:, : min(K, *hidden_dims)].std().item()

    assert started(as_filter=False)[0] < 0.2
    correlation, deviation = started(as_filter=True)
    assert correlation > 0.7
    assert deviation == pytest.approx(0.5**0.5, abs=0.1)


@pytest.mark.parametrize(
    ("users", "items", "events", "as_filter"),
    [
        (1000, 3000, 50_000, True),
        (1000, 3000, 15_000, False),
        (100_000, 3000, 500_000, True),
        (1000, 1500, 50_000, False),
    ],
)
def test_few_items_and_thin_data_do_not_start_as_a_filter(users, items, events, as_filter):
    assert Shape(users, items, events).suits_a_filter == as_filter


def test_it_does_not_depend_on_the_number_of_threads():
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(network())
            start(found[-1], blocks(n_users=900))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*(n.parameters() for n in found), strict=True))


@pytest.mark.parametrize("shape", [(1, 5), (3, 40), (40, 3), (2, 2)])
def test_fewer_users_or_items_than_dimensions(shape):
    dense = (np.random.default_rng(0).random(shape) < 0.7).astype(np.float32)
    dense[0, 0] = 1
    started = network(shape[1])
    start(started, sparse.csr_matrix(dense))
    assert all(p.isfinite().all() for p in started.parameters())


def test_many_users_are_sampled(monkeypatch):
    monkeypatch.setattr(spectral, "USERS", 60)
    rows, started, of_sample = blocks(), network(), network()
    start(started, rows)
    sample = rows[np.sort(np.random.default_rng(1).permutation(120)[:60])]
    start(of_sample, sample)
    assert torch.equal(started.decoder.weight, of_sample.decoder.weight)


@pytest.mark.parametrize(
    ("model", "spectrally"),
    [
        (recvae.RecVAE(random_state=0), True),
        (recvae.MultVAE(random_state=0, output=recvae.OutputOptions(tied_embeddings=True), latent_dim=600), True),
        (recvae.MultVAE(random_state=0, likelihood="logistic"), False),
        (recvae.MultDAE(random_state=0, training=recvae.TrainingOptions(initial_weights="random")), False),
        (
            recvae.MultDAE(
                random_state=0, likelihood="gaussian", training=recvae.TrainingOptions(initial_weights="spectral")
            ),
            True,
        ),
    ],
)
def test_which_models_start_so(model, spectrally):
    rows = blocks()[:-1]
    decoder = model.trainer(rows).state.network.decoder
    weight = decoder.weight[:-1].detach()
    k = min(decoder.latent_dim, *rows.shape)
    lengths = weight[:, :k].norm(dim=1)
    assert torch.allclose(lengths, torch.tensor(0.5), atol=1e-3) == spectrally


def test_one_epoch_ranks_better_than_from_random_weights():
    split = recvae.strong_split(make_sample(1200, 300).interactions, heldout_users=200)
    ndcg = {}
    for start in ("random", "spectral"):
        options = recvae.TrainingOptions(initial_weights=start)
        model = recvae.RecVAE(hidden_dim=200, epochs=1, random_state=0, training=options)
        ndcg[start] = recvae.evaluate(recvae.fit_split(model, split), split.test)["ndcg@100"].mean
    assert ndcg["spectral"] > ndcg["random"] + 0.02


class Own(recvae.MultVAE):
    """A model with a network of its own, whose layers may be others than tanh layers."""

    def _network(self, n_items):
        return super()._network(n_items)


def test_defaults_of_a_network_that_starts_as_a_filter():
    rows = sparse.random(200, 2001, 0.012, format="csr", random_state=0)  # 24 events of a user
    started, thin = (recvae.MultVAE(random_state=0).trainer(r) for r in (rows, rows[:, :2000].tocsr()))
    assert (started.config.epochs, started.config.learning_rate) == (16, 0.0005)
    assert (thin.config.epochs, thin.config.learning_rate) == (10, 0.001)
    given = recvae.MultVAE(random_state=0, epochs=3, learning_rate=0.01).trainer(rows)
    assert (given.config.epochs, given.config.learning_rate) == (3, 0.01)
    for other in (recvae.MultVAE(random_state=0, hidden_dims=()), Own(random_state=0)):
        assert other.trainer(rows).config.epochs == 10


def test_a_filter_ranks_better_after_one_epoch(monkeypatch):
    split = recvae.strong_split(make_sample(1200, 300).interactions, heldout_users=200)
    ndcg = []
    for few_items in (2000, 100):
        monkeypatch.setattr(shape, "FEW_ITEMS", few_items)
        model = recvae.MultVAE(hidden_dims=(250,), epochs=1, learning_rate=1e-3, random_state=0)
        ndcg.append(recvae.evaluate(recvae.fit_split(model, split), split.test)["ndcg@100"].mean)
    assert ndcg[1] > ndcg[0] + 0.02


@pytest.mark.filterwarnings("error")
def test_rows_may_be_read_only():
    """As memory maps are that come from another process."""
    rows = blocks().astype(np.float32)
    for part in (rows.data, rows.indices, rows.indptr):
        part.flags.writeable = False
    assert singular.singular_vectors(rows, 4)[0].shape == (40, 4)
