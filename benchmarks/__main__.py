"""Measurements that are too long for the tests. Results are recorded in benchmarks/results/.

reference: MultVAE against a dense textbook implementation of it, on the same users
speed: training and ranking beside a dense textbook, implicit, RecBole and Cornac, in one run
growth: time and memory against the number of items and of users
ingest: seconds and memory in which ten million events of a Parquet file become `Interactions`
table: the README's tables, from the recorded results; also written beside them
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.growth import run_growth
from benchmarks.ingest import run_ingest
from benchmarks.reference import run_reference
from benchmarks.speed import run_speed
from benchmarks.table import RESULTS, results_page


def main() -> None:
    """Run a command."""
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
    speed = commands.add_parser("speed", help="beside other implementations")
    speed.set_defaults(command=_speed)
    speed.add_argument("--rounds", type=int, default=5)
    speed.add_argument("--epochs", type=int, default=5)
    speed.add_argument("--data-home", type=Path)
    speed.add_argument("--peers", type=Path, help="folder for environments of other packages; without it, none are run")
    speed.add_argument("--out", type=Path, help="write the results to this JSON file")
    growth = commands.add_parser("growth", help="time and memory against size")
    growth.set_defaults(command=_growth)
    growth.add_argument("--repeats", type=int, default=5)
    growth.add_argument("--out", type=Path, help="write the results to this JSON file")
    commands.add_parser("table", help="the README's tables").set_defaults(command=_table)
    arguments = parser.parse_args()
    arguments.command(arguments)


def _reference(arguments: argparse.Namespace) -> None:
    results = run_reference(arguments.dataset, arguments.data_home, arguments.seeds, arguments.textbook_epochs)
    _write(results, arguments.out)


def _ingest(arguments: argparse.Namespace) -> None:
    _write(run_ingest(arguments.rows), arguments.out)


def _speed(arguments: argparse.Namespace) -> None:
    _write(run_speed(arguments.rounds, arguments.epochs, arguments.data_home, arguments.peers), arguments.out)


def _growth(arguments: argparse.Namespace) -> None:
    _write(run_growth(arguments.repeats), arguments.out)


def _write(results: dict[str, Any], out: Path | None) -> None:
    text = json.dumps(results, indent=1)
    print(text)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")


def _table(arguments: argparse.Namespace) -> None:
    (RESULTS / "README.md").write_text(results_page() + "\n", encoding="utf-8")
    print(results_page())


main()
