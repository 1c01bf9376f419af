"""The command line: what can be asked, with an example for each command. What is then done is in commands.py."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from signal import SIGINT
from typing import Any, NoReturn

from recvae.benchmark.grids import CANDIDATES
from recvae.cli import commands
from recvae.cli import recommend as recommend_command
from recvae.cli import shard as shard_command
from recvae.cli import tune as tune_command
from recvae.cli.configuration import read_config
from recvae.cli.flags import add_columns, add_dataset, add_events, add_param, add_shards, add_split, path
from recvae.data.shards import USERS_PER_SHARD
from recvae.data.splits import SPLIT_SEED
from recvae.errors import InvalidParameterError, RecvaeError, UnknownNameError, one_line
from recvae.evaluation.evaluate import DEFAULT_METRICS
from recvae.serving.batch import ENGINES, USERS_PER_PART
from recvae.utils.signals import SAID, status_of, stoppable
from recvae.utils.streams import note, put
from recvae.version import __version__

LONGEST = 1000  # characters of a sentence on arguments, which may quote a value of any length
# the default of what has to be given, by flag or by configuration
NEEDED: Any = object()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. -> exit status: 0; 2 after one sentence on standard error; 130 or 143 where a signal stopped it"""
    with stoppable() as stop:
        try:
            arguments = _parse(argv)
            arguments.run(arguments)
        except (Exception, KeyboardInterrupt) as error:
            if stop.signal is not None or isinstance(error, KeyboardInterrupt):
                # a library may have made any error of the interruption of its work
                number = stop.signal or SIGINT
                note(SAID[number])
                return status_of(number)
            if not isinstance(error, RecvaeError):
                raise
            note(f"recvae: {error}")
            return 2
    return 0


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, and help where it can be read."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2 after a sentence on standard error."""
        note(f"{self.prog}: {one_line(message, LONGEST)}; see {self.prog} --help.")
        raise SystemExit(2)

    def _print_message(self, message: str, file: Any = None) -> None:
        put(message, data=False)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Flags on top of the configuration file, where there is one, on top of defaults."""
    parser, parsers = _parser()
    arguments = parser.parse_args(argv)
    if arguments.config is not None:
        settings, known = read_config(arguments.config), set(vars(arguments)) - {"run", "command", "config"}
        if "model" not in known and "models" in known and "model" in settings:  # one is a list of one
            settings["models"] = settings.pop("model")
        for name in settings:
            if name not in known:
                raise UnknownNameError.among(f"setting of recvae {arguments.command}", name, known)
        parsers[arguments.command].set_defaults(**settings)
        arguments = parser.parse_args(argv)
    arguments.command_line = shlex.join(["recvae", *(sys.argv[1:] if argv is None else argv)])
    for name in ("model_file", "input", "results", "out"):
        if getattr(arguments, name, "") is NEEDED:
            raise InvalidParameterError(f"Expected {name} for recvae {arguments.command}, by argument or in --config.")
    return arguments


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """-> the whole parser, and that of each command by name"""
    parser = Parser(
        prog="recvae",
        description="Variational autoencoders for recommender systems.",
        epilog="Exit status: 0 when done; 2 after one sentence on standard error, with nothing written, when what was "
        "asked for cannot be done; 130 when interrupted (Ctrl-C), 143 by SIGTERM. `recvae "
        "COMMAND --help` shows an example of each.",
    )
    parser.add_argument("--version", action="version", version=f"recvae {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    parsers: dict[str, argparse.ArgumentParser] = {}
    for add_arguments, run in (
        (_benchmark, commands.benchmark),
        (_report, commands.report),
        (_tune, tune_command.run),
        (_plan, commands.plan),
        (_train, commands.train),
        (_evaluate, commands.evaluate),
        (_recommend, recommend_command.run),
        (_shard, shard_command.run),
        (_datasets, commands.datasets),
    ):
        name = add_arguments.__name__.strip("_")
        text, _, example = (add_arguments.__doc__ or "").partition("\n\n    ")
        made = subparsers.add_parser(name, help=text, description=f"{text}.", epilog=f"Example: {example.strip()}")
        made.add_argument("--config", type=path, help="TOML file of these settings by name; flags go on top")
        made.set_defaults(run=run)
        add_arguments(made)
        parsers[name] = made
    return parser, parsers


def _benchmark(parser: argparse.ArgumentParser) -> None:
    """Train models on one split of a data set, score all on the same held-out users, print a table and examples

    recvae benchmark --dataset ml-1m --data-home ~/data --seeds 3 --out ml-1m.json
    """
    add = parser.add_argument
    add_dataset(add, "sample", " (default: sample)")
    add(
        "--models",
        help=f"comma-separated, of {', '.join(CANDIDATES)}, classes of your own as module:Class, or all (default: all)",
    )
    add("--seeds", type=int, default=1, help="train each model with this many seeds (default: 1)")
    add("--seed", type=int, default=0, help="the first of them (default: 0)")
    add_param(add, "a hyper-parameter for all models that have it, such as epochs=20")
    add_split(parser, "the data set's own")
    add("--examples", type=int, default=3, help="test users to show, with histories (default: 3)")
    add("--out", type=path, help="write settings and results, examples included, to this JSON file")
    add(
        "--report",
        type=path,
        metavar="DIR",
        help="write these to DIR/results.json, and a page of them to DIR/index.html",
    )
    add("--json", action="store_true", help="print the results as JSON in the place of the table")


def _report(parser: argparse.ArgumentParser) -> None:
    """Make the page of a benchmark again from its results: one HTML file, which needs no network

    recvae report runs/report/results.json --out runs/report
    """
    add = parser.add_argument
    add("results", type=path, nargs="?", default=NEEDED, help="what recvae benchmark --report or --out wrote")
    add("--out", type=path, default=NEEDED, metavar="DIR", help="the folder of the page, DIR/index.html")


def _tune(parser: argparse.ArgumentParser) -> None:
    """Search for a model's hyper-parameters on validation users; the test users are not looked at

    recvae tune --dataset ml-1m --data-home ~/data --model MultVAE --trials 20 --study tune.db --out best.toml
    """
    add = parser.add_argument
    add_events(parser)
    add("--model", default="MultVAE", help=f"one of {', '.join(CANDIDATES)}, or module:Class (default: MultVAE)")
    add("--trials", type=int, default=30, help="fits in all, with those that the study has (default: 30)")
    add("--metric", default="ndcg@100", help="of validation users (default: ndcg@100)")
    add_param(add, "a hyper-parameter that is not searched for but fixed, such as epochs=20")
    add("--study", type=path, help="SQLite file that keeps the trials; a search that was stopped goes on there")
    add("--name", help="of the study in that file (default: the model)")
    add("--timeout", type=float, help="begin no trial after so many seconds")
    add("--seed", type=int, default=0, help="seed of the proposals and of the models (default: 0)")
    add_split(parser, "the data set's own", given=True)
    add(
        "--out",
        type=path,
        help="write the best settings to this TOML file, for --config of train and benchmark",
    )
    add("--json", action="store_true", help="print all trials as JSON in the place of the table of the best")


def _plan(parser: argparse.ArgumentParser) -> None:
    """Say what a training would take, before it begins: memory, seconds, and what to change where it would not fit

    recvae plan --shards shards/ --model MultVAE --param latent_dim=128
    """
    add = parser.add_argument
    add_events(parser)
    add_shards(add)
    add("--model", default="MultVAE", help=f"one of {', '.join(CANDIDATES)}, or module:Class (default: MultVAE)")
    add_param(add, "a hyper-parameter, such as latent_dim=64")
    add("--seed", type=int, default=0, help="seed of the model (default: 0)")
    add_split(parser, "none: train on everything", given=True)
    add("--json", action="store_true", help="print JSON")


def _train(parser: argparse.ArgumentParser) -> None:
    """Train a model on a file of events or a data set and save it

    recvae train --input events.csv --user who --item film --out films.recvae
    """
    add = parser.add_argument
    add_events(parser)
    add("--model", default="MultVAE", help=f"one of {', '.join(CANDIDATES)}, or module:Class (default: MultVAE)")
    add_param(add, "a hyper-parameter, such as latent_dim=64")
    add("--seed", type=int, default=0, help="seed of the model (default: 0)")
    add_split(parser, "none: train on everything", given=True)
    add("--out", type=path, default=NEEDED, help="the model file to write")
    add_shards(add)
    add(
        "--checkpoint",
        type=path,
        metavar="DIR",
        help="keep the training in this folder; the same command goes on there after a stop",
    )
    add("--checkpoint-minutes", type=float, default=10.0, help="how often, besides each epoch (default: 10)")
    add(
        "--log",
        type=path,
        metavar="FILE.jsonl",
        help="add a line of JSON to this file for each epoch, as it ends",
    )
    add(
        "--tensorboard",
        type=path,
        metavar="DIR",
        help="write curves for TensorBoard into a folder in this one",
    )
    add("--json", action="store_true", help="print what was done as JSON")


def _evaluate(parser: argparse.ArgumentParser) -> None:
    """Score a saved model on the test that `recvae train` kept out, by the same --split or --heldout-users

    recvae evaluate films.recvae --input events.csv --user who --item film --heldout-users 100
    """
    add = parser.add_argument
    add("model_file", type=path, nargs="?", default=NEEDED, help="what recvae train wrote")
    add_events(parser)
    add_split(parser, "strong with --heldout-users", given=True)
    add_shards(add)
    add("--metrics", default=",".join(DEFAULT_METRICS), help="comma-separated (default: %(default)s)")
    add("--json", action="store_true", help="print JSON")


def _recommend(parser: argparse.ArgumentParser) -> None:
    """Write the top N items for each user of a file of events or a data set

    recvae recommend films.recvae --input events.csv --user who --item film -N 10 --out top10.csv
    """
    add = parser.add_argument
    add("model_file", type=path, nargs="?", default=NEEDED, help="what recvae train wrote")
    add_events(
        parser,
        "the least value of what was liked, which the model reads; the rest was seen, and is not recommended either; "
        "anyone who liked nothing gets a list too",
    )
    add("--seen", type=path, help="a file of what users have touched besides, with columns as --input: not recommended")
    add("-N", type=int, default=10, dest="N", help="items for each user (default: 10)")
    add("--out", help="a .csv, .tsv, .parquet or .jsonl file (default: CSV on standard output), or DIR/, see below")
    add("--json", action="store_true", help="print JSON, one line for each recommendation, in the place of CSV")
    parts = parser.add_argument_group(
        "a folder of parts",
        "With --out DIR/ (a / at its end, or a folder that is there), events may be more than memory holds: --input is "
        "a Parquet file or a folder of such, by event or by user with a list of items. DIR gets Parquet files of so "
        "many users each. A run that was stopped is gone on with by the same command.",
    )
    parts.add_argument("--users-per-part", type=int, help=f"users in a file (default: {USERS_PER_PART})")
    parts.add_argument("--engine", choices=ENGINES, help="what makes the parts: this process, or Ray (default: local)")
    parts.add_argument("--actors", type=int, help="ray: processes that score (default: one for each CPU)")
    parts.add_argument("--ray-address", help="ray: of a cluster, such as auto (default: RAY_ADDRESS, else a new one)")


def _shard(parser: argparse.ArgumentParser) -> None:
    """Write events that may be more than memory holds as shards to train on, in a folder

    recvae shard --input events/ --user who --item film --heldout-users 10000 --out shards/
    """
    add = parser.add_argument
    add("--input", type=path, default=NEEDED, help="a Parquet file, or a folder of such")
    add_columns(add)
    add("--min-item", type=int, default=0, help="leave out items with fewer events")
    add(
        "--heldout-users", type=int, help="keep so many users for validation and as many for the test out of the shards"
    )
    add("--test-share", type=float, default=0.2, help="of a held-out user's events (default: 0.2)")
    add("--split-seed", type=int, default=SPLIT_SEED, help="seed of the split (default: the paper's 98765)")
    add("--users-per-shard", type=int, default=USERS_PER_SHARD, help="users in a file (default: %(default)s)")
    add("--memory-mib", type=int, default=2048, help="memory to sort in, MiB; then on disk (default: %(default)s)")
    add("--out", type=path, default=NEEDED, help="the folder to write; what was stopped there is gone on with")
    add("--json", action="store_true", help="print what was done as JSON")


def _datasets(parser: argparse.ArgumentParser) -> None:
    """List the data sets: what is known, what is here, where the rest is

    recvae datasets --data-home ~/data
    """
    add = parser.add_argument
    add("--data-home", type=path, help="folder of data sets (default: RECVAE_DATA, else the user's cache)")
    add("--json", action="store_true", help="print JSON")
