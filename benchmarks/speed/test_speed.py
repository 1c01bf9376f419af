"""Timed pieces of the engine, by size and precision: `python -m pytest benchmarks -n 0` (pytest-benchmark)."""

import itertools

import pytest

from benchmarks.speed.engines import ENGINES, ranking, training
from benchmarks.speed.gpu import run_gpu
from benchmarks.speed.synthetic import synthetic
from recvae import Interactions, MultVAE, evaluate, strong_split

SIZES = {"small": (4_000, 2_000, 200_000), "medium": (8_000, 20_000, 500_000)}


@pytest.fixture(scope="module", params=SIZES)
def matrix(request):
    return synthetic(*SIZES[request.param])


@pytest.mark.parametrize(("engine", "batch"), [*itertools.product(ENGINES, [500, 2000])])
def test_step(benchmark, matrix, engine, batch):
    with training(matrix, engine, batch) as step:
        benchmark.pedantic(step, rounds=5, warmup_rounds=2)


@pytest.mark.parametrize("engine", ["float32", "bfloat16"])
def test_epoch(benchmark, matrix, engine):
    with training(matrix, engine, 500) as step:
        benchmark.pedantic(lambda: [step() for _ in range(matrix.shape[0] // 500)], rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("engine", ["recvae", "als"])
def test_ranking(benchmark, matrix, engine):
    benchmark.pedantic(ranking(matrix, engine, n_users=2000), rounds=5, warmup_rounds=1)


def test_evaluation(benchmark, matrix):
    split = strong_split(Interactions.from_matrix(matrix), heldout_users=1000)
    model = MultVAE(random_state=0, epochs=1).fit(split.train, show_progress=False)
    benchmark.pedantic(lambda: evaluate(model, split.test), rounds=5, warmup_rounds=1)


def test_the_gpu_suite_runs_and_knows_its_bound():
    results = run_gpu(batches=(50,), shape=(300, 400, 6000), steps=2, device="cpu")
    (case,) = results["cases"]
    assert 0 < case["share"] < 3  # steps and bound are measured one after the other, and others may come and go
    assert case["users_per_second"] > 0
