"""A file of one JSON object: users and their items, columns by name, or an array of entries under some key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pyarrow as pa

from recvae.data.tables.json_values import Values
from recvae.data.tables.options import Columns
from recvae.errors import InvalidDataError, shown

BROKEN = (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError)


class Pairs(list[tuple[str, Any]]):
    """The keys and values of an object, in order, also of repeated keys."""


def is_one_object(start: bytes, columns: Columns) -> bool:
    """Whether a file that begins with { is one object, rather than an object in each line.

    Parameters
    ----------
    start : bytes
        The first bytes of the file, or all.
    columns : Columns
        The keys that an object of a line would have.
    """
    line, _, rest = start.partition(b"\n")
    if line.startswith((b"{'", b"{u'")):
        return False
    try:
        entry = msgspec.json.decode(line)
    except BROKEN:
        if b"\n" not in start:  # a line longer than the block: its first value tells
            return False
        return not rest.lstrip().startswith(b"{")
    if rest.strip():
        return False
    user = str(columns.user)
    if user in entry or any(user.startswith(f"{key}.") for key in entry):
        return isinstance(entry.get(user), (list, dict))
    return any(isinstance(value, (list, dict)) for value in entry.values())


def array_within(content: bytes) -> list[msgspec.Raw] | None:
    """The entries of the only array of objects among the values of an object, or of one in it; None without one."""
    try:
        values = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except BROKEN:
        return None
    if len(values) == 1 and bytes(next(iter(values.values())))[:1] == b"{":  # {"data": {"events": [...]}}
        return array_within(bytes(next(iter(values.values()))))
    arrays = [value for value in values.values() if bytes(value)[:1] == b"["]
    if len(arrays) != 1 or not bytes(arrays[0])[1:].lstrip().startswith(b"{"):
        return None
    return msgspec.json.decode(arrays[0], type=list[msgspec.Raw])


def read_object(path: Path, content: bytes, columns: Columns) -> tuple[dict[str, pa.ChunkedArray], list[str]]:
    """Read {user: [item, ...]}, {user: {item: value}} or {"user": [...], "item": [...]}, columns by name.

    Returns
    -------
    tuple[dict[str, pa.ChunkedArray], list[str]]
        Columns by role, and notes.

    Raises
    ------
    InvalidDataError
    """
    try:
        pairs = json.loads(content, object_pairs_hook=Pairs, parse_constant=_refuse)
    except BROKEN as error:
        raise InvalidDataError(f"The file {path} cannot be read: no JSON object: {error}.") from error
    names = [name for name, _ in pairs]
    if str(columns.user) in names and str(columns.item) in names:
        return _columns(path, dict(pairs), columns), []
    return lists_of_users(path, pairs)


def lists_of_users(source: object, pairs: list[tuple[Any, Any]]) -> tuple[dict[str, pa.ChunkedArray], list[str]]:
    """Events of users and their items, or of users and the values of their items. -> columns by role, notes"""
    kinds = {type(listed) for _, listed in pairs}
    if not kinds <= {list} and not kinds <= {Pairs}:
        wrong = (
            next((user, listed) for user, listed in pairs if type(listed) not in (list, Pairs))
            if (kinds - {list, Pairs})
            else pairs[0]
        )
        raise InvalidDataError(
            f"Expected a list of items for each user of {source}, or an object of items and values, got "
            f"{shown(wrong[1])} for {shown(wrong[0])}; where its entries are events, they need a key for users."
        )
    table: dict[str, list[Any]] = {"user": [user for user, _ in pairs]}
    if Pairs in kinds:
        table["item"] = [[item for item, _ in listed] for _, listed in pairs]
        table["value"] = [[value for _, value in listed] for _, listed in pairs]
    else:
        table["item"] = [listed for _, listed in pairs]
    repeated = len(pairs) - len(set(table["user"]))
    if repeated:
        raise InvalidDataError(f"Expected each user of {source} once, got {repeated:,} again.")
    values = Values(list(table))
    values.add(table, Path(str(source)))
    return values.columns(), [f"{values.n_empty:,} users have no items"] if values.n_empty else []


def _columns(path: Path, content: dict[str, Any], columns: Columns) -> dict[str, pa.ChunkedArray]:
    """Columns by name, as lists or as objects of the values by row, as pandas writes them."""
    table: dict[str, list[Any]] = {}
    for role, name in vars(columns).items():
        if name is None:
            continue
        column = content.get(str(name))
        if not isinstance(column, list):
            raise InvalidDataError(
                f"Expected a list or an object of rows under {name!r} in {path}, got {shown(column)}."
            )
        table[role] = [value for _, value in column] if isinstance(column, Pairs) else column
    if len(set(map(len, table.values()))) > 1:
        sizes = {role: len(column) for role, column in table.items()}
        raise InvalidDataError(f"Expected columns of one length in {path}, got {sizes}.")
    values = Values(list(table))
    values.add(table, path)
    return values.columns()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
