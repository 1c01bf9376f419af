"""How much memory a piece of work takes."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil


class PeakMemory:
    """The most resident memory of this process during a `with` block, in MiB, looked at every 20 ms."""

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
