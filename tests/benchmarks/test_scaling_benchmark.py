"""What a training step costs on paper, by hand on tiny cases and beside what is there; and that it can be measured."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.pages.tables import RESULTS
from benchmarks.scale import scaling
from benchmarks.scale.scaling import measured, points, run_scaling
from benchmarks.scale.scaling.case import run, zipf
from benchmarks.scale.scaling.check import fit, foretold
from benchmarks.scale.scaling.costs import ADAM, Counts, Machine, Shape, distinct, memory, rows_of_a_rank, step, total
from benchmarks.scale.scaling.simulation import GB, GPU_BYTES, MODES, simulated, widest
from benchmarks.scale.scaling.tables import check_table, laws_table, model_table, rates_table
from recvae import MultVAE, TrainingConfig
from recvae.distributed.communicator import SINGLE_PROCESS

TINY = Shape(users=8, items=20, length=3, batch=4, hidden=2, latent=1, skew=0)  # 12 events, of which 6 are kept
SAID = ("model_seconds", "model_own_seconds", "model_mib")
TABLES = 20 * 2 + 20 * 2 + 20
MIDDLE = 2 + (2 * 2 + 2) + (1 * 2 + 2)  # biases of the first layer; hidden -> mean and variance; latent -> hidden
PADDED = 32  # columns of the output layer in bfloat16


def test_parameters_are_those_of_the_network():
    network = MultVAE(hidden_dims=(2,), latent_dim=1)._built(20)
    assert TINY.tables + TINY.middle == TABLES + MIDDLE == sum(p.numel() for p in network.parameters())


def test_an_exact_step_of_one_rank_by_hand():
    parts = step(TINY)
    assert parts["first layer"] == Counts(wide=2 * 2 * 6 * 2, scattered=2 * 6 * 8, streamed=20 * 8)
    output = parts["output layer"]
    assert output.narrow == 3 * 2 * 4 * 20 * PADDED
    per_block = 20 * (2 * 2 * PADDED + 2 * 4 * 2)
    assert output.streamed == 20 * (4 * 2 + 2 * PADDED) + per_block + 8 * 2 * 4 * 20
    assert parts["optimizer"].streamed == ADAM * (TABLES + MIDDLE)
    assert parts["exchange"] == Counts()
    two_users_at_a_time = Shape(**vars(TINY) | {"block_bytes": 2 * 20 * 2})
    assert step(two_users_at_a_time)["output layer"].streamed == output.streamed + per_block


def test_what_ranks_exchange_by_hand():
    by_users = step(Shape(**vars(TINY) | {"ranks": 4}))["exchange"]
    assert by_users.sent == 2 * 3 / 4 * 4 * (TABLES + MIDDLE)
    by_items = step(Shape(**vars(TINY) | {"ranks": 4, "share": "items"}))["exchange"]
    users = 4
    bags, gradients, tops, sums = users * 2, users * 2, users, users * 3
    assert by_items.sent == 2 * 3 / 4 * 4 * (bags + gradients + tops + sums)
    assert by_items.hops == 2 * 2 * (2 + 2)  # up and down a tree of two levels: bags, gradients, tops, sums
    shape = Shape(**vars(TINY) | {"ranks": 4, "candidates": 5})
    first, last = rows_of_a_rank(shape)
    assert first == pytest.approx(20 * (1 - 0.95 ** round(1.5)))
    assert last == pytest.approx(20 * (1 - 0.95**3 * np.exp(-5 / 20)))
    rows = first * (8 + 8) + last * (8 + 8) + last * (8 + 4)  # places, and rows of the two tables and of the biases
    assert step(shape)["exchange"].sent == pytest.approx(3 * rows + 2 * 3 / 4 * 4 * MIDDLE)


def test_sharing_out_items_shares_out_tables_and_not_what_is_between():
    alone, shared = (step(Shape(**vars(TINY) | {"ranks": ranks, "share": "items"})) for ranks in (1, 4))
    assert shared["output layer"].narrow == alone["output layer"].narrow / 4
    assert shared["between the tables"] == alone["between the tables"]
    assert shared["input"] == alone["input"]
    users = step(Shape(**vars(TINY) | {"ranks": 4}))
    assert users["between the tables"].narrow == alone["between the tables"].narrow / 4
    assert users["optimizer"] == alone["optimizer"]


def test_seconds_are_counts_over_rates():
    machine = Machine(narrow=2, wide=4, streamed=8, scattered=16, events=32, sent=64, hops=128)
    assert machine.seconds(Counts(2, 4, 8, 16, 32, 64, 128, 1e9)) == 7


@pytest.mark.parametrize(("items", "events", "candidates"), [(300, 200, 0), (5000, 20_000, 0), (5000, 2000, 400)])
def test_distinct_items_are_those_of_drawn_data(items, events, candidates):
    random, share = np.random.default_rng(0), (10.0 + np.arange(items)) ** -0.9
    share /= share.sum()
    popular = share**0.75 / (share**0.75).sum()
    found = [
        len(set(random.choice(items, events, p=share)) | set(random.choice(items, candidates, p=popular)))
        for _ in range(20)
    ]
    assert distinct(items, events, candidates) == pytest.approx(np.mean(found), rel=0.02)
    one = distinct(items, 1)
    assert one == pytest.approx(1)


@pytest.mark.parametrize("candidates", [None, 256])
def test_memory_is_about_that_of_the_plan(candidates):
    rows = zipf(2000, 20_000, 30)
    impl = "chunked" if candidates is None else "sampled"
    model = MultVAE(
        hidden_dims=(64,),
        latent_dim=64,
        training=TrainingConfig(impl=impl, num_negatives=candidates or 1, precision="bfloat16"),
    )
    plan = model.plan(rows, calibrate=False)
    shape = Shape(2000, 20_000, rows.nnz / 2000, plan.sizes.batch, 64, 64, candidates)
    found = memory(shape)
    assert found["weights"] == plan.memory.weights
    assert found["optimizer"] == pytest.approx(plan.memory.optimizer, rel=1e-5)
    assert sum(found.values()) == pytest.approx(plan.memory.peak, rel=0.15)


def test_rates_are_found_again_from_times_that_they_made():
    machine = Machine(1e11, 5e10, 1e10, 2e9, 1e7, steps=300)
    made = [
        point | {"events": point["users"] * point["length"], "bfloat16": True, "ranks": 1}
        for point in points(quick=False)
        if point["ranks"] == 1
    ]
    for point in made:
        point["streamed_per_second"] = machine.streamed
        point["cpu_seconds"] = [machine.seconds(total(scaling.check.shape_of(point)))]
    found = fit(made)
    for point in made:
        assert found.seconds(total(scaling.check.shape_of(point))) == pytest.approx(point["cpu_seconds"][0], rel=1e-4)


def test_what_is_recorded_is_what_the_model_says_today():
    recorded = json.loads((RESULTS / "scaling.json").read_text())
    again = foretold(recorded)
    assert again["rates"] == pytest.approx(recorded["rates"])
    for point, before in zip(again["points"], recorded["points"], strict=True):
        if "seconds" in point:
            assert [point[name] for name in SAID] == pytest.approx([before[name] for name in SAID])


def test_a_simulated_step():
    found = simulated("sampled, users shared out", 8)
    assert found.shape.batch == 4000
    assert found.parts["reading"] == pytest.approx(4000 * 100 / 20e6)
    assert found.hours == pytest.approx(found.seconds * 25_000 / 3600)
    assert found.memory["weights"] == pytest.approx(4 * 10e6 * 257, rel=1e-3)
    for mode in MODES:
        shape = simulated(mode, 8).shape
        width = widest(shape)
        sizes = [memory(Shape(**vars(shape) | {"hidden": w, "latent": w}), True, True) for w in (width, width + 32)]
        assert sum(sizes[0].values()) - sizes[0]["rows"] <= GPU_BYTES < sum(sizes[1].values()) - sizes[1]["rows"]
    assert simulated("exact, users shared out", 8).peak > 50 * GB
    assert len(model_table().splitlines()) == 2 + 2 * len(MODES)


def test_a_quick_run_from_end_to_end(monkeypatch):
    some = [scaling.POINTS[n] for n in (0, 5, 12, 18, 19, 20)]
    monkeypatch.setattr(scaling, "POINTS", some)
    apart = scaling.measured
    monkeypatch.setattr(
        scaling, "measured", lambda group: run(group, SINGLE_PROCESS) if group[0]["ranks"] == 1 else apart(group)
    )
    saved = []
    results = run_scaling(True, lambda found: saved.append(len(found["points"])))
    assert saved == [3, 6, 6]
    assert json.loads(json.dumps(results)) == results
    for point in results["points"]:
        assert len(point["seconds"]) >= 2
        assert point["plan_mib"] > 0
        assert point["model_seconds"] > 0
    assert {"sent", "hops"} <= results["rates"].keys()
    assert len(laws_table(results).splitlines()) == 2 + 6
    assert len(check_table(results).splitlines()) == 2 + 6
    assert "probed" in rates_table(results)


def test_a_point_that_fails_is_recorded_and_the_others_go_on(monkeypatch):
    class Broken(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__([sys.executable, "-c", "raise SystemExit('no luck')"], **options)

    monkeypatch.setattr(scaling.subprocess, "Popen", Broken)
    point = points(quick=True)[0]
    assert measured([point]) == [{"failed": "no luck"}]
    refused = point | {"refused": "Expected more."}
    results = foretold({"points": [point | {"failed": "no luck"}, refused], "load": [0.0], "cores": os.cpu_count()})
    assert "failed" in laws_table(results)
    assert "does not fit" in laws_table(results)
    assert check_table(results)
