"""Callbacks of training: functions of an epoch, a JSON Lines log, TensorBoard, and your own classes.

Callbacks only observe: a fit gives the same model with and without them.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recvae.errors import InvalidTypeError, OutputError
from recvae.utils.files import append_line, check_writable
from recvae.utils.optional import require
from recvae.utils.paths import output_path
from recvae.version import __version__


@dataclass(frozen=True)
class Epoch:
    """The record of one epoch: means over users.

    Attributes
    ----------
    epoch : int
        From 1. An epoch is one pass of each of its phases, or more.
    nll, kl : float
        The terms of the ELBO: -log p(x | z), and KL(q(z | x) || p(z)).
    loss : float
        What was minimised, nll + beta * kl with each step's own beta.
    beta : float
        Weight of the KL term in the last step.
    valid, best : float or None
        The metric on validation users, and its best value so far.
    seconds : float
        Time of the epoch, validation included.
    users_per_second : float or None
        Each pass over a user counts; without validation.
    part : str
        What was trained: "network", the model's own network, or "kl_cap", the run in which a MultVAE finds its cap.
    """

    epoch: int
    nll: float
    kl: float
    loss: float
    beta: float
    valid: float | None
    seconds: float
    best: float | None = None
    users_per_second: float | None = None
    part: str = "network"

    @property
    def elbo(self) -> float:
        """The evidence lower bound, with the KL term in full."""
        return -self.nll - self.kl

    def __str__(self) -> str:
        """One line for a log."""
        part = "" if self.part == "network" else f"{self.part}, "
        validation = "" if self.valid is None else f", valid {self.valid:.4f} (best {_shown(self.best)})"
        terms = f"loss {self.loss:.2f}, reconstruction {self.nll:.2f}, KL {self.kl:.2f}, beta {self.beta:.3g}"
        return f"{part}epoch {self.epoch}: {terms}{validation}, {self.seconds:.1f} s"


@dataclass(frozen=True)
class FitInfo:
    """What a fit begins with.

    Attributes
    ----------
    model : str
        Name of its class, or the title of a trainer.
    verb : str
        "fit" or "partial_fit".
    parameters : Mapping[str, Any]
        The model's hyper-parameters, or a trainer's configuration.
    values : str
        How values are read: "binary", "log1p" or "raw".
    users, items, events : int
        Sizes of the data.
    valid_users : int or None
        How many users it is validated on; None without, or where only a function validates.
    metric : str or None
        What each epoch's `valid` is; None without validation.
    """

    model: str
    verb: str
    parameters: Mapping[str, Any]
    values: str
    users: int
    items: int
    events: int
    valid_users: int | None
    metric: str | None


class Callback:
    """Base of callbacks: override the methods you need. An exception in one ends the fit, and is raised by `fit`."""

    def on_fit_start(self, info: FitInfo) -> None:
        """A fit begins."""

    def on_step_end(self, epoch: int, step: int) -> None:
        """A step was started, both counted from 1. A GPU may not have finished it: nothing here should wait for it."""

    def on_epoch_end(self, epoch: Epoch) -> None:
        """An epoch is over, its validation too."""

    def on_fit_end(self, error: BaseException | None) -> None:
        """The fit is over, or an error ended it."""


class _Function(Callback):
    """A function that is called with each epoch's record."""

    def __init__(self, function: Callable[[Epoch], object]):
        self.function = function

    def on_epoch_end(self, epoch: Epoch) -> None:
        self.function(epoch)


def as_callbacks(callbacks: Iterable[Callback | Callable[[Epoch], object]]) -> list[Callback]:
    """`callbacks` as they are given to `fit`: Callback objects, or functions of an epoch. Raises InvalidTypeError."""
    if isinstance(callbacks, (Callback, str)) or not isinstance(callbacks, Iterable):
        raise InvalidTypeError(f"Expected callbacks as a list, got {type(callbacks).__name__}; put it into [].")
    converted = []
    for callback in callbacks:
        if isinstance(callback, type) or not (isinstance(callback, Callback) or callable(callback)):
            raise InvalidTypeError(
                f'Expected callbacks such as JsonLines("log.jsonl"), or functions of an epoch, got {callback!r}.'
            )
        converted.append(callback if isinstance(callback, Callback) else _Function(callback))
    return converted


@contextmanager
def dispatch(callbacks: Iterable[Callback], info: FitInfo) -> Iterator[None]:
    """Call `on_fit_start` of the callbacks and, at the end, `on_fit_end` with the error, if any."""
    with ExitStack() as stack:
        for callback in callbacks:
            callback.on_fit_start(info)
            stack.push(_end(callback))
        yield


def _end(callback: Callback) -> Callable[..., None]:
    return lambda kind, error, trace: callback.on_fit_end(error)


class JsonLines(Callback):
    """A log of one JSON object a line, each written as soon as it is known, to be read while a training runs.

        {"event": "begin", "time": ..., "model": ..., "parameters": {...}, sizes of the data, "versions": {...}}
        {"event": "epoch", "part": "network", "epoch": 1, "loss": ..., "nll": ..., "kl": ..., "elbo": ..., "beta": ...,
         "valid": ..., "best": ..., "seconds": ..., "users_per_second": ...}
        {"event": "end", "epochs": ..., "seconds": ..., "error": null or what ended it}

    A later fit is appended, as `fit_split` fits twice: each fit starts with a "begin" record. Numbers that are
    not finite are null.

    Raises
    ------
    OutputError
        Where `path` cannot be written, or holds anything but such a log.
    """

    def __init__(self, path: str | Path):
        self.path = output_path(path)

    def on_fit_start(self, info: FitInfo) -> None:
        check_writable(self.path)
        _check_log(self.path)
        self._started, self._epochs = time.perf_counter(), 0
        about = {"time": datetime.now(UTC).isoformat(timespec="seconds")} | asdict(info)
        versions = {"recvae": __version__, "python": platform.python_version()}
        versions |= {name: version(name) for name in ("torch", "numpy", "scipy")}
        self._write("begin", about | {"versions": versions})

    def on_epoch_end(self, epoch: Epoch) -> None:
        self._epochs += 1
        self._write("epoch", {"part": epoch.part} | asdict(epoch) | {"elbo": epoch.elbo})

    def on_fit_end(self, error: BaseException | None) -> None:
        seconds = time.perf_counter() - self._started
        why = None if error is None else f"{type(error).__name__}: {error}".removesuffix(": ")
        self._write("end", {"epochs": self._epochs, "seconds": seconds, "error": why})

    def _write(self, event: str, facts: dict[str, Any]) -> None:
        append_line(self.path, json.dumps(_plain({"event": event} | facts), allow_nan=False))


class TensorBoard(Callback):
    """Curves for TensorBoard, each fit in a folder of its own in `log_dir`, such as MultVAE-1.

    Raises
    ------
    MissingDependencyError
        Without TensorBoard.
    OutputError
        Where the folder cannot be written.
    """

    def __init__(self, log_dir: str | Path):
        self.log_dir = output_path(log_dir)

    def on_fit_start(self, info: FitInfo) -> None:
        tensorboard = require("torch.utils.tensorboard", extra="tensorboard", purpose="TensorBoard")
        self._metric = (info.metric or "").replace("@", "_at_")  # TensorBoard's names have no @
        self._writer = tensorboard.SummaryWriter(str(_new_folder(self.log_dir, info.model)))
        about = json.dumps(_plain(asdict(info)), indent=1)
        self._writer.add_text("start", "\n".join(f"    {line}" for line in about.splitlines()))  # as code

    def on_epoch_end(self, epoch: Epoch) -> None:
        terms = {"reconstruction": epoch.nll, "kl": epoch.kl, "elbo": epoch.elbo, "loss": epoch.loss}
        curves = {f"{epoch.part}/{name}": value for name, value in (terms | {"beta": epoch.beta}).items()}
        if epoch.valid is not None:
            curves[f"valid/{self._metric}"] = epoch.valid
        if epoch.users_per_second is not None:
            curves["speed/users_per_second"] = epoch.users_per_second
        for name, value in curves.items():
            self._writer.add_scalar(name, value, epoch.epoch)
        self._writer.flush()  # to be seen while it runs

    def on_fit_end(self, error: BaseException | None) -> None:
        self._writer.close()


def _check_log(path: Path) -> None:
    """Refuse to append to a file that is no such log."""
    try:
        with path.open(encoding="utf-8") as file:
            first = json.loads(file.readline() or '{"event": "begin"}')
        ours = isinstance(first, dict) and first.get("event") == "begin"
    except FileNotFoundError:
        return
    except (ValueError, RecursionError):
        ours = False
    if not ours:
        raise OutputError(f"Expected a new file or a log of earlier fits to append to, got {path}, which is neither.")


def _new_folder(log_dir: Path, model: str) -> Path:
    """Create a new numbered folder."""
    number = 1
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                (log_dir / f"{model}-{number}").mkdir()
            except FileExistsError:
                number += 1
            else:
                return log_dir / f"{model}-{number}"
    except OSError as error:
        raise OutputError(f"Expected a folder that can be written, got {log_dir}: {error.strerror}.") from error


def _plain(value: Any) -> Any:
    """As JSON has it, where only finite numbers are."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if hasattr(value, "item"):  # a number of numpy
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
