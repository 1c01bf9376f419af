"""recvae shard and recvae datasets: write events as shards, and list the known data sets."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from recvae.cli.inputs import NEEDED, add_columns, add_data_home, path
from recvae.cli.output import check_outputs, say
from recvae.errors import escaped
from recvae.utils.streams import printed, put

if TYPE_CHECKING:
    from recvae.datasets.card import Card


def shard_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of recvae shard."""
    from recvae.data.names import SPLIT_SEED, USERS_PER_SHARD

    add = parser.add_argument
    add("--input", type=path, default=NEEDED, help="a Parquet file, or a folder of such")
    add_columns(add)
    add("--min-item", type=int, default=0, help="leave out items with fewer events")
    add("--k-core", action="store_true", help="repeat --min-item and --min-user until all that are left have enough")
    add(
        "--heldout-users",
        type=int,
        help="keep this many users for validation, and as many for the test, out of the shards",
    )
    add("--test-share", type=float, default=0.2, help="of a held-out user's events (default: 0.2)")
    add("--split-seed", type=int, default=SPLIT_SEED, help="seed of the split (default: the paper's 98765)")
    add("--users-per-shard", type=int, default=USERS_PER_SHARD, help="users in a file (default: %(default)s)")
    add("--memory-mib", type=int, default=2048, help="memory to sort in, MiB; then on disk (default: %(default)s)")
    add("--out", type=path, default=NEEDED, help="the folder to write; the same command resumes a stopped run")
    add("--json", action="store_true", help="print what was done as JSON")


def shard(arguments: argparse.Namespace) -> None:
    """Run recvae shard."""
    from recvae.benchmark.results import json_bytes
    from recvae.data.shards import write_shards

    check_outputs(arguments)
    names = ("user", "item", "value", "min_value", "min_item", "values", "users_per_shard", "heldout_users")
    rules = ("k_core", "behavior", "weights", "unknown_behavior")
    options = {name: getattr(arguments, name) for name in (*names, *rules, "split_seed", "test_share", "memory_mib")}
    shards = write_shards(arguments.input, arguments.out, min_user=arguments.min_user or 0, **options)
    say(f"{shards.n_events:,} events of {shards.n_users:,} users on {shards.n_items:,} items are in {arguments.out}")
    if arguments.json:
        about = {"folder": str(arguments.out), "shards": len(shards.shard_files), "users": shards.n_users}
        about |= {"items": shards.n_items, "events": shards.n_events, "fingerprint": shards.fingerprint()}
        put(json_bytes(about).decode())


def datasets_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of recvae datasets."""
    add_data_home(parser.add_argument)
    add = parser.add_argument
    add("--check", metavar="CARD", help="a card of your own (.toml), or a name: print how its keys and files are read")
    add("--json", action="store_true", help="print JSON")


def _check(card: str, arguments: argparse.Namespace) -> None:
    from recvae.datasets.check import explain_card

    lines = explain_card(card, arguments.data_home)
    if arguments.json:
        put(json.dumps(list(lines), indent=1, ensure_ascii=False) + "\n")
        return
    for line in lines:
        put(f"{escaped(line)}\n")


def datasets(arguments: argparse.Namespace) -> None:
    """Run recvae datasets."""
    if arguments.check is not None:
        _check(arguments.check, arguments)
        return
    from rich.table import Table

    from recvae.datasets.card import known_cards, load_card
    from recvae.datasets.home import data_home

    home = data_home(arguments.data_home)
    cards = [load_card(name) for name in known_cards()]
    is_here = {card.name: card.events is None or (home / card.name).is_dir() for card in cards}
    if arguments.json:
        put(json.dumps([_card_facts(card) | {"here": is_here[card.name]} for card in cards], indent=1) + "\n")
        return
    table = Table(title=escaped(f"Data sets in {home}"), title_justify="left")
    for name in ("name", "title", "users", "items", "events", "here", "from"):
        table.add_column(name, justify="right" if name in ("users", "items", "events") else "left", overflow="fold")
    for card in cards:
        counts = [f"{n:,}" for n in _counts(card).values()] or [""] * 3
        url = card.homepage if card.download is None else card.download.url
        table.add_row(card.name, card.title, *counts, "yes" if is_here[card.name] else "no", url)
    with printed() as console:
        console.print(table)
        console.print(
            f"An archive (.zip) is downloaded when it is asked for; without network put it, unpacked, in {home}.\n"
            "What is local only has no archive that may be downloaded: get the files from that page, and put them "
            "there.",
            soft_wrap=True,
            highlight=False,
        )


def _card_facts(card: Card) -> dict[str, Any]:
    """The facts about a data set for JSON."""
    url = None if card.download is None else card.download.url
    facts = {"name": card.name, "title": card.title, "licence": card.licence, "homepage": card.homepage}
    return facts | {"expected": _counts(card) or None, "download": url, "split": card.protocol.split}


def _counts(card: Card) -> dict[str, int]:
    """The numbers of users, items and events of a data set; empty if its card has none."""
    counts = card.expected
    return {} if counts is None else {"users": counts.users, "items": counts.items, "events": counts.events}
