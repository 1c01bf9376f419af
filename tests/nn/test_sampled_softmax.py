from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae import nn
from recvae.data.batches import DeviceRows, Negatives
from recvae.errors import InvalidParameterError
from recvae.nn.layers import InputLayer, reuse_workspace
from recvae.nn.optim import RowwiseAdam
from recvae.nn.rng import initialize
from recvae.nn.samplers import SAMPLERS, make_sampler
from recvae.nn.vae import MLPDecoder

CPU = torch.device("cpu")
sampled_nll = partial(nn.nll, impl="sampled")
B, I, H = 9, 30, 5  # noqa: E741


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def a_batch(seed=0, n_users=B, n_items=I):
    """Counts; user 4 has no events."""
    x = np.random.default_rng(seed).poisson(0.3, (n_users, n_items)).astype(np.float32)
    x[4 % n_users] *= n_users <= 4
    return DeviceRows(sparse.csr_matrix(x), CPU).all()


def with_negatives(batch, items, weights=None):
    items = torch.as_tensor(items)
    weights = torch.ones(len(items)) if weights is None else torch.as_tensor(weights, dtype=torch.float32)
    return replace(batch, negatives=Negatives(items, weights))


def parts(dtype=torch.float64, scale=1.0, n_users=B, n_items=I, seed=0):
    """Hidden states, weight and bias."""
    shapes = (n_users, H), (n_items, H), (n_items,)
    return [
        (scale * torch.randn(s, generator=generator(seed + k), dtype=dtype)).requires_grad_()
        for k, s in enumerate(shapes)
    ]


def dense_rows(batch, n_items=I):
    return torch.zeros(len(batch), n_items, dtype=torch.float64).index_put(
        (batch.rows, batch.items), batch.values.double()
    )


def by_definition(hidden, weight, bias, batch):
    """Over whole rows, with each candidate's weight in its place."""
    logits = hidden @ weight.T + bias
    x, times = dense_rows(batch, len(weight)), torch.zeros(len(weight), dtype=torch.float64)
    times[batch.negatives.items] = batch.negatives.weights.double()
    had = torch.zeros_like(x).index_put((batch.rows, batch.items), torch.ones(()).double()) > 0
    terms = torch.where(had, 1.0, times).log() + logits
    normalizer = torch.where(x.sum(1) > 0, terms.logsumexp(1), 0)
    return x.sum(1) * normalizer - (x * logits).sum(1)


def gradients(nll, tensors, weights=None):
    loss = nll.mean() if weights is None else (nll * weights).sum()
    return [part.to_dense() if part.is_sparse else part for part in torch.autograd.grad(loss, tensors)]


some = [0, 3, 4, 9, 17, 18, 29]
some_weights = [0.3, 2.0, 1.0, 7.5, 4.0, 1e-3, 40.0]


@pytest.mark.parametrize("users", [None, torch.linspace(-0.3, 2, B, dtype=torch.float64)], ids=["mean", "weights"])
def test_with_all_items_it_is_the_exact_likelihood(users):
    batch, tensors = with_negatives(a_batch(), range(I)), parts()
    found, expected = (nn.nll(*tensors, batch, impl=impl) for impl in ("sampled", "reference"))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert found[4] == 0
    for one, other in zip(gradients(found, tensors, users), gradients(expected, tensors, users), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("users", [None, torch.linspace(-0.3, 2, B, dtype=torch.float64)], ids=["mean", "weights"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradients_are_those_of_the_definition(users, dtype):
    batch, tensors = with_negatives(a_batch(), some, some_weights), parts(dtype)
    in_double = [part.detach().double().requires_grad_() for part in tensors]
    found, expected = sampled_nll(*tensors, batch), by_definition(*in_double, batch)
    exact = {torch.float32: 1e-5, torch.float64: 1e-6}[dtype]  # negatives' weights are float32
    torch.testing.assert_close(found.double(), expected, rtol=exact, atol=exact)
    both = gradients(found, tensors, users), gradients(expected, in_double, users)
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=exact, atol=exact)


def test_the_gradient_is_that_of_finite_differences():
    batch, tensors = with_negatives(a_batch(), some, some_weights), parts()
    users = torch.linspace(-0.3, 2, B, dtype=torch.float64)
    slopes = gradients(sampled_nll(*tensors, batch), tensors, users)
    for k, slope in enumerate(slopes):
        direction = torch.randn(slope.shape, generator=generator(), dtype=torch.float64)
        moved = []
        for step in (1e-5, -1e-5):
            at = [part.detach() + (step * direction if k == j else 0) for j, part in enumerate(tensors)]
            moved.append((sampled_nll(*at, batch) * users).sum())
        assert (slope * direction).sum().item() == pytest.approx((moved[0] - moved[1]).item() / 2e-5, rel=1e-6)


def test_gradients_are_sparse_over_the_rows_touched():
    batch, tensors = with_negatives(a_batch(n_items=12), some, some_weights), parts()
    hidden, weight, bias = torch.autograd.grad(sampled_nll(*tensors, batch).mean(), tensors)
    touched = sorted({*some, *batch.items.tolist()})
    assert hidden.layout == torch.strided
    for part in (weight, bias):
        assert part.is_coalesced()
        assert part.indices()[0].tolist() == touched


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_who_does_not_learn_gets_no_gradient(wanted):
    batch, tensors = with_negatives(a_batch(), some, some_weights), parts()
    expected = gradients(sampled_nll(*tensors, batch), tensors)
    only = [part.detach().requires_grad_(wants) for part, wants in zip(tensors, wanted, strict=True)]
    sampled_nll(*only, batch).mean().backward()
    for part, other, wants in zip(only, expected, wanted, strict=True):
        assert (part.grad is not None) == wants
        if wants:
            torch.testing.assert_close(part.grad.to_dense(), other)


def test_without_gradients_and_users_it_has_its_value():
    batch, tensors = with_negatives(a_batch(), some, some_weights), parts()
    with torch.no_grad():
        quiet = sampled_nll(*tensors, batch)
    assert not quiet.requires_grad
    assert torch.equal(quiet, sampled_nll(*tensors, batch).detach())
    none = with_negatives(DeviceRows(sparse.csr_matrix((0, I), dtype=np.float32), CPU).all(), some, some_weights)
    sampled_nll(tensors[0][:0], *tensors[1:], none).sum().backward()


def test_what_the_user_has_is_counted_once():
    batch, tensors = a_batch(), parts()
    own = batch.items.unique()  # each candidate is someone's
    heavy = with_negatives(batch, own, torch.full((len(own),), 1e6))
    torch.testing.assert_close(sampled_nll(*tensors, heavy), by_definition(*tensors, heavy), rtol=1e-6, atol=1e-6)
    one = DeviceRows(sparse.csr_matrix(dense_rows(batch)[:1].numpy().astype(np.float32)), CPU).all()
    found = [
        sampled_nll(tensors[0][:1], *tensors[1:], with_negatives(one, one.items, torch.full((len(one.items),), w)))
        for w in (1.0, 1e6)
    ]
    assert torch.equal(*found)


def test_users_without_events_have_no_loss_and_no_gradient():
    tensors = parts()
    no_events = DeviceRows(sparse.csr_matrix((B, I), dtype=np.float32), CPU).all()
    for items in (some, torch.zeros(0, dtype=torch.int64)):
        nll = sampled_nll(*tensors, with_negatives(no_events, items))
        assert (nll == 0).all()
        assert all((part == 0).all() for part in gradients(nll, tensors))


@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_huge_logits_are_finite(scale):
    batch = with_negatives(a_batch(), some, some_weights)
    tensors = parts(torch.float32, scale)
    in_double = [part.detach().double().requires_grad_() for part in tensors]
    found = sampled_nll(*tensors, batch)
    torch.testing.assert_close(found.double(), by_definition(*in_double, batch), rtol=1e-4, atol=1e-4 * scale**2)
    assert all(part.isfinite().all() for part in gradients(found, tensors))


def test_under_autocast_it_is_in_the_precision_of_the_weights():
    batch, tensors = with_negatives(a_batch(), some, some_weights), parts(torch.float32)
    hidden = tensors[0].detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        lower = sampled_nll(hidden, *tensors[1:], batch)
    assert lower.dtype == torch.float32
    torch.testing.assert_close(lower, sampled_nll(hidden.float(), *tensors[1:], batch))
    lower.mean().backward()
    assert hidden.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_the_normaliser_is_estimated_without_bias(kind):
    batch, tensors = a_batch(), [part.detach() for part in parts(scale=0.5)]
    draw = make_sampler(kind, 10, np.asarray(dense_rows(batch).gt(0).sum(0)), B, B).draw
    has = dense_rows(batch).sum(1) > 0
    x, n = dense_rows(batch), dense_rows(batch).sum(1)[has]
    observed = (x * (tensors[0] @ tensors[1].T + tensors[2])).sum(1)[has]
    normalisers = []
    for key in range(600):
        nll = sampled_nll(*tensors, replace(batch, negatives=draw(batch, key)))[has]
        normalisers.append(((nll + observed) / n).exp())
    found = torch.stack(normalisers)
    expected = (tensors[0] @ tensors[1].T + tensors[2])[has].exp().sum(1)
    assert ((found.mean(0) - expected).abs() <= 4 * found.std(0) / 600**0.5).all()


@pytest.mark.parametrize("kind", SAMPLERS)
def test_memory_that_is_used_again_makes_no_difference(kind):
    draw = make_sampler(kind, 10, np.full(I, 3), 50, B).draw
    networks = []
    for again in (False, True):
        bag, decoder = small_network()
        optimizer = RowwiseAdam([*bag.parameters(), *decoder.parameters()], lr=0.05)
        with reuse_workspace() as memory:
            for step in range(5):
                memory.begin_step() if again else memory.buffers.clear()
                run_step(bag, decoder, optimizer, a_batch(step), draw, step)
        networks.append([part.detach() for part in (*bag.parameters(), *decoder.parameters())])
    assert all(torch.equal(*both) for both in zip(*networks, strict=True))


def small_network(dtype=torch.float32):
    bag, decoder = InputLayer(I, H, 0.5), MLPDecoder(H, (), I)
    for part in (bag, decoder):
        initialize(part, 0)
        part.to(dtype)
    bag.sparse = True
    return bag, decoder


def run_step(bag, decoder, optimizer, batch, draw, step):
    optimizer.zero_grad()
    batch = replace(batch, negatives=draw(batch, step))
    hidden = decoder(torch.tanh(bag(batch, nn.CounterRNG.for_batch(step, batch))))
    nn.nll(hidden, *decoder.output, batch, impl="sampled").mean().backward()
    optimizer.step()


# sparse gradients of the first layer, and of a table that is both layers' ---------------------------------------------


def test_the_sparse_gradient_of_the_first_layer_is_the_dense_one():
    batch, found = a_batch(), []
    for is_sparse in (False, True):
        bag = InputLayer(I, H, 0.5)
        initialize(bag, 0)
        bag.sparse = is_sparse
        bag(batch, nn.CounterRNG.for_batch(1, batch)).square().sum().backward()
        assert bag.weight.grad.is_sparse == is_sparse
        found.append(bag.weight.grad)
    torch.testing.assert_close(found[1].to_dense(), found[0])
    rows = found[1]._indices()[0]
    assert (rows.diff() > 0).all()
    assert set(rows.tolist()) <= set(batch.items.tolist())


def test_a_sparse_first_layer_takes_a_batch_without_events():
    bag, _ = small_network()
    no_events = DeviceRows(sparse.csr_matrix((B, I), dtype=np.float32), CPU).all()
    bag(no_events).sum().backward()
    assert bag.weight.grad._nnz() == 0


def test_one_table_may_be_both_layers():
    batch = with_negatives(a_batch(), some, some_weights)
    bag, decoder = small_network(torch.float64)
    decoder.weight = bag.weight
    nn.nll(torch.tanh(bag.weighted(batch, batch.values)), *decoder.output, batch, impl="sampled").mean().backward()
    table, bias, shift = (part.detach().clone().requires_grad_() for part in (bag.weight, bag.bias, decoder.bias))
    hidden = torch.tanh(dense_rows(batch) @ table + bias)
    by_definition(hidden, table, shift, batch).mean().backward()
    torch.testing.assert_close(bag.weight.grad.to_dense(), table.grad, rtol=1e-6, atol=1e-6)
    for tensor in (bag.weight, table):
        RowwiseAdam([tensor], lr=0.1).step()
    touched = sorted({*some, *batch.items.tolist()})
    torch.testing.assert_close(bag.weight[touched], table[touched], rtol=1e-4, atol=1e-4)


# bad input ------------------------------------------------------------------------------------------------------------


def test_candidates_are_needed():
    with pytest.raises(InvalidParameterError, match="Expected a batch with negatives for a sampled likelihood, got"):
        nn.nll(*parts(), a_batch(), impl="sampled")


@pytest.mark.parametrize("family", ["logistic", "gaussian"])
def test_only_the_multinomial_is_sampled(family):
    with pytest.raises(InvalidParameterError, match='Expected the multinomial likelihood for impl="sampled", got'):
        nn.nll(*parts(), with_negatives(a_batch(), some), family, "sampled")


def test_a_weight_that_is_computed_is_refused():
    hidden, weight, bias = parts()
    with pytest.raises(InvalidParameterError, match="Expected the parameters themselves as weight and bias"):
        sampled_nll(hidden, 2 * weight, bias, with_negatives(a_batch(), some))
