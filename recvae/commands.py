"""What the commands do: data in, the package's public calls, files and tables out."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from recvae.benchmark import CANDIDATES, known_model, run_benchmark
from recvae.cards import known_cards, load_card
from recvae.datasets import data_home, load_dataset
from recvae.errors import InvalidDataError, InvalidParameterError, UnknownNameError
from recvae.evaluation import evaluate as evaluate_model
from recvae.files import check_writable, write_whole
from recvae.frames import check_table, text_of, write_table
from recvae.interactions import Interactions
from recvae.params import check_whole, get_params, parse_param
from recvae.recommender import Recommender, load
from recvae.report import json_bytes, print_results
from recvae.split import Split, strong_split


def benchmark(arguments: argparse.Namespace) -> None:
    """recvae benchmark"""
    check_whole("--seeds", arguments.seeds, 1)
    if arguments.out is not None:
        check_writable(arguments.out)  # now rather than after the training
    results = run_benchmark(
        arguments.dataset,
        arguments.data_home,
        None if arguments.models is None else arguments.models.split(","),
        arguments.seeds,
        arguments.split_seed,
        check_whole("--examples", arguments.examples, 0),
        log=_say,
    )
    print_results(results, _console())
    if arguments.out is not None:
        write_whole(arguments.out, json_bytes(results))
        print(f"\nResults written to {arguments.out}")


def train(arguments: argparse.Namespace) -> None:
    """recvae train"""
    _check_apart(arguments.out, arguments.input)
    check_writable(arguments.out)
    model = _new_model(arguments)
    data = _load_events(arguments)
    _say(data.describe())
    if arguments.heldout_users:
        split = strong_split(data, arguments.heldout_users, arguments.split_seed)
        model.fit(split.train, valid=split.valid)
    else:
        model.fit(data)
    model.save(arguments.out)
    _say(f"{type(model).__name__} written to {arguments.out}")


def evaluate(arguments: argparse.Namespace) -> None:
    """recvae evaluate"""
    model = load(arguments.model_file)
    split: Split = strong_split(_load_events(arguments), arguments.heldout_users, arguments.split_seed)
    if model.item_ids_ is None or not np.array_equal(model.item_ids_, split.items):
        raise InvalidDataError(
            f"Expected the model to have been trained on this split, whose training users have {len(split.items)} "
            f"items, but it has {model.n_items_} and others: take the data, --heldout-users, --split-seed of training."
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
        _check_apart(arguments.out, arguments.input, arguments.model_file)
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
        sys.stdout.write(text_of(table))
    else:
        write_table(arguments.out, table)
        _say(f"{len(table):,} recommendations for {data.n_users:,} users written to {arguments.out}")


def datasets(arguments: argparse.Namespace) -> None:
    """recvae datasets"""
    home = data_home(arguments.data_home)
    cards = [load_card(name) for name in known_cards()]
    here = {card.name: card.events is None or (home / card.name).is_dir() for card in cards}
    if arguments.json:
        known = [{"name": card.name, "title": card.title, "here": here[card.name]} for card in cards]
        print(json.dumps(known, indent=1))
        return
    table = Table(title=f"Data sets in {home}", title_justify="left")
    for name in ("name", "title", "users", "items", "events", "here", "download"):
        table.add_column(name, justify="right" if name in ("users", "items", "events") else "left", overflow="fold")
    for card in cards:
        counts = [""] * 3 if card.expected is None else [f"{n:,}" for n in astuple(card.expected)]
        url = "" if card.download is None else card.download.url
        table.add_row(card.name, card.title, *counts, "yes" if here[card.name] else "no", url)
    _console().print(table)
    print(f"What is not here is downloaded when it is asked for; without network put it, unpacked, in {home}.")


def _check_apart(out: Path, *read: Path | None) -> None:
    if out.resolve() in [path.resolve() for path in read if path is not None]:
        raise InvalidParameterError(f"Expected --out to be another file than those that are read, got {out}.")


def _load_events(arguments: argparse.Namespace) -> Interactions:
    if (arguments.input is None) == (arguments.dataset is None):
        raise InvalidParameterError("Expected either --input FILE or --dataset NAME, got both or neither.")
    if arguments.dataset is not None:
        columns = (arguments.user, arguments.item, arguments.value, arguments.values)
        if columns != ("user", "item", None, "binary"):
            raise InvalidParameterError(
                "Expected --user, --item, --value and --values with --input only: a card says them."
            )
        floors = {"min_value": arguments.min_value, "min_user": arguments.min_user}
        return load_dataset(arguments.dataset, arguments.data_home, **floors)
    return Interactions.read(
        arguments.input,
        user=arguments.user,
        item=arguments.item,
        value=arguments.value,
        min_value=arguments.min_value,
        min_user=arguments.min_user or 0,
        values=arguments.values,
    )


def _new_model(arguments: argparse.Namespace) -> Recommender:
    """The model asked for: its first settings, --seed and each --param on top."""
    candidate = CANDIDATES[known_model(arguments.model)][0]
    settings = get_params(candidate)
    if "random_state" in settings:
        settings["random_state"] = arguments.seed
    for assignment in arguments.param:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise InvalidParameterError(f"Expected --param NAME=VALUE, got {assignment!r}.")
        if name not in settings:
            raise UnknownNameError.among(f"hyper-parameter of {type(candidate).__name__}", name, settings)
        settings[name] = parse_param(candidate, name, text)
    return type(candidate)(**settings)


def _top(model: Recommender, data: Interactions, N: int, block: int = 4096) -> pa.Table:
    """A row for each recommendation: user, rank, item, title (where known), score."""
    parts = []
    for start in range(0, data.n_users, block):
        rows = data.matrix[start : start + block]
        ids, scores = model.recommend(np.arange(rows.shape[0]), rows, N=N)
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
