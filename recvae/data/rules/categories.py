"""Categories of items, from a dict or a frame of raw ids and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from recvae.data.ids import ItemIndex, id_array
from recvae.data.rules.resolved import UnknownIds
from recvae.data.tables.frames import number_ids, read_column
from recvae.data.tables.lists import is_listing
from recvae.errors import InvalidDataError, InvalidTypeError


def category_rows(
    categories: Any, index: ItemIndex, item: str, category: str
) -> tuple[sparse.csr_matrix, UnknownIds | None]:
    """The categories of each item that the model knows, 1 for each, and the items that it does not know. -> (I, C)"""
    if isinstance(categories, Mapping):
        codes, names = np.arange(len(categories)), id_array(list(categories), "items")
        labels = _labels_of(list(categories.values()))
    else:
        codes, names = number_ids(read_column(categories, item), item)
        labels = read_column(categories, category, gaps=True)
    row, words = _split(labels, category)
    distinct, columns = np.unique(words, return_inverse=True)
    positions = index.positions(names)
    items = positions[codes][row]
    known = items >= 0
    shape = (len(index), len(distinct))
    matrix = sparse.csr_matrix((np.ones(int(known.sum()), np.float32), (items[known], columns[known])), shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    unknown = names[positions < 0].tolist()
    return matrix, UnknownIds.of_ids("categories", unknown, len(names)) if unknown else None


def _labels_of(values: list[Any]) -> pa.ChunkedArray:
    """Labels as lists of strings: each value is one string or a list of them."""
    lists = [[value] if isinstance(value, str) else value for value in values]
    for value in lists:
        if not isinstance(value, (list, tuple, set, frozenset)) or not all(isinstance(label, str) for label in value):
            raise InvalidTypeError(f"Expected a string or a list of strings for each item, got {value!r:.40}.")
    return pa.chunked_array([pa.array([list(value) for value in lists], pa.list_(pa.string()))])


def _split(labels: pa.ChunkedArray, name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The row and the text of each label; "a|b" are two. Blank ones are left out."""
    row = np.arange(len(labels))
    if is_listing(labels.type):
        row, labels = pc.list_parent_indices(labels).to_numpy(), pc.list_flatten(labels)
    try:
        texts = labels.cast(pa.large_string())
    except pa.ArrowException as error:
        raise InvalidDataError(f"Expected labels as text in column {name!r}, got {labels.type}.") from error
    parts = pc.split_pattern(texts, "|")
    row, texts = row[pc.list_parent_indices(parts).to_numpy()], pc.list_flatten(parts)
    kept = pc.fill_null(pc.not_equal(texts, ""), False).to_numpy(zero_copy_only=False)
    return row[kept], texts.to_numpy()[kept].astype(str)
