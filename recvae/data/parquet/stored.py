"""Stored events as DuckDB relations, within a memory limit, with the filters and checks of `Interactions`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from recvae.data.parquet.files import ParquetFile, ParquetFiles, plain
from recvae.data.parquet.source import Source
from recvae.data.rows import check_content
from recvae.data.weighting import unknown_behavior
from recvae.errors import InvalidDataError, NotEnoughMemoryError, OutputError, RecvaeError
from recvae.utils.optional import require

LEAST_MIB = 64  # smallest memory limit for sorting
MIB_OF_A_THREAD = 256  # with less memory per thread, parallel sorts hinder each other
FILE = "recvae file"  # internal column; columns of the files with this name are renamed
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


class StoredEvents:
    """Relations of a source in DuckDB, within `memory_mib`, spilling to files in `scratch`; used in a `with` block.

    All methods raise InvalidDataError for unreadable files, NotEnoughMemoryError if memory and spilling to disk do not
    suffice, OutputError if the disk is full.

    Raises
    ------
    MissingDependencyError
        Where DuckDB is not installed.
    """

    def __init__(self, source: Source, scratch: Path, memory_mib: int):
        self._source, self._memory_mib = source, memory_mib
        self._duckdb: Any = require("duckdb", extra="large", purpose="Sorting events larger than memory")
        self._config = {
            "memory_limit": f"{min(memory_mib, 2**40)}MiB",  # larger numbers overflow in DuckDB
            "temp_directory": str(scratch),
            "threads": max(1, min(os.cpu_count() or 1, memory_mib // MIB_OF_A_THREAD)),
            "preserve_insertion_order": False,  # every query that needs an order asks for it
        }

    def __enter__(self) -> Self:
        source, column, number = self._source, self._duckdb.ColumnExpression, self._duckdb.ConstantExpression
        with self._translating_errors():
            self._connection = self._duckdb.connect(":memory:", config=self._config)
            self._connection.execute("SET enable_progress_bar = false")  # it would go to standard output
            # relations are lazy: they are executed when results are fetched
            self._rows = parquet_relation(self._connection, source.files, list(source.columns))
            self._behaviors: Any = None
            if source.weighting:
                self._behaviors = self._rows.select("behavior")
                self._rows = self._weighed(self._rows)
            elif source.value is not None:
                self._rows = self._rows.select('"user", item, CAST(value AS DOUBLE) AS value')
            self._above = self._rows
            if source.min_value is not None and not source.weighting:  # as `at_least`: NaN stays, and is refused later
                self._above = self._rows.filter(~(column("value") < number(float(source.min_value))))
            self._events = self._above
            if source.has_values:  # zeros are no events
                self._events = self._above.filter(column("value") != number(0.0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def check_events(self) -> None:
        """Refuse nulls, and values that are not numbers >= 0."""
        with self._translating_errors():
            if self._behaviors is not None and self._source.weighting.unknown_behavior == "refuse":
                self._check_behaviors()
            self._check_gaps()
            if self._source.has_values:
                self._check_values()

    def _batches(self, result: Any, rows: int) -> Iterator[pa.RecordBatch]:
        """Batches of at most `rows` rows of a query result."""
        with self._translating_errors():
            reader = result.to_arrow_reader(rows)
        while True:
            with self._translating_errors():
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
            yield batch

    def _weighed(self, rows: Any) -> Any:
        """Rows with values weighed by behaviour, 0 below `min_value`; those of other behaviours are left out."""
        weights, min_value = self._source.weighting.weights or {}, self._source.min_value
        value = "1.0" if self._source.value is None else "CAST(value AS DOUBLE)"
        behavior = "coalesce(CAST(behavior AS VARCHAR), '')"
        known = ", ".join(map(_text, weights))
        factor = " ".join(f"WHEN {_text(name)} THEN CAST({weight!r} AS DOUBLE)" for name, weight in weights.items())
        weighed = f"{value} * CASE {behavior} {factor} END"
        if min_value is not None:
            weighed = f"CASE WHEN {value} < {float(min_value)!r} THEN 0.0 ELSE {weighed} END"
        return rows.filter(f"{behavior} IN ({known})").select(f'"user", item, {weighed} AS value')

    def _check_behaviors(self) -> None:
        weighting = self._source.weighting
        names = self._behaviors.select("coalesce(CAST(behavior AS VARCHAR), '') AS name")
        unknown = names.filter(f"name NOT IN ({', '.join(map(_text, weighting.weights or {}))})")
        found = unknown.aggregate("name, count(*) AS n", "name").order("name").limit(1).fetchall()
        if found:
            name, n_rows = found[0]
            raise unknown_behavior(name, n_rows, str(weighting.behavior), weighting.weights or {})

    def _check_gaps(self) -> None:
        names = [name for name in ("user", "item", "value") if getattr(self._source, name) is not None]
        counts = ", ".join(f'count(*) - count("{name}")' for name in names)
        inside = "coalesce(sum(len(item) - list_aggregate(item, 'count')), 0)" if self._source.lists else "0"
        ((n_rows, gaps_inside, *gaps),) = self._rows.aggregate(f"count(*), {inside}, {counts}").fetchall()
        if n_rows == 0:
            raise InvalidDataError(f"Expected at least one event, got none in {self._source.path}.")
        for name, n_gaps in [*zip(names, gaps, strict=True), ("item", gaps_inside)]:
            if n_gaps:
                raise InvalidDataError(
                    f"Expected a value in every row of {getattr(self._source, name)!r}, got none in {int(n_gaps):,} of "
                    f"{n_rows:,} rows of {self._source.path}."
                )

    def _check_values(self) -> None:
        # DuckDB orders NaN above all numbers
        extremes = self._above.aggregate("min(value), max(value), min(value) FILTER (value <> 0)")
        (extreme,) = extremes.fetchall()
        if extreme[2] is None:
            floor = "" if self._source.min_value is None else f" and at least {self._source.min_value:g}"
            raise InvalidDataError(
                f"Expected at least one event with a value of more than 0{floor}, got none in {self._source.path}."
            )
        check_content(np.array(extreme))

    @contextmanager
    def _translating_errors(self) -> Iterator[None]:
        try:
            yield
        except (self._duckdb.Error, pa.ArrowException, OSError, RuntimeError, SystemError) as error:
            if isinstance(error, RecvaeError):  # some are subclasses of OSError or RuntimeError
                raise
            reason = str(error).partition("\n")[0]
            if isinstance(error, self._duckdb.InterruptException) or _is_interrupt(error):
                raise KeyboardInterrupt from error
            if isinstance(error, (RuntimeError, SystemError)) and not isinstance(error, self._duckdb.Error):
                raise
            if "Out of Memory" in reason:
                raise NotEnoughMemoryError(
                    f"Expected {self._memory_mib} MiB of memory, and room on the disk of the output, to be enough to "
                    f"sort {self._source.path}, got: {reason}; give it more (memory_mib)."
                ) from error
            if "No space left" in reason or "File too large" in reason:
                raise OutputError(f"Expected room on the disk of the output to sort in, got: {reason}.") from error
            raise InvalidDataError(f"The events at {self._source.path} cannot be read: {reason}") from error


def _is_interrupt(error: BaseException) -> bool:
    """Whether DuckDB raised this for Ctrl-C; the error depends on the call that was interrupted."""
    return "Query interrupted" in str(error) or "INTERRUPT Error" in str(error)


def exact_name(path: str) -> str:
    """Glob pattern that matches only the file of that name. Raises InvalidDataError if there is none."""
    pattern = "".join(f"[{character}]" if character in "*?[" else character for character in path)
    if pattern != path and "\\" in path:  # a backslash cannot be part of a name in a pattern
        raise InvalidDataError(
            f"Expected a name without either a backslash or any of * ? [, got {path}; rename the file or its folder."
        )
    return pattern


def parquet_relation(connection: Any, files: ParquetFiles, names: Sequence[str]) -> Any:
    """Relation of the requested columns of all files, renamed to `names`; rows in no particular order."""
    groups: dict[Any, list[ParquetFile]] = {}
    for part in files.parts:
        groups.setdefault((part.names, part.types), []).append(part)
    relations = [_of_one_kind(connection, files, parts, names) for parts in groups.values()]
    relation = relations[0]
    for other in relations[1:]:
        relation = relation.union(other)  # all rows of both
    return relation


def _of_one_kind(connection: Any, files: ParquetFiles, parts: list[ParquetFile], names: Sequence[str]) -> Any:
    """Relation of files with the same columns in the same order, and requested columns of the same types."""
    fields = list(zip(names, files.schema, parts[0].types, strict=True))
    in_folders = {name: field.name for name, field, own_type in fields if own_type is None}
    paths = ", ".join(_text(exact_name(part.path)) for part in parts)
    file = f", filename = {_text(FILE)}" if in_folders else ""
    rows = connection.sql(f"SELECT * FROM read_parquet([{paths}], hive_partitioning = false{file})")  # noqa: S608 (quoted)
    inside = rows.columns  # in the order of the file; DuckDB renames columns that differ in case only
    if len(inside) != len(parts[0].names) + bool(in_folders):
        raise InvalidDataError(f"Expected columns that DuckDB can read in {parts[0].path}, got {list(parts[0].names)}.")
    chosen = [
        f"{_cast(inside[parts[0].names.index(field.name)], field.type, own_type)} AS {_quoted(name)}"
        for name, field, own_type in fields
        if own_type is not None
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
    """Values of a column in the folder names of the files."""
    values = [files.constants[column][part.path].as_py() for part in parts]
    return pa.array(values, files.schema.field(column).type)


def _cast(column: str, kind: pa.DataType, own_type: pa.DataType) -> str:
    """SQL expression of the column, cast to the common type of all files."""
    if plain(own_type) == kind:
        return _quoted(column)
    of_lists = pa.types.is_list(kind)
    name = TYPES.get(kind.value_type if of_lists else kind)
    return _quoted(column) if name is None else f"CAST({_quoted(column)} AS {name}{'[]' * of_lists})"


def _quoted(name: str) -> str:
    """Quote an identifier for SQL."""
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    """Quote a string literal for SQL."""
    return "'" + text.replace("'", "''") + "'"
