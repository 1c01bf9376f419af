"""What several test files share: small data whose answers are known."""

import copy
import functools
import json
import os
import pickle
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from scipy import sparse

import recvae
import recvae.models
from recvae.benchmark import inspection, run
from recvae.benchmark.results import json_bytes
from recvae.benchmark.run import run_benchmark
from recvae.datasets import load
from recvae.datasets.sample import make_sample

# tests walk the registry of models, in which a model is once its module has been loaded
recvae.models.all_models()
# workers share the cores; more threads than cores only slow each other down
torch.set_num_threads(1)
# a busy machine is no failure
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_collection_modifyitems(items):
    """Files of long tests come first: at the end, workers have short ones to take from each other."""
    long = ("test_ray.py", "test_fuzz.py", "test_examples.py", "test_docs.py", "test_readme.py")
    items.sort(key=lambda item: item.path.name not in long)


@pytest.fixture(scope="session", autouse=True)
def sample_drawn_once():
    """The data set "sample" is drawn once; each who loads it gets a copy."""
    drawn = functools.cache(make_sample)
    with pytest.MonkeyPatch.context() as patch:
        for module in (run, load):
            patch.setattr(module, "make_sample", lambda: copy.deepcopy(drawn()))
        yield


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """-> a function (name, make): what `make` gives, made by the first worker that asks, and read by the others."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    def get(name, make):
        file = folder / f"{name}.pickle"
        if file.exists():
            return pickle.loads(file.read_bytes())
        made = make()
        part = folder / f"{name}.{os.getpid()}"
        part.write_bytes(pickle.dumps(made))
        part.replace(file)
        return made

    return get


@pytest.fixture(scope="session")
def checkerboard() -> sparse.csr_matrix:
    """50 x 50: user u likes the items of u's parity except u itself, which is therefore what to recommend."""
    same_parity = (np.arange(50)[:, None] + np.arange(50)) % 2 == 0
    return sparse.csr_matrix((same_parity & ~np.eye(50, dtype=bool)).astype(np.float32))


@pytest.fixture(scope="session")
def split() -> recvae.Split:
    """A split of a small embedded sample."""
    return recvae.strong_split(make_sample(n_users=400, n_items=80).interactions, heldout_users=60)


@pytest.fixture(scope="session")
def data_home() -> Path:
    """The folder of real data sets, where RECVAE_DATA names one."""
    home = os.environ.get("RECVAE_DATA")
    if not home or not Path(home).is_dir():
        pytest.skip("needs real data: set RECVAE_DATA to a folder of data sets")
    return Path(home)


@pytest.fixture(scope="session")
def results(once) -> dict:
    """What a benchmark of the embedded sample gives: few epochs, small models, a small map."""
    small = {"epochs": "3", "latent_dim": "8", "hidden_dims": "16", "l2": "300"}
    models = ["MultVAE", "MultDAE", "EASE", "Popularity"]

    def run_it():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(inspection, "MAPPED", 120)
            return run_benchmark(models=models, params=small, show_progress=False)

    found = once("results", run_it)
    return json.loads(json_bytes(found | {"command": "recvae benchmark --report 'a folder'"}))


def train_briefly(patch, epochs, n_users, n_items):
    """No fit has more than these epochs, and the data set "sample" this size. `patch`: a MonkeyPatch."""
    sample = functools.cache(lambda: make_sample(n_users, n_items))
    fit = recvae.Recommender.fit

    def fit_briefly(self, *arguments, **options):
        if hasattr(self, "epochs"):
            self.epochs = min(self.epochs or epochs, epochs)  # None is a default
        return fit(self, *arguments, **options)

    patch.setattr(recvae.Recommender, "fit", fit_briefly)
    for module in (run, load):
        patch.setattr(module, "make_sample", lambda: copy.deepcopy(sample()))


@pytest.fixture
def briefly(monkeypatch, tmp_path):
    """One epoch instead of many and half as many users, in an empty folder."""
    train_briefly(monkeypatch, epochs=1, n_users=1500, n_items=600)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def two_threads():
    """torch computes in two threads within the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
