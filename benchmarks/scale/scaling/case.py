"""Training steps in processes of their own, so that peak memory and threads are a point's alone: settings in, JSON out.

Started with RANK and its like in the environment, it is one of several ranks, of which rank 0 tells.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import torch
from scipy import sparse

import recvae
from recvae import MultVAE, TrainingConfig
from recvae.distributed.communicator import Communicator
from recvae.nn.products import in_bfloat16
from recvae.nn.scratch import reused
from recvae.training.trainer import rows_on_device
from recvae.utils.memory import PeakMemory

Point = dict[str, Any]
Times = tuple[float, float]  # seconds of a step, and of them those that this thread had a core
WARM = 2  # steps before those that count
SKEW = 0.9
PROBE = 1 << 22  # numbers of a sum over ranks


def run(points: list[Point], communicator: Communicator) -> list[dict[str, Any]]:
    """Each point's figures on this rank."""
    small = Point(items=50, users=40, length=5, candidates=10, batch=20, width=4, budget=0)
    for candidates in (None, 10):  # so that what the libraries take for themselves is there before
        _figures(small | {"candidates": candidates}, communicator)
    found = [_figures(point, communicator) for point in points]
    probed = {"streamed_per_second": _copied()} | (_probed(communicator) if communicator.size > 1 else {})
    return [figures | probed for figures in found]


def zipf(n_users: int, n_items: int, length: int, seed: int = 0) -> sparse.csr_matrix:
    """Users of `length` draws each of items, the one of rank r in proportion to (10 + r)^-0.9, those met again once."""
    random = np.random.default_rng(seed)
    bounds = np.cumsum((10.0 + np.arange(n_items)) ** -SKEW)
    items = np.searchsorted(bounds, random.random(n_users * length, dtype=np.float32) * bounds[-1])
    names = random.permutation(n_items).astype(np.int32)  # so that an item's number does not tell its rank
    chosen = names[items.clip(max=n_items - 1)]
    ends = np.arange(0, n_users * length + 1, length)
    rows = sparse.csr_matrix((np.ones(len(chosen), np.float32), chosen, ends), (n_users, n_items))
    rows.sum_duplicates()
    rows.data[:] = 1
    return rows


def _figures(point: Point, communicator: Communicator) -> dict[str, Any]:
    model = MultVAE(
        hidden_dims=(point["width"],),
        latent_dim=point["width"],
        batch_size=point["batch"],
        random_state=0,
        device="cpu",
        training=TrainingConfig(
            impl="chunked" if point["candidates"] is None else "sampled",
            num_negatives=point["candidates"] or 1,
            parallel={"users": "data", "items": "tensor"}[point.get("share", "users")],
        ),
    )
    before = psutil.Process().memory_info().rss
    rows = zipf(point["users"], point["items"], point["length"])
    plan = model.plan(rows, calibrate=False)
    found = {
        "events": rows.nnz,
        "plan_mib": plan.memory.peak / 2**20,
        "bfloat16": in_bfloat16("auto", communicator.device),
    }
    if not plan.fits:
        return found | {"refused": plan.refusal()}
    with PeakMemory() as peak, reused():
        times = _times(_steps(model, rows), point["budget"], communicator)
    found |= {"seconds": [wall for wall, _ in times], "cpu_seconds": [own for _, own in times]}
    return found | {"peak_mib": peak.mib - before / 2**20}


def _steps(model: MultVAE, rows: sparse.csr_matrix) -> Callable[[], Times]:
    """A function that makes the next step, and says how long it took, its batch's reading among it."""
    trainer = model.trainer(rows)
    source, batch_size = rows_on_device(rows, trainer.state.device), trainer.config.users_per_step(rows.shape[0])
    batches = itertools.chain.from_iterable(source.batches_of(key, batch_size) for key in itertools.count())
    next(batches)  # the order of the pass is drawn

    def step() -> Times:
        started, own = time.perf_counter(), time.thread_time()
        with trainer.in_pass():
            trainer.step(next(batches), 0.1)
        return time.perf_counter() - started, time.thread_time() - own

    return step


def _times(step: Callable[[], Times], budget: float, communicator: Communicator) -> list[Times]:
    """Of steps for about so many seconds, two at the least; on all ranks as many."""
    warm = [step() for _ in range(WARM)]
    many = communicator.broadcast(int(min(30, max(2, budget / warm[-1][0]))))
    return [step() for _ in range(many)]


def _copied() -> float:
    """Bytes a second that a copy reads and writes."""
    source, target = torch.ones(2, 4 * PROBE)  # larger than caches
    return 2 * source.nbytes / _median(lambda: target.copy_(source), 9, time.thread_time)


def _probed(communicator: Communicator) -> dict[str, float]:
    """Of the network: bytes a second that a rank sends in a large sum, and seconds of a small one's messages."""
    large, small = torch.zeros(PROBE), torch.zeros(3)
    sent = 2 * (communicator.size - 1) / communicator.size * large.nbytes
    return {
        "sent_per_second": sent / _median(lambda: communicator.all_reduce(large), 5),
        "seconds_of_a_hop": _median(lambda: communicator.all_reduce(small), 30)
        / (2 * math.ceil(math.log2(communicator.size))),
    }


def _median(work: Callable[[], object], times: int, clock: Callable[[], float] = time.perf_counter) -> float:
    seconds = []
    for _ in range(times):
        started = clock()
        work()
        seconds.append(clock() - started)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    torch.set_num_threads(1)
    with recvae.joined("cpu", timeout_s=120) as joined:
        results = run(json.loads(sys.argv[1]), joined)
    if joined.is_main_process:
        print(json.dumps(results))
