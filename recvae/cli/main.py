"""The command line: the list of commands, the parser, the configuration file, and the exit status.

The flags and the function of a command are in a module of `recvae.cli`, which is imported only if that command is
run, so that `recvae --help` loads no large library.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tomllib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from signal import SIGINT
from typing import Any, NamedTuple, NoReturn

from recvae.cli.inputs import NEEDED, path
from recvae.errors import InvalidParameterError, RecvaeError, UnknownNameError, one_line, shown
from recvae.utils.paths import input_path
from recvae.utils.signals import SAID, status_of, stoppable
from recvae.utils.streams import note, put
from recvae.version import __version__

BOOLEANS = ("json", "header", "k_core", "per_user")
LONGEST = 1000  # characters of an argparse error, which may quote a value of any length


class Command(NamedTuple):
    """A command: the module of recvae.cli with its functions NAME and NAME_flags, its help and an example."""

    module: str
    help: str
    example: str


COMMANDS = {
    "benchmark": Command(
        "benchmark",
        "Train models on one split of a data set, score all on the same held-out users, print a table and examples",
        "recvae benchmark --dataset ml-1m --data-home ~/data --seeds 3 --out ml-1m.json",
    ),
    "report": Command(
        "benchmark",
        "Render the page of a benchmark from its results: one HTML file, which needs no network",
        "recvae report runs/report/results.json --out runs/report",
    ),
    "tune": Command(
        "tune",
        "Search for a model's hyper-parameters on validation users; the test users are not looked at",
        "recvae tune --dataset ml-1m --data-home ~/data --model MultVAE --trials 20 --study tune.db --out best.toml",
    ),
    "plan": Command(
        "train",
        "Estimate what a training would take: memory, seconds, and what to change where it would not fit",
        "recvae plan --shards shards/ --model MultVAE --param latent_dim=128",
    ),
    "train": Command(
        "train",
        "Train a model on a file of events or a data set and save it",
        "recvae train --input events.csv --user who --item film --out films.recvae",
    ),
    "evaluate": Command(
        "train",
        "Score a saved model on the test that `recvae train` kept out, by the same --split or --heldout-users",
        "recvae evaluate films.recvae --input events.csv --user who --item film --heldout-users 100",
    ),
    "recommend": Command(
        "recommend",
        "Write the top N items for each user of a file of events or a data set",
        "recvae recommend films.recvae --input events.csv --user who --item film -N 10 --out top10.csv",
    ),
    "shard": Command(
        "data",
        "Convert events, which may be larger than memory, to a folder of shards to train on",
        "recvae shard --input events/ --user who --item film --heldout-users 10000 --out shards/",
    ),
    "datasets": Command(
        "data",
        "List the data sets: which are known, which are on this machine, and where the others come from",
        "recvae datasets --data-home ~/data",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : Sequence[str] or None
        The arguments after "recvae"; by default those of the process.

    Returns
    -------
    int
        Exit status: 0 if done; 2 after one sentence on standard error; 130 or 143 if a signal stopped the command.
    """
    with stoppable() as stop:
        try:
            arguments = _parse(argv)
            arguments.run(arguments)
        except (Exception, KeyboardInterrupt) as error:
            if stop.signal is not None or isinstance(error, KeyboardInterrupt):
                # a library may have replaced the interruption by another error
                number = stop.signal or SIGINT
                note(SAID[number])
                return status_of(number)
            if not isinstance(error, RecvaeError):
                raise
            note(f"recvae: {error}")
            return 2
    return 0


class Parser(argparse.ArgumentParser):
    """A parser that reports errors as one sentence on standard error, and prints through recvae.utils.streams."""

    def error(self, message: str) -> NoReturn:
        """Write one sentence to standard error and exit with status 2."""
        note(f"{self.prog}: {one_line(message, LONGEST)}; see {self.prog} --help.")
        raise SystemExit(2)

    def _print_message(self, message: str, file: Any = None) -> None:
        put(message, data=False)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments: flags override the configuration file, if any, which overrides defaults."""
    argv = sys.argv[1:] if argv is None else argv
    parser, command_parser = _parsers(argv)
    arguments = parser.parse_args(argv)
    if arguments.config is not None:
        settings, known = _read_config(arguments.config), set(vars(arguments)) - {"run", "command", "config"}
        if "model" not in known and "models" in known and "model" in settings:  # as a list of one
            settings["models"] = settings.pop("model")
        for name in settings:
            if name not in known:
                raise UnknownNameError.among(f"setting of recvae {arguments.command}", name, known)
        command_parser.set_defaults(**settings)
        arguments = parser.parse_args(argv)
    arguments.command_line = shlex.join(["recvae", *argv])
    if getattr(arguments, "model_file", None) is NEEDED and getattr(arguments, "model", None) is not None:
        arguments.model_file = None  # a model that is trained first
    for name in ("model_file", "input", "results", "out"):
        if getattr(arguments, name, "") is NEEDED:
            raise InvalidParameterError(f"Expected {name} for recvae {arguments.command}, by argument or in --config.")
    return arguments


def _parsers(argv: Sequence[str]) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Make the parser and the subparser of the command in `argv`, the only one that gets its flags. -> both"""
    parser = Parser(
        prog="recvae",
        description="Variational autoencoders for recommender systems.",
        epilog="Exit status: 0 when done; 2 after one sentence on standard error, with no file written, when what was "
        "asked for cannot be done; 130 when interrupted (Ctrl-C), 143 by SIGTERM. `recvae "
        "COMMAND --help` shows an example of each.",
    )
    parser.add_argument("--version", action="version", version=f"recvae {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    chosen = next((word for word in argv if word in COMMANDS), None)
    command_parser: argparse.ArgumentParser = parser
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=command.help, description=f"{command.help}.", epilog=f"Example: {command.example}"
        )
        if name == chosen:
            command_parser = subparser
            module = import_module(f"recvae.cli.{command.module}")
            subparser.add_argument("--config", type=path, help="TOML file of these settings by name; flags override it")
            subparser.set_defaults(run=getattr(module, name))
            getattr(module, f"{name}_flags")(subparser)
    return parser, command_parser


def _read_config(file: Path) -> dict[str, Any]:
    """The settings of a TOML file, by the names of their arguments. Raises InvalidParameterError."""
    try:
        settings = tomllib.loads(input_path(file).read_text(encoding="utf-8"))
        return {name.replace("-", "_"): _as_flag(name, value) for name, value in settings.items()}
    except RecvaeError:
        raise
    except (OSError, ValueError) as error:
        raise InvalidParameterError(f"The configuration {file} cannot be read: {error}.") from error
    except RecursionError:
        raise InvalidParameterError(f"The configuration {file} cannot be read: it is nested too deeply.") from None


def _as_flag(name: str, value: Any) -> Any:
    """A setting as the command line would give it: argparse converts strings by the type of their flag."""
    if name in ("param", "missing"):
        return [str(assignment) for assignment in value] if isinstance(value, list) else [str(value)]
    if name == "weights" and isinstance(value, dict):
        return ",".join(f"{behavior}={weight}" for behavior, weight in value.items())
    if isinstance(value, bool) != (name.replace("-", "_") in BOOLEANS) or isinstance(value, dict):
        raise InvalidParameterError(f"Expected {name} in the configuration as its flag has it, got {shown(value)}.")
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    return value if isinstance(value, bool) else str(value)
