"""Two checkouts, interleaved: seconds of fits, lists and loading, and whether all results are bit-identical."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pages.markdown import markdown

# run in a separate process with one checkout on the path: it uses only the public API that both have
MEASURE = """
import hashlib, json, sys, time
import numpy as np
import recvae
dataset, home, epochs, repeats, file = sys.argv[1:]
data = recvae.load_dataset(dataset, home or None)
users = np.arange(data.n_users)
found, digests = {}, {}

def timed(what, work):
    seconds = []
    for _ in range(int(repeats)):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    found[what] = min(seconds)
    return result

def digest(*arrays):
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()

models = {"MultVAE": recvae.MultVAE(epochs=int(epochs), random_state=0), "EASE": recvae.EASE()}
for name, model in models.items():
    timed(f"fit {name}", lambda: model.fit(data, show_progress=False))
    lists = timed(f"recommend {name}", lambda: model.recommend(users, data.matrix, N=100))
    digests[f"lists of {name}"] = digest(*lists)
    timed(f"recommend {name}, one user", lambda: [model.recommend(user, data.matrix[[user]]) for user in range(200)])
    digests[f"scores of {name}"] = digest(model.score(data.matrix[:500]))
    model.save(file)
    with open(file, "rb") as content:
        digests[f"file of {name}"] = hashlib.sha256(content.read()).hexdigest()
    timed(f"load {name}", lambda: recvae.load(file))
print(json.dumps({"from": recvae.__file__, "seconds": found, "digests": digests}))
"""
SIDES = ("before", "after")
LIMIT = 1.03  # a larger ratio of after to before counts as slower


def run_paired(
    before: Path,
    after: Path,
    rounds: int,
    threads: int,
    save: Callable[[dict[str, Any]], None],
    *,
    dataset: str = "ml-1m",
    home: Path | None = None,
    epochs: int = 2,
    repeats: int = 3,
) -> dict[str, Any]:
    """Measure both checkouts in each round, in alternating order. -> for JSON

    A round counts the shortest of its `repeats` times; the result is the median over rounds of the ratio after/before.
    """
    checkouts = dict(zip(SIDES, (before.resolve(), after.resolve()), strict=True))
    about = {"dataset": dataset, "epochs": epochs, "repeats": repeats, "threads": threads, "rounds": []}
    results: dict[str, Any] = {"processor": platform.processor() or platform.machine()} | about
    with tempfile.TemporaryDirectory() as folder:
        arguments = [dataset, str(home.resolve() if home else ""), str(epochs), str(repeats), f"{folder}/model"]
        for number in range(rounds):
            order = SIDES if number % 2 == 0 else SIDES[::-1]
            measured = {side: _measure(checkouts[side], arguments, threads, folder) for side in order}
            results["rounds"].append({"first": order[0]} | measured)
            results |= _summary(results["rounds"])
            save(results)
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return results


def _measure(checkout: Path, arguments: list[str], threads: int, folder: str) -> dict[str, Any]:
    """Run MEASURE in a process that imports recvae from one checkout."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads)) | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", MEASURE, *arguments]
    done = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not Path(found.pop("from")).is_relative_to(checkout):
        raise SystemExit(f"Expected recvae in the checkout {checkout}, and it was imported from elsewhere.")
    return found


def _summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of both sides, the median of the rounds' ratios, and which results are identical in all rounds."""
    seconds: dict[str, Any] = {}
    for what in rounds[0]["before"]["seconds"]:
        pairs = [[one[side]["seconds"][what] for side in SIDES] for one in rounds]
        medians = {side: statistics.median(pair[n] for pair in pairs) for n, side in enumerate(SIDES)}
        seconds[what] = medians | {"ratio": statistics.median(after / before for before, after in pairs)}
    digests = [one[side]["digests"] for one in rounds for side in SIDES]
    same = {what: len({found[what] for found in digests}) == 1 for what in digests[0]}
    slower = [what for what, row in seconds.items() if row["ratio"] > LIMIT]
    return {"seconds": seconds, "same": same, "slower": slower}


def paired_table(results: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    rows = [["", "before, s", "after, s", "ratio"]]
    for what, row in results["seconds"].items():
        rows.append([what, f"{row['before']:.3f}", f"{row['after']:.3f}", f"{row['ratio']:.3f}"])
    same = [[what, "", "", "the same" if equal else "not the same"] for what, equal in results["same"].items()]
    return markdown(rows + same)
