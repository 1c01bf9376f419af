"""Rows with a list of items: one row for each item, with the values of the other columns repeated or in lists, too."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recvae.errors import InvalidDataError


def is_listing(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


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
