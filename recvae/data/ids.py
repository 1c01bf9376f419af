"""Raw ids and their indices: an index from integer or string ids to columns, built once for many look-ups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recvae.errors import InvalidDataError, InvalidTypeError
from recvae.utils.threads import lazy

Ids = NDArray[Any]
LISTING = ("tolist", "to_list", "to_pylist")  # numpy and pandas, polars, pyarrow


class ItemIndex:
    """Look-up table from raw ids to indices, such as from the items of a model to its columns.

    If one side has integers and the other strings, which depends on the source file, 7 matches "7".

    Parameters
    ----------
    item_ids : sequence
        Ids in order, such as `model.item_ids_`: integers or strings, without repetition.

    Raises
    ------
    InvalidTypeError
        If they are not integers or strings.
    InvalidDataError
        If an id occurs twice.
    """

    def __init__(self, item_ids: Sequence[Any] | Ids):
        ids = listed(item_ids, "known ids")
        self._kind = id_kind(ids, "known ids")
        self._positions = {name: position for position, name in enumerate(ids)}
        if len(self._positions) < len(ids):
            raise InvalidDataError(
                f"Expected ids without repetition, got {len(self._positions)} distinct of {len(ids)}."
            )

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[Any]:
        """The ids in the order of their indices."""
        return iter(self._positions)

    def positions(self, ids: Sequence[Any] | Ids) -> NDArray[np.int64]:
        """Look up the index of each id, -1 for unknown ids.

        Parameters
        ----------
        ids : sequence
            Integers or strings, all of one type.

        Returns
        -------
        numpy.ndarray
            (len(ids),) int64.

        Raises
        ------
        InvalidTypeError
            If they are not integers or strings, or are of both types.
        """
        names = listed(ids, "items")
        kind = id_kind(names, "items")
        if kind is str and self._kind is int:
            find = self._written.get
        else:
            find = self._positions.get
            if kind is int and self._kind is str:
                names = [str(name) for name in names]
        return np.array([find(name, -1) for name in names], dtype=np.int64)

    @lazy
    def _written(self) -> dict[str, int]:
        """Index of each integer id by its decimal string."""
        return {str(name): position for name, position in self._positions.items()}


def listed(ids: Any, what: str) -> list[Any]:
    """Convert ids to a list, from a list, tuple, set, range, numpy array, or a column of pandas, polars or pyarrow.

    Raises
    ------
    InvalidTypeError
        For anything else, including a string, which is a single id.
    """
    if isinstance(ids, list):
        return ids
    if isinstance(ids, (tuple, set, frozenset, range)):
        return list(ids)
    listing = next((getattr(ids, name) for name in LISTING if hasattr(ids, name)), None)
    as_list = None if listing is None else listing()
    if not isinstance(as_list, list):
        shown = f" {ids!r}" if isinstance(ids, str) else ""
        raise InvalidTypeError(f"Expected a list of ids as {what}, got {type(ids).__name__}{shown}.")
    return as_list


def id_kind(ids: list[Any], what: str) -> type | None:
    """Type of ids: int or str, None if there are no ids. Raises InvalidTypeError for other or mixed types."""
    kinds = set(map(type, ids))
    if len(kinds) > 1 or not kinds <= {int, str}:  # types of numpy, and subclasses
        kinds = {_kin(kind) for kind in kinds}
    if len(kinds) > 1 or not kinds <= {int, str}:
        others = [name for name in ids if _kin(type(name)) not in (int, str)]
        got = f"{type(others[0]).__name__} {others[0]!r:.40}" if others else "both"
        raise InvalidTypeError(f"Expected integers or strings as {what}, all of one kind, got {got}.")
    return next(iter(kinds), None)


def id_array(ids: list[Any], what: str) -> Ids:
    """Ids as an array of integers, or of strings as objects. Raises InvalidTypeError, InvalidDataError."""
    if id_kind(ids, what) is str:
        return np.array(ids, dtype=object)
    try:
        return np.array(ids, dtype=np.uint64 if max(ids, default=0) > np.iinfo(np.int64).max else np.int64)
    except OverflowError as error:
        raise InvalidDataError(f"Expected numbers of 64 bits as {what}, got others: {error}.") from error


def match_ids(ids: Ids, known: Ids) -> NDArray[np.int64]:
    """Index of each id in `known`, -1 for unknown ids; matched as by `ItemIndex`."""
    return ItemIndex(known).positions(ids)


def as_ids(ids: Sequence[Any] | Ids | None, expected: int, name: str) -> Ids:
    """Array of `expected` distinct raw ids; 0, 1, 2, ... for None. Raises InvalidDataError."""
    array = np.arange(expected) if ids is None else np.asarray(ids)
    if array.dtype.kind == "f":  # numpy has no integers for a list like [1, 2**63]
        array = np.asarray(ids, dtype=object)
    if array.shape != (expected,):
        raise InvalidDataError(f"Expected {expected} {name}, one for each row or column, got shape {array.shape}.")
    kinds = set(map(type, array.tolist()))
    if len(kinds) > 1 or not kinds <= {int, str}:
        raise InvalidDataError(
            f"Expected {name} to be all integers or all strings, got {sorted(kind.__name__ for kind in kinds)}."
        )
    n_distinct = len(set(array.tolist()))
    if n_distinct != expected:
        raise InvalidDataError(f"Expected {name} without repetition, got {n_distinct} distinct of {expected}.")
    return id_array(array.tolist(), name) if array.dtype == object else array


def _kin(kind: type) -> type:
    if issubclass(kind, str):
        return str
    return int if issubclass(kind, (int, np.integer)) and kind is not bool else kind
