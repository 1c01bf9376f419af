"""The values of a few keys of many JSON objects: a type for msgspec to parse, and columns of Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from recvae.data.tables.options import Columns
from recvae.errors import InvalidDataError, shown

# names of the fields that lead to a value
Fields = tuple[str, ...]
NONE = type(None)


def record_type(
    columns: Columns, sample: Sequence[dict[str, Any]], path: Path
) -> tuple[type[msgspec.Struct], dict[str, Fields]]:
    """Make the type of the entries: a struct of the requested keys, with structs in it for keys such as "a.b".

    Returns
    -------
    tuple[type[msgspec.Struct], dict[str, Fields]]
        The type; of each role, the fields that lead to its value.

    Raises
    ------
    InvalidDataError
        If no entry of the sample has a requested key.
    """
    keys: dict[str, tuple[str, ...]] = {}
    for role, column in vars(columns).items():
        if column is None:
            continue
        steps = next((steps for entry in sample if (steps := _steps(entry, str(column)))), None)
        if steps is None and sample:
            known = list(dict.fromkeys(chain.from_iterable(sample)))
            raise InvalidDataError(f"Expected the key {str(column)!r} for {role}s in {path}, but the keys are {known}.")
        keys[role] = steps or (str(column),)
    if len(set(keys.values())) < len(keys):
        raise InvalidDataError(f"Expected different keys for users, items and values, got {columns.names}.")
    return _struct(list(keys.values())), {role: _fields(list(keys.values()), steps) for role, steps in keys.items()}


def _steps(entry: Any, key: str) -> tuple[str, ...] | None:
    """The keys that lead to a value: the key itself if the entry has it, else its parts between dots."""
    if isinstance(entry, list):
        return next((steps for one in entry if (steps := _steps(one, key))), None)
    if not isinstance(entry, dict):
        return None
    if key in entry:
        return (key,)
    parts = key.split(".")
    for n in range(1, len(parts)):
        head = ".".join(parts[:n])
        if head in entry and (rest := _steps(entry[head], ".".join(parts[n:]))):
            return (head, *rest)
    return None


def _struct(paths: Sequence[tuple[str, ...]]) -> type[msgspec.Struct]:
    fields: list[tuple[str, Any, Any]] = []
    heads = list(dict.fromkeys(steps[0] for steps in paths))
    for index, head in enumerate(heads):
        inner = [steps[1:] for steps in paths if steps[0] == head and len(steps) > 1]
        kind: Any = Any
        if inner:
            struct: Any = _struct(inner)
            kind = struct | list[struct | None] | None
        fields.append((f"f{index}", kind, None))
    return msgspec.defstruct("Entry", fields, rename={f"f{k}": head for k, head in enumerate(heads)}, gc=False)


def _fields(paths: Sequence[tuple[str, ...]], steps: tuple[str, ...]) -> Fields:
    """Names of the fields of `_struct` that lead to a value."""
    heads = list(dict.fromkeys(other[0] for other in paths))
    inner = [other[1:] for other in paths if other[0] == steps[0] and len(other) > 1]
    return (f"f{heads.index(steps[0])}", *(_fields(inner, steps[1:]) if len(steps) > 1 else ()))


def values_at(records: list[Any], path: Fields) -> list[Any]:
    """The value of each record at a path of fields; a list for each list of objects on the way."""
    head, *rest = path
    values = list(map(attrgetter(head), records))
    return [_dig(value, rest) for value in values] if rest else values


def _dig(value: Any, path: Sequence[str]) -> Any:
    for index, name in enumerate(path):
        if value is None:
            return None
        if isinstance(value, list):
            return [_dig(one, path[index:]) for one in value]
        value = getattr(value, name)
    return value


class Values:
    """Columns that grow by blocks of values; lists are flattened, with the other values of their entry repeated.

    Attributes
    ----------
    has_lists : bool
        Whether some entry had lists.
    n_empty : int
        Number of entries whose list is empty.
    """

    def __init__(self, roles: list[str]):
        self.has_lists, self.n_empty = False, 0
        self._chunks: dict[str, list[pa.Array]] = {role: [] for role in roles}
        self._counts: list[Any] = []  # rows of each entry, by block

    def add(self, values: dict[str, list[Any]], path: Path) -> None:
        """Add a block of entries. Raises InvalidDataError for what is no number or text."""
        n = len(next(iter(values.values())))
        kinds = {role: set(map(type, of_role)) for role, of_role in values.items()}
        if any(list in found for found in kinds.values()):
            values, counts = flattened(values, path)
            kinds = {role: set(map(type, of_role)) for role, of_role in values.items()}
            self.has_lists, self.n_empty = True, self.n_empty + counts.count(0)
            self._counts.append(counts)
        else:
            self._counts.append(repeat(1, n))
        for role, of_role in values.items():
            self._chunks[role].append(as_array(of_role, kinds[role], role, path))

    def columns(self) -> dict[str, pa.ChunkedArray]:
        """Columns by role, each of one type."""
        return {role: unified(chunks) for role, chunks in self._chunks.items()}

    def row_of(self) -> list[int]:
        """Entry of each row, if entries had lists."""
        return [entry for entry, count in enumerate(chain(*self._counts)) for _ in range(count)]


def flattened(values: dict[str, list[Any]], path: Path) -> tuple[dict[str, list[Any]], list[int]]:
    """One row for each element of lists. -> values by role, number of rows of each entry"""
    flat: dict[str, list[Any]] = {role: [] for role in values}
    counts = []
    for row in zip(*values.values(), strict=True):
        lengths = {len(value) for value in row if type(value) is list}
        if len(lengths) > 1:
            raise InvalidDataError(
                f"Expected lists of one length in each entry of {path}, got {sorted(lengths)} in {shown(row)}."
            )
        n = lengths.pop() if lengths else 1
        counts.append(n)
        for column, value in zip(flat.values(), row, strict=True):
            column.extend(value if type(value) is list else repeat(value, n))
    return flat, counts


def as_array(values: list[Any], kinds: set[type], role: str, path: Path) -> pa.Array:
    """Values as an Arrow array; text is dictionary-encoded, and numbers next to text become text."""
    kinds = kinds - {NONE}
    if kinds <= {str}:
        return pa.array(values, pa.string()).dictionary_encode() if kinds else pa.nulls(len(values))
    if not kinds <= {str, int, float, bool}:
        wrong = next(value for value in values if type(value) not in (str, int, float, bool, NONE))
        raise InvalidDataError(f"Expected numbers or text for {role}s in {path}, got {shown(wrong)}.")
    if str in kinds:
        texts = [None if value is None else str(value) for value in values]
        return pa.array(texts, pa.string()).dictionary_encode()
    try:
        return pa.array(values, pa.float64() if float in kinds else None)
    except (pa.ArrowException, OverflowError) as error:
        raise InvalidDataError(f"Expected numbers of 64 bits for {role}s in {path}, got others: {error}.") from error


def unified(chunks: list[pa.Array]) -> pa.ChunkedArray:
    """Chunks as a column of one type: text if some are text, else the widest type of numbers."""
    kinds = {chunk.type for chunk in chunks if not pa.types.is_null(chunk.type)}
    if not kinds:
        return pa.chunked_array(chunks or [pa.nulls(0)])
    if len(kinds) == 1:
        kind = kinds.pop()
    elif any(map(pa.types.is_dictionary, kinds)):
        chunks = [chunk if pa.types.is_dictionary(chunk.type) else _texts(chunk) for chunk in chunks]
        kind = pa.dictionary(pa.int32(), pa.string())
    else:
        kind = pa.float64() if any(map(pa.types.is_floating, kinds)) else pa.int64()
    return pa.chunked_array([chunk if chunk.type == kind else chunk.cast(kind) for chunk in chunks], kind)


def _texts(chunk: pa.Array) -> pa.Array:
    return chunk.cast(pa.string()).dictionary_encode()
