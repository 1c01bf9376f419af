"""Measurements that are too long for the tests. Results are recorded in benchmarks/results/.

reference: MultVAE against a dense textbook implementation of it, on the same users
speed: training steps beside a dense textbook's, ranking beside implicit's ALS, in turns
epochs: epochs on real data beside RecBole's and Cornac's
rounds: RecVAE's rounds of passes beside those of dense code
gpu: training steps on a GPU, beside the time that they need at least
growth: time and memory against the number of items and of users
ingest: seconds and memory in which ten million events of a Parquet file become `Interactions`
table: the README's tables and plot, from the recorded results; also written beside them
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import run_gpu
from benchmarks.growth import plot, run_growth
from benchmarks.ingest import run_ingest
from benchmarks.reference import run_reference
from benchmarks.speed import run_epochs, run_rounds, run_speed
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
    gpu = commands.add_parser("gpu", help="training steps on a GPU")
    gpu.set_defaults(command=_gpu)
    gpu.add_argument("--out", type=Path, help="write the results to this JSON file")
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
    run_speed(arguments.rounds, partial(_save, arguments.out))


def _epochs(arguments: argparse.Namespace) -> None:
    run_epochs(arguments.epochs, arguments.data_home, arguments.peers, partial(_save, arguments.out))


def _rounds(arguments: argparse.Namespace) -> None:
    run_rounds(arguments.rounds, arguments.data_home, partial(_save, arguments.out))


def _gpu(arguments: argparse.Namespace) -> None:
    _write(run_gpu(), arguments.out)


def _growth(arguments: argparse.Namespace) -> None:
    run_growth(arguments.repeats, partial(_save, arguments.out))


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


main()
