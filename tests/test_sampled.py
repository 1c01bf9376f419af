"""The sampled softmax against the dense one, brute force and chance."""

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae import MultVAE
from recvae.batches import Batch, Candidates, DeviceRows
from recvae.errors import InvalidParameterError
from recvae.nn import multinomial_nll
from recvae.nn.candidates import SAMPLERS, sampler
from recvae.nn.likelihood import gaussian_nll, logistic_nll
from recvae.nn.sampled import sampled_nll

B, ITEMS, WIDTH = 30, 80, 6


def some_rows(n_users=B, n_items=ITEMS, density=0.15, seed=0):
    rows = sparse.random(n_users, n_items, density, format="csr", random_state=seed, dtype=np.float32)
    rows.data = np.random.default_rng(seed).integers(1, 4, rows.nnz).astype(np.float32)
    return rows


def batch_of(rows):
    return DeviceRows(rows, torch.device("cpu")).all()


def with_candidates(batch, items, weights=None):
    items = torch.as_tensor(items)
    weights = torch.ones(len(items)) if weights is None else torch.as_tensor(weights)
    return Batch(batch.items, batch.values, batch.offsets, batch.bounds, batch.users, Candidates(items, weights))


def layer(dtype=torch.float64, scale=0.7):
    drawn = torch.Generator().manual_seed(1)
    shapes = ((B, WIDTH), (ITEMS, WIDTH), (ITEMS,))
    return [(scale * torch.randn(shape, generator=drawn)).to(dtype).requires_grad_() for shape in shapes]


def gradients(loss, leaves):
    return [grad.to_dense() if grad.is_sparse else grad for grad in torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize("weights", ["mean", "other"])
def test_with_all_items_it_is_the_dense_one(weights):
    batch, leaves = batch_of(some_rows()), layer()
    by_user = torch.full((B,), 1 / B).double() if weights == "mean" else torch.linspace(0.1, 2, B).double()
    found = sampled_nll(*leaves, with_candidates(batch, range(ITEMS)))
    expected = multinomial_nll(*leaves, batch, impl="dense")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    pairs = zip(gradients((by_user * found).sum(), leaves), gradients((by_user * expected).sum(), leaves), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_a_user_s_own_items_count_once_and_the_weights_of_the_others():
    batch, (hidden, weight, bias) = batch_of(some_rows()), layer()
    items, weights = torch.arange(0, ITEMS, 3), torch.linspace(0.5, 4, 27)
    found = sampled_nll(hidden, weight, bias, with_candidates(batch, items, weights))
    logits = hidden @ weight.T + bias
    for user in range(B):
        events = batch.events(slice(user, user + 1))
        own, x = batch.items[events].long(), batch.values[events].double()
        others = ~torch.isin(items, own)
        Z = logits[user, own].exp().sum() + (weights[others].double() * logits[user, items[others]].exp()).sum()
        expected = x.sum() * Z.log() - (x * logits[user, own]).sum() if len(own) else torch.zeros(()).double()
        torch.testing.assert_close(found[user], expected, rtol=1e-7, atol=1e-9)


def test_gradients_by_finite_differences_where_users_weigh_differently():
    batch, leaves = batch_of(some_rows()), layer()
    batch, by_user = with_candidates(batch, range(0, ITEMS, 4)), torch.linspace(0, 3, B).double()

    def loss(*parts):
        return (by_user * sampled_nll(*parts, batch)).sum()

    found = gradients(loss(*leaves), leaves)
    drawn = torch.Generator().manual_seed(3)
    for place, gradient in enumerate(found):
        step = torch.randn(gradient.shape, generator=drawn).double() * 1e-5
        moved = [
            [p.detach() + sign * step if i == place else p.detach() for i, p in enumerate(leaves)] for sign in (1, -1)
        ]
        difference = (loss(*moved[0]) - loss(*moved[1])) / 2
        torch.testing.assert_close((gradient * step).sum(), difference, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_the_sum_of_exponentials_is_met_in_the_mean(kind):
    """Over keys and, for candidates in the batch, over batches, in the items that a user of them lacks."""
    rows = some_rows(200, ITEMS, 0.1, seed=2)
    everyone, (_, weight, bias) = DeviceRows(rows, torch.device("cpu")), layer()
    draw = sampler(kind, 20 if kind != "in-batch" else 60, np.bincount(rows.indices, minlength=ITEMS), 200, 25)
    h = torch.linspace(-1, 1, WIDTH).double()
    terms = (weight.detach() @ h + bias.detach()).exp().numpy()
    known = np.bincount(rows.indices, minlength=ITEMS) > 0  # in a batch, what nobody has never comes
    user, estimates, random = 7, [], np.random.default_rng(0)
    own = rows[user].indices
    others = np.setdiff1d(np.flatnonzero(known) if kind == "in-batch" else np.arange(ITEMS), own)
    for key in range(4000):
        company = np.append(random.choice(np.setdiff1d(np.arange(200), [user]), 24, replace=False), user)
        (batch,) = everyone.batches(torch.from_numpy(company), 25)
        found = draw.draw(batch, key)
        mine = ~np.isin(found.items.numpy(), own)
        estimates.append((found.weights.numpy() * terms[found.items.numpy()])[mine].sum())
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - terms[others].sum()) < 4 * error


def test_rows_without_events_and_huge_logits():
    rows = some_rows()
    rows.data[rows.indptr[3] : rows.indptr[4]] = 0
    rows.eliminate_zeros()
    hidden, weight, bias = layer(torch.float32, scale=60.0)
    nll = sampled_nll(hidden, weight, bias, with_candidates(batch_of(rows), range(0, ITEMS, 2)))
    assert nll.isfinite().all()
    assert nll[3] == 0
    assert all(gradient.isfinite().all() for gradient in gradients(nll.mean(), [hidden, weight, bias]))


def test_gradients_of_tables_are_sparse_over_what_was_seen():
    rows = some_rows(density=0.02)
    leaves = layer()
    nll = sampled_nll(*leaves, with_candidates(batch_of(rows), [5, 9, 70]))
    _, weight, bias = torch.autograd.grad(nll.mean(), leaves)
    seen = np.union1d(rows.indices, [5, 9, 70])
    for gradient in (weight, bias):
        assert gradient.is_sparse
        assert gradient.coalesce().indices()[0].tolist() == seen.tolist()


def test_candidates_decide_where_it_is_left_open():
    batch, leaves = batch_of(some_rows()), layer()
    few = with_candidates(batch, [1, 2, 3])
    assert torch.equal(multinomial_nll(*leaves, few), sampled_nll(*leaves, few))
    assert torch.equal(multinomial_nll(*leaves, batch), multinomial_nll(*leaves, batch, impl="exact"))


def test_what_cannot_be_sampled_is_said():
    batch, leaves = batch_of(some_rows()), layer()
    with pytest.raises(InvalidParameterError, match="Expected a batch with candidates for a sampled likelihood"):
        multinomial_nll(*leaves, batch, impl="sampled")
    for nll in (logistic_nll, gaussian_nll):
        with pytest.raises(InvalidParameterError, match='Expected the multinomial likelihood for impl="sampled"'):
            nll(*leaves, with_candidates(batch, [0]), impl="sampled")
    for settings in ({"likelihood": "logistic"}, {"logits": "cosine"}):
        with pytest.raises(InvalidParameterError, match='Expected the multinomial likelihood and logits="dot"'):
            MultVAE(impl="sampled", **settings).fit(some_rows())


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("tables", ["separate", "tied"])
def test_models_learn_by_it(kind, tables):
    rows = some_rows(300, ITEMS, 0.1, seed=4)
    settings = {"hidden_dims": (16,), "latent_dim": 8, "epochs": 12, "random_state": 0, "impl": "sampled"}
    model = MultVAE(**settings, candidates=30, sampler=kind, tables=tables, max_grad_norm=5.0).fit(rows)
    assert model.history_[-1].nll < model.history_[0].nll
    again = MultVAE(**settings, candidates=30, sampler=kind, tables=tables, max_grad_norm=5.0).fit(rows)
    for one, other in zip(model.network_.parameters(), again.network_.parameters(), strict=True):
        assert torch.equal(one, other)


def test_with_all_items_as_candidates_a_step_is_that_of_the_exact_one():
    """The loss of the first step; later ones differ by the optimizer, which goes row by row."""
    rows = some_rows(300, ITEMS, 0.1, seed=4)
    losses = [
        MultVAE(epochs=1, batch_size=300, random_state=0, impl=impl, candidates=ITEMS, precision="float32")
        .fit(rows)
        .history_[0]
        .loss
        for impl in ("exact", "sampled")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
