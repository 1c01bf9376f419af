"""Points of the scaling benchmark are measured and recorded, and the cost model predicts the recorded ones."""

import json
import subprocess
import sys

import pytest

from benchmarks.pages.tables import RESULTS
from benchmarks.scale import scaling
from benchmarks.scale.cost_model import FITTED, counts, fit, measured_seconds, predicted_seconds
from benchmarks.scale.scaling import BASE, POINTS, check_table, figures, laws_table, measure, rates_table, run_scaling
from recvae.distributed.communicator import SINGLE_PROCESS

# 4 users with 3 events each in a batch, 20 items, layers 2 wide
TINY = BASE | {"items": 20, "users": 8, "events": 24, "batch": 4, "width": 2, "candidates": None, "bfloat16": True}
GRADIENTS = 4 * 20 * (2 * 2 + 1)  # bytes of those of the tables


def test_a_chunked_step_by_hand():
    found = counts(TINY)
    assert found["bfloat16"] == 6 * 4 * 20 * 2
    assert found["table_bytes"] == 28 * 20 * (2 * 2 + 1)
    assert found["float32"] == found["row_bytes"] == found["sent_bytes"] == 0
    assert counts(TINY | {"bfloat16": False})["float32"] == found["bfloat16"]
    data, tensor = (counts(TINY | {"ranks": 4, "share": share}) for share in ("users", "items"))
    assert data["bfloat16"] == tensor["bfloat16"] == found["bfloat16"] / 4
    assert (data["table_bytes"], tensor["table_bytes"]) == (found["table_bytes"], found["table_bytes"] / 4)
    assert data["sent_bytes"] == 2 * 3 / 4 * GRADIENTS
    assert tensor["sent_bytes"] == 2 * 3 / 4 * 4 * 4 * (2 * 2 + 4)


def test_a_sampled_step_by_hand():
    sampled = TINY | {"candidates": 5}
    found = counts(sampled)
    assert found["float32"] == 6 * 4 * 5 * 2
    assert found["row_bytes"] == 4 * 2 * (6 * 12 + 8 * (12 + 5))
    ranks = counts(sampled | {"ranks": 4})
    assert ranks["float32"] == found["float32"] / 4
    assert ranks["row_bytes"] == 4 * 2 * (6 * 3 + 8 * (12 + 5))  # the optimizer has the rows of all ranks
    assert ranks["sent_bytes"] == 3 * (2 * 3 + 5) * (4 * 2 + 8)


def test_rates_are_found_again_from_times_that_they_made():
    rates = {"bfloat16": 1e11, "float32": 5e10, "row_bytes": 2e9, "steps": 300.0, "table_bytes": 1e10}
    points = [BASE | point | {"bfloat16": True, "streamed_per_second": 1e10} for point in POINTS]
    points = [point | {"events": point["users"] * point["length"]} for point in points if point["ranks"] == 1]
    for point in points:
        point["cpu_seconds"] = [predicted_seconds(point, rates)]
    found = fit(points)
    assert {kind: found[kind] for kind in FITTED} == pytest.approx({kind: rates[kind] for kind in FITTED}, rel=1e-3)


def test_the_model_predicts_the_recorded_steps_of_one_rank_to_within_a_fifth():
    points = json.loads((RESULTS / "scaling.json").read_text())["points"]
    rates = fit(points)
    for point in points:
        if point["ranks"] == 1:
            assert predicted_seconds(point, rates) == pytest.approx(measured_seconds(point), rel=0.2)


def test_a_quick_run_from_end_to_end(monkeypatch):
    monkeypatch.setattr(scaling, "POINTS", [POINTS[0], POINTS[5], POINTS[20]])  # sampled; chunked; two ranks
    own = scaling.measure

    def measure_here(point):
        """In this process where it is alone: what its own process would call."""
        return figures(point, SINGLE_PROCESS) if point["ranks"] == 1 else own(point)

    monkeypatch.setattr(scaling, "measure", measure_here)
    saved = []
    results = run_scaling(True, lambda found: saved.append(len(found["points"])))
    assert saved == [1, 2, 3]
    assert json.loads(json.dumps(results)) == results
    for point in results["points"]:
        assert len(point["seconds"]) >= 2, point
        assert point["plan_mib"] > 0
    assert results["points"][2]["sent_per_second"] > 0
    assert len(laws_table(results).splitlines()) == 2 + 3
    assert len(check_table(results).splitlines()) == 2 + 4
    assert "measured by an all-reduce" in rates_table(results)


def test_a_point_that_fails_is_recorded_and_the_others_go_on(monkeypatch):
    class Broken(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__([sys.executable, "-c", "raise SystemExit('no luck')"], **options)

    monkeypatch.setattr(subprocess, "Popen", Broken)
    point = BASE | POINTS[0]
    assert measure(point) == {"failed": "no luck"}
    results = {"points": [point | {"failed": "no luck"}, point | {"refused": "Expected more."}], "load": [0.0]}
    assert "failed" in laws_table(results)
    assert "does not fit" in laws_table(results)
    assert check_table(results)
    assert "no cost was seen" in rates_table(results | {"cores": 2})
