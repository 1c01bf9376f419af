"""Raw events in Parquet files -> shards -> a shuffled pass: time and peak memory, each in a separate process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from benchmarks.pages.markdown import markdown
from benchmarks.scale.measured import COMMAND
from benchmarks.speed import Save, machine

ROWS_OF_A_FILE = 1_000_000

READ = """
import json, sys, time
from recvae.utils.memory import PeakMemory
from recvae.data.shards import Shards, ShuffledRows
started = time.perf_counter()
shards = Shards(sys.argv[1])
opened = time.perf_counter()
with PeakMemory() as peak:
    sizes = [(len(batch), len(batch.items)) for batch in ShuffledRows(shards).batches_of(0, 500)]
seconds = time.perf_counter() - opened
users, events = map(sum, zip(*sizes))
assert (users, events) == (shards.n_users, shards.n_events)
print(json.dumps({"users": users, "items": shards.n_items, "events": events, "shards": len(shards.shard_files),
    "open_seconds": opened - started, "seconds": seconds, "users_per_second": users / seconds,
    "events_per_second": events / seconds, "peak_mib": peak.mib}))
"""

# name -> whether ids are text, and further options of the command
CASES: dict[str, tuple[bool, list[str]]] = {
    "integers as ids": (False, []),
    "text as ids": (True, []),
    "text as ids, values, filters, held-out users": (
        True,
        [
            "--value=value",
            "--min-value=2",
            "--min-user=5",
            "--min-item=5",
            "--values=log1p",
            "--heldout-users={heldout}",
        ],
    ),
}


def run_shards(rows: int, work: Path | None, save: Save) -> dict[str, Any]:
    """Each case, saved as soon as it is measured. -> results for JSON

    work : folder that keeps the raw files for the next run, on a disk with room for them, the shards and the sort;
        temporary by default
    """
    results: dict[str, Any] = machine() | {"rows": rows, "cases": []}
    with _folder(work) as place:
        for what in CASES:
            results["cases"].append(_case(place, what, rows))
            save(results)
    return results


def shards_table(results: dict[str, Any]) -> str:
    """Cost of writing and of a pass in each case, as Markdown."""
    columns = [_column(case) for case in results["cases"]]
    rows = [[f"{results['rows']:,} rows", *(case["what"] for case in results["cases"])]]
    return markdown(rows + [[name, *(column[name] for column in columns)] for name in columns[0]])


def _column(case: dict[str, Any]) -> dict[str, str]:
    written, read = case["write"], case["pass"]
    return {
        "users, items, events in shards": ", ".join(f"{read[each]:,}" for each in ("users", "items", "events")),
        "raw files": f"{case['raw_mib']:,} MiB",
        "shards": f"{case['shards_mib']:,} MiB",
        "writing": f"{written['seconds']:,.0f} s",
        "writing, peak memory": f"{written['peak_mib']:,.0f} MiB",
        "a shuffled pass": f"{read['seconds']:,.1f} s",
        "a pass, events a second": f"{read['events_per_second'] / 1e6:,.1f} million",
        "a pass, peak memory": f"{read['peak_mib']:,.0f} MiB",
    }


@contextmanager
def _folder(work: Path | None) -> Iterator[Path]:
    if work is not None:
        yield work
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _case(place: Path, what: str, rows: int) -> dict[str, Any]:
    text, options = CASES[what]
    raw, out = place / f"raw-{'text' if text else 'numbers'}-{rows}", place / "shards"
    write_raw(raw, rows, text)
    shutil.rmtree(out, ignore_errors=True)
    asked = [option.format(heldout=max(1, rows // 10_000)) for option in options]
    written = _run(COMMAND, "shard", "--input", str(raw), "--out", str(out), *asked)
    read = _run(READ, str(out))
    sizes = {"raw_mib": _mib(raw), "shards_mib": _mib(out), "files": len(list(raw.glob("*.parquet")))}
    shutil.rmtree(out)
    return {"what": what, "options": asked} | sizes | {"write": written, "pass": read}


def write_raw(folder: Path, rows: int, text: bool, seed: int = 0) -> None:
    """Write log-normal users and Zipf items, unsorted: on average 50 events a user and 100 an item, a million a file.

    Does nothing if the folder is complete already.
    """
    if (folder / "_SUCCESS").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    n_users, n_items = max(1, rows // 50), max(1, rows // 100)
    activity, fame = np.cumsum(random.lognormal(0, 1, n_users)), np.cumsum(1 / (10 + np.arange(n_items)))
    names = _names("user", n_users, text), _names("item", n_items, text)
    for number, start in enumerate(range(0, rows, ROWS_OF_A_FILE)):
        n = min(ROWS_OF_A_FILE, rows - start)
        users, items = (
            np.minimum(np.searchsorted(ends, random.random(n) * ends[-1]), len(ends) - 1) for ends in (activity, fame)
        )
        columns = {
            name: ids.take(pa.array(drawn))
            for name, ids, drawn in zip(("user", "item"), names, (users, items), strict=True)
        }
        values = pa.array(random.integers(1, 6, n).astype(np.float32))
        pyarrow.parquet.write_table(pa.table(columns | {"value": values}), folder / f"{number:05}.parquet")
    (folder / "_SUCCESS").touch()


def _names(what: str, n: int, text: bool) -> pa.Array:
    """Ids whose order does not follow activity or popularity."""
    numbers = (np.arange(n) * 2_654_435_761) % 2**32  # an odd multiplier permutes 32-bit integers
    return pa.array([f"{what}-{number:08x}" for number in numbers.tolist()]) if text else pa.array(numbers)


def _run(script: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"Expected the measured process to end well, got status {done.returncode}.")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _mib(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir()) >> 20
