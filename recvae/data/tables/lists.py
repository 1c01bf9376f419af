"""Rows with a list of items: one row for each item, with the values of the other columns repeated or in lists, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recvae.data.tables.options import Reading, ReadOptions
from recvae.data.tables.text_columns import as_numbers
from recvae.errors import InvalidDataError


def is_listing(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def items_apart(reading: Reading, options: ReadOptions, source: str) -> Reading:
    """Take lists of items that are written in one field apart: JSON arrays, or items between `options.item_delimiter`.

    Raises
    ------
    InvalidDataError
        For fields that look like several numbers, if no delimiter is given; its message names the option.
    """
    name = str(reading.columns.item)
    items = reading.table[name]
    if not pa.types.is_dictionary(items.type) or not len(items) or items.null_count:
        return reading
    items = items.unify_dictionaries()
    texts = items.chunk(0).dictionary
    bare = pc.utf8_trim_whitespace(texts)
    delimiter, note = options.item_delimiter, "the items of a row are taken apart"
    if delimiter is None and pc.all(pc.match_substring_regex(bare, r"^\[.*\]$")).as_py():
        bare, delimiter, note = _of_json(bare), ",", "the items of a row are a JSON array, which is taken apart"
    if delimiter is None:
        several = pc.match_substring_regex(bare, r"^\d+(?:[ ,;|]\d+)+$")
        numbers = pc.or_(several, pc.match_substring_regex(bare, r"^\d+$"))
        if pc.all(numbers).as_py() and pc.mean(several.cast(pa.float64())).as_py() > 0.5:
            example = texts[pc.index(several, True).as_py()].as_py()
            mark = next(mark for mark in " ,;|" if mark in example)
            raise InvalidDataError(
                f"Expected one item in each row of {name!r} in {source}, got {example!r:.40}; if that is several, say "
                f"{options.give('item_delimiter', mark)}."
            )
        return reading
    split = pc.split_pattern(bare, delimiter)
    of_row = pa.chunked_array([split.take(chunk.indices) for chunk in items.chunks])
    names = reading.table.column_names
    columns, _ = exploded(dict(zip(names, reading.table.columns, strict=True)) | {name: of_row}, source)
    ids = pc.utf8_trim_whitespace(columns[name])
    filled = pc.not_equal(ids, "")
    apart = pa.table(columns | {name: ids}).filter(filled)
    encoded = apart[name].combine_chunks().cast(pa.string()).dictionary_encode()
    ids = as_numbers(pa.chunked_array([encoded]))
    return replace(reading, table=apart.set_column(names.index(name), name, ids)).noted(note)


def _of_json(texts: pa.Array) -> pa.Array:
    """The numbers or texts of JSON arrays, between commas; what is no such array stays as it is."""
    lists = []
    for text in texts.to_pylist():
        try:
            ids = msgspec.json.decode(text, type=list[int | str])
        except msgspec.MsgspecError:
            return texts
        if any("," in str(one) for one in ids):
            return texts
        lists.append(",".join(map(str, ids)))
    return pa.array(lists, pa.string())


def exploded(
    columns: Mapping[str, pa.ChunkedArray], source: str
) -> tuple[dict[str, pa.ChunkedArray], NDArray[np.int64]]:
    """Make a row of each element of the lists.

    Parameters
    ----------
    columns : Mapping[str, pa.ChunkedArray]
        Columns of equal length by name. Those of lists have lists of equal lengths in each row.
    source : str
        What has the columns, for errors.

    Returns
    -------
    tuple[dict[str, pa.ChunkedArray], NDArray[np.int64]]
        Columns without lists; the row that each of their rows comes from.

    Raises
    ------
    InvalidDataError
        If the lists of a row have different lengths.
    """
    lists = {name: column for name, column in columns.items() if is_listing(column.type)}
    n = len(next(iter(columns.values())))
    if not lists:
        return dict(columns), np.arange(n)
    lengths: NDArray[np.int64] | None = None
    for name, column in lists.items():
        sizes = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        if lengths is not None and not np.array_equal(sizes, lengths):
            row = int(np.flatnonzero(sizes != lengths)[0])
            raise InvalidDataError(
                f"Expected the lists of a row to have one length, got {lengths[row]} and {sizes[row]} ({name!r}) in "
                f"row {row} (from 0) of {source}."
            )
        lengths = sizes
    assert lengths is not None
    row_of = np.repeat(np.arange(n), lengths)
    rows = pa.array(row_of)
    return {name: pc.list_flatten(c) if name in lists else c.take(rows) for name, c in columns.items()}, row_of
