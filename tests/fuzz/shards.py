"""Folders of shards: Arrow metadata and bodies, files of ids, the manifest."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from scipy import sparse

import recvae
from recvae.data.shards import Shards, write_shards
from tests.fuzz.changes import change_bytes
from tests.fuzz.folders import MANIFEST, Files, Folders, manifest_bytes, sealed
from tests.fuzz.judging import Mutant, Random, WrongError

N_ITEMS = 12
ODD = [-1.0, 0.0, np.nan, np.inf, -np.inf, 1e38, 1e16, 1e-40, 2.0]
PLACES = [-1, N_ITEMS, N_ITEMS + 1, 2**31 - 1, -(2**31), 0, 5]


def events(path: Path, with_values: bool) -> Path:
    """A small Parquet file of events."""
    random = np.random.default_rng(3)
    n = 160
    table = {"user": random.integers(0, 30, n), "item": random.integers(0, N_ITEMS, n)}
    if with_values:
        table["value"] = random.integers(1, 5, n).astype(np.float64)
    pa.parquet.write_table(pa.table(table), path)
    return path


class ShardFolders(Folders):
    """What `write_shards` writes, changed, and read by `Shards`."""

    name = "shards"

    def prepare(self, folder: Path) -> None:
        for name, options in {
            "plain": {},
            "values": {"value": "value", "values": "raw"},
            "heldout": {"heldout_users": 4},
        }.items():
            made = events(folder / f"{name}.parquet", bool(options.get("value")))
            write_shards(made, folder / name, users_per_shard=10, min_user=2, show_progress=False, **options)

    def open(self, folder: Path) -> None:
        super().open(folder)
        self.known = {name: _whole(Shards(folder / name)) for name in self.originals}

    def directed(self) -> list[Any]:
        lies = [
            "ids of others",
            "one id less",
            "ids null",
            "no column",
            "ids with fractions for counts",
            "no batch",
            "large lists",
            "items of int64",
        ]
        lies += [
            "one too many",
            "nan",
            "negative",
            "outside",
            "wraps",
            "longer",
            "no items",
            "a float",
            "unsorted",
            "twice",
            "nulls",
        ]
        made = [self._lie(name, lie) for lie in lies for name in ("plain", "values", "heldout")]
        manifests: list[tuple[str, Any]] = [
            ("values by another name", lambda m: m["settings"].update(values="odd\n")),
            ("another fingerprint", lambda m: m["facts"].update(fingerprint="x")),
            ("users for others", lambda m: _file(m, "valid-users.parquet").update(rows=9)),
            ("more events than bytes", lambda m: _file(m, "shard-00000.arrow").update(events=10**9)),
            ("a shard of other users", lambda m: _file(m, "shard-00000.arrow").update(rows=9)),
            ("other events", lambda m: _file(m, "shard-00000.arrow").update(events=9)),
        ]
        made += [self._lying(name, change) for name, change in manifests]
        return super().directed() + made

    def _lying(self, name: str, change: Any) -> Any:
        def make(random: Random) -> Mutant:
            files = dict(self.originals["heldout"])
            manifest = json.loads(files[MANIFEST])
            change(manifest)
            return Mutant(f"heldout: {name}", files | {MANIFEST: manifest_bytes(manifest)}, True)

        return make

    def _lie(self, name: str, lie: str) -> Any:
        def make(random: Random) -> Mutant:
            files = dict(self.originals[name])
            ids = lie.startswith(("ids", "one id", "no column"))
            targets = sorted(each for each in files if each.endswith(".parquet" if ids else ".arrow"))
            target = str(random.choice(targets))
            files[target], what = (
                change_ids(random, files[target], lie) if ids else change_arrow(random, files[target], lie)
            )
            return Mutant(f"{name}: {target}: {what}", sealed(files, json.loads(files[MANIFEST])), True)

        return make

    def change_content(self, random: Random, name: str, content: bytes, files: Files) -> tuple[bytes, str]:
        if random.random() < 0.3:
            return change_bytes(random, content)
        if name.endswith(".parquet"):
            return change_ids(random, content)
        if random.random() < 0.4:
            return change_metadata(random, content)
        return change_arrow(random, content)

    def judge_folder(self, original: str, here: Path) -> str:
        shards = Shards(here)
        if np.random.default_rng(len(shards.shard_files)).random() < 0.5:
            repr(shards)
        found = _whole(shards)
        matrix = found["matrix"]
        self._compare(shards, here, matrix)
        if len(found["items"]) != shards.n_items or len(found["users"]) != shards.n_users:
            raise WrongError(f"ids for others; {len(found['items'])} {len(found['users'])} for {shards.shape}")
        if not _are_ids(found["items"]):
            raise WrongError(f"ids that are none; {found['items']}")
        if shards.heldout_users is not None:
            for part in (shards.valid, shards.test):
                _check(part.fold_in, (part.fold_in.shape[0], shards.n_items))
                _check(part.held_out, (part.fold_in.shape[0], shards.n_items))
        if matrix.nnz and shards.n_users < 100:
            model = recvae.MultVAE(latent_dim=2, hidden_dims=(3,), epochs=1, random_state=0)
            model.fit(shards, show_progress=False)
            if not np.isfinite(model.score(sparse.csr_matrix((1, shards.n_items)))).all():
                raise WrongError("a fit on shards is not finite; ")
        shards.check(deep=True)
        known = self.known[original]["matrix"]
        same = matrix.shape == known.shape and (matrix != known).nnz == 0
        return "as the original" if same else "as their files"

    def _compare(self, shards: Shards, here: Path, matrix: Any) -> None:
        """The shards against what pyarrow reads in them, as Python objects."""
        rows: list[dict[int, float]] = []
        for piece in shards.shard_files:
            try:
                with pa.OSFile(str(here / piece.file)) as file:
                    batch = pa.ipc.open_file(file).get_batch(0)
                    batch.validate(full=True)
                    items = batch["items"].to_pylist()
                    values = batch["values"].to_pylist() if "values" in batch.schema.names else None
            except (pa.ArrowException, OSError, KeyError, ValueError) as error:
                raise WrongError(f"a shard loads that Arrow refuses; {error}") from error
            for place, row in enumerate(items):
                weights = [1.0] * len(row) if values is None else values[place]
                if len(weights) != len(row):
                    raise WrongError(f"a shard loads whose values are not those of its items; {row} {weights}")
                rows.append(dict(zip(row, weights, strict=True)))
        read = [
            dict(zip(matrix[user].indices.tolist(), matrix[user].data.tolist(), strict=True))
            for user in range(matrix.shape[0])
        ]
        if read != rows:
            raise WrongError(f"a shard is read otherwise than Arrow does; {read} for {rows}")


def _file(manifest: Any, name: str) -> Any:
    """What a manifest says of a file."""
    return next(part for part in manifest["parts"] if part["file"] == name)


def _whole(shards: Shards) -> dict[str, Any]:
    """All that shards can be asked for."""
    lengths = [shards.lengths(number) for number in range(len(shards.shard_files))]
    pieces = [shards.shard(number) for number in range(len(shards.shard_files))]
    if any((np.diff(piece.indptr) != length).any() for piece, length in zip(pieces, lengths, strict=True)):
        raise WrongError(f"lengths of others; {lengths}")
    matrix = sparse.vstack(pieces, format="csr") if pieces else sparse.csr_matrix(shards.shape)
    taken = shards.take(np.arange(shards.n_users)[::-1])
    _check(matrix, shards.shape)
    if (taken[::-1] != matrix).nnz:
        raise WrongError(f"take gives others than shard; {taken.shape} {matrix.shape}")
    return {
        "matrix": matrix,
        "items": list(shards.item_ids),
        "users": shards.user_ids.to_pylist(),
        "counts": shards.item_counts.tolist(),
        "mean": shards.mean_value() if shards.n_events else 0.0,
    }


def _are_ids(ids: list[Any]) -> bool:
    """Whether these are distinct texts or integers."""
    return all(isinstance(each, (str, int, np.integer)) for each in ids) and len(set(ids)) == len(ids)


def _check(matrix: Any, shape: tuple[int, int]) -> None:
    """Whether a matrix is one of events."""
    if (
        matrix.shape != shape
        or matrix.nnz != len(matrix.indices)
        or matrix.indptr[0]
        or (np.diff(matrix.indptr) < 0).any()
    ):
        raise WrongError(f"rows that are none; {matrix.shape} {shape} {matrix.indptr}")
    if matrix.nnz and not (matrix.indices.min() >= 0 and matrix.indices.max() < shape[1]):
        raise WrongError(f"items outside; {matrix.indices}")
    for user in range(shape[0]):
        mine = matrix.indices[matrix.indptr[user] : matrix.indptr[user + 1]]
        if (np.diff(mine) <= 0).any():
            raise WrongError(f"items twice or out of order load; {mine}")
    if not (np.isfinite(matrix.data) & (matrix.data > 0)).all() or (matrix.data > 1e15).any():
        raise WrongError(f"values that are none load; {matrix.data}")


def change_metadata(random: Random, content: bytes) -> tuple[bytes, str]:
    """A number among those of Arrow's metadata that lies."""
    raw, width = bytearray(content), int(random.choice([4, 8]))
    form = "<q" if width == 8 else "<i"
    places = [
        place for place in range(0, len(raw) - width, width) if 0 < struct.unpack_from(form, raw, place)[0] < 10_000
    ]
    place = int(random.choice(places)) if places else 0
    number = int(random.choice([2**62, 2**31, -1, 0, 1, 2**40, 7] if width == 8 else [2**31 - 1, -1, 0, 1, 7, 2**30]))
    struct.pack_into(form, raw, place, number)
    return bytes(raw), f"{number} at {place}"


def change_arrow(random: Random, content: bytes, how: str = "") -> tuple[bytes, str]:
    """Another shard in a well-formed Arrow file."""
    batch = pa.ipc.open_file(pa.BufferReader(content)).get_batch(0)
    offsets = batch["items"].offsets.to_numpy().copy()
    items = batch["items"].values.to_numpy().copy()
    with_values = "values" in batch.schema.names
    values = batch["values"].values.to_numpy().copy() if with_values else None
    ways = ["nan", "negative", "outside", "wraps", "longer", "no items", "a float", "unsorted", "twice", "large lists"]
    ways += ["items of int64", "no batch", "nulls", "value", "offset", "two batches", "more columns", "other values"]
    how = how or str(random.choice(ways))
    one = int(random.integers(max(1, len(items))))
    columns: dict[str, Any] = {}
    if how in ("nan", "negative", "value", "other values"):
        values = np.ones(len(items), np.float32) if values is None else values
        odd = {"nan": np.nan, "negative": -1.0}.get(how, ODD[int(random.integers(len(ODD)))])
        if how == "other values":
            values = random.random(len(items)).astype(np.float32) + 1
        elif len(values):
            values[one] = odd
    elif how == "outside" and len(items):
        items[one] = PLACES[int(random.integers(len(PLACES)))]
    elif how == "one too many" and len(items):
        items[-1] = N_ITEMS
    elif how == "wraps":
        offsets[1:3] = [2**31 - 1, -2]
    elif how == "offset":
        offsets[int(random.integers(len(offsets)))] = int(random.choice([-1, 0, 1, 1000, 2**31 - 1, -(2**31)]))
    elif how == "longer":
        items = np.append(items, items[:1])
    elif how == "unsorted":
        items = items[::-1].copy()
    elif how == "twice":
        items[:] = items[:1]
    lists: dict[str, Any] = {"items": items} | ({} if values is None else {"values": values})
    for name, array in lists.items():
        array = array.astype(np.float32) if how == "a float" and name == "items" else array
        array = array.astype(np.int64) if how == "items of int64" and name == "items" else array
        flat = pa.array(array, mask=np.arange(len(array)) == one) if how == "nulls" else pa.array(array)
        kind = pa.LargeListArray if how == "large lists" else pa.ListArray
        starts = offsets.astype(np.int64) if how == "large lists" else offsets
        columns[name] = _lists(kind, starts, flat)
    if how == "no items":
        columns = {"things": columns["items"]}
    if how == "more columns":
        columns["more"] = pa.array(np.arange(len(offsets) - 1))
    made, sink = pa.RecordBatch.from_pydict(columns), pa.BufferOutputStream()
    with pa.ipc.new_file(sink, made.schema) as file:
        for _ in range({"no batch": 0, "two batches": 2}.get(how, 1)):
            file.write_batch(made)
    return sink.getvalue().to_pybytes(), how


def _lists(kind: Any, starts: Any, flat: Any) -> Any:
    """An array of lists whose offsets may lie, which Arrow's own constructor would not make."""
    form = pa.large_list(flat.type) if kind is pa.LargeListArray else pa.list_(flat.type)
    return pa.Array.from_buffers(form, len(starts) - 1, [None, pa.py_buffer(starts.tobytes())], children=[flat])


def change_ids(random: Random, content: bytes, how: str = "") -> tuple[bytes, str]:
    """Another file of ids."""
    table = pa.parquet.read_table(io.BytesIO(content))
    how = how or str(
        random.choice(["ids of others", "one id less", "ids null", "no column", "one id more", "same ids", "column"])
    )
    name = table.column_names[0]
    column = table[name].to_pylist()
    if how == "ids of others":
        column = [[f"x{n}", float(n), b"x", [n], {"a": n}][int(random.integers(5))] for n in [0]] * len(column)
    elif how == "one id less":
        table, column = table[:-1], column[:-1]
    elif how == "ids null":
        column[0] = None
    elif how == "ids with fractions for counts":
        table = table.append_column("count", pa.array([1.5] * len(table))) if len(table.column_names) < 2 else table
        table = table.set_column(1, "count", pa.array([1.5] * len(table)))
    elif how == "one id more":
        table = pa.concat_tables([table, table[:1]])
        column.append(column[0])
    elif how == "same ids":
        column = column[:1] * len(column)
    elif how == "column":
        last = len(table.column_names) - 1
        table = table.set_column(last, table.column_names[last], pa.array([-1] * len(table)))
        column = table[name].to_pylist()
    table = table.drop_columns([name]) if how == "no column" else table.set_column(0, name, pa.array(column))
    sink = io.BytesIO()
    pa.parquet.write_table(table, sink)
    return sink.getvalue(), how
