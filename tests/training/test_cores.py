"""One seed gives the same weights on any number of cores, and in pieces the gradients of the whole batch."""

import logging
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from recvae import EASE, HVamp, HybridVAE, MultDAE, MultVAE, OutputOptions, RecVAE, TrainingOptions
from recvae.data.batches import DeviceRows
from recvae.nn import vae
from recvae.nn.encoders import Gaussian
from recvae.nn.layers import InputLayer
from recvae.nn.rng import CounterRNG, initialize
from recvae.utils import workers
from recvae.utils.workers import CoreTuner, Workers

SMALL = {"epochs": 2, "batch_size": 200, "random_state": 3}  # two pieces of a batch
MODELS = {
    "MultVAE": MultVAE(latent_dim=8, hidden_dims=(16,), **SMALL),
    "MultDAE": MultDAE(latent_dim=8, hidden_dims=(16,), **SMALL),
    "RecVAE": RecVAE(latent_dim=8, hidden_dim=16, **SMALL),
    "HVamp": HVamp(latent_dim=8, hidden_dims=(16,), n_components=5, **SMALL),
    "HybridVAE": HybridVAE(latent_dim=8, hidden_dim=16, **SMALL),
    "cosine": MultVAE(latent_dim=8, hidden_dims=(16,), output=OutputOptions(logits="cosine"), **SMALL),
    "sampled": MultVAE(
        latent_dim=8, hidden_dims=(16,), training=TrainingOptions(impl="sampled", num_negatives=100), **SMALL
    ),
    "bfloat16": MultVAE(latent_dim=8, hidden_dims=(16,), training=TrainingOptions(precision="bfloat16"), **SMALL),
    "logistic": MultVAE(latent_dim=8, hidden_dims=(16,), likelihood="logistic", **SMALL),
    "EASE": EASE(),
}


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    return sparse.csr_matrix((random.random((400, 1100)) < 0.02).astype(np.float32))  # two blocks of items


@pytest.fixture
def on_cores(monkeypatch):
    """Fits and rankings on a number of cores, or on a number that changes all the time, as next to a neighbour."""

    def choose(cores):
        monkeypatch.setattr(workers, "usable_cores", lambda: (2 if cores == "changing" else cores, "for a test"))
        if cores == "changing":
            turns = iter(range(10**9))
            monkeypatch.setattr(CoreTuner, "count", property(lambda _: 1 + next(turns) % 2))

    return choose


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_and_lists_are_the_same_on_any_number_of_cores(name, rows, on_cores):
    results = []
    for cores in (1, 2, 3, "changing"):
        on_cores(cores)
        model = type(MODELS[name])(**MODELS[name].get_params(deep=False)).fit(rows, show_progress=False)
        tensors = model._tensors()
        ids, scores = model.recommend(np.arange(400), rows, N=10)
        results.append((tensors, ids, scores))
    expected, *others = results
    for tensors, ids, scores in others:
        for key, tensor in expected[0].items():
            assert torch.equal(tensor, tensors[key]), key
        np.testing.assert_array_equal(ids, expected[1])
        np.testing.assert_array_equal(scores, expected[2])


@pytest.mark.parametrize("name", ["MultVAE", "RecVAE", "HVamp"])
def test_in_pieces_a_batch_has_the_gradients_of_the_whole(name, rows, monkeypatch):
    found = []
    for least in (10, 10_000):  # pieces of a batch, or none
        monkeypatch.setattr(vae, "USERS", least)
        trainer = MODELS[name].trainer(rows)
        network, source = trainer.network.double(), DeviceRows(rows, torch.device("cpu"))
        trainer.start_epoch(source)
        batch = source.all()
        with Workers(2):
            elbo = network(batch, CounterRNG.for_batch(5, batch))
            elbo.loss(0.3).backward()
        found.append({key: p.grad for key, p in network.named_parameters()} | {"nll": elbo.nll, "kl": elbo.kl})
    for key, one in found[0].items():
        torch.testing.assert_close(one, found[1][key], rtol=1e-9, atol=1e-12, msg=key)


class Shared(nn.Module):
    """Layers after the first one whose parameters autograd gives one tensor, or an expanded one."""

    def __init__(self):
        super().__init__()
        self.bag = InputLayer(1100, 8, None)
        self.shared, self.own, self.shift = (nn.Parameter(torch.randn(*size)) for size in ((8, 8), (8, 8), (8,)))

    def forward(self, batch, rng=None):
        return self.posterior(self.bag(batch, rng))

    def posterior(self, h, rng=None):
        h = torch.nn.functional.linear(h, self.shared + self.own) + self.shift.sum()
        return Gaussian(h, torch.zeros_like(h))


def test_parameters_that_are_summed_have_the_gradients_of_the_whole(rows, monkeypatch):
    found = []
    for least in (10, 10_000):
        monkeypatch.setattr(vae, "USERS", least)
        network = MODELS["MultVAE"].trainer(rows).network
        torch.manual_seed(0)
        network.encoder = Shared()
        initialize(network, 0, only_missing=True)
        batch = DeviceRows(rows, torch.device("cpu")).all()
        with Workers(2):
            network(batch, CounterRNG.for_batch(5, batch)).loss(0.3).backward()
        found.append({key: p.grad for key, p in network.named_parameters()})
    for key, one in found[0].items():
        torch.testing.assert_close(one, found[1][key], rtol=1e-4, atol=1e-5, msg=key)


def test_a_second_backward_pass_adds_the_same_gradients(rows):
    network = MODELS["MultVAE"].trainer(rows).network
    batch = DeviceRows(rows, torch.device("cpu")).all()
    loss = network(batch, CounterRNG.for_batch(5, batch)).loss(0.3)
    loss.backward(retain_graph=True)
    once = {key: p.grad.clone() for key, p in network.named_parameters()}
    loss.backward()
    for key, p in network.named_parameters():
        torch.testing.assert_close(p.grad, 2 * once[key], msg=key)


@pytest.mark.parametrize("fails", [False, True])
def test_a_fit_leaves_threads_as_it_found_them_also_with_others_next_to_it(rows, fails, monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        threads, running = threading.active_count(), threading.Event()
        other = threading.Thread(target=MODELS["MultDAE"].fit, args=(rows,), kwargs={"show_progress": False})

        def callback(epoch):
            if not running.is_set():
                other.start()
                running.set()
            if fails:
                raise OSError("full")

        model = MultVAE(latent_dim=8, hidden_dims=(16,), **SMALL)
        if fails:
            with pytest.raises(OSError, match="full"):
                model.fit(rows, show_progress=False, callbacks=[callback])
        else:
            model.fit(rows, show_progress=False, callbacks=[callback])
        other.join()
        assert torch.get_num_threads() == 2
        assert threading.active_count() == threads
        seen = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert seen == [2]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["MultVAE", "HybridVAE"])
def test_the_log_says_once_how_many_cores_were_used(name, rows, caplog, monkeypatch, two_threads):
    # as `usable_cores` on a machine with two: within a fit, torch has one thread
    monkeypatch.setattr(workers, "usable_cores", lambda: (torch.get_num_threads(), "for a test"))
    with caplog.at_level(logging.INFO, logger="recvae"):
        MODELS[name].fit(rows, show_progress=False)
    lines = [record.getMessage() for record in caplog.records if "cores" in record.getMessage()]
    assert lines == [f"{name}: 2 of 2 cores are used: for a test"]


@pytest.mark.parametrize("name", ["MultVAE", "HybridVAE"])
def test_the_steps_of_a_fit_choose_the_number_of_its_cores(name, rows, on_cores, monkeypatch):
    on_cores(2)
    counts = []

    def record(self, seconds):
        assert workers._current.get().tuner is self
        self.index = 0  # as if one core were faster
        counts.append(self.count)

    monkeypatch.setattr(CoreTuner, "record", record)
    MODELS[name].fit(rows, show_progress=False)
    assert counts
    assert set(counts) == {1}


def test_training_does_not_import_the_compiler_of_torch():
    code = (
        "import sys, recvae; rows = recvae.load_dataset('sample').matrix[:300]; "  # two pieces of a batch
        "recvae.MultVAE(epochs=1, latent_dim=4, hidden_dims=(8,), batch_size=300).fit(rows, show_progress=False); "
        "assert not {'torch._dynamo', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
