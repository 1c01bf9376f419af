"""Columns as a reader of some shape of file found them -> a checked table of events, under the rules of text files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recvae.data.tables.options import Columns, Reading, ReadOptions
from recvae.data.tables.text_columns import MISSING, check_number_column, check_time_column, checked_ids, no_id
from recvae.data.tables.text_file import TextFile
from recvae.data.tables.text_times import to_times
from recvae.errors import InvalidDataError

WHOLE = 2**53  # up to here float64 has all integers
WITHOUT_ID = "without an id"


@dataclass(frozen=True)
class ShapedFile(TextFile):
    """A file whose rows are not its lines.

    Attributes
    ----------
    lines : Callable[[], Sequence[int]] or None
        Makes the number of the line, from 1, of each row; called for errors only. If None, that is the number of the
        row, from 1.
    """

    lines: Callable[[], Sequence[int]] | None = field(default=None, compare=False)

    def row(self, index: int) -> tuple[int, list[str]]:
        """Line of a row that was found."""
        return (index + 1 if self.lines is None else int(self.lines()[index])), []


def checked_reading(
    text: ShapedFile,
    found: Mapping[str, pa.ChunkedArray],
    columns: Columns,
    options: ReadOptions,
    notes: Sequence[str] = (),
) -> Reading:
    """Check ids, values and times, and leave out rows without an id if that is asked for.

    Parameters
    ----------
    text : ShapedFile
        Where the rows come from.
    found : Mapping[str, pa.ChunkedArray]
        Columns of equal length by their role: user, item and, where they are known, value and time. Ids are integers,
        whole floats or text; null, if missing.
    columns : Columns
        Names of these columns in the table.
    options : ReadOptions
        Words for missing values, and what happens to rows without an id.
    notes : Sequence[str]
        Remarks on how the file was read.

    Raises
    ------
    InvalidDataError
        For rows without an id, ids in two spellings, and values that are not numbers; the message names the line.
    """
    text = replace(text, format=replace(text.format, options=options))
    names = {role: str(name) for role, name in vars(columns).items() if name is not None}
    absent = [f"{role} ({name!r})" for role, name in names.items() if role not in found]
    if absent:
        raise InvalidDataError(
            f"Expected {', '.join(absent)} in {text.path}, but a file of this kind has none; leave that out."
        )
    table = {role: found[role] for role in names}
    for role in ("user", "item"):
        table[role] = _as_ids(text, table[role], names[role], options)
    missing = pc.or_(table["user"].is_null(), table["item"].is_null())
    n_missing, left_out = pc.sum(missing).as_py() or 0, {}
    if n_missing and options.without_id == "refuse":
        index = pc.index(missing, True).as_py()
        without = names["user"] if table["user"][index].as_py() is None else names["item"]
        raise no_id(None, f"line {text.line(index)} of {text.path}", without, options.give("without_id", "drop"))
    if n_missing:
        left_out = {WITHOUT_ID: int(n_missing)}
        kept = pc.invert(missing)
        text = replace(text, kept=np.flatnonzero(kept.to_numpy()))
        table = {role: column.filter(kept) for role, column in table.items()}
    for role in ("user", "item"):
        if pa.types.is_dictionary(table[role].type):
            table[role] = checked_ids(text, table[role], names[role])
    if "value" in table:
        table["value"] = _numbers(text, table["value"], names["value"], options)
    if "time" in table:
        table["time"] = _times(text, table["time"], names["time"], options)
    return Reading(pa.table({names[role]: column for role, column in table.items()}), columns, left_out, tuple(notes))


def with_found(columns: Columns, found: Mapping[str, pa.ChunkedArray]) -> Columns:
    """The columns, with a name for those of a shape that has no names: user, item, value, time."""
    names = {role: role for role in ("value", "time") if role in found and getattr(columns, role) is None}
    return replace(columns, **names)


def dictionary(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dictionary-encode text of any type, with one dictionary for all chunks."""
    if pa.types.is_dictionary(texts.type):
        return texts.unify_dictionaries()
    return texts.cast(pa.string()).dictionary_encode()


def _as_ids(text: ShapedFile, ids: pa.ChunkedArray, name: str, options: ReadOptions) -> pa.ChunkedArray:
    """Ids as integers or dictionary-encoded text; null where they are missing."""
    kind = ids.type
    if pa.types.is_null(kind):
        return ids.cast(pa.int64())
    if pa.types.is_integer(kind):
        return ids
    if pa.types.is_floating(kind):
        ids = pc.if_else(pc.is_nan(ids), pa.scalar(None, kind), ids)
        whole = pc.and_(pc.equal(pc.floor(ids), ids), pc.less(pc.abs(ids), WHOLE))
        index = pc.index(pc.fill_null(whole, True), False).as_py()
        if index >= 0:
            raise text.refused(
                text.line(index), f"expected integers or text as ids in {name!r}, got {ids[index].as_py()!r}."
            )
        return ids.cast(pa.int64())
    if not (pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InvalidDataError(
            f"Expected integers or text as ids in {name!r} of {text.path}, got values such as {ids[0].as_py()!r:.60} "
            f"({kind})."
        )
    return _without_words(dictionary(ids), options)


def _without_words(ids: pa.ChunkedArray, options: ReadOptions) -> pa.ChunkedArray:
    """Text ids with null in place of empty ones and of words for missing values."""
    words = ["", *options.missing, *(MISSING if options.without_id == "drop" else ())]
    if not len(ids):
        return ids
    texts = ids.chunk(0).dictionary
    known = pc.is_in(pc.utf8_trim_whitespace(texts), value_set=pa.array(words, texts.type))
    if not pc.any(known).as_py():
        return ids
    codes = pc.if_else(known, pa.scalar(None, pa.int32()), pa.array(np.arange(len(texts), dtype=np.int32)))
    left = pc.if_else(known, pa.scalar(None, texts.type), texts).drop_null()
    position = np.cumsum(~known.to_numpy(zero_copy_only=False)) - 1
    codes = pc.if_else(known, pa.scalar(None, pa.int32()), pa.array(position.astype(np.int32)))
    return pa.chunked_array([pa.DictionaryArray.from_arrays(codes.take(c.indices), left) for c in ids.chunks])


def _times(text: ShapedFile, times: pa.ChunkedArray, name: str, options: ReadOptions) -> pa.ChunkedArray:
    """Times as they came, or as timestamps if their format is given."""
    if pa.types.is_dictionary(times.type):
        times = times.cast(times.type.value_type)
    if options.time_format is None or pa.types.is_temporal(times.type):
        check_time_column(text, times, name)
        return times
    return to_times(
        text, pc.fill_null(times, "") if pa.types.is_string(times.type) else times, name, options.time_format
    )


def _numbers(text: ShapedFile, values: pa.ChunkedArray, name: str, options: ReadOptions) -> pa.ChunkedArray:
    """Values as numbers, also where the file has them as text."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = pc.utf8_trim_whitespace(values.cast(pa.string()))
        if options.decimal == ",":
            values = pc.replace_substring(values, ",", ".")
        if options.missing:
            known = pc.is_in(values, value_set=pa.array(options.missing, pa.string()))
            values = pc.if_else(known, pa.scalar(None, pa.string()), values)
        try:
            values = values.cast(pa.float64())
        except pa.ArrowInvalid:
            check_number_column(text, values, name)
            raise
    check_number_column(text, values, name)
    return values
