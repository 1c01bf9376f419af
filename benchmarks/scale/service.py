"""A service as gunicorn runs it: models are warmed up, workers forked, threads answer; are memory and log constant?

Only the loopback interface is used, and everything ends by itself: a worker with its parent, the parent after at most
`SECONDS`.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psutil

from benchmarks.speed import machine
from recvae import EASE, HybridVAE, Interactions, MultVAE, Recommender, load_dataset
from recvae.models.baselines import ALS, ItemKNN

WORKERS, THREADS, CLIENTS = 4, 8, 8
MARKS = 10  # times that memory and log are measured
SECONDS = 900.0  # after which the service counts as hung
TIMEOUT = 60.0  # of one request, in seconds
N = 10
KNOWN = 5  # items of a request that the model knows; one more item is unknown, another in each request
GROWTH = 1.05  # memory counts as constant up to this factor of the first mark, plus SLACK
SLACK = 8.0  # MiB
SMALL: dict[str, Any] = {"epochs": 1, "random_state": 0}
MODELS: dict[str, Recommender] = {
    "MultVAE": MultVAE(**SMALL),
    "HybridVAE": HybridVAE(**SMALL, l2=300.0),
    "EASE": EASE(),
    "ALS": ALS(random_state=0),
    "ItemKNN": ItemKNN(),
}
State = dict[str, Any]


def run_service(requests: int, home: Path | None = None, dataset: str = "sample") -> dict[str, Any]:
    """Send `requests` requests to the models in turn, each with a new unknown item. -> for JSON"""
    data = load_dataset(dataset, home)
    asked = _histories(data)
    for model in MODELS.values():
        model.fit(data, show_progress=False)
    expected = {name: [_answer(model, history) for history in asked] for name, model in MODELS.items()}  # the warm-up
    with tempfile.TemporaryDirectory() as folder, _workers(Path(folder) / "log") as (port, pids):
        client = _Client(port, asked, expected, time.monotonic() + SECONDS)
        started = time.perf_counter()
        marks: list[State] = []
        for mark in range(MARKS):
            client.ask(range(mark * requests // MARKS, (mark + 1) * requests // MARKS))
            marks.append({"requests": (mark + 1) * requests // MARKS} | _looked_at(pids, Path(folder) / "log"))
            if mark in (0, MARKS - 1):
                marks[-1]["warnings_kept"] = client.warnings_kept(len(pids))
            print(marks[-1], file=sys.stderr, flush=True)
        seconds = time.perf_counter() - started
    sizes = {"workers": WORKERS, "threads_of_each": THREADS, "models": list(MODELS), "requests": requests}
    found = {"failed": client.failed, "other_lists": client.other, "seconds": seconds, "marks": marks}
    return machine() | sizes | found | {"constant": _is_constant(marks)}


def _is_constant(marks: list[State]) -> bool:
    """Whether memory, log size and the warnings that Python keeps have not grown since the first mark."""
    first, last = marks[0], marks[-1]
    memory = all(b <= GROWTH * a + SLACK for a, b in zip(first["rss_mib"], last["rss_mib"], strict=True))
    same = all(first[name] == last[name] for name in ("log_bytes", "warnings_kept"))
    return memory and same


def _looked_at(pids: list[int], log: Path) -> State:
    return {
        "rss_mib": [round(psutil.Process(pid).memory_info().rss / 2**20, 1) for pid in pids],
        "log_bytes": log.stat().st_size,
    }


def _histories(data: Interactions) -> list[list[Any]]:
    """The first items of some users, as raw ids."""
    rows = (data.item_ids[data.matrix[user].indices[:KNOWN]].tolist() for user in range(50))
    return [row for row in rows if row]


def _answer(model: Recommender, history: list[Any]) -> list[Any]:
    items: list[Any] = model.recommend_for([history], N=N)["item"].to_pylist()
    return items


class _Client:
    """Sends requests from several threads, and compares each answer with that of the parent before the fork."""

    def __init__(self, port: int, asked: list[list[Any]], expected: dict[str, list[list[Any]]], deadline: float):
        self.port, self.asked, self.expected, self.deadline = port, asked, expected, deadline
        self.failed = self.other = 0
        self.lock = threading.Lock()

    def ask(self, numbers: range) -> None:
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(self._one, numbers))

    def _one(self, number: int) -> None:
        if time.monotonic() > self.deadline:
            raise SystemExit(f"Expected the service to answer within {SECONDS:.0f} s; it hangs.")
        names, which = list(MODELS), number % len(self.asked)
        name = names[number % len(names)]
        history = [*self.asked[which], 10**9 + number]
        try:
            items = self._post(f"/{name}", history)["items"]
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            items = None
        with self.lock:
            self.failed += items is None
            self.other += items is not None and items != self.expected[name][which]

    def warnings_kept(self, n_workers: int) -> list[int]:
        """Number of warnings that each worker keeps, by ascending process id; asks until all have answered."""
        kept: dict[int, int] = {}
        while len(kept) < n_workers and time.monotonic() < self.deadline:
            state = self._post("/", [])
            kept[state["pid"]] = state["warnings_kept"]
        return [kept[pid] for pid in sorted(kept)]

    def _post(self, path: str, history: list[Any]) -> State:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request("POST", path, json.dumps(history))
            answer: State = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()


@contextmanager
def _workers(log: Path) -> Iterator[tuple[int, list[int]]]:
    """Fork workers, and kill them after the block. -> port, process ids"""
    pids: list[int] = []
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        try:
            for _ in range(WORKERS):
                pid = os.fork()
                if pid == 0:
                    _serve(listening, log)
                pids.append(pid)
            yield listening.getsockname()[1], pids
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _serve(listening: socket.socket, log: Path) -> None:
    """Run a worker: threads accept and answer until the parent has ended. Does not return."""
    parent = os.getppid()
    try:
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), 2)
        sys.stderr = os.fdopen(2, "w", buffering=1)  # warnings go there, whatever sys.stderr was before
        warnings.resetwarnings()  # each is shown once, whatever the filters of the measuring process
        for _ in range(THREADS):
            threading.Thread(target=_accept, args=[listening], daemon=True).start()
        while os.getppid() == parent:
            time.sleep(0.5)
    finally:
        os._exit(0)


def _accept(listening: socket.socket) -> None:
    while True:
        connection, address = listening.accept()
        try:
            with connection:
                connection.settimeout(TIMEOUT)
                _Handler(connection, address, None)  # type: ignore[arg-type]  # it does not use its server
        except Exception:
            traceback.print_exc()  # the client counts it as failed


class _Handler(BaseHTTPRequestHandler):
    """POST /MODEL with a history, a list of raw ids; POST / for the state of the worker."""

    def do_POST(self) -> None:
        history = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = self.path.strip("/")
        answer = {"items": _answer(MODELS[name], history)} if name else _state()
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing: a line for each request would be the server's log, not that of the models."""


def _state() -> State:
    registries = (getattr(module, "__warningregistry__", None) for module in list(sys.modules.values()))
    return {"pid": os.getpid(), "warnings_kept": sum(len(kept) for kept in registries if isinstance(kept, dict))}
