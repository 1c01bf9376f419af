"""Progress with the time left on a terminal, and silence anywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


def bar(show: bool = True) -> Progress:
    """A progress display on standard error; nothing is drawn unless `show` and that is a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not (show and console.is_terminal),
        transient=True,
    )


def track(steps: Sequence[T], description: str, show: bool = True) -> Iterable[T]:
    """Iterate over `steps` with a progress bar."""
    with bar(show) as progress:
        task = progress.add_task(description, total=len(steps), note="")
        for step in steps:
            yield step
            progress.advance(task)


class DownloadBar:
    """A progress bar of bytes, with the methods that pooch calls."""

    def __init__(self, description: str, show: bool = True):
        self._progress = bar(show)
        self._task = self._progress.add_task(description, total=None, note="bytes")
        self.total = 0

    def __enter__(self) -> DownloadBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, n_bytes: int) -> None:
        self._progress.update(self._task, advance=n_bytes, total=self.total)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        """Nothing to do: the display ends with the `with` block."""
