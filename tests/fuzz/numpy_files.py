"""Models exported for numpy: a description with steps, and arrays."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

import recvae
from recvae.serving.export import export_numpy, numpy_scorer
from tests.fuzz import scorers
from tests.fuzz.changes import change_bytes, change_tree, json_text
from tests.fuzz.judging import Kind, Mutant, Random, WrongError, check_lists
from tests.fuzz.models import FIXTURES, ODD

NAMES = ("MultVAE", "MultVAE-cosine", "MultDAE", "RecVAE", "HVamp", "HybridVAE", "HybridVAE-sparse")


class NumpyFiles(Kind):
    """What `export_numpy` writes, changed, and read by the scorer that stands alone."""

    name = "numpy"
    refusals = (ValueError,)  # it knows no other errors

    def prepare(self, folder: Path) -> None:
        for name in NAMES:
            export_numpy(recvae.load(FIXTURES / f"{name}.recvae"), folder / f"{name}.npz")

    def open(self, folder: Path) -> None:
        random = np.random.default_rng(0)
        self.raw = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.npz"))}
        self.rows = np.where(random.random((4, 8)) < 0.4, random.integers(1, 6, (4, 8)), 0).astype(np.float32)
        self.rows[2] = 0

    def _parts(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        with np.load(io.BytesIO(self.raw[name])) as file:
            arrays = {key: file[key] for key in file.files}
        return json.loads(arrays.pop("description").tobytes()), arrays

    def directed(self) -> list[Any]:
        changes: list[tuple[str, Any]] = [
            ("another format", lambda d, a: d.update(format=99)),
            ("not a number", lambda d, a: a["last.bias"].fill(np.nan)),
            ("rows for others", lambda d, a: a.update({"last.weight": a["last.weight"][:-1]})),
            ("ids for others", lambda d, a: d.update(item_ids=["x"])),
            ("many items", lambda d, a: d.update(n_items=10**12, item_ids=None)),
            ("no items", lambda d, a: d.update(n_items=0, item_ids=[])),
            ("a path that is out of order", lambda d, a: a.update({"path.indptr": np.arange(9)[::-1] * 3})),
            ("a path that begins late", lambda d, a: a.update({"path.indptr": np.arange(9) * 3 + 1})),
            ("a path that leads out", lambda d, a: a.update({"path.indices": np.full(24, 8)})),
            ("a path of negative items", lambda d, a: a.update({"path.indices": np.full(24, -1)})),
            ("a path that is too long", lambda d, a: a.update({"path.data": np.ones(99, np.float32)})),
            ("no step", lambda d, a: d.update(steps=[])),
            ("a step that is unknown", lambda d, a: d["steps"].append(["x", "__import__", ["os"]])),
            ("an array less", lambda d, a: a.pop("last.bias")),
            ("weights of objects", lambda d, a: a.update({"last.bias": np.array([None] * 8)})),
            ("weights for others", lambda d, a: a.update({"last.bias": np.ones(3, np.float32)})),
            ("one score for all", lambda d, a: a.update({"last.bias": np.ones((2, 1, 8), np.float32)})),
            ("25 chained cat steps", _chained),
            ("scores beyond 32 bits", lambda d, a: _fill(a, ("weight", "bias"), 3e38)),
            ("a number of items that is text", lambda d, a: d.update(n_items="8")),
            ("a path of an infinite weight", lambda d, a: d.update(path_weight=1e300)),
            ("NaN as a weight", lambda d, a: d.update(path_weight=float("nan"))),
            ("ids of both kinds", lambda d, a: d.update(item_ids=[1, 2, 3, 4, "a", "b", "c", "d"])),
            ("steps that lead elsewhere", lambda d, a: d.update(hidden="first.bias")),
            ("a chunk of a million", lambda d, a: d["steps"].append(["x", "chunk", ["first", 10**7, 1]])),
        ]
        made = [self._directed(name, change) for name, change in changes]
        texts = {
            "nothing": b"",
            "not a zip": b"x" * 50,
            "an empty zip": _zip({}),
            "zeros that are packed": _zip({"description.npy": bytes(1 << 20)}, zipfile.ZIP_DEFLATED),
            "a deep description": _zip({"description.npy": b"[" * 9}),
        }
        return made + [lambda random, n=name, t=text: Mutant(n, t, False) for name, text in texts.items()]

    def _directed(self, name: str, change: Any) -> Any:
        def make(random: Random) -> Mutant:
            model = "HybridVAE-sparse" if "path" in name else str(random.choice(NAMES))
            description, arrays = self._parts(model)
            change(description, arrays)
            return Mutant(f"{model}: {name}", written(description, arrays))

        return make

    def mutant(self, random: Random) -> Mutant:
        name = str(random.choice(NAMES))
        how = str(random.choice(["description", "steps", "arrays", "both", "bytes"], p=[0.2, 0.2, 0.4, 0.08, 0.12]))
        if how == "bytes":
            raw, what = change_bytes(random, self.raw[name])
            return Mutant(f"{name}: {what}", raw, False)
        description, arrays = self._parts(name)
        said = []
        if how in ("description", "both"):
            description, what = change_tree(random, description)
            said.append(what)
        if how == "steps":
            description["steps"], what = change_tree(random, description["steps"] or [["x", "tanh", ["first"]]])
            said.append(f"steps.{what}")
        if how in ("arrays", "both"):
            said.append(self._change_array(random, arrays))
        return Mutant(f"{name}: {'; '.join(said)}", written(description, arrays))

    def _change_array(self, random: Random, arrays: dict[str, Any]) -> str:
        key = str(random.choice(sorted(arrays)))
        array = arrays[key].copy()
        how = str(
            random.choice(["value", "dtype", "shape", "delete", "rename", "scale"], p=[0.4, 0.15, 0.2, 0.07, 0.08, 0.1])
        )
        if how == "value" and array.size:
            odd = ODD if array.dtype.kind == "f" else [-1, 0, 8, 24, 2**31 - 1, 100]
            array.reshape(-1)[int(random.integers(array.size))] = odd[int(random.integers(len(odd)))]
        elif how == "scale":
            array = (array * random.choice([-1.0, 2.0, 1e5, 1e18])).astype(array.dtype)
        elif how == "dtype":
            array = array.astype(
                str(random.choice(["float64", "float16", "int64", "uint8", "complex64", "U5", "bool", "object"]))
            )
        elif how == "shape":
            array = [
                array.reshape(-1),
                array.T,
                array[None],
                array[:-1],
                array[:0],
                array[..., None],
                array.reshape(-1)[:1],
            ][int(random.integers(7))]
        arrays[key] = array
        if how == "delete":
            del arrays[key]
        elif how == "rename":
            arrays[str(random.choice(["x", "../x", "path", "first", "hidden", "path.indptr"]))] = arrays.pop(key)
        return f"{key}: {how} {array.reshape(-1)[:3].tolist()!r:.60}"

    def judge(self, mutant: Mutant, folder: Path) -> str:
        raw: bytes = mutant.content
        scorer = numpy_scorer.load(io.BytesIO(raw))
        rows = self.rows if scorer.n_items == 8 else np.eye(4, scorer.n_items, dtype=np.float32)
        items = [np.flatnonzero(row) for row in rows]
        offsets = np.cumsum([0, *map(len, items)])
        given = (np.concatenate(items), offsets, rows[rows > 0])
        with np.load(io.BytesIO(raw)) as file:
            arrays = {key: file[key] for key in file.files}
        about = json.loads(arrays.pop("description").tobytes())
        if any(array.dtype.kind not in "fiu" for array in arrays.values()):
            raise WrongError(
                f"arrays that are no numbers load; {sorted({array.dtype.str for array in arrays.values()})}"
            )
        for filtered in (True, False):
            ids, found = scorer.recommend(given, N=5, filter_seen=filtered)
            try:
                expected, margin = scorers.program_scores(about, arrays, rows.astype(np.float64))
            except Exception as error:  # steps that numpy takes and the interpreter does not: shapes that happen to fit
                raise WrongError(f"steps that are none load; {error!r}") from error
            check_lists(ids, found, expected, margin, (rows > 0) & filtered, 5)
        return "as computed"


def _fill(arrays: dict[str, Any], words: tuple[str, ...], value: float) -> None:
    for name, array in arrays.items():
        if name.endswith(words):
            array.fill(value)


def _chained(description: dict[str, Any], arrays: dict[str, Any]) -> None:
    last = "first"
    for number in range(25):
        description["steps"].append([f"c{number}", "cat", [[last, last], 1]])
        last = f"c{number}"


def written(description: Any, arrays: dict[str, Any]) -> bytes:
    """An .npz file, each array of which has a right checksum."""
    parts = {}
    text = np.frombuffer(json_text(description).encode(), dtype=np.uint8)
    for name, array in {"description": text, **arrays}.items():
        part = io.BytesIO()
        np.save(part, array, allow_pickle=True)
        parts[f"{name}.npy"] = part.getvalue()
    return _zip(parts)


def _zip(parts: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", packing) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return made.getvalue()
