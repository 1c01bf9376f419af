"""Measurements that are too long for the tests. Results are recorded in benchmarks/results/.

reference: MultVAE against a dense textbook implementation of it, on the same users
speed: training steps beside a dense textbook's, ranking beside implicit's ALS, in turns
epochs: epochs on real data beside RecBole's and Cornac's
joins: ways to join a VAE and a linear path, on validation users
cold: items that nobody has touched, by their genres and years
growing: partial_fit on what came later, beside a fit of it all anew
rounds: RecVAE's rounds of passes beside those of dense code
gpu: training steps on a GPU, beside the time that they need at least
growth: time and memory against the number of items and of users
family: every model on several splits, differences pooled by user; to be resumed where it was stopped
reproduce: our models by a card's protocol, beside the figures that papers have published
ingest: seconds and memory in which ten million events of a Parquet file become `Interactions`
table: the README's tables and plot, from the recorded results; also written beside them
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cold import run_cold
from benchmarks.family import Family, models_of, run_family, seeds_of
from benchmarks.gpu import run_gpu
from benchmarks.growing import run_growing
from benchmarks.growth import plot, run_growth
from benchmarks.ingest import run_ingest
from benchmarks.joins import run_joins
from benchmarks.reference import run_reference
from benchmarks.reproduce import reproduce_table, run_reproduce
from benchmarks.speed import run_epochs, run_rounds, run_speed
from benchmarks.table import RESULTS, family_table, results_page
from recvae.errors import RecvaeError
from recvae.files import check_writable
from recvae.split import SPLIT_SEED


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. -> exit status: 0; 1 where figures are not reproduced; 2 after one sentence of what is wrong"""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments) or 0
    except RecvaeError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    reference = commands.add_parser("reference", help="MultVAE against the dense textbook")
    reference.set_defaults(command=_reference)
    reference.add_argument("--dataset", default="ml-1m")
    reference.add_argument("--data-home", type=Path)
    reference.add_argument("--seeds", type=int, default=3)
    reference.add_argument("--textbook-epochs", type=int, default=100, help="its passes over the users")
    reference.add_argument("--out", type=Path, help="write the results to this JSON file")
    ingest = commands.add_parser("ingest", help="a large Parquet file to Interactions")
    ingest.set_defaults(command=_ingest)
    ingest.add_argument("--rows", type=int, default=10_000_000)
    ingest.add_argument("--out", type=Path, help="write the results to this JSON file")
    speed = commands.add_parser("speed", help="steps and ranking beside the textbook and implicit")
    speed.set_defaults(command=_speed)
    speed.add_argument("--rounds", type=int, default=5)
    speed.add_argument("--out", type=Path, help="write the results to this JSON file")
    epochs = commands.add_parser("epochs", help="epochs on real data beside other packages")
    epochs.set_defaults(command=_epochs)
    epochs.add_argument("--epochs", type=int, default=5)
    epochs.add_argument("--data-home", type=Path)
    epochs.add_argument(
        "--peers", type=Path, help="folder for environments of other packages; without it, none are run"
    )
    epochs.add_argument("--out", type=Path, help="write the results to this JSON file")
    rounds = commands.add_parser("rounds", help="RecVAE's rounds beside dense code")
    rounds.set_defaults(command=_rounds)
    rounds.add_argument("--rounds", type=int, default=5)
    rounds.add_argument("--data-home", type=Path)
    rounds.add_argument("--out", type=Path, help="write the results to this JSON file")
    joins = commands.add_parser("joins", help="ways to join a VAE and a linear path")
    joins.set_defaults(command=_joins)
    joins.add_argument("--dataset", default="ml-1m")
    joins.add_argument("--data-home", type=Path)
    joins.add_argument("--split-seeds", default="1,2", help="seeds of the splits whose validation users are looked at")
    joins.add_argument("--out", type=Path, help="write the results to this JSON file")
    for name, run, about in (
        ("cold", run_cold, "items that nobody has touched"),
        ("growing", run_growing, "partial_fit beside a fit anew"),
    ):
        later = commands.add_parser(name, help=about)
        later.set_defaults(command=_later, run=run)
        later.add_argument("--dataset", default="ml-1m", help="one with titles and genres (default: %(default)s)")
        later.add_argument("--data-home", type=Path)
        later.add_argument("--split-seed", type=int, default=SPLIT_SEED)
        later.add_argument("--out", type=Path, help="write the results to this JSON file")
    gpu = commands.add_parser("gpu", help="training steps on a GPU")
    gpu.set_defaults(command=_gpu)
    gpu.add_argument("--out", type=Path, help="write the results to this JSON file")
    growth = commands.add_parser("growth", help="time and memory against size")
    growth.set_defaults(command=_growth)
    growth.add_argument("--repeats", type=int, default=5)
    growth.add_argument("--out", type=Path, help="write the results to this JSON file")
    _add_family(commands.add_parser("family", help="every model on several splits"))
    _add_reproduce(commands.add_parser("reproduce", help="our models beside published figures"))
    commands.add_parser("table", help="the README's tables").set_defaults(command=_table)
    return parser


def _add_family(family: argparse.ArgumentParser) -> None:
    add = family.add_argument
    family.set_defaults(command=_family)
    add("--dataset", default="ml-1m")
    add("--data-home", type=Path)
    add("--peers", type=Path, help="folder for the environment of iALS; without it, iALS is not run")
    add("--split-seeds", default="101-105", help="seeds of the splits, such as 101-105 or 1,2 (default: %(default)s)")
    add("--models", default="all", help="comma-separated names (default: all, and iALS)")
    add("--users", choices=("test", "valid"), default="test", help="valid, for development: no test user is looked at")
    add("--work", type=Path, required=True, help="folder outside of the repository for the values of each user")
    add("--again", action="store_true", help="run what is finished once more")
    add("--out", type=Path, help="write the results to this JSON file")


def _add_reproduce(reproduce: argparse.ArgumentParser) -> None:
    add = reproduce.add_argument
    reproduce.set_defaults(command=_reproduce)
    add("--dataset", default="ml-20m", help="one whose card has published figures (default: %(default)s)")
    add("--data-home", type=Path)
    add("--models", help="comma-separated names (default: all that the card has figures of)")
    add("--seeds", type=int, default=1)
    add("--out", type=Path, help="write the results to this JSON file")


def _reference(arguments: argparse.Namespace) -> None:
    results = run_reference(arguments.dataset, arguments.data_home, arguments.seeds, arguments.textbook_epochs)
    _write(results, arguments.out)


def _ingest(arguments: argparse.Namespace) -> None:
    _write(run_ingest(arguments.rows), arguments.out)


def _speed(arguments: argparse.Namespace) -> None:
    run_speed(arguments.rounds, partial(_save, arguments.out))


def _epochs(arguments: argparse.Namespace) -> None:
    run_epochs(arguments.epochs, arguments.data_home, arguments.peers, partial(_save, arguments.out))


def _rounds(arguments: argparse.Namespace) -> None:
    run_rounds(arguments.rounds, arguments.data_home, partial(_save, arguments.out))


def _joins(arguments: argparse.Namespace) -> None:
    seeds = seeds_of(arguments.split_seeds)
    run_joins(arguments.dataset, arguments.data_home, seeds, partial(_save, arguments.out))


def _later(arguments: argparse.Namespace) -> None:
    arguments.run(arguments.dataset, arguments.data_home, arguments.split_seed, partial(_save, arguments.out))


def _gpu(arguments: argparse.Namespace) -> None:
    _write(run_gpu(), arguments.out)


def _growth(arguments: argparse.Namespace) -> None:
    run_growth(arguments.repeats, partial(_save, arguments.out))


def _family(arguments: argparse.Namespace) -> None:
    if arguments.out is not None:
        check_writable(arguments.out)
    family = Family(
        arguments.dataset,
        arguments.data_home,
        seeds_of(arguments.split_seeds),
        models_of(arguments.models),
        arguments.work,
        arguments.users,
        arguments.peers,
    )
    results = run_family(family, arguments.again)
    _save(arguments.out, results)
    print(family_table(results))


def _reproduce(arguments: argparse.Namespace) -> int:
    models = None if arguments.models is None else arguments.models.split(",")
    results = run_reproduce(arguments.dataset, arguments.data_home, models, arguments.seeds)
    _save(arguments.out, results)
    print(reproduce_table(results))
    return 0 if results["reproduced"] else 1


def _write(results: dict[str, Any], out: Path | None) -> None:
    print(json.dumps(results, indent=1))
    _save(out, results)


def _save(out: Path | None, results: dict[str, Any]) -> None:
    if out is not None:
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _table(arguments: argparse.Namespace) -> None:
    plot(json.loads((RESULTS / "growth.json").read_text(encoding="utf-8")), RESULTS / "growth.svg")
    (RESULTS / "README.md").write_text(results_page() + "\n", encoding="utf-8")
    print(results_page())


if __name__ == "__main__":
    sys.exit(main())
