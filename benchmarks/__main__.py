"""Measurements that are too long for the tests. Results are recorded in benchmarks/results/.

reference: MultVAE against a dense textbook implementation of it, on the same users
table: the README's table and comparison, from the recorded results of `recvae benchmark`
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.reference import run_reference
from benchmarks.table import reference_line, results_table


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
    commands.add_parser("table", help="print the README's table").set_defaults(command=_table)
    arguments = parser.parse_args()
    arguments.command(arguments)


def _reference(arguments: argparse.Namespace) -> None:
    text = json.dumps(
        run_reference(arguments.dataset, arguments.data_home, arguments.seeds, arguments.textbook_epochs), indent=1
    )
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


def _table(arguments: argparse.Namespace) -> None:
    print(results_table(), reference_line(), sep="\n\n")


main()
