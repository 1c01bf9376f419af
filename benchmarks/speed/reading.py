"""Time and memory of reading events from CSV and JSON lines, next to pyarrow and DuckDB doing the least they can.

The least is: read both columns of ids, dictionary-encode them, and group the rows into distinct pairs. Each reading is
a process of its own, and they alternate, so that a busy machine slows both.
"""

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
import pyarrow.csv

from benchmarks.speed.ingest import draw_events

HEAD = """
import json, sys, time
path = sys.argv[1]
"""
OURS = """
from recvae import Interactions
Interactions.from_matrix  # loads what reading needs
started, cpu = time.perf_counter(), time.process_time()
data = Interactions.read(path)
pairs = data.n_events
"""
GROUP = """
encoded = {name: table[name].dictionary_encode().chunks for name in ("user", "item")}
codes = {name: pa.chunked_array([chunk.indices for chunk in chunks]) for name, chunks in encoded.items()}
pairs = len(pa.table(codes).group_by(["user", "item"]).aggregate([([], "count_all")]))
"""
ARROW = (
    """
import pyarrow as pa, pyarrow.csv
started, cpu = time.perf_counter(), time.process_time()
table = pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(include_columns=["user", "item"]))
"""
    + GROUP
)
DUCK = (
    """
import duckdb, pyarrow as pa
duckdb.execute("SET enable_progress_bar = false")  # it would be on standard output
started, cpu = time.perf_counter(), time.process_time()
table = duckdb.read_json(path, format="newline_delimited").project("user, item").to_arrow_table()
"""
    + GROUP
)
TAIL = """
seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
# not ru_maxrss, which includes what the parent had when it started this process
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
print(json.dumps({"pairs": pairs, "seconds": seconds, "cpu_seconds": cpu, "peak_mib": peak}))
"""
# kind of file -> its name, and what reads it next to us
FILES = {
    "CSV, integers": ("integers.csv", ARROW),
    "CSV, text ids": ("text.csv", ARROW),
    "JSON lines": ("events.jsonl", DUCK),
}


def run_reading(rows: int = 10_000_000, repeats: int = 5, kinds: str = "", seed: int = 0) -> dict[str, Any]:
    """Write made-up files of `rows` events, and read each `repeats` times in both ways. -> results for JSON"""
    chosen = [kind for kind in FILES if not kinds or kind in kinds.split(";")]
    results: dict[str, Any] = {"rows": rows, "repeats": repeats}
    with tempfile.TemporaryDirectory() as folder:
        events = draw_events(rows, np.random.default_rng(seed))
        for kind in chosen:
            name, other = FILES[kind]
            path = Path(folder) / name
            _write(path, events)
            ours, others = [], []
            for _ in range(repeats):
                ours.append(_run(OURS, path))
                others.append(_run(other, path))
            results[kind] = _summary(ours, others) | {"file_mib": path.stat().st_size / 2**20}
            path.unlink()
    return results


def _summary(ours: list[dict[str, Any]], others: list[dict[str, Any]]) -> dict[str, Any]:
    if {run["pairs"] for run in ours} != {run["pairs"] for run in others}:
        raise AssertionError(f"Expected the same pairs, got {ours[0]['pairs']} and {others[0]['pairs']}.")
    medians = [statistics.median(run["seconds"] for run in runs) for runs in (ours, others)]
    cpu = [statistics.median(run["cpu_seconds"] for run in runs) for runs in (ours, others)]
    return {
        "pairs": ours[0]["pairs"],
        "seconds": medians[0],
        "other_seconds": medians[1],
        "ratio": statistics.median(one["seconds"] / two["seconds"] for one, two in zip(ours, others, strict=True)),
        "cpu_ratio": cpu[0] / cpu[1],
        "peak_mib": max(run["peak_mib"] for run in ours),
        "other_peak_mib": max(run["peak_mib"] for run in others),
        "runs": ours,
        "other_runs": others,
    }


def _run(script: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", HEAD + script + TAIL, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _write(path: Path, events: pa.Table) -> None:
    if path.name == "text.csv":
        options = pyarrow.csv.WriteOptions(quoting_style="none")
        pyarrow.csv.write_csv(events, path, options)
        return
    users, items = (events[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in ("user", "item"))
    if path.suffix == ".csv":
        numbers = {"user": users, "item": items, "value": events["value"]}
        pyarrow.csv.write_csv(pa.table(numbers), path)
        return
    with path.open("w") as file:
        for start in range(0, len(events), 1_000_000):
            part = events.slice(start, 1_000_000)
            rows = zip(*(part[name].to_pylist() for name in ("user", "item", "value")), strict=True)
            file.writelines(f'{{"user":"{user}","item":"{item}","value":{value}}}\n' for user, item, value in rows)
