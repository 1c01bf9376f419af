"""Recommendations from an exported model with numpy alone: this file can be copied to machines without torch.

    scorer = load("model.npz")                              # as recvae.serving.export.export_numpy wrote it
    ids, scores = scorer.recommend([[3, 8, 21], []], N=10)  # columns of the items of two users

A model is arrays and a list of steps, each with the name and arguments of one of torch's operators: see `OPERATORS`.
"""

from __future__ import annotations

import io
import json
import math
import operator
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

FORMAT = 1
PAD_ID = -1
PAD_SCORE = float(np.finfo(np.float32).min)  # -FLT_MAX
LARGEST = 1e15  # largest value: its square has to fit in float32
BLOCK = 1 << 24  # numbers held in memory at a time
ROOM = 64, 4096  # limit on the numbers of a row in all steps: 64 for each number of the file, plus 4096

Array = NDArray[Any]
READ: dict[str, Callable[[Array], Array]] = {"binary": np.ones_like, "log1p": np.log1p, "raw": np.asarray}


class Scorer:
    """Ranks items for users by the items in their histories.

    Attributes
    ----------
    n_items : int
        Number of items of the model; their columns are 0 to n_items - 1.
    values : str
        How the model reads values: "binary" (1 for each event), "log1p" (log(1 + value)) or "raw".
    item_ids : Array or None
        Raw ids of the columns, or None if the model has none.
    description : dict[str, Any]
        Metadata of the model, such as its class and the version of recvae that wrote it.
    """

    def __init__(self, description: dict[str, Any], arrays: dict[str, Array]):
        self.description, self._arrays = description, arrays
        self.n_items: int = description["n_items"]
        self.values: str = description["values"]
        ids = description["item_ids"]
        self.item_ids: Array | None = None if ids is None else _ids(ids)
        self._held = self.n_items + _check_steps(description, arrays)  # numbers that are held for a row

    def recommend(
        self, histories: Sequence[Sequence[int]] | tuple[Any, ...], N: int = 10, filter_seen: bool = True
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The N best items for each user.

        Parameters
        ----------
        histories : Sequence[Sequence[int]] or tuple[Any, ...]
            For each user a list of item columns; or a tuple (items, offsets), where user b has items[offsets[b] :
            offsets[b + 1]] (indices and indptr of a scipy CSR matrix); or (items, offsets, values), which is required
            unless `values` is "binary".
        N : int
            Length of the lists.
        filter_seen : bool
            Leave out the items in the user's history.

        Returns
        -------
        tuple[NDArray[np.int32], NDArray[np.float32]]
            (ids int32, scores float32), both (B, N), by descending score, ties by ascending id. Lists
            that run out of items are padded with id -1 and score -FLT_MAX.

        Raises
        ------
        ValueError
            If an argument does not have this form, or scores are not finite.
        """
        if isinstance(N, bool) or not isinstance(N, (int, np.integer)) or N < 1:
            raise ValueError(f"Expected N to be an integer of at least 1, got {N!r}.")
        items, offsets, values = self._read(*_ragged(histories))
        n_users, step = len(offsets) - 1, max(1, BLOCK // self._held)
        ids = np.full((n_users, N), PAD_ID, dtype=np.int32)
        scores = np.full((n_users, N), PAD_SCORE, dtype=np.float32)
        for start in range(0, n_users, step):
            rows = [slice(a, b) for a, b in pairwise(offsets[start : start + step + 1])]
            block = self._scores([(items[row], values[row]) for row in rows])
            if not block.max() < np.inf:  # NaN compares false
                raise ValueError("Expected scores that are finite, got others; the model's weights are damaged.")
            for user, (row, user_scores) in enumerate(zip(rows, block, strict=True), start):
                if filter_seen:
                    user_scores[items[row]] = -np.inf
                best = _best(user_scores, int(N))
                ids[user, : len(best)], scores[user, : len(best)] = best, user_scores[best]
        return ids, scores

    def _scores(self, users: list[tuple[Array, Array]]) -> NDArray[np.float32]:
        """Scores of all items for users, each given by item columns and values. -> (B, I)"""
        arrays = self._arrays
        table = arrays["first.weight"]  # (I, H)
        sums = [values / np.sqrt(np.sum(values * values)) @ table[items] for items, values in users]
        arrays = arrays | {"first": np.stack(sums) + arrays["first.bias"]}
        for name, step, arguments in self.description["steps"]:
            arrays[name] = OPERATORS[step](*resolved(arguments, arrays))
        scores: NDArray[np.float32] = arrays[self.description["hidden"]] @ arrays["last.weight"].T
        scores += arrays["last.bias"]
        if self.description["path_weight"] is not None:
            for row, (items, values) in zip(scores, users, strict=True):
                self._add_path(row, items, values * np.float32(self.description["path_weight"]))
        return scores

    def _add_path(self, row: Array, items: Array, values: Array) -> None:
        """Add the linear path x B to a row of scores; B is dense or in CSR format."""
        if "path" in self._arrays:
            row += values @ self._arrays["path"][items]
            return
        starts, columns, weights = (self._arrays[f"path.{part}"] for part in ("indptr", "indices", "data"))
        for item, value in zip(items, values, strict=True):
            entries = slice(starts[item], starts[item + 1])
            row[columns[entries]] += value * weights[entries]  # the columns of a CSR row are distinct, so += adds each

    def _read(self, items: Array, offsets: Array, values: Array | None) -> tuple[Array, Array, Array]:
        """Check histories; sort, merge repeated columns of a row, transform values. -> items, offsets, values"""
        _check_rows(items, offsets, self.n_items)
        if values is None and self.values != "binary":
            raise ValueError(f'Expected (items, offsets, values): the model reads values, as "{self.values}".')
        items, offsets = items.astype(np.int64), offsets.astype(np.int64)
        values = np.ones(len(items), dtype=np.float32) if values is None else _checked_values(values, len(items))
        rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        cells, cell_of_event = np.unique(rows * self.n_items + items, return_inverse=True)
        sums = np.bincount(cell_of_event, values, len(cells)).astype(np.float32)
        cells, sums = cells[sums > 0], sums[sums > 0]
        offsets = np.searchsorted(cells, np.arange(len(offsets)) * self.n_items)
        return cells % self.n_items, offsets, READ[self.values](sums)


def load(file: str | Path | BinaryIO) -> Scorer:
    """Read a model from a path or an open binary file. Nothing in it is executed.

    Its claims about sizes are checked against its contents before memory is allocated.

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is damaged, or is not an exported model.
    """
    name = str(file) if isinstance(file, (str, Path)) else str(getattr(file, "name", "the open file"))
    with ExitStack() as stack:
        if isinstance(file, (str, Path)):
            stream: BinaryIO = stack.enter_context(Path(file).expanduser().open("rb"))
        else:
            stream = file if getattr(file, "seekable", bool)() else io.BytesIO(file.read())
        try:
            arrays = _arrays(stream)
            description = json.loads(arrays.pop("description").tobytes(), parse_constant=_refuse_constant)
            if description["format"] != FORMAT:
                raise ValueError(f"it is of format {description['format']!r:.20}, this is for format {FORMAT}")
            _check_arrays(description, arrays)
            scorer = Scorer(description, arrays)
            empty_user = scorer._scores([(np.arange(0), np.ones(0, dtype=np.float32))])
            if empty_user.shape != (1, scorer.n_items) or not np.isfinite(empty_user).all():
                raise ValueError(f"it does not give a finite score to each of {scorer.n_items} items")
        except Exception as error:  # zipfile, numpy and JSON raise errors of many kinds for foreign bytes
            raise ValueError(
                f"Expected a file of recvae.serving.export.export_numpy, got {_one_line(name)}, which is damaged or "
                f"another: {_one_line(repr(error))}."
            ) from error
    return scorer


def _arrays(stream: BinaryIO) -> dict[str, Array]:
    """The arrays of an .npz file; reading checks the checksum of each."""
    size = stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > size:
            raise ValueError("its arrays would take more than the file has")
        return {
            name.removesuffix(".npy"): np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
            for name in archive.namelist()
        }


def _check_arrays(description: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Raise ValueError for arrays of a wrong type or shape, or with indices that are out of range."""
    n_items, weight = description["n_items"], description["path_weight"]
    if type(n_items) is not int or description["values"] not in READ:
        raise ValueError("its number of items or its reading of values is none")
    for name, array in arrays.items():
        kinds = (np.int32, np.int64) if name in ("path.indices", "path.indptr") else (np.float32,)
        if array.dtype not in kinds or not np.isfinite(array).all():
            raise ValueError(f"{name!r:.80} is of another type, or not all finite numbers")
    first, last = arrays["first.weight"], arrays["last.weight"]
    shapes = {"first.weight": (n_items, *first.shape[1:2]), "first.bias": first.shape[1:]}
    shapes |= {"last.weight": (n_items, *last.shape[1:2]), "last.bias": (n_items,)}
    if weight is not None and "path" in arrays:
        shapes["path"] = (n_items, n_items)
    elif weight is not None:
        shapes |= {"path.data": arrays["path.indices"].shape[:1], "path.indices": arrays["path.data"].shape[:1]}
        shapes["path.indptr"] = (n_items + 1,)
    wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
    if wrong or n_items < 1 or first.ndim != 2 or last.ndim != 2:
        raise ValueError(f"the shapes of {wrong} do not fit {n_items!r:.30} items")
    if weight is not None and not (isinstance(weight, (int, float)) and abs(weight) < LARGEST):
        raise ValueError("the weight of its linear path is no finite number")
    if "path.indptr" in shapes:
        starts, columns = (arrays[name].astype(np.int64) for name in ("path.indptr", "path.indices"))
        if starts[0] != 0 or starts[-1] != len(columns) or (starts[1:] < starts[:-1]).any():
            raise ValueError("the rows of its linear path are out of order")
        if len(columns) and not 0 <= columns.min() <= columns.max() < n_items:
            raise ValueError("its linear path leads out of the items")
    ids = description["item_ids"]
    if ids is not None and not (isinstance(ids, list) and len(ids) == len(set(ids)) == n_items):
        raise ValueError(f"it has ids for another number of items than {n_items}, or one twice")


def _ids(values: list[Any]) -> Array:
    """Item ids as an array: strings as objects, integers as int64, or uint64 if one needs it."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return np.array(values, dtype=object)
    if kinds != {int}:
        raise ValueError("its ids are neither all text nor all integers")
    return np.array(values, dtype=np.uint64 if max(values) > np.iinfo(np.int64).max else np.int64)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it has {name} in its text, which is no number")


def _one_line(text: str) -> str:
    """Text for a message: at most 500 characters, with control characters escaped."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[:500])


def _ragged(histories: Any) -> tuple[Array, Array, Array | None]:
    """Histories of any of the accepted forms. -> items, offsets, and values or None"""
    if isinstance(histories, tuple):
        if len(histories) not in (2, 3):
            raise ValueError(f"Expected (items, offsets) or (items, offsets, values), got {len(histories)} parts.")
        items, offsets = (np.asarray(part) for part in histories[:2])
        return items, offsets, np.asarray(histories[2]) if len(histories) == 3 else None
    lists = [np.asarray(history) for history in histories]
    if any(columns.ndim != 1 for columns in lists):
        raise ValueError("Expected a list of columns for each user; for one user, [[3, 8, 21]].")
    offsets = np.cumsum([0, *(len(columns) for columns in lists)])
    return np.concatenate([columns for columns in lists if len(columns)] or [np.arange(0)]), offsets, None


def _check_rows(items: Array, offsets: Array, n_items: int) -> None:
    if (
        items.ndim != 1
        or offsets.ndim != 1
        or any(array.size and array.dtype.kind not in "iu" for array in (items, offsets))
    ):
        raise ValueError(f"Expected integers as columns and offsets, got {items.dtype} and {offsets.dtype}.")
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(items) or (offsets[1:] < offsets[:-1]).any():
        raise ValueError(f"Expected offsets that climb from 0 to {len(items)}, the number of columns.")
    if items.size and (items.min() < 0 or items.max() >= n_items):
        raise ValueError(f"Expected columns from 0 to {n_items - 1}, got {items.min()} to {items.max()}.")


def _checked_values(values: Array, n_events: int) -> Array:
    if values.shape != (n_events,) or values.dtype.kind not in "buif":
        raise ValueError(f"Expected {n_events} numbers as values, got {values.dtype} of shape {values.shape}.")
    invalid = ~np.isfinite(values) | (values < 0) | (values > LARGEST) | ((values < 1 / LARGEST) & (values != 0))
    if invalid.any():
        raise ValueError(f"Expected values of zero or from {1 / LARGEST:g} to {LARGEST:g}, got {values[invalid][0]:g}.")
    return values


def _best(scores: Array, N: int) -> Array:
    """The columns of the N best scores, best first; those of -inf are left out. (I,) -> (at most N,)"""
    k = min(N, len(scores))
    threshold = max(np.partition(scores, len(scores) - k)[len(scores) - k], PAD_SCORE)
    columns = np.flatnonzero(scores >= threshold)
    return columns[np.argsort(-scores[columns], kind="stable")[:k]]


def resolved(argument: Any, known: dict[str, Any]) -> Any:
    """Replace the names in an argument, which may be nested lists, by their values in `known`."""
    if isinstance(argument, list):
        return [resolved(part, known) for part in argument]
    return known[argument] if isinstance(argument, str) else argument


def _sigmoid(x: Array) -> Array:
    half: Array = 0.5 + 0.5 * np.tanh(0.5 * x)  # exp would overflow
    return half


def _glu(x: Array, axis: int = -1) -> Array:
    value, gate = np.split(x, 2, axis)
    return value * _sigmoid(gate)


def _layer_norm(x: Array, _: list[int], weight: Array, bias: Array, eps: float, *__: Any) -> Array:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight + bias


# torch's operators, with their arguments in torch's order
OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "cat": np.concatenate,
    "chunk": np.array_split,
    "clamp_min": np.maximum,
    "div": operator.truediv,
    "getitem": operator.getitem,
    "glu": _glu,
    "layer_norm": _layer_norm,
    "linalg_vector_norm": lambda x, order, axes, keepdims: np.linalg.norm(x, order, axes[0], keepdims),
    "linear": lambda x, weight, bias: x @ weight.T + bias,
    "silu": lambda x: x * _sigmoid(x),
    "tanh": np.tanh,
}


class _Rows(NamedTuple):
    """The shape of the result of a step, before it is computed: (B, width)."""

    width: int


def _check_steps(description: dict[str, Any], arrays: dict[str, Array]) -> int:
    """Check the steps by shape inference, before anything is computed.

    Returns
    -------
    int
        Sum of the widths of all results: the numbers that a row takes.

    Raises
    ------
    ValueError
        For an invalid step, or if the sum is far more than a network of this size takes.
    """
    shapes: dict[str, Any] = {name: array.shape for name, array in arrays.items()}
    shapes["first"] = _Rows(*arrays["first.bias"].shape)
    limit, total = ROOM[0] * sum(array.size for array in arrays.values()) + ROOM[1], 0
    for name, step, arguments in description["steps"]:
        if not isinstance(name, str) or name in shapes or step not in WIDTHS:
            raise ValueError(f"it has a step {name!r:.80} that is none")
        shapes[name] = WIDTHS[step](*resolved(arguments, shapes))
        parts = shapes[name] if isinstance(shapes[name], list) else [shapes[name]]
        total += sum(part.width for part in parts)
        if total > limit:
            raise ValueError(f"its steps take more than {limit:,} numbers for a user")
    hidden = shapes[description["hidden"]]
    if not isinstance(hidden, _Rows) or (hidden.width,) != shapes["last.weight"][1:]:
        raise ValueError("its steps do not lead to the last layer")
    return total


def _need(fits: bool) -> None:
    if not fits:
        raise ValueError("it has a step whose arguments do not fit")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _each(x: Any, *others: Any) -> _Rows:
    """The width of an elementwise operator's result; its operands have equal widths, width 1, or are numbers."""
    widths = {part.width for part in (x, *others) if isinstance(part, _Rows)}
    _need(isinstance(x, _Rows) and all(isinstance(y, _Rows) or _is_number(y) for y in others))
    _need(len(widths - {1}) < 2)
    return _Rows(max(widths))


def _cat_width(parts: Any, axis: Any) -> _Rows:
    _need(isinstance(parts, list) and all(isinstance(part, _Rows) for part in parts) and axis in (1, -1))
    return _Rows(sum(part.width for part in parts))


def _chunk_widths(x: Any, n: Any, axis: Any) -> list[_Rows]:
    _need(isinstance(x, _Rows) and type(n) is int and 0 < n <= x.width and x.width % n == 0 and axis in (1, -1))
    return [_Rows(x.width // n)] * n


def _getitem_width(parts: Any, index: Any) -> _Rows:
    _need(isinstance(parts, list) and type(index) is int and 0 <= index < len(parts))
    part = parts[index]
    _need(isinstance(part, _Rows))
    return _Rows(*part)


def _glu_width(x: Any, axis: Any = -1) -> _Rows:
    _need(isinstance(x, _Rows) and x.width % 2 == 0 and axis in (1, -1))
    return _Rows(x.width // 2)


def _layer_norm_width(x: Any, _: Any, weight: Any, bias: Any, eps: Any, *__: Any) -> _Rows:
    _need(isinstance(x, _Rows) and weight == bias == (x.width,) and _is_number(eps) and eps > 0)
    return _Rows(*x)


def _norm_width(x: Any, order: Any, axes: Any, keepdims: Any) -> _Rows:
    _need(isinstance(x, _Rows) and order == 2 and axes in ([1], [-1]) and keepdims is True)
    return _Rows(1)


def _linear_width(x: Any, weight: Any, bias: Any) -> _Rows:
    _need(isinstance(x, _Rows) and len(weight) == 2 and weight[1:] == (x.width,) and bias == weight[:1])
    return _Rows(weight[0])


# the width of an operator's result, from the same arguments with shapes for arrays, and `_Rows` for results
WIDTHS: dict[str, Callable[..., Any]] = {
    "add": _each,
    "cat": _cat_width,
    "chunk": _chunk_widths,
    "clamp_min": _each,
    "div": _each,
    "getitem": _getitem_width,
    "glu": _glu_width,
    "layer_norm": _layer_norm_width,
    "linalg_vector_norm": _norm_width,
    "linear": _linear_width,
    "silu": _each,
    "tanh": _each,
}
