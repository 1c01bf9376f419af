import copy
from functools import partial

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae import nn
from recvae.data.batches import DeviceRows, Negatives
from recvae.distributed.communicator import SINGLE_PROCESS, Communicator
from recvae.errors import InvalidParameterError
from recvae.nn.layers import reuse_workspace
from recvae.nn.optim import clip_grad_norm_
from recvae.nn.rng import CounterRNG, initialize
from recvae.nn.sharded import full_state_dict, initialize_sharded, shard, sharded_parameters
from recvae.nn.slices import ItemSlice
from tests.distributed.ranks import run_ranks

N_ITEMS, N_USERS, K = 13, 9, 3
SIZES = (2, 4)


def gaussian(likelihood):
    encoder = nn.GaussianEncoder(N_ITEMS, (6,), K, dropout=0.5)
    return nn.VAE(encoder, nn.MLPDecoder(K, (6,), N_ITEMS), likelihood, nn.StandardNormal())


def cosine(likelihood):
    encoder = nn.GaussianEncoder(N_ITEMS, (6, 5), K, dropout=0.5)
    return nn.VAE(encoder, nn.MLPDecoder(K, (6,), N_ITEMS, temperature=0.1), likelihood, nn.VampPrior(4, 6))


def code(likelihood):
    return nn.VAE(nn.CodeEncoder(N_ITEMS, (6,), K, 0.5), nn.MLPDecoder(K, (6,), N_ITEMS), likelihood, None)


def densely_connected(likelihood):
    encoder = nn.DenselyConnectedEncoder(N_ITEMS, 6, 3, K, dropout=0.5)
    return nn.VAE(encoder, nn.MLPDecoder(K, (), N_ITEMS), likelihood, nn.Composite(), kl_by_events=True)


def gated(likelihood):
    encoder = nn.GatedTwoLevelEncoder(N_ITEMS, (6,), K, dropout=0.5)
    prior = nn.TwoLevelPrior(nn.VampPrior(4, 12), K, 6)
    return nn.VAE(encoder, nn.MLPDecoder(2 * K, (6,), N_ITEMS, gated=True), likelihood, prior)


def tied(likelihood):
    made = gaussian(likelihood)
    made.decoder.weight = made.encoder.bag.weight
    return made


NETWORKS = (gaussian, cosine, code, densely_connected, gated, tied)


def rows():
    counts = np.random.default_rng(0).poisson(0.7, (N_USERS, N_ITEMS)).astype(np.float32)
    counts[:3] *= [[0.0], [1.0], [1.0]]  # a user without events
    counts[1, 4:], counts[2, :9] = 0, 0  # and some without any among a rank's items
    counts[1, 0], counts[2, 12] = 1, 3
    return DeviceRows(sparse.csr_matrix(counts[1:]), torch.device("cpu"))


def network(make, likelihood="multinomial", dtype=torch.float64, **options):
    options = {"chunk_bytes": 3 * 8 * 7, "precision": "float32"} | options  # some chunks of a few users
    made = make(partial(nn.nll, family=likelihood, options=nn.Options(**options)))
    initialize(made, seed=1)
    with torch.no_grad():
        made.decoder.weight.mul_(8)
    made.to(dtype)
    if make is tied:
        assert made.decoder.weight is made.encoder.bag.weight
    return made.train()


def step(net, weigh=None):
    """A step's value, gradients by name, and their clipped norm."""
    net.zero_grad()
    batch = rows().all()
    if net.prior is not None:
        net.prior.update(net.encoder, rows())
        net.train()
    terms = net(batch, CounterRNG(7, batch.users))
    loss = terms.loss(0.3) if weigh is None else ((terms.nll + terms.kl) * weigh).sum()
    loss.backward()
    return torch.cat([terms.nll, terms.kl]).detach(), {name: each.grad for name, each in net.named_parameters()}


def off(found, expected):
    """The largest difference between two steps, relative to the largest number; `found` has slices."""
    cut = sharded_parameters(found[2])
    value = (found[0] - expected[0]).abs().max() / expected[0].abs().max()
    gradients = []
    for name, grad in found[1].items():
        whole = expected[1][name]
        here = whole[cut[name].start : cut[name].stop] if name in cut else whole
        grad = grad.to_dense()
        assert grad.shape == here.shape
        gradients.append((grad - here.to_dense()).abs().max() / whole.abs().max().clamp(min=1))
    return float(max(value, *gradients))


def compared(communicator, make, weigh=None, **options):
    whole = network(make, **options)
    expected = step(whole, weigh)
    cut = shard(network(make, **options), communicator)
    return off((*step(cut, weigh), cut), expected)


def scored(communicator, make):
    whole, cut = network(make).eval(), shard(network(make), communicator).eval()
    with torch.no_grad():
        return float((cut.scores(rows().all()) - whole.scores(rows().all())).abs().max())


def clipped(communicator):
    whole, cut = network(gaussian), shard(network(gaussian), communicator)
    expected, found = step(whole), step(cut)
    norms = (
        clip_grad_norm_(whole.parameters(), 0.1),
        clip_grad_norm_(
            cut.parameters(), 0.1, [cut.get_parameter(name) for name in sharded_parameters(cut)], communicator
        ),
    )
    assert norms[0] > 0.1
    return float((norms[0] - norms[1]).abs()), off((*found, cut), expected)


def rounded(communicator):
    """Of bfloat16 on slices against float32: relative error of the values, and of the weight's gradient."""
    whole, cut = network(gaussian, dtype=torch.float32), None
    cut = shard(network(gaussian, dtype=torch.float32, precision="bfloat16"), communicator)
    with reuse_workspace() as memory:
        memory.begin_step()
        (value, gradients), (found, own) = step(whole), step(cut)
    here = sharded_parameters(cut)["decoder.weight"]
    weight = gradients["decoder.weight"][here.start : here.stop]
    return [float((a - b).norm() / b.norm()) for a, b in ((found, value), (own["decoder.weight"], weight))]


def began(communicator):
    """Slices begun by themselves from the meta device are those of the whole."""
    with torch.device("meta"):
        cut = gaussian(nn.nll)
    cut = shard(cut, communicator).to_empty(device="cpu")
    initialize_sharded(cut, 1)
    return full_state_dict(cut)


def kept(communicator, make):
    whole, cut = network(make), shard(network(make), communicator)
    gathered = full_state_dict(cut)
    assert gathered.keys() == whole.state_dict().keys()
    return all(torch.equal(gathered[name], each) for name, each in whole.state_dict().items())


def refused(communicator):
    sentences = []
    batch = rows().all()
    negatives = Negatives(torch.arange(3), torch.ones(3))
    cut = shard(network(gaussian), communicator)
    for options in ({"impl": "reference"}, {"impl": "sampled"}, {}):
        each = batch if options else copy.copy(batch)
        if not options:
            object.__setattr__(each, "negatives", negatives)
        try:
            cut.likelihood(torch.zeros(8, 6), *cut.decoder.output, each, **options)
        except InvalidParameterError as error:
            sentences.append(str(error))
    try:
        ItemSlice(communicator, communicator.size - 1)
    except InvalidParameterError as error:
        sentences.append(str(error))
    return sentences


def everything(communicator):
    found = {}
    weigh = torch.arange(1.0, 9).double()  # each user another
    for make in NETWORKS if communicator.size == 2 else (gaussian, tied):  # four take their time
        found[make.__name__] = compared(communicator, make)
        found[f"{make.__name__} weighed"] = compared(communicator, make, weigh)
        found[f"{make.__name__} scored"] = scored(communicator, make)
        found[f"{make.__name__} kept"] = 0.0 if kept(communicator, make) else 1.0
    for likelihood in nn.FAMILIES:
        found[f"{likelihood} of one chunk"] = compared(
            communicator, gaussian, likelihood=likelihood, chunk_bytes=1 << 20
        )
        found[likelihood] = compared(communicator, gaussian, likelihood=likelihood)
    found["norm"], found["clipped"] = clipped(communicator)
    return {
        "exact": found,
        "rounded": rounded(communicator),
        "refused": refused(communicator),
        "began": began(communicator),
    }


@pytest.fixture(scope="module", params=SIZES)
def ranks(request, tmp_path_factory):
    found = run_ranks(everything, request.param, tmp_path_factory.mktemp("sharded"))
    assert all(isinstance(each, dict) for each in found), found
    return found


def test_slices_give_the_values_gradients_and_scores_of_the_whole(ranks):
    for found in ranks:
        assert {name: each for name, each in found["exact"].items() if not each < 1e-12} == {}


def test_slices_can_be_computed_in_bfloat16(ranks):
    for value, gradient in (found["rounded"] for found in ranks):
        assert 0 < value < 0.01
        assert 0 < gradient < 0.03


def test_slices_begin_as_those_of_the_whole(ranks):
    whole = gaussian(nn.nll)
    initialize(whole, seed=1)
    assert all(torch.equal(ranks[0]["began"][name], each) for name, each in whole.state_dict().items())


def test_what_slices_cannot_do_is_said(ranks):
    size = len(ranks)
    expected = 'Expected impl="chunked" where ranks have slices of the items, got impl='
    for found in ranks:
        reference, sampled, auto, few = found["refused"]
        assert reference.startswith(f"{expected}'reference';")
        assert sampled.startswith(f"{expected}'sampled';")
        assert auto.startswith(f"{expected}'auto' and a batch with negatives;")
        assert few == f"Expected an item for each rank at least, got {size - 1} items on {size} ranks; start fewer."


def test_alone_a_slice_is_all_items():
    for make in NETWORKS:
        assert compared(SINGLE_PROCESS, make) < 1e-12
        assert scored(SINGLE_PROCESS, make) < 1e-12
        assert kept(SINGLE_PROCESS, make)
    assert sharded_parameters(network(gaussian)) == {}


@pytest.mark.parametrize("n_items", [5, 13, 100])
def test_slices_are_all_items_once(n_items):
    parts = [ItemSlice(Communicator(rank, 5), n_items) for rank in range(5)]
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert (parts[0].start, parts[-1].stop) == (0, n_items)
    assert max(part.stop - part.start for part in parts) == parts[0].max_size
