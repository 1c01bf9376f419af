"""A fit or a ranking that starts on a signal, in a process of its own: so neighbours disturb only what is timed."""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from scipy import sparse

import recvae

Work = Callable[[], object]


def prepare(case: dict[str, Any]) -> tuple[Work, int]:
    """The work of a case, and how often to time it: a ranking is called once before."""
    matrix = sparse.load_npz(case["data"]).tocsr()
    if case["what"] == "rank":
        from benchmarks.speed.engines import ranking  # loads what a fit does not need

        work = ranking(matrix, case["engine"], case["users"])
        work()
        return work, 3
    build = partial(getattr(recvae, case["model"]), random_state=0)
    build(epochs=1).fit(matrix[:50], show_progress=False)  # loads what torch loads at its first step
    model = build(epochs=case["epochs"])
    return lambda: model.fit(matrix, show_progress=False), 1


def timed(work: Work, repeats: int) -> dict[str, Any]:
    """Median seconds of the work, and for a fit a digest of the model: the same weights have the same file."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    found: dict[str, Any] = {"seconds": statistics.median(seconds)}
    if isinstance(result, recvae.Recommender):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            result.save(path)
            found["digest"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


if __name__ == "__main__":
    prepared = prepare(json.loads(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(timed(*prepared)), flush=True)
