"""What the commands do: data in, the package's public calls, files and tables out."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, astuple, replace
from typing import Any

import msgspec
from rich.table import Table

from recvae.benchmark.report import PAGE, check_page, print_results, write_page
from recvae.benchmark.results import json_bytes, read_results
from recvae.benchmark.run import run_benchmark
from recvae.cli.arguments import (
    asked_checkpoint,
    asked_shards,
    asked_split,
    asked_split_options,
    assignments,
    callbacks,
    check_out,
    load_events,
    lone,
    new_model,
    say,
    say_dropped,
)
from recvae.data.shards import Shards
from recvae.data.splits import Holdout
from recvae.datasets.card import Card, known_cards, load_card
from recvae.datasets.load import data_home
from recvae.distributed.communicator import Communicator
from recvae.distributed.launch import joined
from recvae.errors import InvalidDataError, InvalidParameterError, NotSupportedError, escaped
from recvae.evaluation.evaluate import evaluate as evaluate_model
from recvae.models.autoencoder.base import Autoencoder
from recvae.models.base import Recommender, load
from recvae.models.base.params import flat_params
from recvae.training.callbacks import Callback
from recvae.training.checkpoint import Checkpoint
from recvae.tuning.selection import fit_split
from recvae.utils.checks import check_integer
from recvae.utils.files import check_writable, write_whole
from recvae.utils.streams import printed, put

RESULTS = "results.json"  # beside the page


def benchmark(arguments: argparse.Namespace) -> None:
    """recvae benchmark"""
    check_integer("--seeds", arguments.seeds, 1)
    files = [] if arguments.out is None else [arguments.out]
    page = {}
    if arguments.report is not None:
        check_page()
        files.append(arguments.report / RESULTS)
        page = {"the results of --report": arguments.report / RESULTS, "the page of --report": arguments.report / PAGE}
    check_out(arguments, page)
    for path in [*files, *page.values()]:
        check_writable(path)  # now rather than after the training
    results = run_benchmark(
        arguments.dataset,
        arguments.data_home,
        None if arguments.models is None else arguments.models.split(","),
        arguments.seeds,
        check_integer("--seed", arguments.seed, 0),
        split=arguments.split,
        split_seed=arguments.split_seed,
        split_options=asked_split_options(arguments),
        params=dict(assignments(arguments)),
        examples=check_integer("--examples", arguments.examples, 0),
        log=say,
    ) | {"command": arguments.command_line}
    for path in files:
        write_whole(path, json_bytes(results))
        say(f"Results written to {path}")
    if arguments.json:
        put(json_bytes(results).decode())
    else:
        with printed() as console:
            print_results(results, console)
    if arguments.report is not None:
        say(f"Page written to {write_page(results, arguments.report)}")


def report(arguments: argparse.Namespace) -> None:
    """recvae report"""
    page = arguments.out / PAGE
    check_out(arguments, {"--out": page})
    check_page()
    check_writable(page)
    say(f"Page written to {write_page(read_results(arguments.results), arguments.out)}")


def plan(arguments: argparse.Namespace) -> None:
    """recvae plan"""
    model, shards = new_model(arguments), asked_shards(arguments)
    if not isinstance(model, Autoencoder):
        raise InvalidParameterError(
            f"Expected a model that is trained step by step, such as MultVAE, got {type(model).__name__}: it is solved "
            f"in one go, and refuses by itself what would not fit."
        )
    split = None if shards is not None else asked_split(arguments)
    data = shards or (load_events(arguments) if split is None else split.train)
    valid = split.valid if split is not None else _valid_of(shards)
    found = model.plan(data, valid=valid)
    if arguments.json:
        put(json_bytes(asdict(found) | {"peak": found.memory.peak, "fits": found.fits}).decode())
    else:
        put(f"{found}\n")


def _valid_of(shards: Shards | None) -> Holdout | None:
    """The validation users that shards have, if they do."""
    return None if shards is None or shards.heldout_users is None else shards.valid


def train(arguments: argparse.Namespace) -> None:
    """recvae train, by itself or as one of the processes of torchrun"""
    check_out(arguments)
    check_writable(arguments.out)
    heard, kept = callbacks(arguments), asked_checkpoint(arguments)
    model, shards = new_model(arguments), asked_shards(arguments)
    with joined(str(getattr(model, "device", "auto")).partition(":")[0]) as communicator, lone(communicator):
        _train(arguments, model, shards, heard, kept, communicator)


def _train(
    arguments: argparse.Namespace,
    model: Recommender,
    shards: Shards | None,
    heard: list[Callback],
    kept: Checkpoint | None,
    communicator: Communicator,
) -> None:
    split = None if shards is not None else asked_split(arguments)
    data = shards or (load_events(arguments) if split is None else split.refit or split.train)
    # what became of its rows was said when it was read
    say(str(data) if isinstance(data, Shards) else replace(data, account=None).describe())
    valid = split.valid if split is not None else _valid_of(shards)
    say_dropped("validation", valid)
    say_dropped("test", None if split is None else split.test)
    if communicator.size > 1:
        say(
            f"{_parallelism(model).capitalize()} parallel training by {communicator.size} processes on "
            f"{communicator.device.type}"
        )
    started = time.perf_counter()
    if split is None:
        model = model.fit(data, valid=valid, callbacks=heard, checkpoint=kept)
    else:
        model = fit_split(model, split, callbacks=heard, checkpoint=kept)
    seconds = time.perf_counter() - started
    if not communicator.is_main_process:
        return
    model.save(arguments.out)
    if isinstance(model, Autoencoder):
        say(f"{model.plan_.impl.capitalize()} likelihood: {model.plan_.why}")
    say(f"{type(model).__name__} written to {arguments.out}")
    if arguments.json:
        done = {"model": type(model).__name__, "file": str(arguments.out), "parameters": flat_params(model)}
        trained = {"users": data.n_users, "items": data.n_items, "events": data.n_events, "values": model.values_}
        put(json_bytes(done | trained | {"seconds": seconds}).decode())


def _parallelism(model: Recommender) -> str:
    """How the ranks train together, "data" or "tensor". Raises NotSupportedError where there are no training steps."""
    if not isinstance(model, Autoencoder):
        raise NotSupportedError(
            f"{type(model).__name__} is solved in one go, by one process: start it without torchrun."
        )
    return str(model.training.parallel)


def evaluate(arguments: argparse.Namespace) -> None:
    """recvae evaluate"""
    model = load(arguments.model_file)
    parts = asked_shards(arguments) or asked_split(arguments)
    if parts is None:
        raise InvalidParameterError("Expected --split or --heldout-users, as in training; got neither.")
    trained = parts if isinstance(parts, Shards) else parts.refit or parts.train
    if model.trained_on_ != trained.fingerprint():
        raise InvalidDataError(
            "Expected the model to have been trained on the training part of this split, but it was on other users or "
            "events, perhaps those of the test: take the data, the split and the --split-seed of training."
        )
    test = parts.test
    say_dropped("test", test)
    result = evaluate_model(model, test, arguments.metrics.split(","), show_progress=True)
    if arguments.json:
        measured = {name: {"mean": metric.mean, "stderr": metric.stderr} for name, metric in result.items()}
        put(json_bytes({"users": len(result.users), "metrics": measured, "lists": result.lists}).decode())
    else:
        put(f"{result}\n")


def datasets(arguments: argparse.Namespace) -> None:
    """recvae datasets"""
    home = data_home(arguments.data_home)
    cards = [load_card(name) for name in known_cards()]
    here = {card.name: card.events is None or (home / card.name).is_dir() for card in cards}
    if arguments.json:
        put(json.dumps([_facts(card) | {"here": here[card.name]} for card in cards], indent=1) + "\n")
        return
    table = Table(title=escaped(f"Data sets in {home}"), title_justify="left")
    for name in ("name", "title", "users", "items", "events", "here", "from"):
        table.add_column(name, justify="right" if name in ("users", "items", "events") else "left", overflow="fold")
    for card in cards:
        counts = [""] * 3 if card.expected is None else [f"{n:,}" for n in astuple(card.expected)]
        url = card.homepage if card.download is None else card.download.url
        table.add_row(card.name, card.title, *counts, "yes" if here[card.name] else "no", url)
    with printed() as console:
        console.print(table)
        console.print(
            f"An archive (.zip) is downloaded when it is asked for; without network put it, unpacked, in {home}.\n"
            "What is local only has no archive that may be downloaded: get the files from that page, and put them "
            "there.",
            soft_wrap=True,
            highlight=False,
        )


def _facts(card: Card) -> dict[str, Any]:
    """What a script wants to know of a data set."""
    counts = None if card.expected is None else msgspec.structs.asdict(card.expected)
    url = None if card.download is None else card.download.url
    facts = {"name": card.name, "title": card.title, "licence": card.licence, "homepage": card.homepage}
    return facts | {"expected": counts, "download": url, "split": card.protocol.split}
