"""`python -m benchmarks reference --dataset ml-1m --data-home DIR --seeds 3`: see `--help`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.reference import run_reference


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    reference = commands.add_parser("reference", help="MultVAE against a dense textbook implementation of it")
    reference.add_argument("--dataset", default="ml-1m")
    reference.add_argument("--data-home", type=Path)
    reference.add_argument("--seeds", type=int, default=3)
    reference.add_argument("--out", type=Path, help="write the results to this JSON file")
    arguments = parser.parse_args()
    results = run_reference(arguments.dataset, arguments.data_home, arguments.seeds)
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


main()
