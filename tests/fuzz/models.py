"""Model files: tensors, description, header, bytes."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from scipy import sparse
from torch import Tensor

import recvae.models.baselines
from recvae.models.base import model_file as saving
from recvae.models.base.params import flat_params
from tests.fuzz import scorers
from tests.fuzz.changes import NUMBERS, TEXTS, change_bytes, change_tree, json_text, nasty
from tests.fuzz.judging import Kind, Mutant, Random, WrongError, check_lists

FIXTURES = Path(__file__).parents[1] / "fixtures"
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
}
ODD = [np.nan, np.inf, -np.inf, -1.0, 0.0, -0.0, 1e38, -1e38, 1e30, 1e20, 1e-40, 3.4e38, 1.0, 1e15, 1e16]
PLACES = [-1, 0, 1, 7, 8, 9, 23, 24, 25, 2**31 - 1, -(2**31), 2**62, -(2**63), 2**63 - 1, 2**32, 2**32 + 1]
OF_ANOTHER = "read as an ALS"

Content = dict[str, Any]  # "tensors", "about"


def seal(tensors: dict[str, Tensor], text: str) -> tuple[str, bool]:
    """The checksum that goes with a file's content, and whether there is one."""
    try:
        return saving._checksum(tensors, text), True
    except Exception:  # the package has none for such content
        return "0" * 64, False


def packed(
    tensors: dict[str, Tensor], metadata: dict[str, Any], change: Callable[[dict[str, Any]], Any] = dict
) -> bytes:
    """A safetensors file, by its specification: the length of a header, the header, the arrays.

    change : of the header before it is written
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    body = b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(raw)],
        }
        body += raw
    changed = change(header)
    text = changed if isinstance(changed, str) else json_text(changed)
    return len(text.encode()).to_bytes(8, "little") + text.encode() + body


def unpacked(raw: bytes) -> tuple[Any, dict[str, Any]]:
    """The description and the arrays of a file, by the specification of safetensors."""
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    about = json.loads(header.pop("__metadata__")["recvae"])
    kinds = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "BOOL": np.bool_}
    kinds |= {f"{sign}{bits}": np.dtype(f"{sign.lower()}{bits // 8}").type for sign in "IU" for bits in (8, 16, 32, 64)}
    tensors = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        body = raw[8 + size + start : 8 + size + stop]
        tensors[name] = np.frombuffer(body, kinds[entry["dtype"]]).reshape(entry["shape"])
    return about, tensors


def whole(tensors: dict[str, Tensor], about: Any, text: str | None = None) -> tuple[bytes, bool]:
    """A file with a right checksum, as far as there is one."""
    text = json_text(about) if text is None else text
    digest, sealed = seal(tensors, text)
    return packed(tensors, {"recvae": text, "sha256": digest}), sealed


class Models(Kind):
    """What `save` writes, changed, and read by `load`; what loads ranks."""

    name = "models"

    def open(self, folder: Path) -> None:
        random = np.random.default_rng(0)
        self.originals = {}
        for path in sorted(FIXTURES.glob("*.recvae")):
            content = path.read_bytes()
            size = int.from_bytes(content[:8], "little")
            about = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["recvae"])
            self.originals[path.stem] = {"tensors": safetensors.torch.load(content), "about": about, "raw": content}
        self.dense = np.where(random.random((5, 8)) < 0.4, random.integers(1, 6, (5, 8)), 0).astype(np.float32)
        self.dense[3] = 0
        self.dense[4] = 2

    def directed(self) -> list[Any]:
        changes: list[tuple[str, Callable[[Content], object]]] = [
            ("another format", lambda c: c["about"].update(format=99, version="9.9")),
            ("a format that is text", lambda c: c["about"].update(format="\x1b[31m", version="a\nb")),
            ("a class that is unknown", lambda c: c["about"].update({"class": "MultVEA"})),
            ("a class that is abstract", lambda c: c["about"].update({"class": "Linear"})),
            ("an own class with control characters", lambda c: c["about"].update({"class": "a\n\x1b[31m"})),
            ("no items", lambda c: c["about"].update(n_items=0, item_ids=[], titles=[])),
            ("ten million items", lambda c: c["about"].update(n_items=10**7, item_ids=None, titles=None)),
            ("10^12 items", lambda c: c["about"].update(n_items=10**12, item_ids=None, titles=None)),
            ("values by another name", lambda c: c["about"].update(values="odd")),
            ("titles for others", lambda c: c["about"].update(titles=["x"])),
            ("titles that are numbers", lambda c: c["about"].update(titles=[1] * 8)),
            ("titles of both kinds", lambda c: c["about"].update(titles=[1, "x"] * 4)),
            ("the same id twice", lambda c: c["about"].update(item_ids=["a"] * 8)),
            ("ids that are fractions", lambda c: c["about"].update(item_ids=[n + 0.5 for n in range(8)])),
            ("ids beyond 64 bits", lambda c: c["about"].update(item_ids=[10**30 + n for n in range(8)])),
            ("ids that are lists", lambda c: c["about"].update(item_ids=[[n] for n in range(8)])),
            ("ids that are surrogates", lambda c: c["about"].update(item_ids=[chr(0xD800 + n) for n in range(8)])),
            ("a parameter out of range", lambda c: c["about"]["parameters"].update(l2=-1.0, latent_dim=0, K=0)),
            ("a tensor less", lambda c: c["tensors"].pop(sorted(c["tensors"])[0])),
            ("a tensor more", lambda c: c["tensors"].update(more=torch.zeros(2))),
            ("a device that is none", lambda c: c["about"]["parameters"].update(device="meta")),
            ("more layers than tensors", lambda c: c["about"]["parameters"].update(hidden_dims=[1] * 10**5)),
        ]
        for value in (np.nan, np.inf, -1.0, 1e38):
            changes.append((f"{value} as weights", lambda c, v=value: self._fill(c, v)))
        for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64):
            changes.append((f"all of {dtype}", lambda c, d=dtype: self._cast(c, d)))
        sparse_lies = [
            ("indptr ends at 0", lambda c: self._indptr(c, [0, 10**9, *[0] * 7])),
            ("indptr wraps", lambda c: self._indptr(c, [0, 2**31 - 1, -2, 5, 24, 24, 24, 24, 24])),
            ("indptr begins late", lambda c: self._indptr(c, [1, 3, 6, 9, 12, 15, 18, 21, 24])),
            ("indptr ends late", lambda c: self._indptr(c, [0, 3, 6, 9, 12, 15, 18, 21, 25])),
            ("indices outside", lambda c: c["tensors"].update(indices=torch.full((24,), 8, dtype=torch.int32))),
            ("indices as fractions", lambda c: c["tensors"].update(indices=torch.zeros(24))),
            ("indices of two axes", lambda c: c["tensors"].update(indices=torch.zeros((2, 12), dtype=torch.int32))),
            ("indices twice", lambda c: c["tensors"].update(indices=torch.zeros(24, dtype=torch.int32))),
        ]
        made = [self._directed(name, change, list(self.originals)) for name, change in changes for _ in range(4)]
        made += [self._directed(name, change, ["EASE-sparse"]) for name, change in sparse_lies]
        made.append(self._directed(OF_ANOTHER, lambda c: None, ["EASE"]))
        made += [self._raw(name, content) for name, content in self._files().items()]
        return made

    def _directed(self, name: str, change: Callable[[Content], object], stems: list[str]) -> Any:
        def make(random: Random) -> Mutant:
            stem = stems[int(random.integers(len(stems)))]
            content = self._copy(stem)
            change(content)
            raw, sealed = whole(content["tensors"], content["about"])
            return Mutant(f"{stem}: {name}", raw, sealed)

        return make

    def _raw(self, name: str, content: bytes) -> Any:
        return lambda random: Mutant(name, content, False)

    def _files(self) -> dict[str, bytes]:
        raw = self.originals["EASE"]["raw"]
        size = int.from_bytes(raw[:8], "little")
        text = json.dumps(self.originals["EASE"]["about"])
        return {
            "nothing": b"",
            "a header that is too long": (200_000_000).to_bytes(8, "little") + raw[8:],
            "a header without our entries": packed({}, {"format": "pt"}),
            "a header whose entries are no text": packed({}, {"recvae": {}, "sha256": ""}),
            "a header without metadata": packed({}, {}, lambda header: {}),
            "deep brackets": (10**5).to_bytes(8, "little") + b"[" * 10**5,
            "deep brackets as the description": packed({}, {"recvae": "[" * 10**5, "sha256": ""}),
            "a description that is a list": packed({}, {"recvae": "[]", "sha256": ""}),
            "a description that is cut": packed({}, {"recvae": text[:-5], "sha256": ""}),
            "a number of 6,000 digits": packed({}, {"recvae": '{"format": ' + "9" * 6000 + "}", "sha256": ""}),
            "a tensor that is not there": raw[: 8 + size] + raw[8 + size : -9],
            "a checksum of others": packed(self.originals["EASE"]["tensors"], {"recvae": text, "sha256": "0"}),
        }

    def _copy(self, stem: str) -> Content:
        original = self.originals[stem]
        tensors = {name: tensor.clone() for name, tensor in original["tensors"].items()}
        return {"tensors": tensors, "about": json.loads(json.dumps(original["about"]))}

    def _fill(self, content: Content, value: float) -> None:
        for name, tensor in content["tensors"].items():
            if tensor.dtype == torch.float32:
                flat = tensor.reshape(-1).clone()
                flat[::2] = value
                content["tensors"][name] = flat.reshape(tensor.shape)

    def _cast(self, content: Content, dtype: torch.dtype) -> None:
        content["tensors"] = {name: tensor.to(dtype) for name, tensor in content["tensors"].items()}

    def _indptr(self, content: Content, indptr: list[int]) -> None:
        content["tensors"]["indptr"] = torch.tensor(indptr, dtype=torch.int32)

    def mutant(self, random: Random) -> Mutant:
        stems = list(self.originals)
        stem = stems[int(random.integers(len(stems)))]
        how = random.choice(
            ["tensors", "about", "both", "text", "header", "bytes"], p=[0.45, 0.28, 0.05, 0.04, 0.1, 0.08]
        )
        if how == "bytes":
            raw, what = change_bytes(random, self.originals[stem]["raw"])
            return Mutant(f"{stem}: {what}", raw, False)
        content, said = self._copy(stem), []
        if how in ("tensors", "both"):
            for _ in range(int(random.integers(1, 3))):
                said.append(self._change_tensor(random, content))
        if how in ("about", "both"):
            content["about"], what = self._change_about(random, content["about"])
            said.append(what)
        if how == "text":
            return self._change_text(random, stem, content)
        if how == "header":
            return self._change_header(random, stem, content)
        raw, sealed = whole(content["tensors"], content["about"])
        return Mutant(f"{stem}: {'; '.join(said)}", raw, sealed)

    def _change_about(self, random: Random, about: dict[str, Any]) -> tuple[dict[str, Any], str]:
        if random.random() < 0.15:  # claims on the number of items, ids gone
            n = int(random.choice([0, 1, 7, 9, 16, 10**6, 10**9, 2**31 - 1, 2**31, 2**62]))
            return about | {"n_items": n, "item_ids": None, "titles": None}, f"n_items = {n}, without ids"
        if random.random() < 0.1:
            kinds = sorted({each["about"]["class"] for each in self.originals.values()})
            name = str(random.choice(kinds))
            return about | {"class": name}, f"class = {name}"
        if random.random() < 0.3:
            parameters, what = change_tree(random, about["parameters"])
            return about | {"parameters": parameters}, f"parameters: {what}"
        changed, what = change_tree(random, about)
        return changed, what

    def _change_tensor(self, random: Random, content: Content) -> str:
        tensors: dict[str, Tensor] = content["tensors"]
        if not tensors:
            return "nothing"
        name = str(random.choice(sorted(tensors)))
        tensor = tensors[name]
        if not tensor.is_floating_point() and tensor.dim() == 1 and random.random() < 0.75:
            return self._change_places(random, tensors, name)
        how = str(
            random.choice(
                [
                    "values",
                    "one value",
                    "scale",
                    "noise",
                    "dtype",
                    "shape",
                    "rename",
                    "delete",
                    "extra",
                    "swap",
                    "other",
                ],
                p=[0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.03, 0.03, 0.04, 0.05, 0.05],
            )
        )
        if how in ("values", "one value", "scale", "noise"):
            if not tensor.is_floating_point():
                how = "dtype"
            else:
                flat = tensor.reshape(-1).clone()
                value = float(ODD[int(random.integers(len(ODD)))])
                if how == "values":
                    flat[torch.from_numpy(random.random(len(flat)) < 0.5)] = value
                elif how == "one value":
                    flat[int(random.integers(len(flat)))] = value
                elif how == "scale":
                    value = float(random.choice([-1, 2, 10, 1e3, 1e6, 1e10, 1e15, 1e18, 1e20, 1e-10, 1e-20]))
                    flat *= value
                else:
                    flat += torch.from_numpy(random.normal(size=len(flat))).to(flat.dtype)
                tensors[name] = flat.reshape(tensor.shape)
                return f"{name}: {how} {value:g}"
        if how == "dtype":
            dtype = list(DTYPES)[int(random.integers(len(DTYPES)))]
            with contextlib.suppress(RuntimeError):
                tensors[name] = tensor.to(dtype)
            return f"{name} of {dtype}"
        if how == "shape":
            return self._reshape(random, tensors, name)
        if how == "rename":
            new = str(random.choice([name + "x", "", "weights", "x\n", "\x1b[31m", "__metadata", "data", "é"]))
            tensors[new] = tensors.pop(name)
            return f"{name} called {new!r}"
        if how == "delete":
            del tensors[name]
        elif how == "extra":
            tensors[str(random.choice(["extra", "kl_cap", "weights", "linear.weights", "l2"]))] = tensor.clone()
        elif how == "swap":
            other = str(random.choice(sorted(tensors)))
            tensors[name], tensors[other] = tensors[other], tensors[name]
            return f"{name} and {other} swapped"
        else:
            source = self.originals[list(self.originals)[int(random.integers(len(self.originals)))]]["tensors"]
            tensors[name] = source[str(random.choice(sorted(source)))].clone()
        return f"{name}: {how}"

    def _reshape(self, random: Random, tensors: dict[str, Tensor], name: str) -> str:
        tensor = tensors[name]
        flat = tensor.reshape(-1)
        choices: list[Callable[[], Tensor]] = [
            lambda: flat,
            lambda: tensor.T.contiguous() if tensor.dim() == 2 else tensor[None],
            lambda: tensor[None],
            lambda: tensor[:-1] if tensor.dim() else tensor,
            lambda: torch.cat([tensor, tensor]) if tensor.dim() else tensor[None],
            lambda: flat[:0],
            lambda: flat[0],
            lambda: flat[:1],
            lambda: tensor.reshape(*tensor.shape, 1),
            lambda: torch.zeros((0, 8)),
            lambda: torch.zeros((8, 0)),
        ]
        tensors[name] = choices[int(random.integers(len(choices)))]().clone()
        return f"{name} of shape {tuple(tensors[name].shape)}"

    def _change_places(self, random: Random, tensors: dict[str, Tensor], name: str) -> str:
        """Indices that lie."""
        places = tensors[name].to(torch.int64 if random.random() < 0.5 else torch.int32)
        numbers = places.numpy().copy()
        how = str(random.choice(["one", "some", "reverse", "shuffle", "last", "shift", "short", "constant", "none"]))
        limits = np.iinfo(numbers.dtype)
        drawn = [value for value in PLACES if limits.min <= value <= limits.max]
        if how in ("one", "last"):
            numbers[-1 if how == "last" else int(random.integers(len(numbers)))] = random.choice(drawn)
        elif how == "some":
            for _ in range(3):
                numbers[int(random.integers(len(numbers)))] = random.choice(drawn)
        elif how == "reverse":
            numbers = numbers[::-1].copy()
        elif how == "shuffle":
            random.shuffle(numbers)
        elif how == "shift":
            numbers += numbers.dtype.type(random.choice([-1, 1]))
        elif how == "short":
            numbers = numbers[: int(random.integers(len(numbers)))]
        elif how == "constant":
            numbers[:] = random.choice(drawn)
        tensors[name] = torch.from_numpy(numbers)
        return f"{name}: {how} {numbers.tolist()!r:.80} of {numbers.dtype}"

    def _change_text(self, random: Random, stem: str, content: Content) -> Mutant:
        text = json_text(content["about"])
        twice = text[:-1] + f', "n_items": {json_text(nasty(random))}}}'
        text, what = [
            (twice, "n_items twice"),
            (text.replace("8", str(random.choice([str(n) for n in NUMBERS[:20]])), 1), "another number"),
            ("[" * 100_000 + text, "deep brackets before"),
            (text.replace('"values"', '"values" ' + " " * 1000), "blanks"),
            (text + " x", "more after it"),
            (text.replace("null", json_text(nasty(random)), 1), "a null less"),
        ][int(random.integers(6))]
        raw, sealed = whole(content["tensors"], content["about"], text)
        return Mutant(f"{stem}: description as text: {what}", raw, sealed)

    def _change_header(self, random: Random, stem: str, content: Content) -> Mutant:
        """Sealed content in a header that lies."""
        text = json_text(content["about"])
        digest, _ = seal(content["tensors"], text)
        said = []

        def change(header: dict[str, Any]) -> Any:
            names = [name for name in header if name != "__metadata__"]
            name = str(random.choice(names))
            how = int(random.integers(9))
            if how == 0:
                header[name]["data_offsets"][int(random.integers(2))] = nasty(random)
            elif how == 1:
                header[name]["shape"] = nasty(random)
            elif how == 2:
                header[name]["dtype"] = str(random.choice([*DTYPES.values(), "X", "C64", "F4"]))
            elif how == 3:
                other = str(random.choice(names))
                header[name], header[other] = header[other], header[name]
            elif how == 4:
                header = dict(reversed(header.items()))  # the same file in another order
            elif how == 5:
                header["__metadata__"][str(random.choice(TEXTS))] = "more"
            elif how == 6:
                header["__metadata__"]["sha256"] = nasty(random)
            elif how == 7:
                header[name]["shape"] = [int(random.choice([2**31, 2**62, 10**6, -1, 0])) for _ in range(2)]
            else:
                written = json_text(header)
                said.append("an entry twice")
                return written[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}"
            said.append(f"{name}: change {how}")
            return header

        raw = packed(content["tensors"], {"recvae": text, "sha256": digest}, change)
        return Mutant(f"{stem}: header: {'; '.join(said)}", raw, "change 4" in said[-1])

    def judge(self, mutant: Mutant, folder: Path) -> str:
        raw: bytes = mutant.content
        if mutant.what.endswith(OF_ANOTHER):
            recvae.models.baselines.ALS.load(io.BytesIO(raw))
        if len(raw) % 2:
            Path("model.recvae").write_bytes(raw)
            model: Any = recvae.load("model.recvae")
        else:
            model = recvae.load(io.BytesIO(raw))
        about, tensors = unpacked(raw)
        return self._rank(model, about, tensors)

    def _rank(self, model: Any, about: dict[str, Any], tensors: dict[str, Any]) -> str:
        n_items = about["n_items"]
        if n_items == self.dense.shape[1]:
            dense = self.dense
        elif n_items < 100:
            dense = np.eye(5, n_items, dtype=np.float32)
        else:
            raise WrongError(f"another number of items loads; {n_items} of {about['class']}")
        rows, users = sparse.csr_matrix(dense), np.arange(5) % max(1, len(tensors.get("user_factors", range(5))))
        about = about | {"parameters": flat_params(model) | about["parameters"]}  # with the defaults of what is missing
        try:
            expected, margin = scorers.scores(about, tensors, dense.astype(np.float64), users)
        except (LookupError, ValueError, TypeError) as error:
            raise WrongError(f"tensors that make no scores load; {error!r}") from error
        for filtered in (True, False):
            ids, found = model.recommend(users, rows, N=5, filter_already_liked_items=filtered)
            seen = (dense > 0) & filtered
            check_lists(ids, found, expected, margin, seen, 5)
        for name in ("item_ids", "titles"):
            own = getattr(model, f"{name}_")
            if (None if own is None else own.tolist()) != about[name]:
                raise WrongError(f"other {name}; {own} for {about[name]}")
        model.similar_items(0, N=3)
        return "as computed"
