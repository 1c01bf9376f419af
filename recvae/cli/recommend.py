"""recvae recommend: the top N items of each user, as one table, or for very many users as a folder of parts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from recvae.cli.inputs import (
    NEEDED,
    add_events,
    add_param,
    load_events,
    load_histories,
    load_seen,
    new_model,
    path,
)
from recvae.cli.output import check_outputs, say
from recvae.cli.rules import add_rules, load_rules, say_unknown
from recvae.errors import InvalidDataError, InvalidParameterError, shown
from recvae.utils.checks import check_integer
from recvae.utils.paths import as_path
from recvae.utils.streams import put

if TYPE_CHECKING:
    import pyarrow as pa

    from recvae.data.histories import Histories
    from recvae.data.rules import ItemRules
    from recvae.models.base import Recommender
    from recvae.serving.linear import LinearLists

BLOCK = 4096  # users that are ranked at a time
FOLDER_FLAGS = ("--users-per-part", "--engine", "--actors", "--ray-address")


def recommend_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of recvae recommend."""
    from recvae.serving.names import ENGINES, USERS_PER_PART

    add = parser.add_argument
    add("model_file", type=path, nargs="?", default=NEEDED, help="what recvae train wrote")
    add_events(
        parser,
        "the least value of what was liked, which the model reads; the rest was seen, and is not recommended either; "
        "users who liked nothing get a list too",
        filters=False,
    )
    add("--model", help="instead of a model file: train this model on the events first, such as EASE")
    add_param(add, "with --model: a hyper-parameter, such as l2=500")
    add("--seed", type=int, default=0, help="with --model: its seed (default: 0)")
    add("--seen", type=path, help="a file of other items that users have seen, columns as --input: not recommended")
    add("-N", type=int, default=10, dest="N", help="items for each user (default: 10)")
    add("--out", help="a .csv, .tsv, .parquet or .jsonl file (default: CSV on standard output), or DIR/, see below")
    add("--json", action="store_true", help="print JSON, one line for each recommendation, instead of CSV")
    add_rules(parser)
    parts = parser.add_argument_group(
        "a folder of parts",
        "With --out DIR/ (a / at its end, or a folder that exists), events may be more than memory holds: --input is "
        "a Parquet file or a folder of such, by event or by user with a list of items. DIR gets Parquet files of some "
        "users each. The same command resumes a run that was stopped.",
    )
    parts.add_argument("--users-per-part", type=int, help=f"users in a file (default: {USERS_PER_PART})")
    parts.add_argument("--engine", choices=ENGINES, help="what makes the parts: this process, or Ray (default: local)")
    parts.add_argument("--actors", type=int, help="ray: processes that score (default: one for each CPU)")
    parts.add_argument("--ray-address", help="ray: of a cluster, such as auto (default: RAY_ADDRESS, else a new one)")


def recommend(arguments: argparse.Namespace) -> None:
    """Run recvae recommend."""
    from recvae.data.tables.frames import check_table

    N = check_integer("-N", arguments.N, 1)
    if (arguments.model is None) == (arguments.model_file is None):
        raise InvalidParameterError("Expected either a model file or --model NAME, got both.")
    if arguments.model is None and (arguments.param or arguments.seed):
        raise InvalidParameterError("Expected --param and --seed with --model NAME: a model file has its own.")
    name, arguments.out = arguments.out, None if arguments.out is None else as_path(arguments.out)
    if arguments.out is not None:
        check_outputs(arguments)
        if name.endswith(("/", os.sep)) or arguments.out.is_dir():
            _to_folder(arguments, N)
            return
        check_table(arguments.out)
    for flag in FOLDER_FLAGS:
        if getattr(arguments, flag.strip("-").replace("-", "_")) is not None:
            raise InvalidParameterError(f"Expected {flag} with a folder only, as in --out top10/.")
    _to_table(arguments, N)


def _to_table(arguments: argparse.Namespace, N: int) -> None:
    from recvae.data.tables.frames import table_writer, text_of
    from recvae.serving.linear import open_linear

    if arguments.model is None:
        model = open_linear(arguments.model_file) or _load(arguments.model_file)
    else:
        model = new_model(arguments).fit(load_events(arguments))
    index, rules = model.known_items(), load_rules(arguments)
    resolved = None if rules is None else rules.resolve(index, user=arguments.user, item=arguments.item)
    histories = load_histories(arguments, index, model.preparation_.get("weights"))
    _say_unread(histories)
    if resolved is not None:
        say_unknown(resolved.unknown)
        histories = _of_only_users(histories, resolved)
    tables = _ranked(model, histories, N, resolved)
    if arguments.out is None:
        for number, table in enumerate(tables):
            put(text_of(table, "jsonl" if arguments.json else "csv", header=number == 0))
        return
    n_rows = 0
    with table_writer(arguments.out) as write:
        for table in tables:
            write(table)
            n_rows += len(table)
    say(f"{n_rows:,} recommendations for {len(histories.users):,} users written to {arguments.out}")


def _of_only_users(histories: Histories, rules: ItemRules) -> Histories:
    """The histories of the users who get lists. Raises InvalidDataError if there are none."""
    chosen = rules.select(histories.users)
    if chosen is None:
        return histories
    if not len(chosen):
        raise InvalidDataError(
            f"Expected --only-users with at least one user of the input, such as "
            f"{shown(histories.users[:1].tolist()[0])}, got none."
        )
    say_unknown(rules.unknown_users(histories.users))
    return histories.select(chosen)


def _load(file: Path) -> Recommender:
    """`recvae.load`, which loads torch."""
    from recvae.models.base import load

    return load(file)


def _to_folder(arguments: argparse.Namespace, N: int) -> None:
    from recvae.serving.batch import recommend_to_parquet
    from recvae.serving.names import USERS_PER_PART

    if arguments.model is not None:
        raise InvalidParameterError("Expected a model file for a folder of parts, got --model: run recvae train first.")
    if arguments.input is None or any((arguments.dataset, arguments.time, arguments.min_user)):
        raise InvalidParameterError(
            "Expected --input, a Parquet file or a folder of such, for a folder of parts, and neither --dataset nor "
            "--time or --min-user."
        )
    rules = load_rules(arguments)
    result = recommend_to_parquet(
        _load(arguments.model_file),
        arguments.input,
        arguments.out,
        N,
        user=arguments.user,
        item=arguments.item,
        value=arguments.value,
        min_value=arguments.min_value,
        users_per_part=USERS_PER_PART if arguments.users_per_part is None else arguments.users_per_part,
        engine=arguments.engine or "local",
        actors=arguments.actors,
        ray_address=arguments.ray_address,
        seen=load_seen(arguments),
        rules=rules,
        behavior=arguments.behavior,
        weights=arguments.weights,
        unknown_behavior=arguments.unknown_behavior,
    )
    if result.unknown.events:
        say(str(result.unknown))
    say_unknown(result.unknown_ids)
    say(
        f"{result.recommendations:,} recommendations for {result.users:,} users are in {arguments.out}: {result.parts} "
        f"parts, {result.made} of them made now"
    )


def _say_unread(histories: Histories) -> None:
    """Report the events that the model does not read."""
    import numpy as np

    if histories.unknown.events:
        say(str(histories.unknown))
    if histories.seen is not None:
        say(f"{histories.seen.nnz:,} pairs of a user and an item were seen and not liked: they are not recommended.")
    n_empty = int((np.diff(histories.rows.indptr) == 0).sum())
    if n_empty:
        say(
            f"{n_empty:,} of {len(histories.users):,} users liked nothing that the model knows: they get what it "
            f"recommends to someone without a history."
        )


def _ranked(
    model: Recommender | LinearLists, histories: Histories, N: int, rules: ItemRules | None
) -> Iterator[pa.Table]:
    """The lists of all users, of some at a time."""
    users, rows, seen = histories.users, histories.rows, histories.seen
    for start in range(0, max(1, len(users)), BLOCK):
        block = slice(start, start + BLOCK)
        some_seen = None if seen is None else seen[block]
        yield model.ranked_table(users[block], rows[block], N, seen=some_seen, rules=rules)
