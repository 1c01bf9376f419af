"""What `recvae recommend` does: the top N of each user, in one table, or in parts where users are very many."""

from __future__ import annotations

import argparse
import os

import numpy as np
import pyarrow as pa

from recvae.cli.arguments import check_out, load_histories, load_seen, say
from recvae.data.histories import Histories
from recvae.data.tables.frames import check_table, text_of, write_table
from recvae.errors import InvalidParameterError
from recvae.models.base import Recommender, load
from recvae.serving.batch import USERS_PER_PART, recommend_to_parquet
from recvae.utils.checks import check_integer
from recvae.utils.paths import as_path
from recvae.utils.streams import put

BLOCK = 4096  # users whose lists are made at a time
OF_PARTS = ("--users-per-part", "--engine", "--actors", "--ray-address")


def run(arguments: argparse.Namespace) -> None:
    """recvae recommend"""
    N = check_integer("-N", arguments.N, 1)
    name, arguments.out = arguments.out, None if arguments.out is None else as_path(arguments.out)
    if arguments.out is not None:
        check_out(arguments)
        if name.endswith(("/", os.sep)) or arguments.out.is_dir():
            _in_parts(arguments, N)
            return
        check_table(arguments.out)
    for flag in OF_PARTS:
        if getattr(arguments, flag.strip("-").replace("-", "_")) is not None:
            raise InvalidParameterError(f"Expected {flag} with a folder only, as in --out top10/.")
    _in_one(arguments, N)


def _in_one(arguments: argparse.Namespace, N: int) -> None:
    model = load(arguments.model_file)
    histories = load_histories(arguments, model.known_items())
    _say_of(histories)
    table = _top(model, histories, N)
    if arguments.out is None:
        put(text_of(table, "jsonl" if arguments.json else "csv"))
    else:
        write_table(arguments.out, table)
        say(f"{len(table):,} recommendations for {len(histories.users):,} users written to {arguments.out}")


def _in_parts(arguments: argparse.Namespace, N: int) -> None:
    if arguments.input is None or any((arguments.dataset, arguments.time, arguments.min_user)):
        raise InvalidParameterError(
            "Expected --input, a Parquet file or a folder of such, for a folder of parts, and neither --dataset nor "
            "--time or --min-user."
        )
    result = recommend_to_parquet(
        load(arguments.model_file),
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
    )
    if result.unknown.events:
        say(str(result.unknown))
    say(
        f"{result.recommendations:,} recommendations for {result.users:,} users are in {arguments.out}: {result.parts} "
        f"parts, {result.made} of them made now"
    )


def _say_of(histories: Histories) -> None:
    """Say what of the events the model does not read."""
    if histories.unknown.events:
        say(str(histories.unknown))
    if histories.seen is not None:
        say(f"{histories.seen.nnz:,} pairs of a user and an item were seen and not liked: they are not recommended.")
    nothing = int((np.diff(histories.rows.indptr) == 0).sum())
    if nothing:
        say(
            f"{nothing:,} of {len(histories.users):,} users liked nothing that the model knows: they get what it "
            f"recommends to someone without a history."
        )


def _top(model: Recommender, histories: Histories, N: int) -> pa.Table:
    """The lists of all users, in blocks."""
    users, rows, seen = histories.users, histories.rows, histories.seen
    blocks = [slice(start, start + BLOCK) for start in range(0, max(1, len(users)), BLOCK)]
    return pa.concat_tables(
        [model.ranked_table(users[b], rows[b], N, seen=None if seen is None else seen[b]) for b in blocks]
    )
