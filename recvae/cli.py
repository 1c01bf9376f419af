"""The command line: `recvae benchmark`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from recvae.benchmark import CANDIDATES, run_benchmark
from recvae.cards import known_cards
from recvae.errors import InvalidParameterError, RecvaeError
from recvae.params import check_whole
from recvae.report import print_results


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. -> exit status: 0, or 2 after one sentence on standard error"""
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except RecvaeError as error:
        print(f"recvae: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("recvae: stopped.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    from recvae import __version__

    parser = argparse.ArgumentParser(prog="recvae", description="Variational autoencoders for recommender systems.")
    parser.add_argument("--version", action="version", version=f"recvae {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    benchmark = commands.add_parser(
        "benchmark",
        help="train models on a data set and score them side by side on held-out users",
        description="Train models on one split of a data set, score all with one evaluator on the same held-out "
        "users, and print the table and a few users' recommendations.",
        epilog="Example: recvae benchmark --dataset ml-1m --data-home ~/data --seeds 3 --out ml-1m.json",
    )
    benchmark.set_defaults(command=_benchmark)
    add = benchmark.add_argument
    add("--dataset", default="sample", help=f"one of {', '.join(known_cards())} (default: sample, made on the spot)")
    add("--data-home", type=Path, help="folder of data sets (default: RECVAE_DATA, else the user's cache)")
    add("--models", help=f"comma-separated, of {', '.join(CANDIDATES)} (default: all)")
    add("--seeds", type=int, default=1, help="train each model with this many seeds, from 0 (default: 1)")
    add("--split-seed", type=int, default=98765, help="seed of the split into users (default: the paper's 98765)")
    add("--out", type=Path, help="write settings and results to this JSON file")
    return parser


def _benchmark(arguments: argparse.Namespace) -> None:
    check_whole("--seeds", arguments.seeds, 1)
    if arguments.out is not None:
        _check_writable(arguments.out)  # now rather than after the training
    results = run_benchmark(
        arguments.dataset,
        arguments.data_home,
        None if arguments.models is None else arguments.models.split(","),
        arguments.seeds,
        arguments.split_seed,
        log=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print_results(results, Console(width=None if sys.stdout.isatty() else 120))
    if arguments.out is not None:
        _write_json(arguments.out, results)
        print(f"\nResults written to {arguments.out}")


def _check_writable(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent):
            pass
        if path.exists() and not path.is_file():
            raise OSError(0, "it is there and no file")
    except OSError as error:
        raise InvalidParameterError(
            f"Expected --out to be a file that can be written, got {path}: {error.strerror}."
        ) from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write beside the final place and rename, so that there is never half a file."""
    # JSON knows no NaN: what is not a number becomes null
    text = json.dumps(json.loads(json.dumps(content), parse_constant=lambda name: None), indent=1)
    with tempfile.TemporaryDirectory(dir=path.resolve().parent, prefix=f".{path.name}-") as scratch:
        part = Path(scratch) / path.name
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(path.resolve())
