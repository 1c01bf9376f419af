"""Parquet files as relations of DuckDB: those files and columns that are named, and no others.

To DuckDB, names of files are patterns, and names of columns are the same in capitals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from recvae.data.parquet.files import ParquetFile, ParquetFiles, plain
from recvae.errors import InvalidDataError

FILE = "recvae file"  # a column of our own; those of the files are renamed where they have its name
TYPES = {
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.string(): "VARCHAR",
}


def exact_name(path: str) -> str:
    """A pattern that the file of that name alone fits. Raises InvalidDataError where there is none."""
    pattern = "".join(f"[{character}]" if character in "*?[" else character for character in path)
    if pattern != path and "\\" in path:  # which is no part of a name in a pattern
        raise InvalidDataError(
            f"Expected a name without either a backslash or any of * ? [, got {path}; rename the file or its folder."
        )
    return pattern


def parquet_relation(connection: Any, files: ParquetFiles, names: Sequence[str]) -> Any:
    """The asked columns of all files as a relation, under the given names, in no order."""
    groups: dict[Any, list[ParquetFile]] = {}
    for part in files.parts:
        groups.setdefault((part.names, part.types), []).append(part)
    made = [_of_one_kind(connection, files, parts, names) for parts in groups.values()]
    relation = made[0]
    for other in made[1:]:
        relation = relation.union(other)  # all rows of both
    return relation


def _of_one_kind(connection: Any, files: ParquetFiles, parts: list[ParquetFile], names: Sequence[str]) -> Any:
    """Files that have the same columns in the same order, and the asked ones of the same types."""
    fields = list(zip(names, files.schema, parts[0].types, strict=True))
    in_folders = {name: field.name for name, field, found in fields if found is None}
    paths = ", ".join(_text(exact_name(part.path)) for part in parts)
    file = f", filename = {_text(FILE)}" if in_folders else ""
    rows = connection.sql(f"SELECT * FROM read_parquet([{paths}], hive_partitioning = false{file})")  # noqa: S608 (quoted)
    inside = rows.columns  # in the order of the files; where names differ in their case alone, some are changed
    if len(inside) != len(parts[0].names) + bool(in_folders):
        raise InvalidDataError(f"Expected columns that DuckDB can read in {parts[0].path}, got {list(parts[0].names)}.")
    chosen = [
        f"{_cast(inside[parts[0].names.index(field.name)], field.type, found)} AS {_quoted(name)}"
        for name, field, found in fields
        if found is not None
    ]
    if not in_folders:
        return rows.select(", ".join(chosen))
    known = pa.table(
        {FILE: [part.path for part in parts]}
        | {name: _values(files, column, parts) for name, column in in_folders.items()}
    )
    rows = rows.select(", ".join([*chosen, f"{_quoted(inside[-1])} AS {_quoted(FILE)}"]))
    return rows.join(connection.from_arrow(known), _quoted(FILE)).select(", ".join(map(_quoted, names)))


def _values(files: ParquetFiles, column: str, parts: list[ParquetFile]) -> pa.Array:
    """What the folders of the files say of a column."""
    values = [files.constants[column][part.path].as_py() for part in parts]
    return pa.array(values, files.schema.field(column).type)


def _cast(column: str, kind: pa.DataType, found: pa.DataType) -> str:
    """The column, brought to the type that all files' are brought to."""
    if plain(found) == kind:
        return _quoted(column)
    of_lists = pa.types.is_list(kind)
    name = TYPES.get(kind.value_type if of_lists else kind)
    return _quoted(column) if name is None else f"CAST({_quoted(column)} AS {name}{'[]' * of_lists})"


def _quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"
