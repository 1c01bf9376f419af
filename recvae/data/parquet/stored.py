"""Stored events as DuckDB sees them: weak ones and zeros left out, what is odd refused, within a limit of memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from recvae.data.parquet.duckdb_files import parquet_relation
from recvae.data.parquet.source import Source
from recvae.data.rows import check_content
from recvae.errors import InvalidDataError, NotEnoughMemoryError, OutputError, RecvaeError
from recvae.utils.optional import require

LEAST_MIB = 64  # to sort in
MIB_OF_A_THREAD = 256  # with less, threads that sort get into each other's way


class StoredEvents:
    """What DuckDB makes of a source, within `memory_mib` and else in files in `scratch`: to be used in a `with` block.

    All methods raise InvalidDataError for files that cannot be read, NotEnoughMemoryError where neither memory nor disk
    will do, OutputError where the disk is full.

    Raises
    ------
    MissingDependencyError
        Where DuckDB is not installed.
    """

    def __init__(self, source: Source, scratch: Path, memory_mib: int):
        self._source, self._memory_mib = source, memory_mib
        self._duckdb: Any = require("duckdb", extra="large", purpose="Sorting events larger than memory")
        self._config = {
            "memory_limit": f"{min(memory_mib, 2**40)}MiB",  # more is more than DuckDB can count
            "temp_directory": str(scratch),
            "threads": max(1, min(os.cpu_count() or 1, memory_mib // MIB_OF_A_THREAD)),
            "preserve_insertion_order": False,  # the order is ours
        }

    def __enter__(self) -> Self:
        source, column, number = self._source, self._duckdb.ColumnExpression, self._duckdb.ConstantExpression
        with self._said():
            self._connection = self._duckdb.connect(":memory:", config=self._config)
            self._connection.execute("SET enable_progress_bar = false")  # it would be drawn on standard output
            # relations, which are run when they are asked
            names = ["user", "item", *(["value"] if source.value is not None else [])]
            self._rows = parquet_relation(self._connection, source.files, names)
            if source.value is not None:
                self._rows = self._rows.select('"user", item, CAST(value AS DOUBLE) AS value')
            self._strong = self._rows
            if source.min_value is not None:  # NaN is not weak, and will be refused
                self._strong = self._rows.filter(~(column("value") < number(float(source.min_value))))
            self._events = self._strong
            if source.value is not None:  # zeros are no events
                self._events = self._strong.filter(column("value") != number(0.0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def check_events(self) -> None:
        """Refuse gaps, and values that are no numbers >= 0."""
        with self._said():
            self._check_gaps()
            if self._source.value is not None:
                self._check_values()

    def _batches(self, result: Any, rows: int) -> Iterator[pa.RecordBatch]:
        """What a query gives, so many rows at a time."""
        with self._said():
            reader = result.to_arrow_reader(rows)
        while True:
            with self._said():
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
            yield batch

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
        # to DuckDB, NaN is more than any number
        extremes = self._strong.aggregate("min(value), max(value), min(value) FILTER (value <> 0)")
        (found,) = extremes.fetchall()
        if found[2] is None:
            floor = "" if self._source.min_value is None else f" and at least {self._source.min_value:g}"
            raise InvalidDataError(
                f"Expected at least one event with a value of more than 0{floor}, got none in {self._source.path}."
            )
        check_content(np.array(found))

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (self._duckdb.Error, pa.ArrowException, OSError, RuntimeError, SystemError) as error:
            if isinstance(error, RecvaeError):  # some are kin of OSError and RuntimeError
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
    """Whether it is what DuckDB makes of Ctrl-C: there are several, depending on the call that was under way."""
    return "Query interrupted" in str(error) or "INTERRUPT Error" in str(error)
