"""Raw ids -> numbers, and events in the order of these: what DuckDB does for shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from recvae.data.parquet.duckdb_files import exact_name
from recvae.data.parquet.stored import StoredEvents


class NumberedEvents(StoredEvents):
    """Stored events whose users and items have places in files of ids."""

    def ids(self, column: str, rows: int) -> Iterator[pa.RecordBatch]:
        """The distinct ids of "user" or "item" in ascending order, as a column `id`, so many rows at a time."""
        with self._said():
            found = self._single().select(f'"{column}" AS id').distinct().order("id")
        return self._batches(found, rows)

    def numbered(self, users: Path, items: Path, rows: int) -> Iterator[pa.RecordBatch]:
        """Events by user, item and value: int32 columns user and item, places in files of `ids`, and value, if any."""
        names = ["user", "item", *(["value"] if self._source.value is not None else [])]
        with self._said():
            found = self._single()
            for name, path in (("user", users), ("item", items)):
                ids = self._connection.read_parquet(exact_name(str(path.absolute())), file_row_number=True)
                places = ids.select(f'id AS "{name} id", CAST(file_row_number AS INTEGER) AS "{name} place"')
                found = found.join(places, f'"{name}" = "{name} id"')
            chosen = ['"user place" AS "user"', '"item place" AS "item"', *names[2:]]
            # values are added up, and sums of floats depend on the order
            ordered = found.select(", ".join(chosen)).order(", ".join(f'"{name}"' for name in names))
        return self._batches(ordered, rows)

    def _single(self) -> Any:
        """A row for each event, also where the source has one for each user."""
        return self._events.select('"user", unnest(item) AS item') if self._source.lists else self._events
