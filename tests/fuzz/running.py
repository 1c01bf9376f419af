"""Mutants are judged in children of one warm parent, a batch in each; the parent knows which one killed a child."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import resource
import selectors
import shutil
import signal
import struct
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.judging import Kind, Mutant, Verdict, judged

BATCH = 250  # mutants of a child
SECONDS = 30.0  # that a mutant may take, on a machine that others use as well
ROOM = 3 << 30  # bytes of address space that a child may take beyond the parent's
ATTEMPTS = 20
HARNESS = 70  # exit status of a child that failed by itself
PROGRESS = struct.Struct("<qd300s")  # the number of the mutant under way, when it began, what it is


class HarnessError(Exception):
    """The harness itself is wrong."""


@dataclass
class Child:
    """A process that judges the numbers from `start` on, before `stop`."""

    pid: int
    start: int
    stop: int
    pipe: int
    progress: mmap.mmap
    text: bytes = b""
    done: list[int] = field(default_factory=list)
    killed: str = ""

    @property
    def under_way(self) -> tuple[int, float]:
        """The number of the mutant under way, and since when, by the monotonic clock."""
        number, began, _ = PROGRESS.unpack_from(self.progress)
        return number, began

    @property
    def what(self) -> str:
        """What that mutant is, in words."""
        return PROGRESS.unpack_from(self.progress)[2].rstrip(b"\0").decode(errors="replace")


def make(kind: Kind, seed: int, number: int) -> Mutant:
    """The mutant of that number: always the same."""
    key = [seed, zlib.crc32(kind.name.encode()), number]
    if number < len(kind.first):
        return kind.first[number](np.random.default_rng(key))
    for attempt in range(ATTEMPTS):
        # changes on top of each other may not go together, such as an element of an array that was emptied
        with contextlib.suppress(IndexError, KeyError, ValueError, TypeError, RuntimeError, OverflowError):
            return kind.mutant(np.random.default_rng([*key, attempt]))
    raise HarnessError(f"{kind.name} {number} cannot be made")


def run_kind(
    kind: Kind,
    seed: int,
    count: int,
    *,
    workers: int = 1,
    plant: Callable[[], object] = lambda: None,
    first: int = 0,
    enough: Callable[[Verdict], bool] = lambda verdict: False,
) -> Iterator[Verdict]:
    """Verdicts on the mutants from `first` on, before `count`, in any order; none is begun after one that is enough.

    plant : called in each child before it begins, such as to plant a fault
    """
    # in memory where that is possible: many small files are written
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    home = Path(tempfile.mkdtemp(prefix="recvae-fuzz-", dir=base))
    children: list[Child] = []
    try:
        (home / "originals").mkdir()
        _prepare(kind, home / "originals")
        waiting = [(start, min(start + BATCH, count)) for start in range(first, count, BATCH)]
        with selectors.DefaultSelector() as selector:
            while waiting or children:
                while waiting and len(children) < workers:
                    children.append(_fork(kind, seed, *waiting.pop(0), home, plant))
                    selector.register(children[-1].pipe, selectors.EVENT_READ, children[-1])
                for key, _ in selector.select(0.5):
                    child: Child = key.data
                    found = os.read(child.pipe, 1 << 20)
                    for verdict in _verdicts(child, found):
                        if enough(verdict):
                            waiting.clear()
                            for each in children:
                                each.stop = 0
                        yield verdict
                    if not found:
                        selector.unregister(child.pipe)
                        children.remove(child)
                        yield from _ended(child, waiting, kind)
                for child in children:
                    _, began = child.under_way
                    if began and time.monotonic() - began > SECONDS:
                        child.killed = f"hang: more than {SECONDS:g} s"
                        os.kill(child.pid, signal.SIGKILL)
                    elif child.stop == 0:
                        os.kill(child.pid, signal.SIGKILL)
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
        shutil.rmtree(home, ignore_errors=True)


def _verdicts(child: Child, found: bytes) -> list[Verdict]:
    *lines, child.text = (child.text + found).split(b"\n")
    verdicts = [Verdict(**json.loads(line)) for line in lines]
    child.done += [verdict.number for verdict in verdicts]
    return verdicts


def _ended(child: Child, waiting: list[tuple[int, int]], kind: Kind) -> Iterator[Verdict]:
    """What a child that is no more leaves: a verdict on the mutant that killed it, and numbers still to be judged."""
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    number, what = child.under_way[0], child.what
    child.progress.close()
    if child.stop == 0:
        return
    if os.WIFSIGNALED(status) or os.WEXITSTATUS(status):
        if number < child.start or os.waitstatus_to_exitcode(status) == HARNESS:
            raise HarnessError(f"A child of {kind.name} ended with status {status} at mutant {number}.")
        code = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        name = signal.Signals(code).name if code else f"exit {os.WEXITSTATUS(status)}"
        yield Verdict(number, what, False, "failed", "", [], child.killed or f"crash: {name}", "")
        child.done.append(number)
    next_number = max(child.done, default=child.start - 1) + 1
    if next_number < child.stop:
        waiting.insert(0, (next_number, child.stop))


def _prepare(kind: Kind, folder: Path) -> None:
    """Make the originals in a child, so that the parent has no threads."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            kind.prepare(folder)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError(f"The originals of {kind.name} could not be made.")


def _fork(kind: Kind, seed: int, start: int, stop: int, home: Path, plant: Callable[[], object]) -> Child:
    progress = mmap.mmap(-1, PROGRESS.size)
    PROGRESS.pack_into(progress, 0, start - 1, 0.0, b"")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, start, stop, reading, progress)
    code, said = HARNESS, os.dup(2)
    try:
        os.close(reading)
        _judge_all(kind, seed, range(start, stop), home, writing, progress, plant)
        code = 0
    except BaseException as error:
        os.write(said, "".join(traceback.format_exception(error)).encode())
    finally:
        os._exit(code)


def _judge_all(
    kind: Kind, seed: int, numbers: range, home: Path, writing: int, progress: mmap.mmap, plant: Callable[[], object]
) -> None:
    for stream in (1, 2):  # what libraries print
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    work = home / f"work-{os.getpid()}"
    kind.open(home / "originals")
    plant()
    _limit_memory()
    for number in numbers:
        (work / "inside").mkdir(parents=True)
        os.chdir(work / "inside")
        PROGRESS.pack_into(progress, 0, number, time.monotonic(), b"being made")
        mutant = make(kind, seed, number)
        said = mutant.what.encode(errors="replace")[:300]
        PROGRESS.pack_into(progress, 0, number, time.monotonic(), said)
        verdict = judged(kind, number, mutant, work / "inside")
        PROGRESS.pack_into(progress, 0, number, 0.0, said)
        os.chdir(home)
        shutil.rmtree(work, ignore_errors=True)
        line = json.dumps(asdict(verdict)).encode() + b"\n"
        while line:
            line = line[os.write(writing, line) :]
        if verdict.failure.startswith("memory"):
            return  # the peak is what it is: the next mutant gets a new child


def _limit_memory() -> None:
    """A blow-up is to end in an error of this process, not in the end of the machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def debug(kind: Kind, seed: int, number: int) -> tuple[Mutant, Verdict]:
    """One mutant, judged in this process."""
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "originals").mkdir()
        _prepare(kind, Path(home) / "originals")
        kind.open(Path(home) / "originals")
        (Path(home) / "work" / "inside").mkdir(parents=True)
        os.chdir(Path(home) / "work" / "inside")
        mutant = make(kind, seed, number)
        verdict = judged(kind, number, mutant, Path.cwd())
        os.chdir("/")
        return mutant, verdict


Counts = dict[str, int]


def summary(kind: Kind, seed: int, verdicts: list[Verdict], seconds: float) -> dict[str, Any]:
    """What is recorded of a kind: counts, gates, and an example of each sort of failure."""
    outcomes: Counts = {}
    gates: Counts = {}
    failures: dict[str, dict[str, Any]] = {}
    for verdict in sorted(verdicts, key=lambda each: each.number):
        outcomes[verdict.outcome] = outcomes.get(verdict.outcome, 0) + 1
        if verdict.outcome == "refused":
            gates[verdict.gate] = gates.get(verdict.gate, 0) + 1
        if verdict.failure:
            first = {"number": verdict.number, "what": verdict.what, "detail": verdict.detail, "count": 0, "others": []}
            kept = failures.setdefault(verdict.failure, first)
            kept["count"] += 1
            if len(kept["others"]) < 5:
                kept["others"].append(verdict.number)
    return {
        "seed": seed,
        "mutants": len(verdicts),
        "sealed_share": round(sum(each.sealed for each in verdicts) / max(1, len(verdicts)), 3),
        "seconds": round(seconds, 1),
        "outcomes": dict(sorted(outcomes.items())),
        "failures": failures,
        "gates": dict(sorted(gates.items(), key=lambda pair: -pair[1])),
    }
