"""What the arguments of a command ask for: events, a split, a model; and where it speaks."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recvae.benchmark.grids import CANDIDATES, known_model
from recvae.data.histories import Histories, read_histories
from recvae.data.ids import ItemIndex
from recvae.data.interactions import Interactions
from recvae.data.shards import Shards
from recvae.data.splits import SPLIT_OPTIONS, Holdout, Split, check_split, make_split, split_options
from recvae.data.tables.frames import read_table
from recvae.datasets.load import load_dataset, load_split, load_unfiltered, paths_of_dataset
from recvae.distributed.communicator import Communicator
from recvae.errors import InvalidDataError, InvalidParameterError, shown
from recvae.models.base import Recommender
from recvae.models.base.params import options, parse_param, with_params
from recvae.training.callbacks import Callback, JsonLines, TensorBoard
from recvae.training.checkpoint import Checkpoint, as_checkpoint
from recvae.utils.files import check_writable
from recvae.utils.paths import check_apart, output_path, relation_of
from recvae.utils.streams import note

# arguments that name what is read, and those that name a file that is written
INPUTS = ("input", "seen", "test_input", "model_file", "config", "results", "shards")
FILES = ("out", "log", "study")


def check_out(arguments: argparse.Namespace, outputs: Mapping[str, Path] | None = None) -> None:
    """No output is an input, lies within the folder of one or holds one, and no two are one file.

    Parameters
    ----------
    outputs : Mapping[str, Path] or None
        Files that are written, by name, where they are not those of the flags themselves.

    Raises
    ------
    InvalidParameterError
    """
    files = {f"--{flag}": getattr(arguments, flag, None) for flag in FILES}
    files |= outputs or {}
    folders = {"--checkpoint": getattr(arguments, "checkpoint", None)}
    if getattr(arguments, "tensorboard", None) is not None:
        folders["--tensorboard"] = arguments.tensorboard / "MODEL-1"  # each fit gets a folder of its own in it
    written = {flag: output_path(path) for flag, path in (files | folders).items() if path is not None}
    read = [path for name in INPUTS if (path := getattr(arguments, name, None)) is not None]
    if getattr(arguments, "dataset", None) is not None:
        read += paths_of_dataset(arguments.dataset, arguments.data_home)
    check_apart(written, read)
    for other, flag in itertools.combinations(written, 2):
        relation = relation_of(written[flag], written[other])
        within_a_file = (relation == "lies within" and other in files) or (relation == "holds" and flag in files)
        if relation == "is" or within_a_file:
            raise InvalidParameterError(
                f"Expected {flag} to be another file than those that are read, and than {other}, got {written[flag]}."
            )


def callbacks(arguments: argparse.Namespace) -> list[Callback]:
    """Who is to listen to a training. Raises OutputError now rather than after the data are read."""
    asked: list[Callback] = [] if arguments.tensorboard is None else [TensorBoard(arguments.tensorboard)]
    if arguments.log is not None:
        check_writable(arguments.log)
        asked.append(JsonLines(arguments.log))
    return asked


def asked_shards(arguments: argparse.Namespace) -> Shards | None:
    """The shards that are asked for, if they are. Raises InvalidParameterError for options that they settled."""
    if arguments.shards is None:
        return None
    settled = ("input", "dataset", "value", "time", "min_value", "min_user", "split", "heldout_users", "test_input")
    for name in settled:
        if getattr(arguments, name, None) is not None:
            raise InvalidParameterError(
                f"Expected --shards without --{name.replace('_', '-')}: what is in them was settled by recvae shard."
            )
    return Shards(arguments.shards)


def asked_checkpoint(arguments: argparse.Namespace) -> Checkpoint | None:
    """Where a training is to keep itself."""
    if arguments.checkpoint is None:
        return None
    return as_checkpoint(Checkpoint(arguments.checkpoint, arguments.checkpoint_minutes))


def _check_source(arguments: argparse.Namespace) -> None:
    if (arguments.input is None) == (arguments.dataset is None):
        raise InvalidParameterError("Expected either --input FILE or --dataset NAME, got both or neither.")
    columns = (arguments.user, arguments.item, arguments.value, arguments.time, arguments.values)
    if arguments.dataset is not None and columns != ("user", "item", None, None, "binary"):
        raise InvalidParameterError(
            "Expected --user, --item, --value, --time and --values with --input only: a card says them."
        )
    if arguments.dataset is not None and getattr(arguments, "test_input", None) is not None:
        raise InvalidParameterError("Expected --test-input with --input only: a card says its test.")


def load_events(arguments: argparse.Namespace) -> Interactions:
    """All events, nothing kept out."""
    _check_source(arguments)
    if arguments.dataset is None:
        return _read(arguments.input, arguments, arguments.min_user or 0)
    data = load_dataset(
        arguments.dataset, arguments.data_home, min_value=arguments.min_value, min_user=arguments.min_user
    )
    say_account(data, arguments.dataset)
    return data


def load_histories(arguments: argparse.Namespace, index: ItemIndex) -> Histories:
    """What users liked and what else they have touched, over the items of a model: of all users of the input.

    With --min-user, of those who liked so many items.

    Raises
    ------
    InvalidDataError
        Where nothing was liked, or nothing of what was touched is among the items.
    """
    _check_source(arguments)
    user, item, value = arguments.user, arguments.item, arguments.value
    if arguments.dataset is None:
        columns = [name for name in (user, item, value, arguments.time) if name is not None]
        numbers = [] if value is None else [value]
        events, min_value = read_table(arguments.input, columns, numbers), arguments.min_value
    else:
        events, min_value = load_unfiltered(arguments.dataset, arguments.data_home, min_value=arguments.min_value)
        value = "value" if "value" in events.column_names else None
    besides = load_seen(arguments)
    found = read_histories(events, index, user=user, item=item, value=value, min_value=min_value, seen=besides)
    _check_histories(found, index, min_value)
    if not arguments.min_user:
        return found
    chosen = np.flatnonzero(np.isin(found.users, load_events(arguments).user_ids))
    seen = None if found.seen is None else found.seen[chosen]
    return replace(found, users=found.users[chosen], rows=found.rows[chosen], seen=seen)


def load_seen(arguments: argparse.Namespace) -> pa.Table | None:
    """What users have touched besides, where --seen says it."""
    return None if arguments.seen is None else read_table(arguments.seen, [arguments.user, arguments.item])


def _check_histories(found: Histories, index: ItemIndex, min_value: float | None) -> None:
    if found.rows.nnz == found.unknown.events == 0:
        floor = "" if min_value is None else f" and at least {min_value:g}"
        raise InvalidDataError(f"Expected at least one event with a value of more than 0{floor}, got none.")
    if found.rows.nnz == 0 and found.seen is None:
        raise InvalidDataError(
            f"Expected events on some of the {len(index):,} items, such as {shown(next(iter(index)))}, got none: the "
            f"items here are such as {shown(found.unknown.examples[0])}."
        )


def _read(path: Path, arguments: argparse.Namespace, min_user: int) -> Interactions:
    data = Interactions.read(
        path,
        user=arguments.user,
        item=arguments.item,
        value=arguments.value,
        time=arguments.time,
        min_value=arguments.min_value,
        min_user=min_user,
        values=arguments.values,
    )
    say_account(data, path)
    return data


def say_account(data: Interactions, source: object) -> None:
    """A line on what became of the rows that were read, where not each is an event."""
    if data.account is not None and (data.account.left_out or data.account.notes):
        say(f"{source}: {data.account}")


def asked_split(arguments: argparse.Namespace) -> Split | None:
    """The split that is asked for, if one is."""
    _check_source(arguments)
    options = asked_split_options(arguments)
    kind = arguments.split
    if kind is None and arguments.heldout_users is not None:
        kind = "strong"
    if kind is None:
        if options or arguments.test_input is not None:
            raise InvalidParameterError(f"Expected --split KIND for {', '.join(options) or 'test_input'}, got none.")
        return None
    if arguments.dataset is not None:
        split = load_split(
            arguments.dataset,
            arguments.data_home,
            split=kind,
            seed=arguments.split_seed,
            min_value=arguments.min_value,
            min_user=arguments.min_user,
            **options,
        )
        say_account(split.train, arguments.dataset)
        return split
    if "seed" in split_options(kind):
        options["seed"] = arguments.split_seed
    check_split(kind, options)
    test = None if arguments.test_input is None else _read(arguments.test_input, arguments, 0)
    return make_split(load_events(arguments), kind, test, **options)


def asked_split_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the split is told, as far as it is given."""
    return {name: getattr(arguments, name) for name in SPLIT_OPTIONS if getattr(arguments, name) is not None}


def new_model(arguments: argparse.Namespace) -> Recommender:
    """The model asked for: its first settings, --seed and each --param on top."""
    candidate = CANDIDATES[known_model(arguments.model)][0]
    settings = {"random_state": arguments.seed} if "random_state" in options(candidate) else {}
    settings |= {name: parse_param(candidate, name, text) for name, text in assignments(arguments)}
    return with_params(candidate, settings)


def assignments(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Each --param as name and text."""
    for assignment in arguments.param:
        if "=" not in assignment:
            raise InvalidParameterError(f"Expected --param NAME=VALUE, got {shown(assignment)}.")
    return [(name, text) for name, _, text in (assignment.partition("=") for assignment in arguments.param)]


_silent: ContextVar[bool] = ContextVar("silent", default=False)


def say(line: str) -> None:
    """A line on how it goes, on standard error: standard output is for results."""
    if not _silent.get():
        note(line)


def say_dropped(purpose: str, holdout: Holdout | None) -> None:
    """How many users a split has left out, and why, where it has."""
    if holdout is not None and holdout.dropped:
        drawn = len(holdout.users) + holdout.dropped
        say(f"{holdout.dropped:,} of {drawn:,} {purpose} users were left out: {holdout.reason}")


@contextmanager
def lone(communicator: Communicator) -> Iterator[None]:
    """Within this, of all ranks that train together only the writer says how it goes."""
    token = _silent.set(not communicator.is_main_process)
    try:
        yield
    finally:
        _silent.reset(token)
