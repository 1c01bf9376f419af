"""Sparse matrices made by hand, in all formats of scipy, given to all verbs."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

import recvae
from recvae.models.baselines import ALS, BPR, GFCF, LMF, SLIM, ItemKNN, Popularity, RP3beta
from tests.fuzz.judging import Kind, Mutant, Random, WrongError

USERS, ITEMS = 6, 8
FORMATS = ("csr", "csc", "coo", "bsr", "lil", "dok", "dia")
INDICES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
VALUES = ("float32", "float64", "float16", "int8", "int32", "int64", "uint8", "uint64", "bool", "complex64", "object")
LARGE = [
    -1,
    -2,
    6,
    7,
    8,
    9,
    100,
    127,
    128,
    255,
    2**15,
    2**31 - 1,
    -(2**31),
    2**31,
    2**32,
    2**32 + 1,
    2**62,
    2**63 - 1,
    -(2**63),
]
STRUCTURE = ("seen", "interactions")  # verbs to which each stored entry counts, whatever its value
SMALL: dict[str, Any] = {"latent_dim": 2, "epochs": 1, "random_state": 0}
FITTED: dict[str, Callable[[], Any]] = {
    "EASE": lambda: recvae.EASE(l2=1.0, values="raw"),
    "EASE-sparse": lambda: recvae.EASE(l2=1.0, form="sparse", neighbours=3),
    "Popularity": Popularity,
    "ItemKNN": lambda: ItemKNN(K=4),
    "RP3beta": lambda: RP3beta(K=4),
    "GFCF": lambda: GFCF(k=3),
    "SLIM": lambda: SLIM(l1=0.1, l2=1.0),
    "MultVAE": lambda: recvae.MultVAE(hidden_dims=(3,), **SMALL),
    "RecVAE": lambda: recvae.RecVAE(hidden_dim=3, depth=2, **SMALL),
    "HybridVAE": lambda: recvae.HybridVAE(hidden_dim=3, depth=1, l2=1.0, **SMALL),
}
# implicit trains these in threads, which are of no use here
THREADED: dict[str, Callable[[], Any]] = {
    "ALS": lambda: ALS(factors=2, iterations=2, random_state=0),
    "BPR": lambda: BPR(factors=2, iterations=2, random_state=0),
    "LMF": lambda: LMF(factors=2, iterations=2, random_state=0),
}


class Case:
    """A matrix and what it is asked of: `matrix` to `verb` of `model`."""

    def __init__(self, matrix: Any, verb: str, model: str):
        self.matrix, self.verb, self.model = matrix, verb, model


class Matrices(Kind):
    """Matrices whose arrays lie, and some that do not, against the verbs."""

    name = "matrices"

    def open(self, folder: Path) -> None:
        random = np.random.default_rng(1)
        self.rows = sparse.csr_matrix((random.random((12, ITEMS)) < 0.4).astype(np.float32))
        everything = FITTED | THREADED
        self.models = {name: make().fit(self.rows, show_progress=False) for name, make in everything.items()}
        self.verbs: dict[str, Callable[[Any, Any, str], Any]] = {
            "fit": self._fit,
            "recommend": lambda model, m, _: model.recommend(np.arange(m.shape[0] if m.ndim == 2 else 1), m, N=4),
            "score": lambda model, m, _: model.score(m),
            "explain": lambda model, m, _: model.explain(0, m, 1),
            "index_users": lambda model, m, _: model.index_users(m).similar_users(0, N=3),
            "items": lambda model, m, _: model.recommend(np.arange(USERS), self.rows[:USERS], N=4, items=m),
            "filter_items": lambda model, m, _: model.recommend(
                np.arange(USERS), self.rows[:USERS], N=4, filter_items=m
            ),
            "from_matrix": lambda model, m, _: recvae.Interactions.from_matrix(m).matrix.toarray(),
            "interactions": self._interactions,
            "holdout": self._holdout,
            "fit_valid": self._fit_valid,
            "partial_fit": self._partial_fit,
            "add_items": self._add_items,
            "encode": lambda model, m, _: model.encode(m),
            "sample_users": lambda model, m, _: model.sample_users(2, user_items=m, random_state=0).toarray(),
            "anomaly_score": lambda model, m, _: model.anomaly_score(m, self.rows),
        }
        if "seen" in inspect.signature(self.models["EASE"].recommend).parameters:
            self.verbs["seen"] = lambda model, m, _: model.recommend(np.arange(USERS), self.rows[:USERS], N=4, seen=m)

    def _interactions(self, model: Any, matrix: Any, name: str) -> Any:
        made = recvae.Interactions(matrix, np.arange(USERS), np.arange(ITEMS)).matrix
        return [made.indptr, made.indices]

    def _fit(self, model: Any, matrix: Any, name: str) -> Any:
        fitted = (FITTED | THREADED)[name]().fit(matrix, show_progress=False)
        if name in THREADED and name != "ALS":
            return fitted.item_factors_.numpy()
        return fitted.recommend(np.arange(12), self.rows, N=4)

    def _fit_valid(self, model: Any, matrix: Any, name: str) -> Any:
        fitted = FITTED["MultVAE"]().fit(self.rows, show_progress=False, valid=holdout(self.rows[:USERS], matrix))
        return fitted.recommend(np.arange(12), self.rows, N=4)

    def _holdout(self, model: Any, matrix: Any, name: str) -> Any:
        first = name != "EASE"
        pair = (matrix, self.rows[:USERS]) if first else (self.rows[:USERS], matrix)
        found = recvae.evaluate(model, holdout(*pair), ["ndcg@3", "recall@2"])
        return [found["ndcg@3"].values, found["recall@2"].values]

    def _partial_fit(self, model: Any, matrix: Any, name: str) -> Any:
        fitted = FITTED["MultVAE"]().fit(self.rows, show_progress=False)
        return fitted.partial_fit(matrix, show_progress=False).score(self.rows)

    def _add_items(self, model: Any, matrix: Any, name: str) -> Any:
        fitted = FITTED["MultVAE"]().fit(self.rows, show_progress=False)
        return fitted.add_items(matrix).score(sparse.csr_matrix((1, fitted.n_items_)))

    def directed(self) -> list[Any]:
        ones = np.ones((USERS, ITEMS), np.float32)
        ends, falls = (sparse.csr_matrix(ones) for _ in range(2))
        ends.indptr = np.array([0, 1000, *[48] * (USERS - 1)], np.int32)
        falls.indptr = np.array([0, 10**9, *[0] * (USERS - 1)], np.int32)
        flat, wide, empty = (sparse.bsr_matrix(ones, blocksize=(2, 2)) for _ in range(3))
        flat.data = flat.data[:, :, 0]
        wide.data = np.ones((len(wide.data), 5, 3), np.float32)
        empty.data = empty.data[:, :0, :]
        cube = sparse.coo_array(np.ones((2, 3, 4)))
        lies = {"a row that ends outside": ends, "offsets that fall": falls, "blocks that are flat": flat}
        lies |= {"blocks that do not fill it": wide, "empty blocks": empty, "three axes": cube}
        lists, twice, far = sparse.lil_matrix(ones), sparse.dia_matrix(ones), sparse.dia_matrix(ones)
        cells = sparse.coo_matrix(ones)
        cells.data = cells.data[:-1]
        lists.data[1] = [*lists.data[1], 1.0]
        twice.offsets = np.zeros_like(twice.offsets)
        far.offsets = np.append(far.offsets[:-1].astype(np.int64), 2**62)
        flat_diagonals = sparse.dia_matrix(ones)
        flat_diagonals.data = flat_diagonals.data[0]
        objects = sparse.csr_matrix(ones)
        objects.data = objects.data.astype(object)
        lies |= {"a value more": lists, "diagonals twice": twice, "a diagonal far away": far}
        falling = sparse.csr_matrix(ones)
        falling.indices = falling.indices[::-1].copy()
        tail = sparse.csr_matrix(ones)
        tail.indices, tail.data = np.append(tail.indices, 0), np.append(tail.data, np.float32(1))
        lies |= {
            "entries behind the last row": tail,
            "a value less": cells,
            "indices that fall": falling,
            "diagonals that are flat": flat_diagonals,
            "values that are objects": objects,
        }
        verbs = ("explain", "fit", "from_matrix", "interactions")
        return [
            lambda random, name=name, matrix=matrix, verb=verb: Mutant(
                f"{matrix.format} to {verb} of EASE: {name}", Case(matrix, verb, "EASE")
            )
            for name, matrix in lies.items()
            for verb in verbs
        ]

    def mutant(self, random: Random) -> Mutant:
        form = str(random.choice(FORMATS, p=[0.46, 0.12, 0.12, 0.1, 0.08, 0.06, 0.06]))
        verb = str(random.choice(list(self.verbs)))
        names = list(self.models)
        if verb in ("encode", "sample_users", "anomaly_score"):
            names = ["MultVAE", "RecVAE"]
        elif verb in ("holdout", "index_users"):
            names = ["EASE", "ALS"] if verb == "holdout" else ["ALS", "MultVAE"]
        elif verb not in ("fit", "score"):
            names = [name for name in names if name not in ("BPR", "LMF")]
        shape = (ITEMS + 2, 3) if verb == "add_items" else (USERS, ITEMS + int(random.random() < 0.03))
        matrix, what = made(random, form, shape)
        model = str(random.choice(names))
        return Mutant(f"{form} to {verb} of {model}: {what}", Case(matrix, verb, model))

    def judge(self, mutant: Mutant, folder: Path) -> str:
        case: Case = mutant.content
        matrix, model, verb = case.matrix, self.models[case.model], self.verbs[case.verb]
        before = kept(matrix)
        with_values = case.verb not in STRUCTURE
        dense = first_row(matrix) if case.verb == "explain" else dense_of(matrix, with_values)
        refusal: Exception | None = None
        result = None
        try:
            result = verb(model, matrix, case.model)
        except recvae.errors.RecvaeError as error:
            refusal = error
        if not same(before, after := kept(matrix)):
            if same(_untyped(before), _untyped(after)):
                raise WrongError(f"the caller's index arrays were given another type by {case.verb}; {case.model}")
            raise WrongError(f"the caller's arrays were changed by {case.verb}; {case.model}")
        if refusal is not None:
            self._check_refusal(refusal, case, dense)
            raise refusal
        if dense is None:
            raise WrongError(f"a damaged matrix is taken by {case.verb}; {case.model}")
        if with_values:
            self._check_values(case, dense)
        right = sparse.csr_matrix(dense.astype(np.float32))
        expected = verb(model, right, case.model)
        if not alike(result, expected):
            raise WrongError(f"{case.verb} gives other than of the same matrix in order; {result} for {expected}")
        return "as in order"

    def _check_values(self, case: Case, dense: NDArray[Any]) -> None:
        """What is no matrix of values may not be taken."""
        if case.verb == "add_items":
            good = dense.dtype.kind in "buif" and np.isfinite(stored(case.matrix).astype(float)).all()
        else:
            data = stored(first_part(case.matrix) if case.verb == "explain" else case.matrix)
            good = data.dtype.kind in "buif" and bool((np.isfinite(data) & (data >= 0)).all())
        if not good:
            raise WrongError(f"values that are none are taken by {case.verb}; {case.model} {stored(case.matrix)}")

    def _check_refusal(self, refusal: Exception, case: Case, dense: NDArray[Any] | None) -> None:
        """A matrix without fault, in the format that is asked for, is not to be refused for its form."""
        matrix = case.matrix
        if (
            dense is None
            or matrix.format != "csr"
            or matrix.ndim != 2
            or case.verb not in ("recommend", "score", "fit")
        ):
            return
        data = stored(matrix)
        good = data.dtype in ("float32", "float64", "int32", "int64", "uint8") and data.size == int(matrix.indptr[-1])
        if not good or not all(isinstance(array, np.ndarray) for array in (matrix.indices, matrix.indptr)):
            return
        inside = bool(np.isfinite(data).all() and (data >= 0).all() and (data <= 1e15).all())
        sound = good and inside and ((data == 0) | (data >= 1e-15)).all() and matrix.shape == (USERS, ITEMS)
        normal = matrix.indices.dtype in ("int32", "int64") and matrix.indptr.dtype == matrix.indices.dtype
        words = ("well-formed", "damaged", "CSR", "numbers as values", "finite values", "zero or")
        if sound and normal and any(word in str(refusal) for word in words):
            raise WrongError(f"a right matrix is refused by {case.verb}; {refusal}")


def holdout(fold_in: Any, held_out: Any) -> Any:
    """Two matrices as a Holdout."""
    if len(inspect.signature(recvae.Holdout).parameters) and "users" in _needed(recvae.Holdout):
        n = held_out.shape[0]
        return recvae.Holdout(fold_in, held_out, np.arange(n), 0, np.ones(ITEMS, np.int64), 12)
    return recvae.Holdout(fold_in, held_out)


def _needed(kind: Any) -> list[str]:
    empty = inspect.Parameter.empty
    return [name for name, each in inspect.signature(kind).parameters.items() if each.default is empty]


# making --------------------------------------------------------------------------------------------------------------


def made(random: Random, form: str, shape: tuple[int, int]) -> tuple[Any, str]:
    """A matrix of that format with something wrong, or nothing; and what, in words."""
    dense = np.where(random.random(shape) < 0.4, random.integers(1, 5, shape), 0).astype(np.float64)
    as_array = bool(random.random() < 0.4)
    kind = getattr(sparse, f"{form}_{'array' if as_array else 'matrix'}")
    said = ["array"] if as_array else []
    if form in ("csr", "coo", "dok") and as_array and random.random() < 0.15:
        matrix = kind(dense[0])
        said.append("1-D")
    elif form == "bsr":
        matrix = kind(dense, blocksize=(2, 1 if shape[1] % 2 else 2))
    else:
        matrix = kind(dense)
    for _ in range(int(random.choice([0, 1, 2, 3], p=[0.12, 0.5, 0.28, 0.1]))):
        with contextlib.suppress(TypeError, ValueError, IndexError, AttributeError):  # after another lie, it may not do
            said.append(_lie(random, matrix, form))
    if random.random() < 0.15:
        for name in ("data", "indices", "indptr", "offsets"):
            array = getattr(matrix, name, None)
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
        said.append("read-only")
    return matrix, ", ".join(said) or "nothing"


def _lie(random: Random, matrix: Any, form: str) -> str:
    if random.random() < 0.35 and form not in ("lil", "dok"):
        return _change_values(random, matrix)
    if form in ("csr", "csc", "bsr"):
        return _change_compressed(random, matrix)
    if form == "coo":
        return _change_coo(random, matrix)
    if form == "lil":
        return _change_lil(random, matrix)
    if form == "dok":
        return _change_dok(random, matrix)
    return _change_dia(random, matrix)


def _change_values(random: Random, matrix: Any) -> str:
    how = str(random.choice(["type", "odd", "length", "axes", "zeros"], p=[0.45, 0.35, 0.1, 0.05, 0.05]))
    data = np.array(matrix.data)
    if how == "type":
        name = str(random.choice(VALUES))
        data = data.astype(name)
        how = name
    elif how == "odd" and data.size:
        value = float(random.choice([np.nan, np.inf, -1.0, -0.0, 1e38, 1e300, 1e-40, 1e16, 0.0]))
        data = data.astype(np.float64)
        data.reshape(-1)[int(random.integers(data.size))] = value
        how = f"value {value}"
    elif how == "length":
        data = data[: int(random.integers(max(1, len(data))))]
    elif how == "axes":
        data = data[..., None]
    else:
        data = np.zeros_like(data)
    matrix.data = data
    return f"data: {how}"


def _change_compressed(random: Random, matrix: Any) -> str:
    """Index arrays that lie, of any type."""
    name = str(random.choice(["indptr", "indices"]))
    numbers = np.array(getattr(matrix, name)).astype(object)
    how = str(
        random.choice(
            ["type", "one", "last zero", "wrap", "shuffle", "short", "long", "twice", "axes", "floats", "list"],
            p=[0.22, 0.22, 0.1, 0.1, 0.1, 0.06, 0.06, 0.06, 0.03, 0.03, 0.02],
        )
    )
    kind = str(random.choice(INDICES)) if how == "type" or random.random() < 0.3 else str(getattr(matrix, name).dtype)
    if how == "one" and len(numbers):
        numbers[int(random.integers(len(numbers)))] = LARGE[int(random.integers(len(LARGE)))]
    elif how == "last zero" and len(numbers) > 1:
        numbers[1:] = 0
        numbers[1] = LARGE[int(random.integers(len(LARGE)))]
    elif how == "wrap" and len(numbers) > 3:
        numbers[1:3] = [2**31 - 1, -2] if random.random() < 0.5 else [2**63 - 1, -2]
    elif how == "shuffle":
        random.shuffle(numbers)
    elif how == "short":
        numbers = numbers[:-1]
    elif how == "long":
        numbers = np.append(numbers, numbers[-1:])
    elif how == "twice":
        numbers[:] = numbers[:1] if len(numbers) else 0
    with np.errstate(all="ignore"):
        info = np.iinfo(kind) if np.dtype(kind).kind in "iu" else None
        low, span = (0, 1) if info is None else (int(info.min), int(info.max) - int(info.min) + 1)
        wrapped = [low + (int(number) - low) % span for number in numbers] if info is not None else list(numbers)
        array: Any = np.array(wrapped, dtype=kind)
    if how == "axes":
        array = array[None]
    elif how == "floats":
        array = array.astype(np.float64)
    elif how == "list":
        array = array.tolist()
    setattr(matrix, name, array)
    return f"{name}: {how} {kind} {wrapped!r:.60}"


def _change_coo(random: Random, matrix: Any) -> str:
    coords = [np.array(each) for each in matrix.coords]
    axis = int(random.integers(len(coords)))
    how = str(random.choice(["one", "type", "short", "floats"], p=[0.5, 0.3, 0.1, 0.1]))
    if how == "one" and len(coords[axis]):
        value = LARGE[int(random.integers(len(LARGE)))]
        coords[axis] = coords[axis].astype(np.int64)
        coords[axis][int(random.integers(len(coords[axis])))] = min(max(value, -(2**63)), 2**63 - 1)
        how = f"one {value}"
    elif how == "type":
        how = str(random.choice(INDICES))
        coords[axis] = coords[axis].astype(how)
    elif how == "short":
        coords[axis] = coords[axis][:-1]
    else:
        coords[axis] = coords[axis].astype(np.float64)
    matrix.coords = tuple(coords)
    return f"coords {axis}: {how}"


def _change_lil(random: Random, matrix: Any) -> str:
    user = int(random.integers(len(matrix.rows)))
    how = int(random.integers(6))
    if how == 0:
        matrix.rows[user] = [*matrix.rows[user], LARGE[int(random.integers(len(LARGE)))]]
        matrix.data[user] = [*matrix.data[user], 1.0]
    elif how == 1:
        matrix.data[user] = [*matrix.data[user], 1.0]
    elif how == 2:
        matrix.rows[user] = None
    elif how == 3:
        matrix.data[user] = ["x"] * len(matrix.rows[user])
    elif how == 4:
        matrix.data[user] = [float(random.choice([np.nan, -1.0, np.inf]))] * len(matrix.rows[user])
    else:
        matrix.rows[user] = matrix.rows[user][::-1]
    return f"row {user}: change {how}"


def _change_dok(random: Random, matrix: Any) -> str:
    key: Any = (LARGE[int(random.integers(len(LARGE)))], 0)
    if random.random() < 0.3:
        key = key[::-1]
    if random.random() < 0.1:
        key = "x"
    if matrix.ndim == 1 and key != "x":
        key = int(key[0])
    value = [1.0, np.nan, -1.0, "x", None][int(random.integers(5))]
    matrix._dict[key] = value
    return f"key {key!r} = {value!r}"


def _change_dia(random: Random, matrix: Any) -> str:
    how = int(random.integers(4))
    if how == 0:
        matrix.offsets = matrix.offsets[:-1]
    elif how == 1:
        offsets = np.array(matrix.offsets).astype(np.int64)
        offsets[int(random.integers(len(offsets)))] = random.choice([-(2**31), 2**31 - 1, 100, -100, 2**62])
        matrix.offsets = offsets
    elif how == 2:
        matrix.offsets = np.zeros_like(matrix.offsets)
    else:
        matrix.data = matrix.data[:, : int(random.integers(1, matrix.data.shape[1]))]
    return f"diagonals: change {how}"


# looking -------------------------------------------------------------------------------------------------------------


def kept(matrix: Any) -> dict[str, Any]:
    """The parts of a matrix, as copies."""
    found: dict[str, Any] = {"shape": matrix.shape, "type": type(matrix)}
    for name in ("data", "indices", "indptr", "offsets", "rows"):
        part = matrix.__dict__.get(name)
        if part is not None:
            found[name] = np.array(part, dtype=object) if isinstance(part, list) else part.copy()
            if name == "rows" or (name == "data" and found[name].dtype == object):
                found[name] = [repr(each) for each in found[name]]
    if "coords" in matrix.__dict__:
        found["coords"] = [each.copy() for each in matrix.coords]
    if "_dict" in matrix.__dict__:
        found["_dict"] = {key: repr(value) for key, value in matrix._dict.items()}
    return found


def same(one: Any, other: Any) -> bool:
    """Whether parts are equal, types of arrays among them."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other)


def _untyped(parts: dict[str, Any]) -> dict[str, Any]:
    """The same with indices as Python's numbers."""
    names = ("indices", "indptr", "offsets", "coords")
    return {
        name: repr(list(map(list, map(np.atleast_1d, part)))) if name in names else part for name, part in parts.items()
    }


def stored(matrix: Any) -> NDArray[Any]:
    """All stored values that count."""
    if matrix.format == "dok":
        return np.array(list(matrix._dict.values()))
    if matrix.format == "lil":
        return np.array([value for row in matrix.data for value in row])
    if matrix.format in ("csr", "csc"):
        return np.asarray(matrix.data)[: int(matrix.indptr[-1])]
    if matrix.format == "dia":  # what lies outside of the matrix is no value of it
        return np.array([value for _, _, value in _cells(matrix)])
    return np.asarray(matrix.data).reshape(-1)


def first_row(matrix: Any) -> NDArray[Any] | None:
    """The one row that `explain` reads, of a matrix that may be damaged elsewhere."""
    dense = dense_of(matrix)
    if dense is not None:
        return dense
    with contextlib.suppress(AttributeError, TypeError, IndexError, ValueError):
        row = first_part(matrix)
        return None if row is matrix else dense_of(row)
    return None


def first_part(matrix: Any) -> Any:
    """The first row of a CSR matrix as its offsets have it, where these lead nowhere else; else the whole."""
    if matrix.format != "csr" or matrix.ndim != 2:
        return matrix
    start, stop = int(matrix.indptr[0]), int(matrix.indptr[1])
    if not 0 <= start <= stop <= min(len(matrix.indices), len(matrix.data)):
        return matrix
    row = sparse.csr_matrix((1, matrix.shape[1]))
    row.data, row.indices, row.indptr = matrix.data[start:stop], matrix.indices[start:stop], np.array([0, stop - start])
    return row


def dense_of(matrix: Any, values: bool = True) -> NDArray[Any] | None:
    """A matrix as an array, made cell by cell in Python; None for one whose parts lie.

    values : whether they are read; else each cell has 1
    """
    try:
        if matrix.ndim > 2:
            return None
        cells = [(row, column, value if values else 1.0) for row, column, value in _cells(matrix)]
    except (IndexError, TypeError, ValueError, AttributeError, OverflowError, ZeroDivisionError):
        return None
    shape = matrix.shape if matrix.ndim == 2 else (1, matrix.shape[0])
    found = [value for _, _, value in cells]
    kind = np.result_type(*found) if found and all(isinstance(v, (np.generic, float, int)) for v in found) else None
    if kind is None and found:
        return None
    made = np.zeros(shape, dtype=np.float64 if kind is None or kind.kind in "biuf" else kind)
    for row, column, value in cells:
        if not (0 <= row < shape[0] and 0 <= column < shape[1]):
            return None
        with np.errstate(all="ignore"):
            made[row, column] += value
    return made


def _cells(matrix: Any) -> Any:
    """Row, column and value of each cell. Raises an error of Python's where arrays do not fit."""
    if matrix.format in ("csr", "csc"):
        starts, places, data = (np.asarray(each) for each in (matrix.indptr, matrix.indices, matrix.data))
        n = (matrix.shape[0 if matrix.format == "csr" else 1]) if matrix.ndim == 2 else 1
        _check_starts(starts, places, data, n)
        for major in range(n):
            for place in range(int(starts[major]), int(starts[major + 1])):
                cell = (major, int(places[place]))
                yield (*(cell if matrix.format == "csr" else cell[::-1]), data[place])
    elif matrix.format == "bsr":
        starts, places, data = (np.asarray(each) for each in (matrix.indptr, matrix.indices, matrix.data))
        height, width = data.shape[1:]
        _check_starts(starts, places, data, matrix.shape[0] // height, 3)
        for major in range(len(starts) - 1):
            for place in range(int(starts[major]), int(starts[major + 1])):
                for a in range(height):
                    for b in range(width):
                        yield major * height + a, int(places[place]) * width + b, data[place, a, b]
    elif matrix.format == "coo":
        coords = [np.asarray(each) for each in matrix.coords]
        if any(each.dtype.kind not in "iu" or each.shape != matrix.data.shape for each in coords):
            raise TypeError("coordinates")
        rows = np.zeros_like(coords[0]) if len(coords) == 1 else coords[0]
        yield from (
            (int(row), int(column), value) for row, column, value in zip(rows, coords[-1], matrix.data, strict=True)
        )
    elif matrix.format == "lil":
        for row, (columns, values) in enumerate(zip(matrix.rows, matrix.data, strict=True)):
            yield from ((row, int(column), value) for column, value in zip(columns, values, strict=True))
    elif matrix.format == "dok":
        for key, value in matrix._dict.items():
            row, column = (0, key) if matrix.ndim == 1 else key
            yield int(row), int(column), value
    else:
        offsets, data = np.asarray(matrix.offsets), np.asarray(matrix.data)
        if data.ndim != 2 or len(offsets) != len(data):
            raise ValueError("diagonals")
        for offset, diagonal in zip(offsets.tolist(), data, strict=True):
            for column, value in enumerate(diagonal):
                if 0 <= column - offset < matrix.shape[0] and column < matrix.shape[1]:
                    yield column - offset, column, value


def _check_starts(starts: Any, places: Any, data: Any, n: int, axes: int = 1) -> None:
    if starts.ndim != 1 or places.ndim != 1 or data.ndim != axes or len(starts) != n + 1:
        raise ValueError("shapes")
    if starts.dtype.kind not in "iu" or places.dtype.kind not in "iu":
        raise TypeError("types")
    numbers = [int(start) for start in starts]
    if numbers[0] != 0 or numbers != sorted(numbers) or numbers[-1] > min(len(places), len(data)):
        raise ValueError("starts")


def alike(one: Any, other: Any) -> bool:
    """Whether two results are equal but for rounding."""
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(alike(a, b) for a, b in zip(one, other, strict=True))
    if one is None:
        return other is None
    a, b = np.asarray(one), np.asarray(other)
    if a.shape != b.shape:
        return False
    return bool(np.allclose(a.astype(np.float64), b.astype(np.float64), rtol=1e-3, atol=1e-4, equal_nan=True))
