"""Flags for how a file of events is read, and the one function of the commands that reads one."""

from __future__ import annotations

import argparse
from pathlib import Path

from recvae.data.names import FORMATS
from recvae.data.tables.options import WITHOUT_ID, Columns, Reading, ReadOptions


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the format of --input, and of other files of events."""
    group = parser.add_argument_group(
        "format of the file",
        "What is not given is guessed from the first lines, and said. Columns of a file without "
        "a header are positions, from 0: --user 0 --item 1.",
    )
    add = group.add_argument
    add("--format", choices=FORMATS, help="kind of file (default: by its extension, else text)")
    add("--delimiter", help="what separates fields: characters, or tab, space, whitespace (one or more blanks)")
    add("--encoding", help="encoding of the text, such as utf-8, latin-1, utf-16")
    add("--header", action=argparse.BooleanOptionalAction, default=None, help="the first line names the columns")
    add("--quote", default='"', help="character around fields; none: quotes are text (default: %(default)s)")
    add("--comment", metavar="PREFIX", help="skip lines that begin with this, such as '#'")
    add("--decimal", choices=(".", ","), default=".", help="decimal mark of values (default: .)")
    add("--missing", action="append", metavar="WORD", help="a word for a missing value; may be repeated")
    add("--without-id", choices=WITHOUT_ID, default="refuse", help="rows without a user or an item (default: refuse)")
    add("--item-delimiter", metavar="TEXT", help="what separates the items, if a field has several")
    add("--time-format", metavar="FORMAT", help="seconds, milliseconds, ..., or a pattern such as %%d/%%m/%%Y")


def read_options(arguments: argparse.Namespace) -> ReadOptions:
    """The options of these flags."""
    return ReadOptions(
        format=arguments.format,
        delimiter=arguments.delimiter,
        encoding=arguments.encoding,
        header=arguments.header,
        quote="" if arguments.quote == "none" else arguments.quote,
        comment=arguments.comment or "",
        decimal=arguments.decimal,
        missing=tuple(arguments.missing or ()),
        without_id=arguments.without_id,
        time_format=arguments.time_format,
        item_delimiter=arguments.item_delimiter,
        spoken="flag",
    )


def read_file(source: Path, arguments: argparse.Namespace, ids_only: bool = False) -> Reading:
    """Read a file with the columns and options of the flags; only users and items if `ids_only`."""
    from recvae.data.tables.formats import read_table

    columns = Columns(arguments.user, arguments.item)
    if not ids_only:
        columns = Columns(arguments.user, arguments.item, arguments.value, arguments.time, arguments.behavior)
    return read_table(source, columns, read_options(arguments))
