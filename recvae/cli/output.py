"""Output of commands: checks of output files before any work, and messages on standard error."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from recvae.errors import InvalidParameterError
from recvae.utils.paths import check_apart, output_path, relation_of
from recvae.utils.streams import note

if TYPE_CHECKING:
    from recvae.data.interactions import Interactions
    from recvae.data.splits import Holdout
    from recvae.data.tables.options import Reading
    from recvae.distributed.communicator import Communicator

# arguments that name inputs, and arguments that name output files
RULES = ("allow", "deny", "user_allow", "user_deny", "may_repeat", "only_users", "categories", "new_items")
EVENTS = ("input", "seen", "test_input", "shards", "split_folder", "candidates")
INPUTS = (*EVENTS, "model_file", "config", "results", *RULES)
FILES = ("out", "log", "study")
ALL = "all"  # instead of a file: no restriction

_silent: ContextVar[bool] = ContextVar("silent", default=False)


def check_outputs(arguments: argparse.Namespace, outputs: Mapping[str, Path] | None = None) -> None:
    """Raise for an output that is, contains or lies within an input, and for two outputs that are the same file.

    Parameters
    ----------
    outputs : Mapping[str, Path] or None
        Further output files, by name, apart from those of the flags.

    Raises
    ------
    InvalidParameterError
    """
    files = {f"--{flag}": getattr(arguments, flag, None) for flag in FILES}
    files |= outputs or {}
    folders = {"--checkpoint": getattr(arguments, "checkpoint", None)}
    if getattr(arguments, "tensorboard", None) is not None:
        folders["--tensorboard"] = arguments.tensorboard / "MODEL-1"  # each fit gets a new folder of this kind
    written = {flag: output_path(path) for flag, path in (files | folders).items() if path is not None}
    read = [path for name in INPUTS if (path := getattr(arguments, name, None)) not in (None, ALL)]
    if getattr(arguments, "dataset", None) is not None:
        from recvae.datasets.load import paths_of_dataset

        read += paths_of_dataset(arguments.dataset, arguments.data_home)
    check_apart(written, read)
    for other, flag in itertools.combinations(written, 2):
        relation = relation_of(written[flag], written[other])
        within_a_file = (relation == "lies within" and other in files) or (relation == "holds" and flag in files)
        if relation == "is" or within_a_file:
            raise InvalidParameterError(
                f"Expected {flag} to be another file than those that are read, and than {other}, got {written[flag]}."
            )


def say(line: str) -> None:
    """Write a message about progress to standard error; standard output is for results."""
    if not _silent.get():
        note(line)


def say_account(data: Interactions, source: object) -> None:
    """Report what happened to the rows that were read, if some were left out or changed."""
    if data.account is not None and (data.account.left_out or data.account.notes):
        say(f"{source}: {data.account}")


def say_reading(reading: Reading, source: object) -> None:
    """Report which rows the reader of a file has left out, and what it guessed, if anything."""
    if reading.left_out or reading.notes:
        left_out = [f"{n:,} rows {reason} left out" for reason, n in reading.left_out.items()]
        say(f"{source}: {'; '.join([*left_out, *reading.notes])}")


def say_dropped(purpose: str, holdout: Holdout | None) -> None:
    """Report how many users a split has left out and why, if any."""
    if holdout is not None and holdout.dropped:
        drawn = len(holdout.users) + holdout.dropped
        say(f"{holdout.dropped:,} of {drawn:,} {purpose} users were left out: {holdout.reason}")


@contextmanager
def only_main_process_says(communicator: Communicator) -> Iterator[None]:
    """Within the `with` block, only the main process of a parallel training prints messages of `say`."""
    token = _silent.set(not communicator.is_main_process)
    try:
        yield
    finally:
        _silent.reset(token)
