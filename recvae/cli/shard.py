"""What `recvae shard` does: events of any number to shards on disk."""

from __future__ import annotations

import argparse

from recvae.benchmark.results import json_bytes
from recvae.cli.arguments import check_out, say
from recvae.data.shards import write_shards
from recvae.utils.streams import put


def run(arguments: argparse.Namespace) -> None:
    """recvae shard"""
    check_out(arguments)
    names = ("user", "item", "value", "min_value", "min_item", "values", "users_per_shard", "heldout_users")
    options = {name: getattr(arguments, name) for name in (*names, "split_seed", "test_share", "memory_mib")}
    shards = write_shards(arguments.input, arguments.out, min_user=arguments.min_user or 0, **options)
    say(f"{shards.n_events:,} events of {shards.n_users:,} users on {shards.n_items:,} items are in {arguments.out}")
    if arguments.json:
        done = {"folder": str(arguments.out), "shards": len(shards.shard_files), "users": shards.n_users}
        rest = {"items": shards.n_items, "events": shards.n_events, "fingerprint": shards.fingerprint()}
        put(json_bytes(done | rest).decode())
