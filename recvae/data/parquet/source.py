"""Locate Parquet files of events and check the types of their columns, before any events are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recvae.data.events import check_min_value
from recvae.data.parquet.files import ParquetFiles
from recvae.data.tables.frames import check_ids, check_numbers, parquet_parts
from recvae.data.tables.lists import is_listing
from recvae.data.weighting import Weighting
from recvae.errors import InvalidDataError, InvalidParameterError
from recvae.utils.paths import input_path, relation_of

NONE = Weighting()


@dataclass(frozen=True)
class Source:
    """Parquet files of events, and the names of the columns that are used.

    Attributes
    ----------
    lists : bool
        Whether a row holds a user with the list of all items, rather than a single event.
    weighting : Weighting
        Weights of behaviours: they apply to the values of the rows, which are 0 below `min_value` then.
    """

    path: Path
    files: ParquetFiles
    user: str
    item: str
    value: str | None
    min_value: float | None
    lists: bool
    weighting: Weighting = NONE

    @property
    def has_values(self) -> bool:
        """Whether events have values, of a column or by their behaviours."""
        return self.value is not None or bool(self.weighting)

    @property
    def columns(self) -> dict[str, str]:
        """The columns that are read, by their names in the events."""
        names = {"user": self.user, "item": self.item, "value": self.value, "behavior": self.weighting.behavior}
        return {name: column for name, column in names.items() if column is not None}

    def state(self) -> list[dict[str, Any]]:
        """Name, size and modification time of each file, to detect changes of the input."""
        root = self.path.absolute()
        names = [str(Path(path).relative_to(root)) for path in self.files.paths]
        if not self.path.is_dir():
            names = [root.resolve().name]
        stats = [(name, Path(path).stat()) for name, path in zip(names, self.files.paths, strict=True)]
        return [{"file": name, "bytes": stat.st_size, "modified": stat.st_mtime_ns} for name, stat in stats]

    def check_apart(self, folder: Path) -> None:
        """Refuse an output folder that is inside of the input or contains it."""
        if relation_of(folder, self.path):
            raise InvalidParameterError(
                f"Expected a folder for the parts outside of {self.path}, which is read, got {folder}."
            )


def find_source(
    path: str | Path,
    user: str,
    item: str,
    value: str | None,
    min_value: float | None,
    weighting: Weighting = NONE,
) -> Source:
    """Locate the Parquet file or folder at `path` and check its columns; no events are read.

    Raises
    ------
    DataNotFoundError
    InvalidDataError
        For another kind of file, for missing columns, and for columns that are not ids and numbers in every file.
    InvalidParameterError
        For a `min_value` that is not a number or lacks a `value`, for a `value` or behaviours next to lists of items,
        and for behaviours without weights.
    """
    path = input_path(path)
    if min_value is not None and value is None:
        raise InvalidParameterError(f"Expected the column of values for min_value={min_value}, got value=None.")
    if min_value is not None:
        check_min_value(min_value)
    if not path.is_dir() and path.suffix.lower() != ".parquet":
        raise InvalidDataError(f"Expected a Parquet file (.parquet) or a folder of such, got {path}.")
    if weighting.behavior is not None and weighting.weights is None:
        raise InvalidParameterError(f"Expected weights of the behaviours in {weighting.behavior!r}, got none.")
    source = Source(path, None, user, item, value, min_value, False, weighting)  # type: ignore[arg-type]  # below
    parts = parquet_parts(path, list(source.columns.values()))
    kinds = {name: parts.schema.field(name).type for name in (user, item)}
    lists = is_listing(kinds[item])
    if lists:
        kinds[item] = kinds[item].value_type
    for name, kind in kinds.items():
        check_ids(kind, name)
    if value is not None:
        check_numbers(parts.schema.field(value).type, value)
    if weighting.behavior is not None:
        check_ids(parts.schema.field(weighting.behavior).type, weighting.behavior)
    for name, column in (("value", value), ("behavior", weighting.behavior)):
        if lists and column is not None:
            raise InvalidParameterError(f"Expected no column of {name}s next to lists of items, got {name}={column!r}.")
    return replace(source, files=parts, lists=lists)
