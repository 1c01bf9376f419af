"""Time and memory of reading a large Parquet file with text ids into `Interactions`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

# run in a separate process, so that its peak memory is that of reading
READ = """
import json, resource, sys, time
from recvae import Interactions
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
data = Interactions.read(sys.argv[1], user="user", item="item", value="value")
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sizes = {"users": data.n_users, "items": data.n_items, "events": data.n_events}
print(json.dumps(sizes | {"seconds": seconds, "peak_mib": peak / 1024, "peak_mib_before": before / 1024}))
"""


def run_ingest(rows: int = 10_000_000, repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """Write events of log-normal users on Zipf items, read them `repeats` times. -> results for JSON"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        pyarrow.parquet.write_table(draw_events(rows, np.random.default_rng(seed)), path)
        runs = [_read(path) for _ in range(repeats)]
        size = path.stat().st_size
    return runs[0] | {
        "rows": rows,
        "file_mib": size / 2**20,
        "seconds": statistics.median(run["seconds"] for run in runs),
        "seconds_each": [run["seconds"] for run in runs],
        "peak_mib": max(run["peak_mib"] for run in runs),
    }


def _read(path: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def draw_events(rows: int, random: np.random.Generator) -> pa.Table:
    """Draw made-up events of log-normal users on Zipf items, with text ids and values from 1 to 5."""
    n_users, n_items = rows // 20, rows // 100
    activity = random.lognormal(0, 1, n_users)
    users = random.choice(n_users, rows, p=activity / activity.sum())
    fame = 1 / (10 + np.arange(n_items))
    items = random.choice(n_items, rows, p=fame / fame.sum())
    names = pa.array([f"user-{number:08x}" for number in range(n_users)])
    titles = pa.array([f"item-{number:08x}" for number in range(n_items)])
    value = pa.array(random.integers(1, 6, rows).astype(np.float32))
    return pa.table({"user": names.take(pa.array(users)), "item": titles.take(pa.array(items)), "value": value})
