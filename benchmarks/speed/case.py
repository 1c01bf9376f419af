"""One case in a separate process, so that no other case affects memory or threads: settings in, figures out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from scipy import sparse

from benchmarks.speed.engines import Work, ranking, recvae_round, training
from benchmarks.speed.synthetic import synthetic


def run(case: dict[str, Any]) -> dict[str, Any]:
    """Time a case: {"what": "step" | "epoch" | "round" | "rank", "data": file, "engine": ..., "batch": ..., ...}."""
    matrix = sparse.load_npz(case["data"]).tocsr()
    if case["what"] == "rank":
        return {"seconds": _times(ranking(matrix, case["engine"], case["users"]), case["repeats"], warm=1)}
    if case["what"] == "round":
        return {"seconds": recvae_round(matrix, case["engine"], case["batch"])(case["repeats"] + 1)[1:]}
    with training(synthetic(20, 50, 200), case["engine"], 10) as step:
        step()  # so that libraries have allocated their memory before
    with training(matrix, case["engine"], case["batch"]) as step:
        if case["what"] == "epoch":
            steps = -(-matrix.shape[0] // case["batch"])
            step()
            return {"seconds": _times(lambda: _repeat(step, steps), case["repeats"], warm=0)}
        before = psutil.Process().memory_info().rss  # data and weights
        _forget_peak()
        seconds = _times(step, case["repeats"], warm=2)
        return {"seconds": seconds, "mib": (_peak() - before) / 2**20}


def _times(work: Work, repeats: int, warm: int) -> list[float]:
    for _ in range(warm):
        work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return seconds


def _repeat(work: Work, times: int) -> None:
    for _ in range(times):
        work()


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux's way to reset the peak


def _peak() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
