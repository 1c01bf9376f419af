"""What the arguments of a command ask for: events, a split, a model; and where it speaks."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from recvae.callbacks import Callback, JsonLines, TensorBoard
from recvae.candidates import CANDIDATES, known_model
from recvae.checkpoint import Checkpoint, as_checkpoint
from recvae.datasets import load_dataset, load_split, paths_of_dataset
from recvae.errors import InvalidParameterError, UnknownNameError
from recvae.files import check_writable
from recvae.interactions import Interactions
from recvae.params import get_params, parse_param
from recvae.paths import check_apart, output_path, relation_of
from recvae.recommender import Recommender
from recvae.shards import Shards
from recvae.split import SPLIT_OPTIONS, Holdout, Split, check_split, make_split, split_options
from recvae.streams import note
from recvae.world import World

INPUTS = ("input", "test_input", "model_file", "config", "results", "shards")  # arguments that name what is read
FILES = ("out", "log", "study")  # those that name a file that is written


def check_out(arguments: argparse.Namespace, outputs: Mapping[str, Path] | None = None) -> None:
    """No output is an input, lies within the folder of one or holds one, and no two are one file.

    outputs : files that are written, by name, where they are not those of the flags themselves

    Raises InvalidParameterError.
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
    for flag, other in itertools.permutations(written, 2):
        relation = relation_of(written[flag], written[other])
        if relation == "is" or (relation == "lies within" and other in files):
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
    """A line on what became of the rows that were read."""
    if data.account is not None:
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
    settings = get_params(candidate)
    if "random_state" in settings:
        settings["random_state"] = arguments.seed
    for name, text in assignments(arguments):
        if name not in settings:
            raise UnknownNameError.among(f"hyper-parameter of {type(candidate).__name__}", name, settings)
        settings[name] = parse_param(candidate, name, text)
    return type(candidate)(**settings)


def assignments(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Each --param as name and text."""
    for assignment in arguments.param:
        if "=" not in assignment:
            raise InvalidParameterError(f"Expected --param NAME=VALUE, got {assignment!r}.")
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
def lone(world: World) -> Iterator[None]:
    """Within this, of all ranks that train together only the writer says how it goes."""
    token = _silent.set(not world.is_writer)
    try:
        yield
    finally:
        _silent.reset(token)
