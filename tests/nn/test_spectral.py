"""Spectral initial weights: against an exact decomposition, and what a network makes of them."""

import numpy as np
import pytest
import torch
from scipy import sparse

import recvae
from recvae.data.batches import DeviceRows
from recvae.datasets.sample import make_sample
from recvae.distributed.communicator import Communicator
from recvae.nn import MLPDecoder, spectral
from recvae.nn.encoders import DenselyConnectedEncoder, input_layer
from recvae.nn.likelihood import nll
from recvae.nn.priors import Composite
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
