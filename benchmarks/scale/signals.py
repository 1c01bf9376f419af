"""Commands that get a signal at many moments, from import to the last write: their messages and leftover files.

    recvae train --checkpoint, shard, tune --study    run again, they give the output of an uninterrupted run
    recvae recommend --out FILE, --out DIR/           no partial output; an older file stays as it was

After SIGINT a command exits with 130, after SIGTERM with 143, with one message and no leftover files; SIGKILL gives -9.
Moments are given in CPU seconds of the process, so that they do not shift when the machine has other work.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet

from benchmarks.pages.markdown import markdown
from benchmarks.speed import machine
from benchmarks.speed.synthetic import synthetic
from recvae import EASE, Interactions
from recvae.utils.folder import MANIFEST

SIGNALS = {"KILL": (signal.SIGKILL, -9), "INT": (signal.SIGINT, 130), "TERM": (signal.SIGTERM, 143)}
FIRST = 0.1  # seconds after the interpreter has started: before, Python itself handles the signal
LOOK = 0.005  # seconds between looks at the CPU time of a process
SECONDS = 600.0  # after which a command counts as hung
USERS, ITEMS, EVENTS = 4000, 500, 80_000
COPIES = 40  # copies of the events, each with other users, so that sorting takes a while
OLDER = b"user,rank,item,score\nsomeone,1,an older list,1.0\n"
# the script that pip installs; it first reports that the interpreter has started, and all that follows is recvae's
START = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes background processes ignore SIGINT
sys.argv[0] = "recvae"
os.write(int(os.environ["STARTED"]), b"x")
from recvae.__main__ import main
sys.exit(main())
"""
Case = dict[str, Any]


@dataclass(frozen=True)
class Command:
    """A command to be stopped.

    arguments : with {inputs} for the folder of inputs; each run has a working directory of its own
    out : the file or folder that it writes there
    again : whether a second run resumes from what the first one has kept
    kept : path of other files that it keeps to resume from
    """

    arguments: str
    out: str
    again: bool = True
    kept: str = ""


# a few seconds each, mostly in the part that is to be interrupted
COMMANDS = {
    "train": Command(
        "train --input {inputs}/events --model MultVAE --param epochs=2 --param hidden_dims=64 --param latent_dim=32 "
        "--checkpoint kept --checkpoint-minutes 0 --out model.recvae",
        "model.recvae",
    ),
    "shard": Command(
        "shard --input {inputs}/many --out shards --users-per-shard 8000", "shards", kept="shards/.recvae-cells"
    ),
    "tune": Command(
        "tune --input {inputs}/events --heldout-users 300 --model EASE --trials 6 --study study.db --json", "study.db"
    ),
    "recommend, a file": Command(
        "recommend {inputs}/model.recvae --input {inputs}/events -N 50 --out top.csv", "top.csv", again=False
    ),
    "recommend, a folder": Command(
        "recommend {inputs}/model.recvae --input {inputs}/events -N 50 --out top/ --users-per-part 100", "top"
    ),
}


def run_signals(
    moments: int,
    out: Path | None,
    save: Callable[[dict[str, Any]], None],
    names: Sequence[str] = tuple(COMMANDS),
    signals: Sequence[str] = tuple(SIGNALS),
    each: bool = False,
) -> dict[str, Any]:
    """Send signals to each command at so many moments; cases that `out` already has are skipped. -> for JSON

    each : send every signal at every moment, each in a run of its own; otherwise the signals alternate
    """
    results: dict[str, Any] = machine() | {"unbroken": {}, "cases": []}
    if out is not None and out.exists():
        results = json.loads(out.read_text(encoding="utf-8"))
    done = {(case["command"], case["signal"], case["share"]) for case in results["cases"]}
    with tempfile.TemporaryDirectory() as folder:
        inputs = _inputs(Path(folder) / "inputs")
        references = {name: _unbroken(name, inputs, Path(folder)) for name in names}
        results["unbroken"] |= {name: {"seconds": found["seconds"]} for name, found in references.items()}
        for moment in range(moments):
            share = round((moment + 0.5) / moments, 4)
            kinds = signals if each else [signals[moment % len(signals)]]
            for name, kind in itertools.product(names, kinds):
                if (name, kind, share) not in done:
                    case = _stopped(name, kind, share, references[name], inputs, Path(folder))
                    results["cases"].append(case)
                    print(case, file=sys.stderr, flush=True)
                    results["wrong"] = sum(bool(case["wrong"]) for case in results["cases"])
                    save(results)
    return results


def _inputs(folder: Path) -> Path:
    """Write events in Parquet files, many copies of them, and a model fitted on the former."""
    rows = synthetic(USERS, ITEMS, EVENTS).tocoo()
    copy, generator = np.arange(COPIES)[:, None], np.random.default_rng(0)
    many = pa.table({"user": (rows.row + copy * USERS).ravel(), "item": np.tile(rows.col, COPIES)})
    table = many[: rows.nnz]
    for name, content in (("events", table), ("many", many)):
        (folder / name).mkdir(parents=True)
        for part, rows_of_part in enumerate(np.array_split(generator.permutation(len(content)), 4)):
            pyarrow.parquet.write_table(content.take(rows_of_part), folder / name / f"{part}.parquet")
    EASE().fit(Interactions.from_frame(table), show_progress=False).save(folder / "model.recvae")
    return folder


class _Run:
    """A running command, with its working directory; its interpreter has started."""

    def __init__(self, command: Command, inputs: Path, folder: Path):
        self.before = _computed_by_children()
        (folder / "tmp").mkdir(exist_ok=True)
        read, write = os.pipe()
        variables = {"STARTED": str(write), "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
        variables["TORCHINDUCTOR_CACHE_DIR"] = str(inputs / "torch")  # else torch leaves one in TMPDIR
        path = os.pathsep.join(part for part in (str(Path.cwd()), os.environ.get("PYTHONPATH")) if part)
        argv = [sys.executable, "-c", START, *(word.format(inputs=inputs) for word in command.arguments.split())]
        self.process = subprocess.Popen(
            argv,
            cwd=folder,
            env=os.environ | variables | {"PYTHONPATH": path},
            pass_fds=[write],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(write)
        os.read(read, 1)
        os.close(read)
        self.of_start = self._computed()

    def _computed(self) -> float:
        """CPU seconds so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def stop(self, after: float, number: signal.Signals) -> None:
        """Send a signal once the process has used so many CPU seconds since its start, if it is still running."""
        deadline = time.monotonic() + SECONDS
        while self.process.poll() is None and self._computed() < self.of_start + after and time.monotonic() < deadline:
            time.sleep(LOOK)
        self.process.send_signal(number)

    def end(self) -> tuple[int | None, str, str]:
        """Wait for the end. -> exit status (None if it hangs), standard output and error"""
        try:
            stdout, stderr = self.process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return None, *self.process.communicate()
        self.seconds = _computed_by_children() - self.before - self.of_start
        return self.process.returncode, stdout, stderr


def _computed_by_children() -> float:
    """CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _unbroken(name: str, inputs: Path, folder: Path) -> dict[str, Any]:
    """Run a command twice without a signal. -> its output, which has to be the same, and mean CPU seconds"""
    runs = []
    for _ in range(2):
        with tempfile.TemporaryDirectory(dir=folder) as run_folder:
            run = _Run(COMMANDS[name], inputs, Path(run_folder))
            status, stdout, stderr = run.end()
            if status != 0:
                raise SystemExit(f"Expected recvae {name} to end well, got {status}: {stderr}")
            runs.append({"seconds": run.seconds, "output": _output(name, Path(run_folder), stdout)})
    if runs[0]["output"] != runs[1]["output"]:
        raise SystemExit(f"Expected two unbroken runs of recvae {name} to give the same.")
    return {"seconds": statistics.mean(one["seconds"] for one in runs), "output": runs[0]["output"]}


def _output(name: str, place: Path, said: str) -> Any:
    """The output of a run: SHA-256 of its files by name; for a search, its trials."""
    if name == "tune":
        trials = json.loads(said)["trials"]
        return [{key: value for key, value in trial.items() if key != "seconds"} for trial in trials]
    out = place / COMMANDS[name].out
    files = sorted(path for path in out.rglob("*") if path.is_file()) if out.is_dir() else [out]
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _stopped(name: str, kind: str, share: float, whole: dict[str, Any], inputs: Path, folder: Path) -> Case:
    """Stop a run after a share of its time, and run it again. -> a record of both"""
    command, (number, expected) = COMMANDS[name], SIGNALS[kind]
    after = FIRST + share * (whole["seconds"] - FIRST)
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        if not command.again:
            (place / command.out).write_bytes(OLDER)
        run = _Run(command, inputs, place)
        run.stop(after, number)
        status, _, complained = run.end()
        case: Case = {"command": name, "signal": kind, "share": share, "after": round(after, 3), "status": status}
        case |= {"over": status == 0, "said": complained[-2000:]}
        case["left"] = [path for path in _left(place) if path != command.kept]
        wrong = _wrong_end(case, expected)
        if status != 0:
            wrong += _wrong_output(command, place)
        if command.again:
            wrong += _wrong_again(name, kind, whole, inputs, place)
        return case | {"wrong": wrong}
    finally:
        shutil.rmtree(place)


def _wrong_again(name: str, kind: str, whole: dict[str, Any], inputs: Path, place: Path) -> list[str]:
    """Faults of a second run in the folder of the first."""
    status, stdout, stderr = _Run(COMMANDS[name], inputs, place).end()
    wrong = []
    if status != 0:
        wrong.append(f"run again it ends with {status}: {stdout[-300:]} {stderr[-300:]}")
    elif _output(name, place, stdout) != whole["output"]:
        wrong.append("run again it gives something else")
    if left := _left(place, kind):
        wrong.append(f"run again it leaves {left}")
    return wrong


def _wrong_end(case: Case, expected: int) -> list[str]:
    """Faults in the way that a stopped run ended."""
    if case["over"]:
        return []
    wrong = [] if case["status"] == expected else [f"it ends with {case['status']}"]
    if case["signal"] != "KILL":
        sentences = [line for line in case["said"].splitlines() if line.startswith("recvae: ")]
        if len(sentences) != 1 or "Traceback" in case["said"]:
            wrong.append(f"it says {case['said']!r}")
        if case["left"]:
            wrong.append(f"it leaves {case['left']}")
    return wrong


def _wrong_output(command: Command, place: Path) -> list[str]:
    """Faults of the output: torn files, or an older file that has changed. Only a second run tests resuming."""
    out = place / command.out
    if not command.again and out.read_bytes() != OLDER:
        return ["the older file is not as it was"]
    if command.again and out.is_dir() and (out / MANIFEST).exists():
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        sizes = {part["file"]: part["bytes"] for part in manifest["parts"]}
        torn = [name for name, size in sizes.items() if (out / name).stat().st_size != size]
        return [f"files are torn: {torn}"] if torn else []
    return []


def _left(place: Path, kind: str = "") -> list[str]:
    """Temporary files that are left: hidden ones, locks, and those in the folder for temporary files.

    After SIGKILL, files in that folder or next to the output do not count: no one can tell whose they are.
    """
    hidden = [path for path in place.rglob("*") if path.name.startswith(".") or path.suffix in (".lock", ".tmp")]
    hidden += [path for path in place.rglob("*-journal") if path.stat().st_size]
    if kind == "KILL":
        hidden = [path for path in hidden if path.parent != place]
    else:
        hidden += list((place / "tmp").iterdir())
    names = {str(path.relative_to(place)) for path in hidden if path.exists()}
    return sorted(names)


def signals_table(results: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    rows = [["", "a run, CPU s", *(f"SIG{kind}, right of" for kind in SIGNALS), "over before"]]
    for name, whole in results["unbroken"].items():
        mine = [case for case in results["cases"] if case["command"] == name]
        cells = []
        for kind in SIGNALS:
            cases = [case for case in mine if case["signal"] == kind]
            cells.append(f"{sum(not case['wrong'] for case in cases)} of {len(cases)}")
        rows.append([name, f"{whole['seconds']:.1f}", *cells, str(sum(case["over"] for case in mine))])
    return markdown(rows)
