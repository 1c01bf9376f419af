"""Items that users have seen outside the stored events: a table in memory, whose rows are added to the events."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from recvae.data.histories import Histories, read_histories
from recvae.data.ids import ItemIndex, id_array, listed
from recvae.data.tables.frames import read_column
from recvae.errors import InvalidDataError

SEEN = "seen"  # column of seen items, next to the column item of the events


def seen_table(seen: Any, index: ItemIndex, user: str, item: str) -> pa.Table | None:
    """A dict {user: [item, ...]} or a frame -> columns user and seen; None without rows. Raises as `read_histories`."""
    if seen is None:
        return None
    read_histories({}, index, user=user, item=item, seen=seen)  # checks all of it first
    if isinstance(seen, Mapping):
        users, items = (
            pa.array(id_array(list(seen), "users")),
            [listed(user_items, "items") for user_items in seen.values()],
        )
        table = pa.table({"user": users, SEEN: pa.array(items)})
    else:
        table = pa.table({"user": _plain(read_column(seen, user)), SEEN: _plain(read_column(seen, item))})
    return table if len(table) else None


def digest_of_seen(table: pa.Table | None) -> str | None:
    """SHA-256 of the rows in Arrow's stream format; None without rows."""
    if table is None:
        return None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the columns of `schema`, null if it lacks them. Raises InvalidDataError if types do not fit."""
    names = table.column_names
    try:
        columns = [
            table[field.name].cast(field.type) if field.name in names else pa.nulls(len(table), field.type)
            for field in schema
        ]
    except pa.ArrowException as error:
        raise InvalidDataError(
            f"Expected users of seen as those of the events, {schema.field('user').type}, got {table['user'].type}: "
            f"{error}."
        ) from error
    return pa.table(columns, schema=schema)


def block_histories(block: pa.Table, index: ItemIndex, value: str | None, min_value: float | None) -> Histories:
    """The histories of a block of users; a row is an event or, if its column `seen` is not null, an item seen."""
    if SEEN not in block.column_names:
        return read_histories(block, index, value=value, min_value=min_value)
    events, seen_rows = (block.filter(block[name].is_valid()) for name in ("item", SEEN))
    return read_histories(
        events.drop_columns(SEEN),
        index,
        value=value,
        min_value=min_value,
        seen=pa.table({"user": seen_rows["user"], "item": seen_rows[SEEN]}),
    )


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
