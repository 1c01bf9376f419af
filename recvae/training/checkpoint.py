"""A training that is kept on disk as it goes, so that a run which was stopped goes on as if it had not been."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch

from recvae.errors import InvalidParameterError, InvalidTypeError, OutputError
from recvae.training.checkpoint_state import PATTERN, Size, facts_of, restore, tensors_of
from recvae.training.loop import Saver, State
from recvae.training.parallel import ParallelStrategy
from recvae.utils.checks import check_integer
from recvae.utils.files import replacing
from recvae.utils.folder import (
    Manifest,
    Written,
    claimed,
    digest_of,
    read_manifest,
)
from recvae.utils.paths import output_path

KIND = "checkpoint of a training"


@dataclass(frozen=True)
class Checkpoint:
    """Where a fit keeps itself, and how often: `fit(..., checkpoint=Checkpoint("runs/films"))`.

    Attributes
    ----------
    folder : str or Path
        Gets a folder for each run of the training loop, such as `network`, with the last state of that run and
        `_manifest.json`, which says of what run it is. A fit of the same model on the same rows goes on from there.
    minutes : float or None
        After so many, at the next step; 0 for each step, None for never.
    epochs : int or None
        After each so many epochs, None for never; the end of a run is always kept.

    Notes
    -----
    A state is written beside the last one and takes its place when it is whole: a run that is killed at any moment
    leaves one or the other. It holds weights, the optimizer's moments, the best weights, and the place in the run;
    order, dropout and noise follow from the seed and that place.
    """

    folder: str | Path
    minutes: float | None = 10.0
    epochs: int | None = 1

    def check(self) -> None:
        """Raise InvalidParameterError for what is no interval, and as `recvae.utils.paths.output_path` for a folder."""
        output_path(self.folder)
        if self.minutes is not None and not (isinstance(self.minutes, (int, float)) and self.minutes >= 0):
            raise InvalidParameterError(f"Expected minutes of a Checkpoint of 0 or more, got {self.minutes!r}.")
        if self.epochs is not None:
            check_integer("epochs of a Checkpoint", self.epochs, 1)


def as_checkpoint(checkpoint: Checkpoint | str | Path | None) -> Checkpoint | None:
    """What `fit` was given, checked; a folder alone has the default intervals."""
    made = Checkpoint(checkpoint) if isinstance(checkpoint, (str, os.PathLike)) else checkpoint
    if not isinstance(made, Checkpoint | None):
        raise InvalidTypeError(f"Expected a Checkpoint or the path of a folder, got {type(made).__name__}.")
    if made is not None:
        made.check()
    return made


@contextmanager
def kept(
    checkpoint: Checkpoint | None,
    part: str,
    settings: Callable[[], dict[str, Any]],
    state: State,
    strategy: ParallelStrategy,
    size: Size,
) -> Iterator[Saver]:
    """Bring `state` to where the run of that part was, and keep it from there on.

    Parameters
    ----------
    settings : Callable[[], dict[str, Any]]
        All that determines the run, as JSON can hold it; asked for only if there is a checkpoint.
    strategy : ParallelStrategy
        All its ranks call this, the writer writes, and all read; how many they are may change from run to run.
    size : Size
        Of the run, which no state can go beyond.

    Raises
    ------
    InvalidParameterError
        Where the folder was begun by another run.
    InvalidDataError
        Where what it holds is damaged.
    OutputError
        Where it cannot be written or another process holds it.
    """
    if checkpoint is None:
        yield Saver()
        return
    folder = output_path(checkpoint.folder) / part
    with ExitStack() as stack:
        if strategy.communicator.is_main_process:
            stack.enter_context(claimed(folder, [PATTERN]))
            manifest = read_manifest(folder, KIND, Written, settings())
            if not manifest.parts:
                manifest.write(folder)
        strategy.communicator.barrier()  # from here on it is there to be read
        manifest = read_manifest(folder, KIND, Written, settings())
        if manifest.parts:
            restore(state, folder, manifest, strategy, size)
        yield _Keeper(checkpoint, folder, manifest, strategy)


class _Keeper(Saver):
    """Writes the state into a claimed folder."""

    def __init__(self, checkpoint: Checkpoint, folder: Path, manifest: Manifest[Written], strategy: ParallelStrategy):
        self._checkpoint, self._folder, self._manifest, self._strategy = checkpoint, folder, manifest, strategy
        self._written = time.monotonic()

    def step(self, state: State) -> None:
        minutes = self._checkpoint.minutes
        if minutes is not None and self._strategy.due_on_main_process(time.monotonic() - self._written >= 60 * minutes):
            self._write(state)

    def epoch(self, state: State) -> None:
        epochs = self._checkpoint.epochs
        if epochs is not None and len(state.history) % epochs == 0:
            self._write(state)

    def end(self, state: State) -> None:
        self._write(state)

    def _write(self, state: State) -> None:
        place = {"epoch": len(state.history), "step": state.done}
        if self._manifest.parts and all(self._manifest.facts[name] == value for name, value in place.items()):
            return
        path = self._folder / f"step-{place['epoch']:05}-{place['step']:08}.safetensors"
        tensors = tensors_of(state, self._strategy)  # of all ranks, which therefore all come here
        if not self._strategy.communicator.is_main_process:
            self._manifest = replace(self._manifest, parts=[Written(file=path.name, bytes=0, sha256="")], facts=place)
            return
        with replacing(path) as part:
            try:
                safetensors.torch.save_file(tensors, part)
            except (safetensors.SafetensorError, OSError) as error:
                raise OutputError(
                    f"Expected room for a checkpoint at {path}, got: {error}; the one before it stays: make room, and "
                    f"run the same again, to go on from there."
                ) from error
            with part.open("rb+") as content:
                os.fsync(content.fileno())  # before its name is taken
            written = Written(file=path.name, bytes=part.stat().st_size, sha256=digest_of(part))
        before = self._manifest.parts
        self._manifest = replace(self._manifest, parts=[written], facts=place | facts_of(state))
        self._manifest.write(self._folder)  # from here on it is this state that is gone on with
        for old in before:
            if old.file != written.file:
                (self._folder / old.file).unlink(missing_ok=True)
        self._written = time.monotonic()


def digest_rows(*matrices: Any) -> str:
    """One digest of the events of CSR matrices, wherever their arrays are."""
    digest = hashlib.sha256()
    for matrix in matrices:
        digest.update(json.dumps(list(matrix.shape)).encode())
        for name, kind in (("indptr", np.int64), ("indices", np.int32), ("data", np.float32)):
            digest.update(np.ascontiguousarray(getattr(matrix, name), dtype=kind).data)
    return digest.hexdigest()
