"""Who of the ranks that train together is still there: so that a failed exchange can say which one is gone, and why."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

from recvae.errors import LostRankError

BEAT = 0.25  # seconds between two signs of life
SILENT = 1.5  # seconds without one, after which a rank counts as gone
PATIENCE = 20.0  # seconds that a rank whose exchange cannot fail by itself is left to find out
LINGER = 5.0  # seconds at most that the rank which keeps the register stays for the others to read it
REMEDY = "start all ranks again, from the last checkpoint where there is one."


class Heartbeat:
    """One rank's entries in the store that all ranks share: a counter that it raises, and how it ended.

    Parameters
    ----------
    keeper : bool
        Whether the store lives in rank 0 and is gone with it, rather than in torchrun.
    leave_by_force : bool
        Whether an exchange may wait for ever for a rank that is gone, as those of a GPU do.
    """

    def __init__(self, store: Any, rank: int, size: int, *, keeper: bool, leave_by_force: bool = False):
        self.store, self.rank, self.size = store, rank, size
        self.keeper, self.leave_by_force = keeper, leave_by_force
        self.asked = False  # whether this rank is finding out who is gone
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._beat, name="recvae-rollcall", daemon=True)

    def begin(self) -> None:
        self.store.set(self._key("beat"), "0")
        self.thread.start()

    def end(self, error: BaseException | None) -> None:
        """Say how this rank ended, and wait for those who still have to read the register."""
        self.over.set()
        why = None if error is None else f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
        try:
            self.store.set(self._key("end"), json.dumps({"why": why, "lost": isinstance(error, LostRankError)}))
            if self.keeper and self.rank == 0:
                self._linger()
        except RuntimeError:
            pass  # the store is gone, and with it all who could read
        self.thread.join(2 * BEAT)

    def lost(self, during: str, late: bool = False) -> LostRankError | None:
        """The error of an exchange that failed, `late` where it waited too long; None where all ranks are there.

        It takes `SILENT` seconds at most to find out who is gone.
        """
        self.asked = True
        try:
            culprits = self._culprits()
        except RuntimeError:  # the store does not answer
            keeper = "rank 0" if self.keeper else "torchrun"
            culprits = [f"{keeper}, which keeps the register of ranks, ended without a word"]
        who = f"Rank {self.rank} of {self.size}"
        if culprits:
            return LostRankError(f"{who} lost another rank in {during}: {', '.join(culprits)}; {REMEDY}")
        if late:
            return LostRankError(
                f"{who} waited too long in {during}, and all ranks are there; raise timeout_s where one can be slow, "
                "or look whether all run the same program."
            )
        return None

    def _culprits(self) -> list[str]:
        """Who ended with an error of their own; else who gives no sign of life."""
        before = self._beats()
        until = time.monotonic() + SILENT
        while not (found := self._ended()) and time.monotonic() < until:
            time.sleep(BEAT / 2)
        if found:
            return found
        beats = self._beats()
        silent = [rank for rank in self._others() if beats[rank] == before[rank] and not self._has("end", rank)]
        return [f"rank {rank} ended without a word" for rank in silent]

    def _ended(self) -> list[str]:
        ends = {rank: json.loads(self.store.get(self._key("end", rank))) for rank in self._others("end")}
        found = [
            f"rank {rank} ended with: {end['why']}" for rank, end in ends.items() if end["why"] and not end["lost"]
        ]
        return found + [f"rank {rank} was done and left" for rank, end in ends.items() if end["why"] is None]

    def _beats(self) -> dict[int, bytes]:
        return {
            rank: self.store.get(self._key("beat", rank)) if self._has("beat", rank) else b"" for rank in self._others()
        }

    def _beat(self) -> None:
        """The thread: signs of life, and the way out where an exchange would wait for ever."""
        beats, seen = 0, 0.0
        while not self.over.wait(BEAT):
            beats += 1
            try:
                self.store.set(self._key("beat"), str(beats))
                gone = self._ended() if self.leave_by_force else []
            except RuntimeError:
                return
            seen = (seen or time.monotonic()) if gone else 0.0
            if gone and time.monotonic() > seen + PATIENCE and not self.over.is_set():
                print(f"recvae: {self.lost('an exchange between GPUs')}", file=sys.stderr, flush=True)
                os._exit(1)

    def _linger(self) -> None:
        until = time.monotonic() + LINGER
        while len(self._others("end")) < self.size - 1 and time.monotonic() < until:
            time.sleep(BEAT / 5)

    def _others(self, with_key: str | None = None) -> list[int]:
        others = [rank for rank in range(self.size) if rank != self.rank]
        return [rank for rank in others if with_key is None or self._has(with_key, rank)]

    def _has(self, what: str, rank: int) -> bool:
        return bool(self.store.check([self._key(what, rank)]))

    def _key(self, what: str, rank: int | None = None) -> str:
        return f"recvae/{what}/{self.rank if rank is None else rank}"
