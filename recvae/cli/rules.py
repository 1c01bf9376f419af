"""Flags for the rules of lists, and the function that reads their files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recvae.cli.inputs import path
from recvae.cli.output import ALL, RULES, say
from recvae.cli.reading import read_file, read_options
from recvae.data.tables.options import Columns
from recvae.errors import InvalidDataError, InvalidParameterError

if TYPE_CHECKING:
    import pyarrow as pa

    from recvae.data.rules import Rules, UnknownIds

NUMBERS = ("category_cap", "mmr", "mmr_pool", "new_places")


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Add the flags for rules."""
    group = parser.add_argument_group(
        "rules",
        "Files are read as --input, with its names of columns: items, or users and items. Deny is stronger than allow, "
        "and both are stronger than what may come again; caps, MMR and places for new items choose from what is left.",
    )
    add = group.add_argument
    add("--allow", type=path, metavar="FILE", help="the only items to recommend")
    add("--deny", type=path, metavar="FILE", help="items not to recommend")
    add("--user-allow", type=path, metavar="FILE", help="users and items: the only items of these users")
    add("--user-deny", type=path, metavar="FILE", help="users and items: not for these users")
    add("--may-repeat", type=_all_or_path, metavar="all|FILE", help="liked items that may be in the list again")
    add("--only-users", type=path, metavar="FILE", help="the only users who get lists")
    add("--categories", type=path, metavar="FILE", help="items and their categories, one a row or with | between them")
    add("--category", default="category", metavar="NAME", help="its column of categories (default: category)")
    add("--category-cap", type=int, metavar="K", help="at most this many items of one category in a list")
    add("--mmr", type=float, metavar="WEIGHT", help="rank for variety of categories: from 0 to 1, only the score")
    add("--mmr-pool", type=int, metavar="K", help="how many of the best items --mmr orders (default: 100)")
    add("--new-items", type=path, metavar="FILE", help="items for which places are kept")
    add("--new-places", type=_places, metavar="K", help="how many of N they get at least, or a share such as 0.2")


def load_rules(arguments: argparse.Namespace) -> Rules | None:
    """The rules of the flags; None without any."""
    numbers = {name: getattr(arguments, name) for name in NUMBERS if getattr(arguments, name) is not None}
    files = {name: getattr(arguments, name) for name in RULES if getattr(arguments, name) is not None}
    if arguments.category != "category" and "categories" not in files:
        raise InvalidParameterError("Expected --category with --categories FILE only.")
    if not numbers and not files:
        return None
    from recvae.data.rules import Rules

    tables = {name: True if file == ALL else _read(name, file, arguments) for name, file in files.items()}
    return Rules(**tables, **numbers, category=arguments.category)


def say_unknown(unknown: tuple[UnknownIds, ...]) -> None:
    """Report ids in the rules that have no effect."""
    for ids in unknown:
        say(str(ids))


def _read(name: str, file: Path, arguments: argparse.Namespace) -> pa.Table:
    """The table of a rule, with the columns that it needs."""
    from recvae.data.tables.formats import read_table

    if name.startswith("user_"):
        return read_file(file, arguments, ids_only=True).table
    nothing: Any = None  # a table of one kind of ids
    columns = Columns(nothing, arguments.user if name == "only_users" else arguments.item)
    if name == "categories":
        columns = Columns(arguments.item, arguments.category)
    elif name != "only_users" and _has_users(file, arguments):
        flag = f"--user-{name}" if name in ("allow", "deny") else "a file of items only"
        raise InvalidDataError(
            f"Expected items for all users in {file}, got a column {arguments.user!r} too; give it as {flag}."
        )
    return read_table(file, columns, read_options(arguments)).table


def _has_users(file: Path, arguments: argparse.Namespace) -> bool:
    """Whether a file has columns of users and of items."""
    try:
        read_file(file, arguments, ids_only=True)
    except InvalidDataError:
        return False
    return True


def _all_or_path(text: str) -> Any:
    return ALL if text == ALL else path(text)


def _places(text: str) -> int | float:
    return int(text) if text.isdecimal() else float(text)
