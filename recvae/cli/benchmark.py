"""recvae benchmark and recvae report: compare models on one split, and make the page of the results."""

from __future__ import annotations

import argparse
from typing import Any

from recvae.cli.inputs import (
    NEEDED,
    add_dataset,
    add_param,
    add_split,
    check_split_folder,
    param_texts,
    path,
    split_options_of,
)
from recvae.cli.output import check_outputs, say
from recvae.utils.checks import check_integer
from recvae.utils.files import check_writable, write_whole
from recvae.utils.streams import printed, put

RESULTS = "results.json"  # next to the page


def benchmark_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of recvae benchmark."""
    from recvae.benchmark.grids import GRIDS

    add = parser.add_argument
    add_dataset(add, help_default=" (default: sample)")
    add(
        "--models",
        help=f"comma-separated, of {', '.join(GRIDS)}, classes of your own as module:Class, or all (default: all)",
    )
    add("--seeds", type=int, default=1, help="train each model with this many seeds (default: 1)")
    add("--seed", type=int, default=0, help="the first of them (default: 0)")
    add_param(add, "a hyper-parameter for all models that have it, such as epochs=20")
    add_split(parser, "the data set's own")
    add("--examples", type=int, default=3, help="test users to show, with histories (default: 3)")
    add("--out", type=path, help="write settings, results and examples to this JSON file, also while it runs")
    add(
        "--report",
        type=path,
        metavar="DIR",
        help="write the results to DIR/results.json, and a page of them to DIR/index.html",
    )
    add("--json", action="store_true", help="print the results as JSON instead of a table")


def benchmark(arguments: argparse.Namespace) -> None:
    """Run recvae benchmark."""
    from recvae.benchmark.report import PAGE, check_page, print_results, write_page
    from recvae.benchmark.results import json_bytes
    from recvae.benchmark.run import run_benchmark

    check_integer("--seeds", arguments.seeds, 1)
    if arguments.split_folder is not None:
        check_split_folder(arguments)
    files = [] if arguments.out is None else [arguments.out]
    page = {}
    if arguments.report is not None:
        check_page()
        files.append(arguments.report / RESULTS)
        page = {"the results of --report": arguments.report / RESULTS, "the page of --report": arguments.report / PAGE}
    check_outputs(arguments, page)
    for file in [*files, *page.values()]:
        check_writable(file)  # before the training, not after it

    def write(results: dict[str, Any], what: str = "Results so far") -> None:
        for file in files:
            write_whole(file, json_bytes(results | {"command": arguments.command_line}))
            say(f"{what} written to {file}")

    results = run_benchmark(
        str(arguments.split_folder or arguments.dataset or "sample"),
        arguments.data_home,
        None if arguments.models is None else arguments.models.split(","),
        arguments.seeds,
        check_integer("--seed", arguments.seed, 0),
        split=arguments.split,
        split_seed=arguments.split_seed,
        split_options=split_options_of(arguments),
        params=param_texts(arguments),
        examples=check_integer("--examples", arguments.examples, 0),
        log=say,
        keep=write,  # an interruption of a long run does not lose what is done
    ) | {"command": arguments.command_line}
    write(results, "Results")
    if arguments.json:
        put(json_bytes(results).decode())
    else:
        with printed() as console:
            print_results(results, console)
    if arguments.report is not None:
        say(f"Page written to {write_page(results, arguments.report)}")


def report_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of recvae report."""
    add = parser.add_argument
    add("results", type=path, nargs="?", default=NEEDED, help="what recvae benchmark --report or --out wrote")
    add("--out", type=path, default=NEEDED, metavar="DIR", help="the folder of the page, DIR/index.html")


def report(arguments: argparse.Namespace) -> None:
    """Run recvae report."""
    from recvae.benchmark.report import PAGE, check_page, write_page
    from recvae.benchmark.results import read_results

    page = arguments.out / PAGE
    check_outputs(arguments, {"--out": page})
    check_page()
    check_writable(page)
    say(f"Page written to {write_page(read_results(arguments.results), arguments.out)}")
