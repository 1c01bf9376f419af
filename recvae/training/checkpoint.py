"""Checkpoints: the state of training on disk, from which an interrupted run resumes with identical results."""

from __future__ import annotations

import hashlib
import json
import logging
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
from recvae.training.callbacks import Callback, Epoch
from recvae.training.checkpoint_state import PATTERN, Size, facts_of, restore, tensors_of
from recvae.training.parallel import ParallelStrategy
from recvae.training.state import TrainState
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

logger = logging.getLogger(__name__)

KIND = "checkpoint of a training"


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often `fit` saves its state: `fit(..., checkpoint=Checkpoint("runs/films"))`.

    Parameters
    ----------
    folder : str or Path
        Gets a subfolder for each run of the training loop, such as `network`, with the last state of that run and
        `_manifest.json`, which identifies it. A fit of the same model on the same rows resumes from it.
    minutes : float or None
        Save at the first step after this many minutes; 0 saves after each step, None never.
    epochs : int or None
        Save after every so many epochs, None never. The end of a run is always saved.

    Notes
    -----
    The file of the previous state is deleted only after a new one is written: a run that is killed at any moment leaves
    a complete one. It contains the weights, their best and their averages, the optimizer's moments, and the position in
    the run; order, dropout and noise follow from the seed and this position.
    """

    folder: str | Path
    minutes: float | None = 10.0
    epochs: int | None = 1

    def check(self) -> None:
        """Raise InvalidParameterError for an invalid interval, and as `recvae.utils.paths.output_path` for a folder."""
        output_path(self.folder)
        if self.minutes is not None and not (isinstance(self.minutes, (int, float)) and self.minutes >= 0):
            raise InvalidParameterError(f"Expected minutes of a Checkpoint of 0 or more, got {self.minutes!r}.")
        if self.epochs is not None:
            check_integer("epochs of a Checkpoint", self.epochs, 1)


def as_checkpoint(checkpoint: Checkpoint | str | Path | None) -> Checkpoint | None:
    """Check the `checkpoint` argument of `fit`; a path gets the default intervals."""
    result = Checkpoint(checkpoint) if isinstance(checkpoint, (str, os.PathLike)) else checkpoint
    if not isinstance(result, Checkpoint | None):
        raise InvalidTypeError(f"Expected a Checkpoint or the path of a folder, got {type(result).__name__}.")
    if result is not None:
        result.check()
    return result


@contextmanager
def resumed(
    checkpoint: Checkpoint | None,
    part: str,
    identity: Callable[[], dict[str, Any]],
    state: TrainState,
    strategy: ParallelStrategy,
    size: Size,
) -> Iterator[CheckpointWriter | None]:
    """Restore `state` from the last checkpoint of this run, and yield the writer of further ones.

    Parameters
    ----------
    identity : callable
        () -> all that determines the run, JSON-serialisable; called only if `checkpoint` is given.
    strategy : ParallelStrategy
        All ranks call this, rank 0 writes, all read; the number of ranks may change when a run resumes.
    size : Size
        Users, epochs and steps of the run: the bounds of a stored position.

    Raises
    ------
    InvalidParameterError
        If the folder belongs to another run.
    InvalidDataError
        If its content is damaged.
    OutputError
        If it cannot be written, or another process has locked it.
    """
    if checkpoint is None:
        yield None
        return
    folder = output_path(checkpoint.folder) / part
    with ExitStack() as stack:
        if strategy.communicator.is_main_process:
            stack.enter_context(claimed(folder, [PATTERN]))
            manifest = read_manifest(folder, KIND, Written, identity())
            if not manifest.parts:
                manifest.write(folder)
        strategy.communicator.barrier()  # from here on all ranks can read the manifest
        manifest = read_manifest(folder, KIND, Written, identity())
        if manifest.parts:
            restore(state, folder, manifest, strategy, size)
            if strategy.communicator.is_main_process:
                logger.info("resumed from %s: %d epochs and %d steps are done", folder, state.epoch, state.step)
        yield CheckpointWriter(checkpoint, folder, manifest, state, strategy)


class CheckpointWriter(Callback):
    """Writes the state of a run into a claimed folder. All ranks call it, since it may gather their tensors."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        folder: Path,
        manifest: Manifest[Written],
        state: TrainState,
        strategy: ParallelStrategy,
    ):
        self._checkpoint, self._folder, self._manifest = checkpoint, folder, manifest
        self._state, self._strategy = state, strategy
        self._written = time.monotonic()

    def on_step_end(self, epoch: int, step: int) -> None:
        minutes = self._checkpoint.minutes
        if minutes is not None and self._strategy.due_on_main_process(time.monotonic() - self._written >= 60 * minutes):
            self.write()

    def on_epoch_end(self, epoch: Epoch) -> None:
        epochs = self._checkpoint.epochs
        if epochs is not None and epoch.epoch % epochs == 0:
            self.write()

    def write(self) -> None:
        """Write the state, unless the folder already has that of this position."""
        state = self._state
        position = {"epoch": state.epoch, "step": state.step}
        if self._manifest.parts and all(self._manifest.facts[name] == value for name, value in position.items()):
            return
        path = self._folder / f"step-{position['epoch']:05}-{position['step']:08}.safetensors"
        tensors = tensors_of(state, self._strategy)  # a collective operation: all ranks have to call it
        if not self._strategy.communicator.is_main_process:
            self._manifest = replace(
                self._manifest, parts=[Written(file=path.name, bytes=0, sha256="")], facts=position
            )
            return
        with replacing(path) as part:
            try:
                safetensors.torch.save_file(tensors, part)
            except (safetensors.SafetensorError, OSError) as error:
                raise OutputError(
                    f"Expected room for a checkpoint at {path}, got: {error}; the one before it stays: make room, and "
                    f"run the same again, to resume from there."
                ) from error
            with part.open("rb+") as content:
                os.fsync(content.fileno())  # before it is renamed to its final path
            written = Written(file=path.name, bytes=part.stat().st_size, sha256=digest_of(part))
        before = self._manifest.parts
        self._manifest = replace(self._manifest, parts=[written], facts=position | facts_of(state))
        self._manifest.write(self._folder)  # from here on, a run resumes from this state
        for old in before:
            if old.file != written.file:
                (self._folder / old.file).unlink(missing_ok=True)
        self._written = time.monotonic()
        logger.info("checkpoint written: %s", path)


def digest_rows(*matrices: Any) -> str:
    """The SHA-256 of the shapes and entries of CSR matrices, in memory or memory-mapped."""
    digest = hashlib.sha256()
    for matrix in matrices:
        digest.update(json.dumps(list(matrix.shape)).encode())
        for name, kind in (("indptr", np.int64), ("indices", np.int32), ("data", np.float32)):
            digest.update(np.ascontiguousarray(getattr(matrix, name), dtype=kind).data)
    return digest.hexdigest()
