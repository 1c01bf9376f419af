"""The benchmark of threads: a tiny run, its ratios, its neighbours and its limits to one core."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import threadpoolctl

from benchmarks.__main__ import main
from benchmarks.speed import threads, threads_case, write_matrix
from benchmarks.speed.synthetic import synthetic

linux = pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")


# in place of a fit: it says what it was asked for
STUB = """
import json, os, sys
print("ready", flush=True)
sys.stdin.readline()
weights = [json.loads(sys.argv[1])["model"], os.getenv("OMP_NUM_THREADS")]
print(json.dumps({"seconds": 2.0, "digest": str(weights)}))
"""


@linux
def test_a_run_in_processes(tmp_path, monkeypatch):
    out = tmp_path / "threads.json"
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.setattr(threads, "SCRIPT", tmp_path / "stub.py")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    options = ["--quick", "--rounds", "2", "--out", str(out)]
    assert main(["threads", *options, "--only", "MultVAE, n", "MultVAE, two", "RecVAE, quota"]) == 0
    results = json.loads(out.read_text())
    rows = {row["name"]: row for row in results["rows"]}
    assert list(rows) == [
        *(f"MultVAE, neighbour {where}" for where in ("on a core", "on any core", "that comes and goes")),
        "MultVAE, two fits",
        "RecVAE, quota of a core",
    ]
    digests = {"default": ["['MultVAE', None]"] * 2, "one thread": ["['MultVAE', '1']"] * 2}
    assert rows["MultVAE, neighbour on a core"]["digests"] == digests
    assert rows["MultVAE, neighbour on a core"]["ratios"] == [1.0, 1.0]
    two = rows["MultVAE, two fits"]
    assert two["cases"] == ["together", "one after the other"]
    assert len(two["digests"]["together"]) == 4
    assert results["same_weights"] == {"MultVAE": False, "RecVAE": False}
    assert len(threads.threads_table(results).splitlines()) == 2 + 5 + 2


def test_a_fit_has_seconds_and_the_digest_of_its_weights(tmp_path):
    case = {"what": "fit", "data": write_matrix(tmp_path / "x.npz", synthetic(60, 30, 300)), "model": "MultVAE"}
    first, again, other = (threads_case.timed(*threads_case.prepare(case | {"epochs": n})) for n in (1, 1, 2))
    assert first["seconds"] > 0
    assert first["digest"] == again["digest"] != other["digest"]


@pytest.mark.parametrize("engine", ["recvae", "als"])
def test_a_ranking_has_seconds(tmp_path, engine):
    pytest.importorskip("implicit")
    data = write_matrix(tmp_path / "x.npz", synthetic(60, 30, 300))
    with threadpoolctl.threadpool_limits(1, "blas"):  # as that of ALS sets it, and undone at the end
        found = threads_case.timed(*threads_case.prepare({"what": "rank", "data": data, "engine": engine, "users": 20}))
    assert found["seconds"] > 0
    assert "digest" not in found


def test_an_unknown_row_is_refused(capsys):
    assert main(["threads", "--only", "MultVAE, quite"]) == 2
    assert "MultVAE, quiet" in capsys.readouterr().err


def row(name, first, second, digests):
    return {"name": name, "cases": ["a", "b"], "seconds": {"a": first, "b": second}, "digests": digests}


def test_ratios_are_taken_within_a_round_and_weights_are_compared():
    fit = row("x", [2.0, 9.0, 4.0], [1.0, 3.0, 4.0], {"a": ["1", "1"], "b": ["1"]}) | {"model": "MultVAE"}
    found = threads._summary([fit, row("ranking", [1.0], [2.0], {"a": [], "b": []})])
    assert [each["ratio"] for each in found["rows"]] == [2.0, 0.5]
    assert found["rows"][0]["ratios"] == [2.0, 3.0, 1.0]
    assert found["same_weights"] == {"MultVAE": True}
    fit["digests"]["b"] = ["2"]
    results = threads._summary([fit])
    assert results["same_weights"] == {"MultVAE": False}
    assert "| x | a | 4.00 | b | 3.00 | 2.00 |" in threads.threads_table(results)
    assert "MultVAE different" in threads.threads_table(results)


@linux
def test_a_neighbour_is_busy_on_its_core_and_ends():
    others = psutil.Process().children()  # other tests may have left a server of forks
    with threads.neighbour("pinned"):
        (child,) = [child for child in psutil.Process().children() if child not in others]
        assert child.cpu_affinity() == [max(os.sched_getaffinity(0))]
        before = child.cpu_times().user
        time.sleep(0.3)
        assert child.cpu_times().user > before
    assert not child.is_running()
    with threads.neighbour(""):
        assert not [child for child in psutil.Process().children() if child not in others]


@linux
def test_one_core_limits_a_process():
    with threads.one_core() as (prefix, how):
        code = "from recvae.utils.cores import available_cores; print(available_cores().count)"
        found = subprocess.run([*prefix, sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "1"
        assert how in ("control group", "taskset")
    assert not list(Path("/sys/fs/cgroup").glob(f"*/recvae-{os.getpid()}"))
