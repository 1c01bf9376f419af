"""Read matrices of scipy (.npz), numpy (.npy) and Matrix Market (.mtx): a row per user and a column per item."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.tables.options import Columns, Reading, ReadOptions
from recvae.data.tables.shaped import ShapedFile, checked_reading, with_found
from recvae.data.tables.text_file import reading
from recvae.data.validation import checked_sparse
from recvae.errors import InvalidDataError


def read_npz(path: Path, columns: Columns, options: ReadOptions) -> Reading:
    """Read a sparse matrix that `scipy.sparse.save_npz` has written, with arrays of ids in it if there are some.

    The arrays of ids are those named by `columns`, or user_ids and item_ids; without them, ids are the numbers of rows
    and columns, from 0.

    Raises
    ------
    DataNotFoundError
    InvalidDataError
        If the file is damaged, or ids do not fit the matrix.
    """
    with reading(path):
        try:
            matrix = checked_sparse(sparse.load_npz(path), f"the matrix in {path}")
            arrays = _arrays(path)
        except (ValueError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
            if isinstance(error, InvalidDataError):
                raise
            raise InvalidDataError(
                f"The file {path} cannot be read: expected a sparse matrix as scipy.sparse.save_npz writes it: {error}."
            ) from error
    return _reading(path, matrix, arrays, columns, options)


def read_npy(path: Path, columns: Columns, options: ReadOptions) -> Reading:
    """Read an array of two dimensions that `numpy.save` has written; ids are numbers of rows and columns, from 0."""
    with reading(path):
        try:
            array = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise InvalidDataError(f"The file {path} cannot be read: expected an array of numbers: {error}.") from error
    if getattr(array, "ndim", 0) != 2 or array.dtype.kind not in "buif":
        got = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise InvalidDataError(f"Expected numbers with a row per user and a column per item in {path}, got {got}.")
    return _reading(path, sparse.csr_matrix(array), {}, columns, options)


def read_mtx(path: Path, columns: Columns, options: ReadOptions) -> Reading:
    """Read a Matrix Market file; ids are the numbers of rows and columns, from 1, as in the file."""
    from scipy.io import mmread

    with reading(path):
        try:
            matrix = checked_sparse(sparse.csr_matrix(mmread(path)), f"the matrix in {path}")
        except (ValueError, TypeError, OverflowError) as error:
            if isinstance(error, InvalidDataError):
                raise
            raise InvalidDataError(f"The file {path} cannot be read: no Matrix Market file: {error}.") from error
    return _reading(path, matrix, {}, columns, options, first=1)


def _reading(
    path: Path,
    matrix: Any,
    arrays: Mapping[str, NDArray[Any]],
    columns: Columns,
    options: ReadOptions,
    first: int = 0,
) -> Reading:
    """The cells of a matrix as events."""
    cells = matrix.tocoo()
    found: dict[str, pa.ChunkedArray] = {"value": pa.chunked_array([pa.array(cells.data.astype(np.float64))])}
    notes = []
    for role, axis, index, size in (
        ("user", "row", cells.row, matrix.shape[0]),
        ("item", "column", cells.col, matrix.shape[1]),
    ):
        name = next((name for name in (str(getattr(columns, role)), f"{role}_ids") if name in arrays), None)
        if name is None:
            found[role] = pa.chunked_array([pa.array(index.astype(np.int64) + first)])
            notes.append(f"{role}s are the numbers of the {axis}s, from {first}")
            continue
        ids = arrays[name]
        if len(ids) != size or ids.ndim != 1 or ids.dtype.kind not in "iuU":
            raise InvalidDataError(
                f"Expected {size} integers or strings as {name} in {path}, got {ids.dtype} of shape {ids.shape}."
            )
        found[role] = pa.chunked_array([pa.array(ids.tolist())]).take(pa.array(index))
    return checked_reading(ShapedFile(path), found, with_found(columns, found), options, notes)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of the file that are none of scipy's."""
    ours = ("data", "indices", "indptr", "format", "shape", "row", "col", "offsets", "_is_array")
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if name not in ours}
