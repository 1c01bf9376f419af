"""Worker threads that share out the pieces of a computation, each computing in one thread of torch's.

Torch divides every operation among all cores: thousands of small parallel regions, whose threads wait for each other.
A busy neighbour on one core makes them all late. Here an operation on a batch is cut into a few coarse pieces (users,
or items), which the workers take one after the other; a worker that is late takes fewer. How many cores take part is
chosen by what the steps take (`CoreTuner`). The cut depends on the data alone, so results do not depend on the number
of workers: with one seed the weights are the same on one core, on several, and next to a neighbour.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread, get_ident
from typing import Any, TypeVar

import torch

T = TypeVar("T")
P = TypeVar("P")

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")
MOST_PIECES = 8
USERS, ITEMS = 96, 512  # least in a piece of a batch, and of a table
RECENT = 5  # units of work whose median is compared
TRIED = 2  # units with another number of cores, and at first with all of them, before the two are compared
SLOWER = 1.25  # than the median: a trial ends at once, or another number is tried
FIRST_LOOK, LAST_LOOK = 1.0, 27.0  # seconds between two trials of another number; three times as long each time


class Workers:
    """A number of threads, the calling one among them, that compute pieces in parallel.

    Use it as a context: inside, `workers()` returns it, and torch's operations of the calling thread use one core; the
    settings of other threads are not touched. On exit the threads end.

    Parameters
    ----------
    cores : int, optional
        The most threads; by default `usable_cores()`.
    """

    def __init__(self, cores: int | None = None):
        self.cores, self.reason = usable_cores() if cores is None else (max(1, cores), "as asked for")
        self.tuner = CoreTuner(self.cores)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._exit = ExitStack()
        self.caller = -1  # the thread whose context it is

    def __enter__(self) -> Workers:
        self.caller = get_ident()
        self._exit.enter_context(one_thread())
        token = _current.set(self)
        self._exit.callback(_current.reset, token)
        return self

    def __exit__(self, *error: object) -> None:
        with self._exit:  # also if a second interrupt comes while it waits
            threads, self._threads = self._threads, []
            for _ in threads:
                self._jobs.put(None)
            for thread in threads:
                if thread.is_alive():  # not if an interrupt came before it was started
                    thread.join()

    def map(self, function: Callable[[P], T], pieces: Sequence[P]) -> list[T]:
        """The function of each piece, in the order of the pieces; raises the first error in that order."""
        helpers = min(self.tuner.count, len(pieces)) - 1
        if helpers < 1:
            with _alone():
                return [function(piece) for piece in pieces]
        while len(self._threads) < helpers:
            thread = Thread(target=_work, args=(self._jobs,), name="recvae worker", daemon=True)
            self._threads.append(thread)  # before it is started, which an interrupt may follow at once
            thread.start()
        job = _Job(function, pieces)
        try:
            for _ in range(helpers):
                self._jobs.put(job)
            with _alone():
                job.run()
            return job.results()
        except BaseException:
            job.over = True  # also if an interrupt came between pieces, or while it waited
            raise

    def state(self) -> tuple[int, int, str]:
        """The number of cores used now, the most, and why, for a log."""
        return self.tuner.count, self.cores, self.reason


class _Job:
    """The pieces of one `map`: threads take the next one until there are none."""

    def __init__(self, function: Callable[[Any], Any], pieces: Sequence[Any]):
        self.function, self.pieces, self.settings = function, pieces, _torch_settings()
        self.outcomes: list[Any] = [None] * len(pieces)
        self.errors: list[BaseException | None] = [None] * len(pieces)
        self.next, self.left = itertools.count(), len(pieces)
        self.over = False  # after an error: further pieces are counted, but not computed
        self.lock, self.done = Lock(), Lock()
        self.done.acquire()
        self.busy = {_core_of_this_thread()}  # cores that compute this job

    def run(self) -> None:
        """Compute pieces until all are taken."""
        while (index := next(self.next)) < len(self.pieces):  # `next` of a count is atomic
            try:
                if not self.over:
                    self.outcomes[index] = self.function(self.pieces[index])
            except BaseException as error:
                self.errors[index], self.over = error, True
            with self.lock:
                self.left -= 1
                if not self.left:
                    self.done.release()

    def results(self) -> list[Any]:
        """Wait for the pieces that other threads have taken. Raises the first error."""
        self.done.acquire()
        for error in self.errors:
            if error is not None:
                raise error
        return self.outcomes


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    """The loop of a worker thread."""
    allowed = os.sched_getaffinity(0) if _sched_getcpu() else set()
    with one_thread():
        while (job := jobs.get()) is not None:
            _keep_apart(job.busy, allowed)
            with job.settings():
                job.run()
            del job  # its results are not kept until the next one


def _keep_apart(busy: set[int], allowed: set[int]) -> None:
    """Keep this thread away from the cores in `busy`, if its own is among them, and add its core.

    A kernel may wake a thread on the core of the one that it works for, and leave both there for a second while
    another core is idle.
    """
    core = _core_of_this_thread()
    if core in busy and allowed - busy:
        os.sched_setaffinity(0, allowed - busy)  # moves the thread at once
        core = _core_of_this_thread()
    busy.add(core)


def _core_of_this_thread() -> int:
    """The core that runs the calling thread now; -1 where the system does not say."""
    current = _sched_getcpu()
    return -1 if current is None else int(current())


@cache
def _sched_getcpu() -> Callable[[], int] | None:
    """The C library's function of Linux."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    function: Callable[[], int] | None = getattr(ctypes.CDLL(None), "sched_getcpu", None)
    return function


class CoreTuner:
    """Chooses how many cores to use, by the time that units of work take.

    It begins with all of them, looks now and then whether half or twice as many are faster, and soon after units have
    become slower, as when another process comes. As results do not depend on the number, a look costs only time.
    """

    def __init__(self, cores: int, clock: Callable[[], float] = time.monotonic):
        self.counts = sorted({1, cores, *(2**k for k in range(1, cores.bit_length()) if 2**k < cores)})
        self.index = len(self.counts) - 1  # of the number that is used
        self.clock = clock
        self.seconds: deque[float] = deque(maxlen=RECENT)  # of recent units, apart from looks
        self.trial: list[float] | None = None  # seconds of units with another number of cores
        self.tried = self.index
        self.slow = 0  # units in a row that were slower
        self.skip = 1  # the first unit, which allocates memory
        self.wait, self.lower_next = FIRST_LOOK, True
        self.next_look = self.last_look = -1.0

    @property
    def count(self) -> int:
        """The number of cores to use now."""
        return self.counts[self.index if self.trial is None else self.tried]

    def begin(self) -> None:
        """Units of another kind begin, to which the seconds of earlier ones do not compare. The number stays."""
        self.seconds.clear()
        self.trial, self.slow, self.skip, self.wait = None, 0, 1, FIRST_LOOK
        self.next_look = self.last_look = -1.0

    def record(self, seconds: float) -> None:
        """Take note of the seconds of a unit, for each part of its size."""
        if len(self.counts) == 1:
            return
        if self.skip:
            self.skip -= 1
        elif self.trial is None:
            self._compare_with_before(seconds)
        else:
            self.trial.append(seconds)
            if len(self.trial) == TRIED or seconds > SLOWER * statistics.median(self.seconds):
                self._decide(self.trial)

    def _compare_with_before(self, seconds: float) -> None:
        now = self.clock()
        usual = statistics.median(self.seconds) if len(self.seconds) >= TRIED else None
        if self.last_look < 0:
            self.last_look = now
        self.slow = self.slow + 1 if usual is not None and seconds > SLOWER * usual else 0
        slower = self.slow >= TRIED and now > self.last_look + FIRST_LOOK  # one unit alone may be chance
        self.seconds.append(seconds)
        if usual is not None and (slower or now >= self.next_look):
            if slower:
                self.seconds.clear()  # what was measured before holds no longer
                self.seconds.append(seconds)
                self.slow, self.wait = 0, FIRST_LOOK
            self._look()

    def _look(self) -> None:
        """Try the next lower or higher number of cores, in turns, for the next units."""
        step = -1 if self.lower_next else 1
        if not 0 <= self.index + step < len(self.counts):
            step = -step
        self.lower_next = not self.lower_next
        self.tried, self.trial = self.index + step, []

    def _decide(self, trial: list[float]) -> None:
        better = len(trial) == TRIED and statistics.median(trial) < statistics.median(self.seconds)
        if better:
            self.index, self.wait = self.tried, FIRST_LOOK
            self.seconds.clear()
            self.seconds.extend(trial)
            logger.debug("using %d of %d cores", self.counts[self.index], self.counts[-1])
        self.trial, self.last_look = None, self.clock()
        self.next_look = self.last_look + self.wait
        self.wait = min(3 * self.wait, LAST_LOOK)


_current: ContextVar[Workers | None] = ContextVar("workers", default=None)


def map_pieces(function: Callable[[P], T], pieces: Sequence[P]) -> list[T]:
    """The function of each piece, by the workers of the current context; without any, one piece after the other.

    A single piece may be cut again by the function.
    """
    workers = _of_this_thread()
    if workers is None or len(pieces) == 1:
        return [function(piece) for piece in pieces]
    return workers.map(function, pieces)


@contextmanager
def timed(amount: float) -> Iterator[None]:
    """Measure a unit of work, of the given size, to choose the number of cores for the next ones in this context."""
    started, workers = time.perf_counter(), _of_this_thread()
    yield
    if workers is not None and amount > 0:
        workers.tuner.record((time.perf_counter() - started) / amount)


@contextmanager
def use_workers() -> Iterator[Workers]:
    """The workers of the current context, or new ones, for a `with` block."""
    workers = _of_this_thread()
    if workers is not None:
        yield workers
        return
    with Workers() as workers:
        yield workers


def _of_this_thread() -> Workers | None:
    """The workers of the current context, None if another thread made them: contexts may be copied."""
    workers = _current.get()
    return workers if workers is not None and workers.caller == get_ident() else None


def cut(n: int, least: int, device: torch.device = CPU) -> list[slice]:
    """Cut 0 ... n - 1 into 1, 2, 4 or 8 pieces, by these two numbers alone: none is smaller than `least`.

    On devices other than a CPU there is one piece.

    There are two pieces up to 16 * least: smaller matrix products lose more than further cores gain.
    """
    pieces = (
        1 if n < 2 * least or device.type != "cpu" else 2 if n < 16 * least else 4 if n < 32 * least else MOST_PIECES
    )
    bounds = [n * k // pieces for k in range(pieces + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]


def usable_cores() -> tuple[int, str]:
    """The cores that this process may use: by affinity, by the quota of its container, by torch's number of threads.

    Torch's is set by `torch.set_num_threads` or the environment variable OMP_NUM_THREADS.

    Returns
    -------
    tuple[int, str]
        Their number, and the reason for a log.
    """
    from recvae.utils.cores import available_cores  # only where something is computed in parallel

    available, threads = available_cores(), torch.get_num_threads()
    return max(1, min(available.count, threads)), f"{available.reason()}, {threads} torch threads"


@contextmanager
def one_thread() -> Iterator[None]:
    """In this context, torch computes in one thread where the calling thread uses it; other threads are not affected.

    `torch.set_num_threads` would change the number for the whole process. OpenMP's own number belongs to a thread.
    """
    torch.get_num_threads()  # a thread's first use of torch sets its number of threads
    runtimes = [(runtime, runtime.get_num_threads()) for runtime in _openmp()]
    for runtime, _ in runtimes:
        runtime.set_num_threads(1)
    mkl = _mkl_threads()
    mkl_threads = 0 if mkl is None else mkl(1)
    try:
        yield
    finally:
        if mkl is not None:
            mkl(mkl_threads)
        for runtime, threads in runtimes:
            runtime.set_num_threads(threads)


@cache
def _openmp() -> list[Any]:
    """The OpenMP runtimes in this process, torch's among them."""
    from threadpoolctl import ThreadpoolController

    return list(ThreadpoolController().select(user_api="openmp").lib_controllers)


@cache
def _mkl_threads() -> Callable[[int], int] | None:
    """MKL's function for the number of threads of the calling thread, from torch's library, where it has MKL.

    After `torch.set_num_threads`, MKL no longer asks OpenMP. The function returns the number before; 0 stands for the
    number of the process.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not library.exists():
        return None
    function: Callable[[int], int] | None = getattr(ctypes.CDLL(str(library)), "MKL_Set_Num_Threads_Local", None)
    return function


def _torch_settings() -> Callable[[], AbstractContextManager[Any]]:
    """The settings that torch keeps for each thread, to be set in another one: gradients, and autocast on a CPU."""
    inference = torch.is_inference_mode_enabled()
    grad, autocast, dtype = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    @contextmanager
    def settings() -> Iterator[None]:
        with (
            torch.inference_mode(inference),  # first: it sets the mode of gradients too
            torch.set_grad_enabled(grad),
            torch.autocast("cpu", dtype, cache_enabled=False) if autocast else nullcontext(),
        ):
            yield

    return settings


@contextmanager
def _alone() -> Iterator[None]:
    """In this context, `map_pieces` within a piece computes in the same thread."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)
