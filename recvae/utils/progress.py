"""Progress bars with the remaining time, in a terminal or a notebook; nothing is drawn elsewhere."""

from __future__ import annotations

import importlib
import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from recvae.errors import escaped

T = TypeVar("T")

NOTEBOOK_WIDTH = 100  # characters
NOTEBOOK_PAUSE = 0.5  # seconds between two drawings


class Bar(Progress):
    """A progress display on standard error, with lines of text `below` it."""

    below: Sequence[str] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars, then the lines of `below`."""
        yield from super().get_renderables()
        yield from (Text(escaped(line), no_wrap=True, overflow="ellipsis") for line in self.below)

    def leave(self, line: str) -> None:
        """Print a line that remains after the display has ended."""
        if not self.disable:
            self.console.print(Text(escaped(line)), soft_wrap=True)


class NotebookBar(Bar):
    """A bar as text in the output of a notebook cell, redrawn as it advances, without threads or widgets."""

    _drawn = 0.0
    _output: Any = None

    def start(self) -> None:
        """Do nothing: there is nothing to draw before there is a task."""

    def stop(self) -> None:
        """Draw the final state."""
        self.refresh()

    def refresh(self) -> None:
        """Replace the last drawing."""
        if self.disable or not self.tasks:
            return
        text = io.StringIO()
        Console(file=text, width=NOTEBOOK_WIDTH, force_jupyter=False, color_system=None).print(self.get_renderable())
        content = {"text/plain": text.getvalue().rstrip()}
        if self._output is None:
            self._output = importlib.import_module("IPython.display").display(content, raw=True, display_id=True)
        else:
            self._output.update(content, raw=True)
        self._drawn = time.monotonic()

    def update(self, *arguments: Any, **changes: Any) -> None:
        """As on a terminal, but redrawn at most every `NOTEBOOK_PAUSE` seconds."""
        super().update(*arguments, **changes)
        self._draw_now_and_then()

    def advance(self, *arguments: Any, **changes: Any) -> None:
        """As on a terminal, but redrawn at most every `NOTEBOOK_PAUSE` seconds."""
        super().advance(*arguments, **changes)
        self._draw_now_and_then()

    def leave(self, line: str) -> None:
        """Do nothing: in a notebook the display itself remains."""

    def _draw_now_and_then(self) -> None:
        if time.monotonic() - self._drawn > NOTEBOOK_PAUSE:
            self.refresh()


class TimeLeftColumn(ProgressColumn):
    """The remaining time, from the mean speed since the start, which includes work between the steps.

    Steps of an earlier run, the field `before` of the task, took none of that time.
    """

    def render(self, task: Task) -> Text:
        """Such as "0:01:10 left"."""
        done = task.completed - task.fields.get("before", 0)
        if done <= 0 or task.total is None or task.elapsed is None:
            return Text("-:--:-- left")
        seconds = task.elapsed * (task.total - task.completed) / done
        return Text(f"{timedelta(seconds=round(seconds))} left")


def bar(show: bool = True, *columns: ProgressColumn) -> Bar:
    """A progress display on standard error; drawn only with `show`, in a terminal or a notebook."""
    console = Console(stderr=True, markup=False, emoji=False)
    kind = NotebookBar if console.is_jupyter else Bar
    return kind(
        *(columns or _columns()),
        console=console,
        disable=not (show and (console.is_terminal or console.is_jupyter)),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # output that is redirected to a file stays there
    )


@contextmanager
def busy(description: str, show: bool = True) -> Iterator[Callable[[str], None]]:
    """A bar for work of unknown length; yields a function that sets the description of the current work."""
    with bar(show, TextColumn("{task.description}", markup=False), BarColumn(12), TimeElapsedColumn()) as progress:
        task = progress.add_task(description, total=None)
        yield lambda what: progress.update(task, description=f"{description}, {what}")


def _columns() -> list[ProgressColumn]:
    return [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    ]


def track(steps: Sequence[T], description: str, show: bool = True) -> Iterable[T]:
    """Iterate over `steps` with a progress bar."""
    with bar(show) as progress:
        task = progress.add_task(description, total=len(steps), note="")
        for step in steps:
            yield step
            progress.advance(task)


class DownloadBar:
    """A progress bar in bytes, with the methods that pooch calls."""

    def __init__(self, description: str, show: bool = True):
        self._progress = bar(show)
        self._task = self._progress.add_task(escaped(description), total=None, note="bytes")
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
