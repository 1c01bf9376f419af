import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import sparse
from torch.distributions import Bernoulli, Multinomial, Normal, kl_divergence

from recvae import nn
from recvae.data.batches import DeviceRows
from recvae.errors import InvalidParameterError, InvalidTypeError, UnknownNameError
from recvae.nn import layers, likelihood
from recvae.nn.layers import dropout, normalized, reuse_workspace, workspace
from recvae.nn.rng import CounterRNG, initialize

CPU = torch.device("cpu")


def noise(n=7, key=0):
    return CounterRNG(key, torch.arange(n))


def batch_of(dense):
    return DeviceRows(sparse.csr_matrix(np.asarray(dense, dtype=np.float32)), CPU).all()


def random_batch(n_users=7, n_items=13, seed=0):
    return batch_of(np.random.default_rng(seed).poisson(0.5, (n_users, n_items)))


def dense(batch, n_items=13):
    return torch.zeros(len(batch), n_items).index_put((batch.rows, batch.items), batch.values)


def csr_of(batch, n_items):
    arrays = batch.values.numpy(), batch.items.numpy(), batch.offsets.numpy()
    return sparse.csr_matrix(arrays, shape=(len(batch), n_items))


# the Gaussian posterior ----------------------------------------------------------------------------------------------


def test_kl_equals_torch_distributions():
    mean, logvar = torch.randn(50, 8, dtype=torch.float64), torch.randn(50, 8, dtype=torch.float64)
    posterior = Normal(mean, (0.5 * logvar).exp())
    expected = kl_divergence(posterior, Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum(1)
    found = nn.standard_normal_kl(nn.Gaussian(mean, logvar))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_the_noise_has_standard_deviation_one():
    shape = (2000, 200)
    z = nn.Gaussian(torch.full(shape, 3.0), torch.zeros(shape)).sample(noise(2000))
    assert z.mean() == pytest.approx(3, abs=0.01)
    assert z.std() == pytest.approx(1, abs=0.01)
    wide = nn.Gaussian(torch.zeros(shape), torch.full(shape, math.log(4.0))).sample(noise(2000))
    assert wide.std() == pytest.approx(2, abs=0.02)


def test_the_sample_has_a_gradient_in_mean_and_variance():
    mean, logvar = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    nn.Gaussian(mean, logvar).sample(noise(2)).sum().backward()
    assert (mean.grad == 1).all()
    assert (logvar.grad != 0).all()


# likelihoods ---------------------------------------------------------------------------------------------------------

every_family = pytest.mark.parametrize("family", nn.FAMILIES)
FLOAT32 = nn.Options(precision="float32")


@pytest.mark.parametrize("impl", ["reference", "chunked", "auto"])
def test_the_likelihood_equals_torch_distributions(impl):
    batch = random_batch()
    hidden, weight, bias = torch.randn(7, 5), torch.randn(13, 5), torch.randn(13)
    x = dense(batch)
    for user in range(7):
        counts = x[user]
        if counts.sum() == 0:
            continue
        distribution = Multinomial(int(counts.sum()), logits=F.linear(hidden[user], weight, bias))
        constant = math.lgamma(counts.sum() + 1) - torch.lgamma(counts + 1).sum()
        expected = -(distribution.log_prob(counts) - constant)
        found = nn.nll(hidden, weight, bias, batch, impl=impl)[user]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("impl", ["reference", "chunked"])
def test_items_that_are_had_or_not_are_coins(impl):
    batch = batch_of(dense(random_batch()) > 0)
    hidden, weight, bias = torch.randn(7, 5), torch.randn(13, 5), torch.randn(13)
    coins = Bernoulli(logits=F.linear(hidden, weight, bias))
    expected = -coins.log_prob(dense(batch)).sum(1)
    torch.testing.assert_close(nn.nll(hidden, weight, bias, batch, "logistic", impl), expected, rtol=1e-4, atol=1e-4)
    thrice = replace(batch, values=3 * batch.values)  # an event three times as heavy, as if there were three of it
    found = nn.nll(hidden, weight, bias, thrice, "logistic", impl)
    expected -= 2 * (dense(batch) * coins.probs.log()).sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("impl", ["reference", "chunked"])
@pytest.mark.parametrize("unobserved", [0.05, 1.0])
def test_values_are_normal_around_their_logits_with_a_confidence(impl, unobserved):
    batch = random_batch()
    hidden, weight, bias = torch.randn(7, 5), torch.randn(13, 5), torch.randn(13)
    confidence = torch.where(dense(batch) > 0, 1.0, unobserved)
    normal = Normal(F.linear(hidden, weight, bias), confidence.rsqrt())
    constant = (0.5 * confidence.log() - 0.5 * math.log(2 * math.pi)).sum(1)
    expected = constant - normal.log_prob(dense(batch)).sum(1)
    found = nn.nll(hidden, weight, bias, batch, "gaussian", impl, nn.Options(unobserved=unobserved))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_confidence_above_zero_is_needed():
    for unobserved in (0.0, -1.0, math.nan):
        with pytest.raises(InvalidParameterError, match="Expected a confidence in items without an event above 0, got"):
            nn.Options(unobserved=unobserved)


@pytest.mark.parametrize("least", [512, 4])  # items of a block: one block, two
@pytest.mark.parametrize("scale", [1.0, 40.0])
@every_family
def test_chunked_has_the_value_and_gradients_of_the_reference(family, scale, least, monkeypatch):
    monkeypatch.setattr("recvae.nn.likelihood.ITEMS", least)
    batch = random_batch()
    results = []
    for impl in ("reference", "chunked"):
        torch.manual_seed(0)
        leaves = [(scale * torch.randn(shape, dtype=torch.float64)).requires_grad_() for shape in [(7, 5), (13, 5), 13]]
        value = nn.nll(*leaves, batch, family, impl, FLOAT32)
        (value * torch.arange(1.0, 8)).sum().backward()  # an own weight for each user
        results.append([value, *(leaf.grad for leaf in leaves)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def head(family, impl, dtype=torch.float32, n_users=23, n_items=517, width=19, seed=0, users=None, **options):
    """Value and gradients of a likelihood, in float64, from leaves that every call with one seed shares."""
    drawn = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 9, (n_users,), generator=drawn)
    lengths[:3] = torch.tensor([0, 1, 400])  # nobody, one item, nearly all of them
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    items = torch.cat([torch.randperm(n_items, generator=drawn)[:n] for n in lengths.tolist()])
    batch = nn.vae.Batch(items, torch.rand(len(items), generator=drawn) + 0.5, offsets)
    shapes = [(n_users, width), (n_items, width), (n_items,)]
    leaves = [(0.5 * torch.randn(shape, generator=drawn)).to(dtype).requires_grad_() for shape in shapes]
    value = nn.nll(*leaves, batch, family, impl, nn.Options(**options))
    (value.mean() if users is None else (value * users.to(dtype)).sum()).backward()
    return [part.detach().double() for part in (value, *(leaf.grad for leaf in leaves))]


def errors(found, expected):
    return [float((one - other).norm() / other.norm()) for one, other in zip(found, expected, strict=True)]


CHUNKS = [1, 517 * 4 * 5, 1 << 30]  # less than a row, five rows, all


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
@pytest.mark.parametrize("users", [None, torch.linspace(-1, 2, 23), torch.full((23,), 0.3)], ids=["mean", "own", "sum"])
@every_family
def test_in_chunks_it_is_the_reference(family, users, chunk_bytes, monkeypatch):
    monkeypatch.setattr("recvae.nn.likelihood.ITEMS", 512 if chunk_bytes > 1 << 20 else 16)  # one block of items, eight
    chunked, reference = (
        head(family, impl, users=users, precision="float32", chunk_bytes=chunk_bytes)
        for impl in ("chunked", "reference")
    )
    assert max(errors(chunked, reference)) < 1e-5


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
@pytest.mark.parametrize("seed", range(3))
@every_family
def test_in_bfloat16_it_is_no_further_from_float64_than_plain_code(family, seed, chunk_bytes, monkeypatch):
    monkeypatch.setattr("recvae.nn.likelihood.ITEMS", (512, 16, 200)[seed])  # one block of items, eight, two
    expected = head(family, "reference", torch.float64, seed=seed)
    found = errors(head(family, "chunked", precision="bfloat16", chunk_bytes=chunk_bytes, seed=seed), expected)
    plain = errors(head(family, "reference", torch.bfloat16, seed=seed), expected)
    assert all(one <= max(1.05 * other, 1e-3) for one, other in zip(found, plain, strict=True))
    assert found[0] < 1e-3


@pytest.mark.parametrize(("n_items", "blocks"), [(13, 1), (1100, 2)])
@every_family
def test_there_is_never_more_than_one_chunk_of_logits(family, n_items, blocks, monkeypatch):
    shapes = []
    begin, join = likelihood.FAMILY_STEPS[family]

    def recorded(block):
        shapes.append(tuple(block.logits.shape))
        return begin(block)

    monkeypatch.setitem(likelihood.FAMILY_STEPS, family, (recorded, join))
    leaves = [torch.randn(shape).requires_grad_() for shape in [(7, 5), (n_items, 5), n_items]]
    nn.nll(*leaves, random_batch(), family, options=nn.Options(chunk_bytes=3 * n_items * 4)).mean().backward()
    assert shapes == [(users, n_items // blocks) for users in (3, 3, 1) for _ in range(blocks)]


@every_family
def test_without_gradients_there_is_only_the_value(family):
    with torch.no_grad():
        hidden, weight, bias = torch.randn(7, 5), torch.randn(13, 5), torch.randn(13)
        one, other = (nn.nll(hidden, weight, bias, random_batch(), family, impl) for impl in ("chunked", "reference"))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_auto_takes_bfloat16_where_the_hardware_has_it(monkeypatch):
    for supported, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(layers, "_computes_bfloat16", lambda device, answer=supported: answer)
        for dtype in (torch.float32, torch.float64):
            leaves = [torch.zeros(shape, dtype=dtype) for shape in [(5, 3), 5]]
            chosen = likelihood._products("auto", *leaves)(slice(0, 5))
            assert chosen.weight.dtype == (expected if dtype == torch.float32 else dtype)
    with pytest.raises(UnknownNameError, match="did you mean bfloat16"):
        likelihood._products("bfloat", *leaves)


def test_a_second_backward_pass_adds_the_same_gradients_again():
    batch, leaves = random_batch(), [torch.randn(shape).requires_grad_() for shape in [(7, 5), (13, 5), 13]]
    loss = nn.nll(*leaves, batch, options=FLOAT32).mean()
    for times in (1, 2, 3):
        loss.backward(retain_graph=True)
        if times == 1:
            once = [leaf.grad.clone() for leaf in leaves]
        for leaf, first in zip(leaves, once, strict=True):
            torch.testing.assert_close(leaf.grad, times * first)


@pytest.mark.parametrize("impl", ["chunked", "reference"])
def test_logits_out_of_the_range_of_exponentials(impl):
    batch, hidden = batch_of([[1, 0, 0], [0, 2, 0]]), torch.ones(2, 1, requires_grad=True)
    for shift in (-300.0, 0.0, 300.0):
        nll = nn.nll(hidden, torch.zeros(3, 1), shift + torch.tensor([0.0, 1.0, 2.0]), batch, impl=impl)
        expected = -torch.log_softmax(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), 0)[:2] * torch.tensor([1, 2])
        torch.testing.assert_close(nll.detach().double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("impl", ["chunked", "reference"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_coins_that_are_certain(impl, precision):
    hidden = torch.ones(1, 1, requires_grad=True)
    bias = torch.tensor([-300.0, 300.0, -300.0, 300.0], requires_grad=True)
    nll = nn.nll(
        hidden, torch.zeros(4, 1), bias, batch_of([[1, 1, 0, 0]]), "logistic", impl, nn.Options(precision=precision)
    )
    nll.sum().backward()
    assert nll.item() == pytest.approx(600, rel=1e-2 if precision == "bfloat16" else 1e-6)
    assert bias.grad.tolist() == [-1, 0, 0, 1]


def test_within_reused_a_step_has_the_memory_of_the_last_and_the_same_gradients():
    batch, hidden = random_batch(), torch.randn(7, 5)
    weight, bias = torch.randn(13, 5).requires_grad_(), torch.zeros(13)

    def step():
        weight.grad = None
        nn.nll(hidden, weight, bias, batch, options=FLOAT32).mean().backward()
        return weight.grad

    fresh = step()
    with reuse_workspace() as memory:
        first = step()
        assert torch.equal(first, fresh)
        memory.begin_step()
        second = step()
        assert second.data_ptr() == first.data_ptr() != fresh.data_ptr()
        hidden.mul_(2)
        assert not torch.equal(step(), fresh)
    assert step().data_ptr() != first.data_ptr()
    assert workspace("any", (2, 3), torch.float32, CPU).shape == (2, 3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_likelihoods_and_two_bags_of_one_step_do_not_share_their_gradients(precision):
    batch = random_batch()
    bags = [nn.SparseEmbeddingBag(13, 5), nn.SparseEmbeddingBag(13, 5)]
    heads = [(torch.randn(13, 5).requires_grad_(), torch.randn(13).requires_grad_()) for _ in range(2)]
    for bag in bags:
        initialize(bag, 0)
    leaves = [*(part for head in heads for part in head), *(bag.weight for bag in bags)]

    def gradients():
        for leaf in leaves:
            leaf.grad = None
        for _ in range(2):  # and two batches whose gradients are added up
            for bag, head in zip(bags, heads, strict=True):
                nn.nll(bag(batch), *head, batch, options=nn.Options(precision=precision)).mean().backward()
        return [leaf.grad.clone() for leaf in leaves]

    expected = gradients()
    with reuse_workspace():
        found = gradients()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_where_no_gradient_is_wanted_none_is_formed(monkeypatch):
    monkeypatch.setattr(likelihood.Float32Products, "backward", None)
    leaves = [torch.randn(shape).requires_grad_() for shape in [(7, 5), (13, 5), 13]]
    with torch.no_grad():
        assert nn.nll(*leaves, random_batch(), options=FLOAT32).grad_fn is None
        assert nn.SparseEmbeddingBag(13, 5)(random_batch()).grad_fn is None


def test_under_autocast_the_precision_asked_for_is_kept(monkeypatch):
    monkeypatch.setattr(layers, "ONEDNN", None)
    leaves = [torch.randn(shape).requires_grad_() for shape in [(7, 5), (13, 5), 13]]
    expected = nn.nll(*leaves, random_batch(), options=FLOAT32)
    with torch.autocast("cpu", torch.bfloat16):
        found = nn.nll(*leaves, random_batch(), options=FLOAT32)
    torch.testing.assert_close(found, expected)
    found.mean().backward()


def test_some_items_of_a_layer_by_columns_are_not_given_to_onednn(monkeypatch):
    """Which would take a thousand times as long."""
    hidden, weight, bias = torch.randn(7, 5), layers.by_columns(torch.randn(13, 5)), torch.randn(13)
    expected = (hidden @ weight.T + bias)[:, 3:9]
    monkeypatch.setattr(layers, "ONEDNN", lambda *_: pytest.fail("expected F.linear"))
    with torch.no_grad():
        torch.testing.assert_close(layers.linear(hidden, weight[3:9], bias[3:9]), expected)


@every_family
def test_a_batch_without_users(family):
    batch = DeviceRows(sparse.csr_matrix((0, 13), dtype=np.float32), CPU).all()
    hidden = torch.zeros(0, 5, requires_grad=True)
    value = nn.nll(hidden, torch.randn(13, 5).requires_grad_(), torch.zeros(13), batch, family)
    assert value.shape == (0,)
    value.sum().backward()


@every_family
@pytest.mark.parametrize("row", [[0], [1]])
def test_a_catalogue_of_one_item(family, row):
    results = []
    for impl in ("chunked", "reference"):
        leaves = [torch.full(shape, 0.7).requires_grad_() for shape in [(1, 2), (1, 2), (1,)]]
        value = nn.nll(*leaves, batch_of([row]), family, impl)
        value.sum().backward()
        results.append([value, *(leaf.grad for leaf in leaves)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_half_precision_is_refused_with_the_reason():
    leaves = [torch.randn(shape).half() for shape in [(7, 5), (13, 5), 13]]
    with pytest.raises(
        InvalidTypeError, match=r"Expected weights in float32 or float64, got torch\.float16; precision"
    ):
        nn.nll(*leaves, random_batch())


def test_repeated_events_add_up_in_both():
    batch = nn.vae.Batch(torch.tensor([2, 2]), torch.ones(2), torch.tensor([0, 2]))
    hidden, weight, bias = torch.randn(1, 5), torch.randn(13, 5), torch.randn(13)
    doubled = batch_of([[0, 0, 2] + [0] * 10])
    expected = nn.nll(hidden, weight, bias, doubled, impl="reference")
    for impl in ("reference", "chunked"):
        torch.testing.assert_close(nn.nll(hidden, weight, bias, batch, impl=impl), expected)


def test_a_user_without_events_has_likelihood_one():
    batch = batch_of([[0, 0, 0]])
    for impl in ("reference", "chunked"):
        assert nn.nll(torch.randn(1, 2), torch.randn(3, 2), torch.zeros(3), batch, impl=impl) == 0


def test_an_unknown_impl():
    with pytest.raises(UnknownNameError, match="did you mean chunked"):
        nn.nll(torch.randn(1, 2), torch.randn(3, 2), torch.zeros(3), batch_of([[1, 0, 0]]), impl="chunks")


# layers --------------------------------------------------------------------------------------------------------------


def test_a_bag_is_a_linear_layer_on_the_dense_row():
    bag, batch = nn.SparseEmbeddingBag(13, 4), random_batch()
    initialize(bag, 0)
    torch.testing.assert_close(bag(batch), dense(batch) @ bag.weight + bag.bias)


def test_the_gradient_of_a_bag_is_that_of_the_dense_layer_dropped_events_or_not():
    batch = random_batch()
    for values in (batch.values, dropout(batch.values, 0.5, batch, noise()), torch.zeros_like(batch.values)):
        bag = nn.SparseEmbeddingBag(13, 4)
        initialize(bag, 0)
        seeds = torch.randn(7, 4)
        (bag.weighted(batch, values) * seeds).sum().backward()
        expected = dense(replace(batch, values=values)).T @ seeds
        torch.testing.assert_close(bag.weight.grad, expected)
        torch.testing.assert_close(bag.bias.grad, seeds.sum(0))


def test_the_gradient_of_a_bag_is_sparse_over_the_rows_of_its_events():
    batch, bag = random_batch(), nn.SparseEmbeddingBag(10_000, 4)
    bag.sparse = True
    seeds = torch.randn(7, 4)
    (bag(batch) * seeds).sum().backward()
    assert bag.weight.grad._indices().flatten().tolist() == sorted(set(batch.items.tolist()))
    torch.testing.assert_close(bag.weight.grad.to_dense()[:13], dense(batch).T @ seeds)


def test_events_by_items_are_the_transposed_matrix_those_of_an_item_by_users():
    batch = random_batch(40)
    by_item = csr_of(batch, 13).tocsc()
    for order in (layers.by_items, layers._by_items_sorted):  # on a CPU, on any device
        starts, users, values = order(batch.items, batch.offsets, batch.values, 13)
        assert starts.tolist() == by_item.indptr.tolist()
        assert users.tolist() == by_item.indices.tolist()
        assert values.tolist() == by_item.data.tolist()


@pytest.mark.parametrize("n_users", [150, 500])  # one piece, two
def test_the_input_layer_drops_the_same_events_in_pieces_of_a_batch(n_users):
    batch, layer = random_batch(n_users), layers.InputLayer(13, 4, 0.5)
    initialize(layer, 0)
    rng = noise(n_users)
    values = dropout(normalized(batch), 0.5, batch, noise(n_users))
    expected = dense(replace(batch, values=values)) @ layer.weight + layer.bias
    torch.testing.assert_close(layer(batch, rng), expected)
    one_draw = noise(n_users)
    one_draw.keep_mask(batch, 0.5)
    assert torch.equal(rng.normal(4), one_draw.normal(4))  # a draw of the layer is one draw
    layer.eval()
    torch.testing.assert_close(
        layer(batch, rng), dense(replace(batch, values=normalized(batch))) @ layer.weight + layer.bias
    )


def test_rows_get_unit_norm_and_empty_ones_stay_empty():
    batch = batch_of([[3, 4, 0], [0, 0, 0], [0, 0, 2]])
    torch.testing.assert_close(
        dense(replace(batch, values=normalized(batch)), 3), torch.tensor([[0.6, 0.8, 0], [0, 0, 0], [0, 0, 1]])
    )


def test_dropout_hides_events_and_keeps_the_mean():
    batch = batch_of(np.ones((100, 200)))
    dropped = dropout(batch.values, 0.3, batch, noise(100))
    assert (dropped == 0).float().mean() == pytest.approx(0.3, abs=0.02)
    assert dropped.mean() == pytest.approx(1, abs=0.02)
    assert dropped.max() == pytest.approx(1 / 0.7)


def test_the_encoder_drops_only_in_training_and_only_its_input():
    encoder = nn.GaussianEncoder(13, (6,), 4, dropout=0.5)
    initialize(encoder, 0)
    batch = random_batch()
    one, two = (encoder(batch, noise(key=seed)).mean for seed in (1, 2))
    assert not torch.equal(one, two)
    encoder.eval()
    one, two = (encoder(batch, noise(key=seed)).mean for seed in (1, 2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("hidden_dims", [(), (6,), (8, 6)])
def test_latent_dim_is_the_dimension_of_z(hidden_dims):
    batch = random_batch()
    for kind in (nn.GaussianEncoder, nn.CodeEncoder):
        encoder = kind(13, hidden_dims, 4, dropout=0)
        initialize(encoder, 0)
        posterior = encoder(batch, noise())
        assert posterior.mean.shape == posterior.sample(noise()).shape == (7, 4)


def test_gated_layers_by_hand():
    decoder = nn.MLPDecoder(4, (6,), 13, gated=True)
    initialize(decoder, 0)
    (layer,), z = decoder.hidden, torch.randn(7, 4)
    W, V, b, c = layer.weight[:6], layer.weight[6:], layer.bias[:6], layer.bias[6:]
    torch.testing.assert_close(decoder(z), (z @ W.T + b) * torch.sigmoid(z @ V.T + c))


@pytest.mark.parametrize("hidden_dims", [(), (6,)])
def test_cosine_logits(hidden_dims):
    decoder, plain = nn.MLPDecoder(4, hidden_dims, 13, temperature=0.2), nn.MLPDecoder(4, hidden_dims, 13)
    initialize(decoder, 0)
    plain.hidden, plain.weight = decoder.hidden, decoder.weight
    z, batch = torch.randn(7, 4), random_batch()
    expected = F.cosine_similarity(plain(z)[:, None], decoder.weight, dim=2) / 0.2 + decoder.bias  # (B, I)
    torch.testing.assert_close(decoder.logits(decoder(z)), expected)
    log_p = F.log_softmax(expected, dim=1)
    wanted = torch.autograd.grad(-(dense(batch) * log_p).sum(1).mean(), list(decoder.parameters()))
    loss = nn.nll(decoder(z), *decoder.output, batch).mean()
    for one, other in zip(torch.autograd.grad(loss, list(decoder.parameters())), wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_initialisation_leaves_the_global_generator_alone():
    state = torch.random.get_rng_state()
    initialize(nn.GaussianEncoder(13, (6,), 4, dropout=0), 0)
    initialize(nn.MLPDecoder(4, (6,), 13), 0)
    assert torch.equal(torch.random.get_rng_state(), state)


# the ELBO ------------------------------------------------------------------------------------------------------------


def test_the_elbo_of_a_case_done_by_hand():
    """One user, two items, K = 1: mu = 1, sigma = 1, z = 1 + eps, logits (z, 0), x = (1, 0)."""

    class Encoder(torch.nn.Module):
        def forward(self, batch, rng=None):
            return nn.Gaussian(torch.tensor([[1.0]]), torch.tensor([[0.0]]))

    decoder = nn.MLPDecoder(1, (), 2)
    decoder.weight.data = torch.tensor([[1.0], [0.0]])
    decoder.bias.data = torch.zeros(2)
    network = nn.VAE(Encoder(), decoder, nn.nll, nn.StandardNormal())
    eps = noise(1, 5).normal(1).item()
    terms = network(batch_of([[1, 0]]), noise(1, 5))
    assert terms.nll.item() == pytest.approx(math.log(1 + math.exp(-(1 + eps))), rel=1e-5)
    assert terms.kl.item() == pytest.approx(0.5)  # (mu^2 + sigma^2 - 1 - log sigma^2) / 2
    assert terms.loss(0.2).item() == pytest.approx(terms.nll.item() + 0.1, rel=1e-5)


def test_scores_are_the_logits_at_the_mean_without_noise():
    network = nn.VAE(nn.GaussianEncoder(13, (6,), 4, 0.5), nn.MLPDecoder(4, (6,), 13), nn.nll, None).eval()
    initialize(network, 0)
    batch = random_batch()
    mean = network.encoder(batch).mean
    torch.testing.assert_close(network.scores(batch), network.decoder.logits(network.decoder(mean)))
    assert torch.equal(network.scores(batch), network.scores(batch))


# schedules -----------------------------------------------------------------------------------------------------------


def test_linear_climbs_to_the_cap_and_never_beyond():
    betas = [nn.linear_schedule(step / 100, 0.2, 0.5) for step in range(101)]
    assert betas[0] == 0
    assert betas[25] == pytest.approx(0.1)
    assert set(betas[50:]) == {0.2}
    assert max(betas) == 0.2


def test_constant_and_cyclical():
    assert {nn.constant_schedule(step / 10, 0.2, 0.5) for step in range(11)} == {0.2}
    betas = [nn.cyclical_schedule(step / 400, 0.2, 0.5) for step in range(401)]
    assert betas[0] == betas[100] == betas[200] == betas[300] == 0
    assert betas[25] == pytest.approx(0.1)
    assert betas[50] == betas[99] == betas[399] == betas[400] == 0.2
