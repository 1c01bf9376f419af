"""One model trained by several processes, data parallel and tensor parallel: the same as by one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from recvae import Checkpoint, HVamp, Interactions, MultDAE, MultVAE, RecVAE, load, strong_split
from recvae.cli.main import main
from recvae.models.base.params import with_params
from recvae.training.callbacks import Callback
from recvae.training.parallel import STRATEGIES
from tests.distributed.ranks import run_ranks

SMALL = {"epochs": 3, "batch_size": 30, "random_state": 0, "training__precision": "float32"}


def in_float64(kind):
    """The same model with weights in float64."""

    class Precise(kind):
        def _untrained(self, n_items, seed):
            return super()._untrained(n_items, seed).double()

    return Precise


SAMPLED = {"training__impl": "sampled", "training__num_negatives": 12}
# what -> model, settings
CASES = {
    "chunked": (MultVAE, {"hidden_dims": (8,), "latent_dim": 4, "training__averaging": 1.0}),
    "reference": (MultVAE, {"hidden_dims": (8,), "latent_dim": 4, "training__impl": "reference"}),
    "clipped": (
        MultVAE,
        {"hidden_dims": (8,), "latent_dim": 4, "training__max_grad_norm": 0.5, "output__item_biases": "popularity"},
    ),
    "deterministic": (MultDAE, {"latent_dim": 4}),
    "phases": (RecVAE, {"hidden_dim": 8, "depth": 2, "latent_dim": 4}),
    "two levels": (HVamp, {"hidden_dims": (8,), "latent_dim": 3, "n_components": 4}),
    "logistic": (MultVAE, {"hidden_dims": (8,), "latent_dim": 4, "likelihood": "logistic"}),
    "sampled": (MultVAE, {"hidden_dims": (8,), "latent_dim": 4, **SAMPLED}),
    "in-batch": (
        MultVAE,
        {"hidden_dims": (8,), "latent_dim": 4, "training__sampler": "in-batch", **SAMPLED},
    ),
    "tied": (MultVAE, {"hidden_dims": (8,), "latent_dim": 4, "output__tied_embeddings": True}),
}
TENSOR_PARALLEL = ("chunked", "clipped", "deterministic", "phases", "two levels", "logistic", "tied")


def data():
    """A last batch of one user, so that of two ranks one has none."""
    rows = sparse.random(271, 40, 0.15, format="csr", random_state=1, dtype=np.float32)
    rows.data[:] = 1
    return strong_split(Interactions.from_matrix(rows), heldout_users=60)


def fit(name, split, **options):
    kind, settings = CASES[name]
    options = {"valid": split.valid, "show_progress": False} | options
    settings = SMALL | settings | {"training__parallel": options.pop("parallel", "data")}
    model = with_params(in_float64(kind)(), settings)
    return model.fit(split.train, **options)


def found(model):
    weights = torch.cat([parameter.detach().flatten() for parameter in model.network_.parameters()])
    return weights.numpy(), [(epoch.loss, epoch.kl, epoch.valid) for epoch in model.history_]


class StopError(Exception):
    pass


class StopAt(Callback):
    def on_step_end(self, epoch, step):
        if (epoch, step) == (2, 3):
            raise StopError


def all_cases(communicator):
    """On each rank."""
    split = data()
    results = {name: found(fit(name, split)) for name in CASES}
    results |= {f"{name} tensor parallel": found(fit(name, split, parallel="tensor")) for name in TENSOR_PARALLEL}
    return results


@pytest.fixture(scope="module")
def alone():
    split = data()
    return {name: found(fit(name, split)) for name in CASES}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    return run_ranks(all_cases, 2, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", [*CASES, *(f"{name} tensor parallel" for name in TENSOR_PARALLEL)])
def test_two_ranks_give_the_model_of_one(name, alone, together):
    weights, history = alone[name.removesuffix(" tensor parallel")]
    for rank in together:
        assert isinstance(rank, dict), rank
        np.testing.assert_allclose(rank[name][0], weights, rtol=0, atol=1e-9)
        np.testing.assert_allclose(rank[name][1], history, rtol=1e-6)


def stopped(communicator, place):
    fit("chunked", data(), checkpoint=Checkpoint(place, minutes=0), callbacks=[StopAt()])


def gone_on(communicator, place):
    """From copies of one folder: each run leaves its own end there."""
    split = data()
    return {
        parallel: found(fit("chunked", split, parallel=parallel, checkpoint=place / parallel))
        for parallel in STRATEGIES
    }


def disagreeing(communicator):
    split = data()
    try:
        with_params(MultVAE(), SMALL | {"epochs": 1 + communicator.rank}).fit(split.train, False)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def test_a_run_goes_on_with_another_number_of_ranks(alone, tmp_path):
    """Stopped on three, resumed on two, data parallel or tensor parallel."""
    said = run_ranks(stopped, 3, tmp_path, place=tmp_path / "data")
    assert "StopError" in said[0]
    assert all("lost another rank" in each and "rank 0" in each for each in said[1:])
    (state,) = (tmp_path / "data" / "network").glob("step-*")
    assert state.name.startswith("step-00001-")
    shutil.copytree(tmp_path / "data", tmp_path / "tensor")
    (tmp_path / "again").mkdir()
    rest = run_ranks(gone_on, 2, tmp_path / "again", place=tmp_path)
    for rank in rest:
        assert isinstance(rank, dict), rank
        for weights, history in rank.values():
            np.testing.assert_allclose(weights, alone["chunked"][0], rtol=0, atol=1e-9)
            np.testing.assert_allclose(history, alone["chunked"][1], rtol=1e-6)


def test_ranks_with_other_options_say_so(tmp_path):
    for said in run_ranks(disagreeing, 2, tmp_path):
        assert "Expected the same parameters on all ranks" in said
        assert "on rank 1" in said


def test_the_command_under_torchrun_writes_the_model_of_one(tmp_path):
    options = ["train", "--dataset", "sample", "--param", "epochs=2", "--param", "training__precision=float32"]
    options += ["--heldout-users", "400", "--param", "random_state=1", "--param", "hidden_dims=100"]
    alone, together = tmp_path / "alone.recvae", tmp_path / "together.recvae"
    assert main([*options, "--out", str(alone)]) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "recvae", *options, "--out", str(together)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Data parallel training by 2 processes on cpu" in done.stderr
    assert done.stderr.count("values are read as") == 1  # one of them speaks
    pairs = zip(load(alone).network_.parameters(), load(together).network_.parameters(), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
