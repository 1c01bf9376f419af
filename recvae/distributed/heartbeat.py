"""Failure detection: each rank records in a shared store that it is alive and, at its end, how it ended.

torch says that an exchange failed, but not which rank is lost or why: gloo reports a closed connection, NCCL waits for
its timeout, `monitored_barrier` needs a group in which no exchange has failed yet, and the table that torchrun prints
is missing under other launchers. From these keys in torch's store, each surviving rank can name the cause in its error.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from datetime import timedelta
from typing import Any

from recvae.errors import LostRankError

INTERVAL_S = 0.25  # between two heartbeats
DEAD_AFTER_S = 1.5  # without a heartbeat, after which a rank counts as lost
ABORT_AFTER_S = 20.0  # after another rank has failed: end of a rank that is stuck in an operation between GPUs
CLOSING_S = 5.0  # for which rank 0, if it hosts the store, waits at most for the others to end
REMEDY = "start all ranks again, from the last checkpoint where there is one."


class Heartbeat:
    """The heartbeat of one rank, which also checks those of the others.

    Keys in the store: `beat/RANK`, a counter that a thread of that rank increments; `end/RANK`, how the rank ended.

    Parameters
    ----------
    store : torch.distributed.Store
        Shared by all ranks.
    rank, size : int
        This rank, and the number of ranks.
    store_on_rank_0 : bool
        Whether rank 0 hosts the store, which then ends with it, rather than torchrun.
    abort_when_stuck : bool
        End this process if another rank has failed and an exchange stays blocked. One between GPUs would block until
        the timeout of NCCL, which then names no rank; one between CPUs fails by itself.
    """

    def __init__(self, store: Any, rank: int, size: int, *, store_on_rank_0: bool, abort_when_stuck: bool = False):
        self.store, self.rank, self.size = store, rank, size
        self.store_on_rank_0, self.abort_when_stuck = store_on_rank_0, abort_when_stuck
        self.others = [other for other in range(size) if other != rank]
        self.diagnosing = False  # whether this rank is already reporting a failed exchange
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recvae-heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread that writes heartbeats."""
        self._thread.start()

    def stop(self, error: BaseException | None) -> None:
        """Tell the others how this rank ended, and give them time to read it."""
        self._stopped.set()
        reason = None if error is None else f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
        try:
            self.store.set(f"end/{self.rank}", json.dumps({"reason": reason, "lost": isinstance(error, LostRankError)}))
            if self.store_on_rank_0 and self.rank == 0:
                self.store.wait([f"end/{other}" for other in self.others], timedelta(seconds=CLOSING_S))
        except RuntimeError:
            pass  # the store is gone, so no rank can read it; or some rank did not end in time
        self._thread.join(2 * INTERVAL_S)

    def lost_rank(self, operation: str, timed_out: bool = False) -> LostRankError | None:
        """The error for a collective operation that failed.

        It takes `DEAD_AFTER_S` seconds at most to find out which rank is lost.

        Parameters
        ----------
        operation : str
            What this rank was doing, for the message.
        timed_out : bool
            Whether the operation timed out, rather than failed at once.

        Returns
        -------
        LostRankError or None
            None if all ranks are alive and nothing timed out: the failure has another cause.
        """
        self.diagnosing = True
        try:
            causes = self._causes()
        except RuntimeError:  # the store does not answer
            host = "rank 0" if self.store_on_rank_0 else "torchrun"
            causes = [f"{host}, which hosts the store of the ranks, stopped responding"]
        rank = f"Rank {self.rank} of {self.size}"
        if causes:
            return LostRankError(f"{rank} lost another rank in {operation}: {', '.join(causes)}; {REMEDY}")
        if timed_out:
            return LostRankError(
                f"{rank} waited too long in {operation}, and all ranks are alive; raise timeout_s where one can be "
                "slow, or check that all run the same program."
            )
        return None

    def _causes(self) -> list[str]:
        """The ranks that have ended, failed ones first; if there are none, those whose heartbeat has stopped."""
        before = self._beats()
        deadline = time.monotonic() + DEAD_AFTER_S
        while not (ended := self._ended()) and time.monotonic() < deadline:
            time.sleep(INTERVAL_S / 2)
        if ended:
            return ended
        beats = self._beats()
        silent = [rank for rank in self.others if beats[rank] == before[rank] and self._end_of(rank) is None]
        return [f"rank {rank} stopped responding" for rank in silent]

    def _ended(self) -> list[str]:
        ends = {rank: end for rank in self.others if (end := self._end_of(rank)) is not None}
        failed = [f"rank {rank} ended with: {end['reason']}" for rank, end in ends.items() if _is_cause(end)]
        return failed + [f"rank {rank} had finished" for rank, end in ends.items() if end["reason"] is None]

    def _end_of(self, rank: int) -> dict[str, Any] | None:
        key = f"end/{rank}"
        return json.loads(self.store.get(key)) if self.store.check([key]) else None  # `get` without `check` would block

    def _beats(self) -> dict[int, int]:
        return {rank: self.store.add(f"beat/{rank}", 0) for rank in self.others}

    def _run(self) -> None:
        """The thread: sends heartbeats, and ends the process if a rank failed and an exchange stays blocked."""
        failed_since: float | None = None
        while not self._stopped.wait(INTERVAL_S):
            try:
                self.store.add(f"beat/{self.rank}", 1)
                failed = self.abort_when_stuck and bool(self._ended())
            except RuntimeError:
                return
            failed_since = (failed_since or time.monotonic()) if failed else None
            if failed_since and time.monotonic() > failed_since + ABORT_AFTER_S and not self._stopped.is_set():
                print(f"recvae: {self.lost_rank('an exchange between GPUs')}", file=sys.stderr, flush=True)
                os._exit(1)


def _is_cause(end: dict[str, Any]) -> bool:
    """Whether a rank failed on its own, rather than because it lost another one."""
    return end["reason"] is not None and not end["lost"]
