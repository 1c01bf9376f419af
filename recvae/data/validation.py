"""Validation of sparse matrices given by users, before any compiled code uses their arrays.

scipy trusts the arrays of a matrix: an index or offset out of bounds makes it read or write memory outside of them.
Therefore nothing is converted, sliced or multiplied before the checks here have passed. They return a new matrix over
the same arrays, without flags, caches or methods of the original object.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.errors import InvalidDataError, InvalidTypeError
from recvae.utils.memory import require_memory

COMPRESSED = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}


def checked_sparse(matrix: Any, name: str = "the matrix") -> sparse.spmatrix:
    """Validate the arrays of a sparse matrix. -> new matrix over them: CSR and CSC stay, other formats become COO.

    Parameters
    ----------
    matrix
        A scipy sparse matrix or array of any format; a one-dimensional array counts as one row. Its arrays are shared
        where possible and never changed. Values are returned as float32 or float64, so that sums of repeated entries
        cannot overflow like those of small integers; their signs and sizes are not checked.

    Raises
    ------
    InvalidDataError
        If an index or offset is out of bounds, arrays are inconsistent, or values are not real numbers.
    """
    shape = _shape(matrix, name)
    try:
        if matrix.format in COMPRESSED:
            arrays = _compressed_arrays(matrix, shape, name)
            return COMPRESSED[matrix.format](arrays, shape=shape)
        return _coordinates(matrix, shape, name)
    except InvalidDataError:
        raise
    except (AttributeError, TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
        raise _damaged(name, " ".join(str(error).split())) from error


def as_array(value: Any, name: str) -> NDArray[Any]:
    """Convert a list to an array. Raises InvalidTypeError if numpy cannot, as for nested lists of unequal lengths."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InvalidTypeError(f"Expected {name} as an array, got {type(value).__name__}: {reason}.") from error


def check_real(data: NDArray[Any]) -> None:
    """Refuse arrays whose dtype is not real numbers or booleans. Raises InvalidDataError."""
    if data.dtype.kind not in "buif":
        raise InvalidDataError(f"Expected numbers as values, got {data.dtype}.")


def check_arrays(data: Any, indices: Any, indptr: Any, shape: tuple[int, int], name: str = "the matrix") -> None:
    """Check that the arrays of a CSR matrix are consistent with each other and `shape`. Raises InvalidDataError."""
    _check_offsets(indptr, shape[0], indices, name)
    _check_indices(indices[: int(indptr[-1])], shape[1], name)
    if _kind(data) is None or data.ndim != 1 or len(data) < int(indptr[-1]):
        raise _damaged(name, f"expected {int(indptr[-1])} values or more, got {_size(data)}")


def check_canonical(matrix: Any, shape: tuple[int, int], name: str, remedy: str) -> None:
    """Check for a CSR matrix of that shape with sorted indices without repetition. Raises InvalidDataError."""
    if getattr(matrix, "format", None) != "csr" or tuple(matrix.shape) != shape:
        got = f"{getattr(matrix, 'format', type(matrix).__name__)} of shape {getattr(matrix, 'shape', None)}"
        raise InvalidDataError(f"Expected {name} as a CSR matrix of shape {shape}, got {got}; {remedy}.")
    check_arrays(matrix.data, matrix.indices, matrix.indptr, shape, name)
    if not len(matrix.indices) == len(matrix.data) == int(matrix.indptr[-1]):  # sums would include the rest
        raise InvalidDataError(f"Expected {name} without entries behind its last row, got some; {remedy}.")
    # a new matrix, because cached flags of the given one may be out of date
    if not sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=shape).has_canonical_format:
        raise InvalidDataError(f"Expected {name} with sorted indices, none twice in a row, got others; {remedy}.")


def row_of(matrix: Any, row: int, name: str = "user_items") -> sparse.csr_matrix:
    """Extract one row of a CSR matrix, without reading any other.

    Returns
    -------
    sparse.csr_matrix
        (1, columns), over the arrays of `matrix`.

    Raises
    ------
    InvalidDataError
        For offsets out of bounds; the indices and values of the row are not checked here.
    """
    indptr, indices, data = matrix.indptr, matrix.indices, matrix.data
    sound = _kind(indptr) in ("i", "u") and all(_kind(array) and array.ndim == 1 for array in (indptr, indices, data))
    if not sound or len(indptr) <= row + 1:
        raise _damaged(name, f"it has no row {row}")
    start, stop = int(indptr[row]), int(indptr[row + 1])
    if not 0 <= start <= stop <= min(len(indices), len(data)):
        raise _damaged(name, f"row {row} goes from {start} to {stop} in {len(indices)} entries")
    one_row = sparse.csr_matrix((1, matrix.shape[1]), dtype=np.float32)
    one_row.data, one_row.indices = data[start:stop], indices[start:stop]
    one_row.indptr = np.array([0, stop - start], dtype=np.int64)
    return one_row


def _shape(matrix: Any, name: str) -> tuple[int, int]:
    """Rows and columns. Raises InvalidDataError for more than two dimensions."""
    shape = tuple(int(size) for size in matrix.shape)
    if len(shape) not in (1, 2) or min(shape) < 0:
        raise InvalidDataError(f"Expected {name} with rows and columns, got the shape {shape}.")
    return (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])


def _compressed_arrays(matrix: Any, shape: tuple[int, int], name: str) -> tuple[NDArray[Any], ...]:
    """Checked arrays (data, indices, indptr) of a CSR or CSC matrix, without entries behind the last offset."""
    data, indices, indptr = matrix.data, matrix.indices, matrix.indptr
    check_arrays(data, indices, indptr, shape if matrix.format == "csr" else shape[::-1], name)
    used, largest = int(indptr[-1]), max(*shape, int(indptr[-1]))
    return _numbers(data[:used]), _native(indices[:used], largest), _native(indptr, largest)


def _coordinates(matrix: Any, shape: tuple[int, int], name: str) -> sparse.coo_matrix:
    """Convert a matrix of another format to COO, and check its coordinates."""
    if matrix.format == "bsr":
        _check_blocks(matrix, shape, name)
    elif matrix.format == "lil":
        _check_lists(matrix, name)
    elif matrix.format == "dia":
        matrix = _checked_diagonals(matrix, shape, name)
    cells = matrix if matrix.format == "coo" else matrix.tocoo()
    coordinates = tuple(cells.coords)
    if len(coordinates) == 1:
        coordinates = (np.zeros_like(coordinates[0]), coordinates[0])
    for axis, size in zip(coordinates, shape, strict=True):
        _check_indices(axis, size, name)
        if len(axis) != len(cells.data):
            raise _damaged(name, f"it has {len(cells.data)} values at {len(axis)} coordinates")
    require_memory(16 * (shape[0] + 1), f"a matrix of {shape[0]:,} rows", "fewer rows")
    rows, columns = (_native(axis, max(shape)) for axis in coordinates)
    return sparse.coo_matrix((_numbers(cells.data), (rows, columns)), shape=shape)


def _check_blocks(matrix: Any, shape: tuple[int, int], name: str) -> None:
    """Check the arrays of a BSR matrix, as those of a CSR matrix of blocks."""
    if _kind(matrix.data) is None or matrix.data.ndim != 3:
        raise _damaged(name, "its values are no blocks")
    height, width = matrix.data.shape[1:]
    if not height or not width or shape[0] % height or shape[1] % width:
        raise _damaged(name, f"blocks of {height} x {width} do not fill {shape[0]} x {shape[1]}")
    first = matrix.data.reshape(len(matrix.data), -1)[:, 0]
    check_arrays(first, matrix.indices, matrix.indptr, (shape[0] // height, shape[1] // width), name)


def _checked_diagonals(matrix: Any, shape: tuple[int, int], name: str) -> sparse.dia_matrix:
    """A DIA matrix without diagonals out of bounds, whose offsets could wrap into bounds as 32-bit integers."""
    offsets, data = matrix.offsets, matrix.data
    if _kind(offsets) not in ("i", "u") or offsets.ndim != 1 or _kind(data) is None or data.ndim != 2:
        raise _damaged(name, f"expected diagonals at integers, got {_size(data)} at {_size(offsets)}")
    if len(offsets) != len(data) or len(np.unique(offsets)) < len(offsets):
        raise _damaged(name, f"it has {len(data)} diagonals at {len(np.unique(offsets))} offsets")
    inside = (offsets > -shape[0]) & (offsets < shape[1])
    return sparse.dia_matrix((_numbers(data)[inside], offsets[inside]), shape=shape)


def _check_lists(matrix: Any, name: str) -> None:
    """Check that each row of a LIL matrix has as many values as columns."""
    lengths = [[len(row) for row in lists] for lists in (matrix.rows, matrix.data)]
    if lengths[0] != lengths[1] or len(lengths[0]) != matrix.shape[0]:
        raise _damaged(name, "its rows have other numbers of columns than of values")


def _check_offsets(indptr: Any, n_rows: int, indices: Any, name: str) -> None:
    """Check that offsets begin at 0, never decrease, and end within the indices; no differences, which could wrap."""
    if _kind(indptr) not in ("i", "u") or indptr.ndim != 1 or len(indptr) != n_rows + 1:
        raise _damaged(name, f"expected {n_rows + 1} integers as indptr, got {_size(indptr)}")
    if int(indptr[0]) != 0 or bool((indptr[1:] < indptr[:-1]).any()):
        raise _damaged(name, "its indptr does not begin at 0, or falls")
    if _kind(indices) is None or indices.ndim != 1 or int(indptr[-1]) > len(indices):
        raise _damaged(name, f"its indptr ends at {int(indptr[-1])}, beyond {_size(indices)} indices")


def _check_indices(indices: Any, size: int, name: str) -> None:
    """Check that indices are integers from 0 to size - 1."""
    if _kind(indices) not in ("i", "u") or indices.ndim != 1:
        raise _damaged(name, f"expected integers as indices, got {_size(indices)}")
    if not len(indices):
        return
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= size:
        raise _damaged(name, f"indices have to be from 0 to {size - 1}, got {low if low < 0 else high}")


def _kind(array: Any) -> str | None:
    """Kind of the dtype of a numpy array, None for anything else."""
    return array.dtype.kind if isinstance(array, np.ndarray) else None


def _size(array: Any) -> str:
    return f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__


def _native(indices: NDArray[Any], largest: int) -> NDArray[Any]:
    """Convert indices to int32 or int64, as scipy would choose, in native byte order."""
    kind = np.int32 if largest <= np.iinfo(np.int32).max else np.int64
    if indices.dtype in (np.int32, np.int64) and indices.dtype.isnative and kind == np.int32:
        return np.asarray(indices)
    return np.asarray(indices).astype(kind, copy=False)


def _numbers(data: NDArray[Any]) -> NDArray[Any]:
    """Convert values to float32 or float64."""
    data = np.asarray(data)
    check_real(data)
    if data.dtype in (np.float32, np.float64) and data.dtype.isnative:
        return data
    return data.astype(np.float32 if data.dtype == np.float16 else np.float64)


def _damaged(name: str, reason: str) -> InvalidDataError:
    return InvalidDataError(f"Expected {name} to be a well-formed sparse matrix, got one that is damaged: {reason}.")
