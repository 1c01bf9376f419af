"""Ranking by rough scores has to give what ranking by float32 gives, whatever the weights."""

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae import MultVAE
from recvae.errors import InvalidDataError
from recvae.nn import layers
from recvae.nn.bfloat16 import ScreenedLogits
from recvae.utils.topk import PAD_SCORE, Allowed, rank


def layer(n_users=40, n_items=1500, width=24, seed=0, spread=1.0, bias=1.0):
    drawn = torch.Generator().manual_seed(seed)
    hidden = torch.tanh(2 * torch.randn(n_users, width, generator=drawn))
    lengths = torch.exp(spread * torch.randn(n_items, 1, generator=drawn))  # a few items with long weights
    weight = lengths * torch.randn(n_items, width, generator=drawn)
    return hidden, weight, bias * torch.randn(n_items, generator=drawn)


def ranked(hidden, weight, bias, N, seen=None, rough=True, **options):
    rows = sparse.csr_matrix((len(hidden), len(weight)), dtype=np.float32) if seen is None else seen
    logits = ScreenedLogits(weight, bias) if rough else lambda h: h @ weight.T + bias
    return rank(lambda _, places: logits(hidden[places]), rows, N, **options)


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("bias", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("N", [1, 20, 1500, 1600])
def test_the_best_by_rough_scores_are_the_best(spread, bias, N):
    hidden, weight, bias = layer(spread=spread, bias=bias)
    true = (hidden.double() @ weight.double().T + bias.double()).numpy()
    ids, scores = ranked(hidden, weight, bias, N)
    n = min(N, 1500)
    found = np.take_along_axis(true, ids[:, :n].astype(int), 1)
    best = -np.sort(-true, axis=1)[:, :n]
    size = np.abs(true).max()
    np.testing.assert_allclose(found, best, atol=2e-6 * size)  # nobody was missed
    np.testing.assert_allclose(scores[:, :n], best, atol=2e-6 * size)  # and the scores are float32, not bfloat16
    assert (ids[:, n:] == -1).all()


def test_seen_and_forbidden_items_stay_out():
    hidden, weight, bias = layer()
    seen = sparse.random(40, 1500, 0.2, format="csr", random_state=0)
    allowed = np.arange(1500) % 3 == 0
    for options in ({}, {"allowed": Allowed(allowed)}, {"allowed": Allowed(np.arange(1500) < 4)}):
        ids, scores = ranked(hidden, weight, bias, 30, seen, **options)
        expected, of_them = ranked(hidden, weight, bias, 30, seen, rough=False, **options)
        assert (ids == expected).mean() > 0.99  # float32 sums in another order may swap neighbours
        np.testing.assert_allclose(scores, of_them, rtol=1e-4, atol=1e-4)
        assert ((scores == PAD_SCORE) == (ids == -1)).all()


@pytest.mark.parametrize("n_users", [1, 40])  # of whom few or many items need an exact score
def test_a_layer_by_columns_is_ranked_alike_and_not_copied(n_users, monkeypatch):
    hidden, weight, bias = layer(n_users)
    expected = ranked(hidden, weight, bias, 30)
    given, multiply = [], torch.sparse.sampled_addmm

    def watched(cells, a, b, **options):
        given.append(b.T.is_contiguous())  # else torch makes it so
        return multiply(cells, a, b, **options)

    monkeypatch.setattr(torch.sparse, "sampled_addmm", watched)
    found = ranked(hidden, weight.T.contiguous().T, bias, 30)
    assert given
    assert all(given)
    assert np.array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)


def test_equal_items_come_in_order():
    hidden, weight, bias = layer(n_items=50)
    hidden, weight, bias = hidden, weight.repeat(10, 1), bias.repeat(10)
    ids, _ = ranked(hidden, weight, bias, 25)
    assert (np.diff(ids.reshape(40, -1)[:, :10]) == 50).all()


def test_few_items_need_their_exact_score():
    hidden, weight, bias = layer(spread=0.3, n_items=5000)
    asked = []
    rough = ScreenedLogits(weight, bias)(hidden)
    kept = rough._replace(exact=lambda rows, items: asked.append(len(rows)) or rough.exact(rows, items))
    rank(lambda _, places: kept, sparse.csr_matrix((40, 5000), dtype=np.float32), 50)
    assert 50 * 40 <= asked[0] < 150 * 40


def test_weights_that_are_no_numbers():
    _, weight, bias = layer()
    weight[3, 3] = torch.inf
    with pytest.raises(InvalidDataError, match="output layer is damaged"):
        ScreenedLogits(weight, bias)


@pytest.mark.parametrize("settings", [{}, {"output__logits": "cosine"}], ids=["dot", "cosine"])
def test_models_rank_many_users_roughly_at_first_and_alike(settings, monkeypatch):
    rows = sparse.random(300, 60, 0.2, format="csr", random_state=0, dtype=np.float32)
    model = MultVAE(epochs=3, latent_dim=4, random_state=0).set_params(**settings).fit(rows)
    results = []
    for supported in (True, False):
        monkeypatch.setattr(layers, "_computes_bfloat16", lambda device, answer=supported: answer)
        results.append(model.recommend(np.arange(300), rows, N=20))
    (ids, scores), (expected, of_them) = results
    assert (ids == expected).mean() > 0.99
    np.testing.assert_allclose(scores, of_them, rtol=1e-4, atol=1e-4)
