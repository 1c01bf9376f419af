"""The progress display of training: the position in the run, both terms of the ELBO, the validation metric."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from recvae.training.callbacks import Callback, Epoch
from recvae.utils.progress import TimeLeftColumn, bar


class Live(Callback):
    """A display of one run of the training loop, to be used in a `with` block.

    Parameters
    ----------
    title : str
        Name of the model.
    epochs, steps : int
        Epochs in the run, and steps in an epoch.
    users : int
        Users in an epoch, counted once for each pass over them.
    metric : str
        Name of the validation metric.
    """

    def __init__(self, title: str, epochs: int, steps: int, users: int, metric: str, show: bool = True):
        self.title, self.epochs, self.steps, self.users, self.metric = title, epochs, steps, users, metric
        self.best: Epoch | None = None
        self.last: Epoch | None = None
        self._bar = bar(show, *_columns())
        self._task = self._bar.add_task(self._where(1), total=epochs * steps, note="", start=False)
        self._epoch_began = self._began = time.perf_counter()
        self._before: int | None = None  # steps of the epoch done before a resume; unknown until the first step here

    def __enter__(self) -> Live:
        self._bar.start()
        self._bar.start_task(self._task)
        self._epoch_began = self._began = time.perf_counter()
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None and self.last is not None:
            self._bar.leave(self._summary(self.last))
        self._bar.stop()

    def on_step_end(self, epoch: int, step: int) -> None:
        """Update the bar. Speed is by the clock of the host; that a GPU lags by some steps does not matter here."""
        if not self._bar.disable:
            if self._before is None:
                self._before = step - 1
                self._bar.update(self._task, before=(epoch - 1) * self.steps + self._before)
            users_done = self.users * (step - self._before) / self.steps
            speed = users_done / max(time.perf_counter() - self._epoch_began, 1e-9)
            done = (epoch - 1) * self.steps + step
            self._bar.update(self._task, completed=done, description=self._where(epoch), note=f"{speed:,.0f} users/s")

    def on_epoch_end(self, epoch: Epoch) -> None:
        """Show the figures of this epoch below the bar until the end of the next."""
        self._epoch_began, self._before, self.last = time.perf_counter(), 0, epoch
        if epoch.valid is not None and (self.best is None or epoch.best != self.best.best):
            self.best = epoch
        self._bar.below = self._figures(epoch)
        self._bar.update(self._task, completed=epoch.epoch * self.steps)

    def _where(self, epoch: int) -> str:
        return f"{self.title}, epoch {epoch}/{self.epochs}"

    def _figures(self, epoch: Epoch) -> list[str]:
        terms = f"  loss {epoch.loss:.2f}"
        if epoch.kl or epoch.beta:  # a deterministic autoencoder has one term
            terms += f"   reconstruction {epoch.nll:.2f}   KL {epoch.kl:.2f}   beta {epoch.beta:.3g}"
        if epoch.valid is None or self.best is None:
            return [terms]
        best = f"best {self.best.valid:.4f} in epoch {self.best.epoch}"
        return [terms, f"  {self.metric} {epoch.valid:.4f} on validation users   {best}"]

    def _summary(self, last: Epoch) -> str:
        took = timedelta(seconds=round(time.perf_counter() - self._began))
        best = "" if self.best is None else f", kept epoch {self.best.epoch}: {self.metric} {self.best.valid:.4f}"
        return f"{self.title}: {last.epoch} epochs in {took}{best}"


def _columns() -> list[ProgressColumn]:
    """Columns on one line; in a narrow terminal the bar gets shorter."""
    return [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None, table_column=Column(max_width=24)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TimeLeftColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", markup=False),
    ]
