"""Rules for the lists of many users: what a deny list of each user costs, and the memory of lists as JSON lines."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from benchmarks.pages.markdown import markdown
from benchmarks.scale.measured import COMMAND
from benchmarks.speed import machine
from benchmarks.speed.synthetic import synthetic
from recvae import EASE, Interactions, Rules

N = 10
TRAINED = 5000  # users of the fit
# loads what the command loads before it ranks: the model and the events
LOADED = """
import json, sys
from pathlib import Path
from recvae.data.histories import read_histories
from recvae.data.tables.formats import read_table
from recvae.serving.linear import open_linear
from recvae.utils.memory import PeakMemory
with PeakMemory() as peak:
    model = open_linear(Path(sys.argv[1]))
    histories = read_histories(read_table(Path(sys.argv[2])).table, model.known_items())
print(json.dumps({"peak_mib": peak.mib}))
"""


def run_rules(n_users: int, n_items: int, rounds: int, listed_users: int) -> dict[str, Any]:
    """Time lists with and without a deny row for each user, in turns; peak memory of JSON lines. -> for JSON"""
    rows = synthetic(max(n_users, listed_users), n_items, 20 * max(n_users, listed_users))
    model = EASE().fit(Interactions.from_matrix(rows[:TRAINED]))
    return machine() | {
        "deny": _deny(model, _events(rows[:n_users]), n_users, n_items, rounds),
        "jsonl": _lines(model, _events(rows[:listed_users]), listed_users),
    }


def rules_table(results: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    deny, lines = results["deny"], results["jsonl"]
    more = lines["peak_mib"] - lines["loaded_mib"]
    rows = [
        ["", "without", "with", "ratio"],
        [
            f"lists for {deny['users']:,} users, a deny row each, s",
            *(f"{deny[name]:.1f}" for name in ("without_seconds", "with_seconds")),
            f"{deny['ratio']:.2f}",
        ],
    ]
    return f"{markdown(rows)}\n\nJSON lines of {lines['rows']:,} rows: {more:,.0f} MiB over model and events."


def _deny(model: EASE, events: pa.Table, n_users: int, n_items: int, rounds: int) -> dict[str, Any]:
    random = np.random.default_rng(1)
    deny = pa.table({"user": np.arange(n_users), "item": random.integers(n_items, size=n_users)})
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(rounds):
        for name, rules in (("without", None), ("with", Rules(user_deny=deny))):
            started = time.perf_counter()
            model.recommend_for(events, N, rules=rules)
            seconds[name].append(time.perf_counter() - started)
    without, with_rules = (statistics.median(each) for each in seconds.values())
    sizes = {"users": n_users, "items": n_items, "events": len(events), "rounds": rounds}
    medians = {"without_seconds": without, "with_seconds": with_rules, "ratio": with_rules / without}
    return sizes | medians | {"seconds": seconds}


def _lines(model: EASE, events: pa.Table, n_users: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model.save(place / "model")
        pa.parquet.write_table(events, place / "events.parquet")
        loaded = _run(LOADED, str(place / "model"), str(place / "events.parquet"))
        command = ["recommend", str(place / "model"), "--input", str(place / "events.parquet"), "-N", str(N)]
        made = _run(COMMAND, *command, "--out", str(place / "top.jsonl"))
        with (place / "top.jsonl").open("rb") as lines:
            n_rows = sum(1 for _ in lines)
    return {"users": n_users, "rows": n_rows, "loaded_mib": loaded["peak_mib"]} | made


def _events(rows: Any) -> pa.Table:
    cells = rows.tocoo()
    return pa.table({"user": cells.row.astype(np.int64), "item": cells.col.astype(np.int64)})


def _run(script: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Expected the command to end well, got: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
