"""How far a run is, and how fast."""

from __future__ import annotations

import time

from rich.progress import Progress


class Meter:
    """Users done, on a progress bar, and how many in a second of this run."""

    def __init__(self, progress: Progress):
        self._progress, self._task = progress, progress.add_task("sorting events", total=None, note="")

    def start(self, n_users: int, n_done: int) -> None:
        """From now on, users are done."""
        self._started, self._first, self._done = time.perf_counter(), n_done, n_done
        self._progress.update(self._task, description="recommending", total=n_users, completed=n_done)

    def advance(self, users: int) -> None:
        """So many more are done."""
        self._done += users
        rate = (self._done - self._first) / (time.perf_counter() - self._started)
        self._progress.update(self._task, completed=self._done, note=f"{rate:,.0f} users/s")
