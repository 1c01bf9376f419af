"""Checks of available memory, and measurement of peak memory."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil

from recvae.errors import NotEnoughMemoryError


def require_memory(n_bytes: int, what: str, remedy: str) -> None:
    """Raise NotEnoughMemoryError if `what` needs more memory than is available. Call it before allocating."""
    available = psutil.virtual_memory().available
    if n_bytes > available:
        raise NotEnoughMemoryError(
            f"Expected {n_bytes / 2**30:.1f} GiB of memory for {what}, got {available / 2**30:.1f} GiB available; "
            f"use {remedy}."
        )


class PeakMemory:
    """The most resident memory of this process during a `with` block, in MiB, sampled every 20 ms."""

    mib = 0.0

    def __enter__(self) -> Self:
        self._process, self._stop = psutil.Process(), threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._watch.join()

    def _look(self) -> None:
        while True:
            self.mib = max(self.mib, self._process.memory_info().rss / 2**20)
            if self._stop.wait(0.02):
                return
