"""Flags that several commands share: where events come from, what is kept out of training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recvae.data.rows import VALUES
from recvae.data.splits import SPLIT_SEED, SPLITS
from recvae.datasets.card import known_cards
from recvae.errors import RecvaeError
from recvae.utils.paths import as_path


def path(text: str) -> Path:
    """A path as the type of a flag."""
    try:
        return as_path(text)
    except RecvaeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_dataset(add: Any, default: str | None, text: str) -> None:
    """A data set by name; `text` says what is taken without it."""
    add("--dataset", default=default, help=f"one of {', '.join(known_cards())}, or a card of your own (.toml){text}")
    add("--data-home", type=path, help="folder of data sets (default: RECVAE_DATA, else the user's cache)")


def add_shards(add: Any) -> None:
    """Events that recvae shard has written."""
    add("--shards", type=path, metavar="DIR", help="in the place of events: a folder of recvae shard")


def add_param(add: Any, text: str) -> None:
    """Hyper-parameters by name; `text` says whose."""
    add("--param", action="append", default=[], metavar="NAME=VALUE", help=text)


def add_split(parser: argparse.ArgumentParser, default: str, given: bool = False) -> None:
    """What is kept out of training: the options of `recvae.data.splits.make_split`."""
    add = parser.add_argument_group("split").add_argument
    add("--split", metavar="KIND", help=f"one of {', '.join(SPLITS)} (default: {default})")
    add("--heldout-users", type=int, help="so many users for validation, and as many for the test; needed for strong")
    add("--test-share", type=float, help="strong, per-user: of a user's events (default: 0.2); temporal: of all (0.1)")
    add("--valid-share", type=float, help="per-user, temporal, given: of what the test leaves (default: 0.1)")
    add("--last", type=int, help="leave-last: so many events of each user (default: 1)")
    add("--test-start", help="temporal: the test begins at this date or time")
    add("--valid-start", help="temporal: validation begins at this date or time")
    add("--split-seed", type=int, default=SPLIT_SEED, help="seed of the split (default: the paper's 98765)")
    if given:
        add("--test-input", type=path, help="given: the file of test events, with columns as in --input")


WEAK = "leave out events of a lower value"


def add_events(parser: argparse.ArgumentParser, weak: str = WEAK) -> None:
    """Where events come from: a file with columns of any name, or a data set; `weak` says what of low values."""
    add = parser.add_argument_group("events").add_argument
    add("--input", type=path, help="a .csv, .tsv or .parquet file, or a folder of Parquet files")
    add_columns(add, weak)
    add("--time", help="its column of times: dates or numbers (default: none)")
    add_dataset(add, None, "")


def add_columns(add: Any, weak: str = WEAK) -> None:
    """Which columns of the input count, and what of them."""
    add("--user", default="user", help="its column of user ids (default: user)")
    add("--item", default="item", help="its column of item ids (default: item)")
    add("--value", help="its column of values (default: each row counts 1)")
    add("--min-value", type=float, help=weak)
    add("--min-user", type=int, help="leave out users with fewer events")
    add("--values", choices=VALUES, default="binary", help="how values are read (default: binary)")
