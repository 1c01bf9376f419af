"""What the commands do: data in, the package's public calls, files and tables out."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from recvae.benchmark import run_benchmark
from recvae.candidates import CANDIDATES, known_model
from recvae.cards import Card, known_cards, load_card
from recvae.datasets import data_home, load_dataset, load_split
from recvae.errors import InvalidDataError, InvalidParameterError, UnknownNameError
from recvae.evaluation import evaluate as evaluate_model
from recvae.files import check_writable, write_whole
from recvae.frames import check_table, text_of, write_table
from recvae.interactions import Interactions
from recvae.params import check_whole, get_params, parse_param
from recvae.recommender import Recommender, load
from recvae.report import json_bytes, print_results
from recvae.split import SPLIT_OPTIONS, Split, check_split, make_split, split_options
from recvae.tuning import fit_split


def benchmark(arguments: argparse.Namespace) -> None:
    """recvae benchmark"""
    check_whole("--seeds", arguments.seeds, 1)
    if arguments.out is not None:
        _check_out(arguments)
        check_writable(arguments.out)  # now rather than after the training
    results = run_benchmark(
        arguments.dataset,
        arguments.data_home,
        None if arguments.models is None else arguments.models.split(","),
        arguments.seeds,
        check_whole("--seed", arguments.seed, 0),
        split=arguments.split,
        split_seed=arguments.split_seed,
        split_options=_split_options(arguments),
        params=dict(_assignments(arguments)),
        examples=check_whole("--examples", arguments.examples, 0),
        log=_say,
    )
    if arguments.out is not None:
        write_whole(arguments.out, json_bytes(results))
        _say(f"Results written to {arguments.out}")
    if arguments.json:
        sys.stdout.write(json_bytes(results).decode())
    else:
        print_results(results, _console())


def train(arguments: argparse.Namespace) -> None:
    """recvae train"""
    _check_out(arguments)
    check_writable(arguments.out)
    model = _new_model(arguments)
    split = _load_split(arguments)
    data = _load_events(arguments) if split is None else split.refit or split.train
    _say(data.describe())
    started = time.perf_counter()
    model = model.fit(data) if split is None else fit_split(model, split)
    seconds = time.perf_counter() - started
    model.save(arguments.out)
    _say(f"{type(model).__name__} written to {arguments.out}")
    if arguments.json:
        done = {"model": type(model).__name__, "file": str(arguments.out), "parameters": get_params(model)}
        trained = {"users": data.n_users, "items": data.n_items, "events": data.n_events, "values": model.values_}
        sys.stdout.write(json_bytes(done | trained | {"seconds": seconds}).decode())


def evaluate(arguments: argparse.Namespace) -> None:
    """recvae evaluate"""
    model = load(arguments.model_file)
    split = _load_split(arguments)
    if split is None:
        raise InvalidParameterError("Expected --split or --heldout-users, as in training; got neither.")
    if model.trained_on_ != (split.refit or split.train).fingerprint():
        raise InvalidDataError(
            "Expected the model to have been trained on the training part of this split, but it was on other users or "
            "events, perhaps those of the test: take the data, the split and the --split-seed of training."
        )
    result = evaluate_model(model, split.test, arguments.metrics.split(","), show_progress=True)
    if arguments.json:
        measured = {name: {"mean": metric.mean, "stderr": metric.stderr} for name, metric in result.items()}
        sys.stdout.write(json_bytes({"users": len(result.users), "metrics": measured, "lists": result.lists}).decode())
    else:
        print(result)


def recommend(arguments: argparse.Namespace) -> None:
    """recvae recommend"""
    N = check_whole("-N", arguments.N, 1)
    if arguments.out is not None:
        _check_out(arguments)
        check_table(arguments.out)
    model = load(arguments.model_file)
    if model.item_ids_ is None:
        raise InvalidDataError(
            f"Expected a model with raw item ids, got {arguments.model_file}, trained on a bare matrix."
        )
    data, unknown = _load_events(arguments).align(model.item_ids_)
    if unknown:
        _say(f"{unknown:,} events are on items that the model does not know, and were left out.")
    table = _top(model, data, N)
    if arguments.out is None:
        sys.stdout.write(text_of(table, "jsonl" if arguments.json else "csv"))
    else:
        write_table(arguments.out, table)
        _say(f"{len(table):,} recommendations for {data.n_users:,} users written to {arguments.out}")


def datasets(arguments: argparse.Namespace) -> None:
    """recvae datasets"""
    home = data_home(arguments.data_home)
    cards = [load_card(name) for name in known_cards()]
    here = {card.name: card.events is None or (home / card.name).is_dir() for card in cards}
    if arguments.json:
        print(json.dumps([_facts(card) | {"here": here[card.name]} for card in cards], indent=1))
        return
    table = Table(title=f"Data sets in {home}", title_justify="left")
    for name in ("name", "title", "users", "items", "events", "here", "from"):
        table.add_column(name, justify="right" if name in ("users", "items", "events") else "left", overflow="fold")
    for card in cards:
        counts = [""] * 3 if card.expected is None else [f"{n:,}" for n in astuple(card.expected)]
        url = card.homepage if card.download is None else card.download.url
        table.add_row(card.name, card.title, *counts, "yes" if here[card.name] else "no", url)
    _console().print(table)
    print(f"An archive (.zip) is downloaded when it is asked for; without network put it, unpacked, in {home}.")
    print("What is local only has no archive that may be downloaded: get the files from that page, and put them there.")


def _facts(card: Card) -> dict[str, Any]:
    """What a script wants to know of a data set."""
    counts = None if card.expected is None else asdict(card.expected)
    url = None if card.download is None else card.download.url
    facts = {"name": card.name, "title": card.title, "licence": card.licence, "homepage": card.homepage}
    return facts | {"expected": counts, "download": url, "split": card.protocol.split}


def _check_out(arguments: argparse.Namespace) -> None:
    """Nothing that is read may be written over."""
    read = [getattr(arguments, name, None) for name in ("input", "test_input", "model_file", "config")]
    if arguments.dataset is not None and arguments.dataset.endswith(".toml"):
        card = load_card(arguments.dataset)
        tables = [table for table in (card.events, card.test, card.items) if table is not None]
        read += [Path(arguments.dataset), *(Path(card.path).parent / table.file for table in tables)]
    if arguments.out.resolve() in [path.resolve() for path in read if path is not None]:
        raise InvalidParameterError(f"Expected --out to be another file than those that are read, got {arguments.out}.")


def _check_source(arguments: argparse.Namespace) -> None:
    if (arguments.input is None) == (arguments.dataset is None):
        raise InvalidParameterError("Expected either --input FILE or --dataset NAME, got both or neither.")
    columns = (arguments.user, arguments.item, arguments.value, arguments.time, arguments.values)
    if arguments.dataset is not None and columns != ("user", "item", None, None, "binary"):
        raise InvalidParameterError(
            "Expected --user, --item, --value, --time and --values with --input only: a card says them."
        )
    if arguments.dataset is not None and getattr(arguments, "test_input", None) is not None:
        raise InvalidParameterError("Expected --test-input with --input only: a card says its test.")


def _load_events(arguments: argparse.Namespace) -> Interactions:
    _check_source(arguments)
    if arguments.dataset is None:
        return _read(arguments.input, arguments, arguments.min_user or 0)
    return load_dataset(
        arguments.dataset, arguments.data_home, min_value=arguments.min_value, min_user=arguments.min_user
    )


def _read(path: Path, arguments: argparse.Namespace, min_user: int) -> Interactions:
    return Interactions.read(
        path,
        user=arguments.user,
        item=arguments.item,
        value=arguments.value,
        time=arguments.time,
        min_value=arguments.min_value,
        min_user=min_user,
        values=arguments.values,
    )


def _load_split(arguments: argparse.Namespace) -> Split | None:
    """The split that is asked for, if one is."""
    _check_source(arguments)
    options = _split_options(arguments)
    kind = arguments.split
    if kind is None and arguments.heldout_users is not None:
        kind = "strong"
    if kind is None:
        if options or arguments.test_input is not None:
            raise InvalidParameterError(f"Expected --split KIND for {', '.join(options) or 'test_input'}, got none.")
        return None
    if arguments.dataset is not None:
        return load_split(
            arguments.dataset,
            arguments.data_home,
            split=kind,
            seed=arguments.split_seed,
            min_value=arguments.min_value,
            min_user=arguments.min_user,
            **options,
        )
    if "seed" in split_options(kind):
        options["seed"] = arguments.split_seed
    check_split(kind, options)
    test = None if arguments.test_input is None else _read(arguments.test_input, arguments, 0)
    return make_split(_load_events(arguments), kind, test, **options)


def _split_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in SPLIT_OPTIONS if getattr(arguments, name) is not None}


def _new_model(arguments: argparse.Namespace) -> Recommender:
    """The model asked for: its first settings, --seed and each --param on top."""
    candidate = CANDIDATES[known_model(arguments.model)][0]
    settings = get_params(candidate)
    if "random_state" in settings:
        settings["random_state"] = arguments.seed
    for name, text in _assignments(arguments):
        if name not in settings:
            raise UnknownNameError.among(f"hyper-parameter of {type(candidate).__name__}", name, settings)
        settings[name] = parse_param(candidate, name, text)
    return type(candidate)(**settings)


def _assignments(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Each --param as name and text."""
    for assignment in arguments.param:
        if "=" not in assignment:
            raise InvalidParameterError(f"Expected --param NAME=VALUE, got {assignment!r}.")
    return [(name, text) for name, _, text in (assignment.partition("=") for assignment in arguments.param)]


def _top(model: Recommender, data: Interactions, N: int, block: int = 4096) -> pa.Table:
    """A row for each recommendation: user, rank, item, title (where known), score."""
    parts = []
    for start in range(0, data.n_users, block):
        rows = data.matrix[start : start + block]
        ids, scores = model.recommend(np.arange(rows.shape[0]), rows, N=N, recalculate_user=True)  # or refuse
        user, place = np.nonzero(ids >= 0)
        items = ids[user, place]
        columns: dict[str, Any] = {
            "user": data.user_ids[start + user],
            "rank": place + 1,
            "item": data.item_ids[items],
            "score": scores[user, place],
        }
        if model.titles_ is not None:
            columns["title"] = model.titles_[items]
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 120)
