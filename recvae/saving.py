"""Model files: tensors and a JSON description in one safetensors file. Nothing in it is ever executed."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import torch
from scipy import sparse
from torch import Tensor, nn

from recvae.errors import DataNotFoundError, InvalidDataError, InvalidTypeError, TrainingError, shown
from recvae.files import write_whole
from recvae.memory import require
from recvae.rows import check_arrays

FORMAT = 1
HEADER = 100_000_000  # bytes of text in a safetensors file, at most
CHUNK = 16 << 20  # bytes that are read at a time
DIMS = 8  # of a tensor, at most
# safetensors' names of the types that a model file may have: those that numpy has too
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

File = str | Path | BinaryIO


class _Entry(NamedTuple):
    """A tensor as the header of a file names it."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    size: int  # in bytes


def write_model(file: File, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """Write to a path, whole, or to an open binary file: the same bytes for the same model, in any process.

    Raises OutputError; InvalidDataError for too much text, for numbers that are not finite and for types of tensors
    that would not be read again.
    """
    check_file(file, "write")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, tensor in plain.items():
        check_numbers(tensor, name)
    text = json.dumps(description | {"format": FORMAT}, default=lambda number: number.item())  # numpy's numbers
    header: dict[str, Any] = {"__metadata__": {"recvae": text, "sha256": _checksum(plain, text)}}
    names, end = sorted(plain, key=lambda name: (-plain[name].itemsize, name)), 0  # the widest first: all are aligned
    for name in names:
        tensor, begin = plain[name], end
        end += tensor.nbytes
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    start = json.dumps(header, separators=(",", ":")).encode()
    start += b" " * (-len(start) % 8)
    if len(start) > HEADER:
        raise InvalidDataError(f"Expected ids and titles of at most {HEADER:,} bytes, got more; save without titles.")
    write_bytes(file, b"".join([len(start).to_bytes(8, "little"), start, *(_raw(plain[name]) for name in names)]))


def write_bytes(file: File, content: bytes) -> None:
    """Write to a path, atomically, or to an open binary file. Raises InvalidTypeError, OutputError."""
    check_file(file, "write")
    if isinstance(file, (str, Path)):
        write_whole(Path(file), content)
    else:
        file.write(content)


def check_file(file: File, verb: str) -> None:
    """Refuse what is neither a path nor has a method `verb` ("read", "write")."""
    if not isinstance(file, (str, Path)) and not hasattr(file, verb):
        raise InvalidTypeError(f"Expected a path or an open binary file, got {type(file).__name__}.")


def read_model(file: File) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_model` wrote. -> (tensors, description)

    What the header claims is held against the size of the file before anything else is read. Raises DataNotFoundError
    where there is no file, InvalidDataError for one that is damaged, foreign or of a newer format, or that holds
    numbers that are not finite, NotEnoughMemoryError for one that memory does not hold.
    """
    check_file(file, "read")
    name = str(file) if isinstance(file, (str, Path)) else str(getattr(file, "name", "the open file"))
    try:
        if isinstance(file, (str, Path)):
            with Path(file).open("rb") as stream:
                tensors, metadata = _content(stream, name, os.fstat(stream.fileno()).st_size)
        else:
            tensors, metadata = _content(file, name)
    except OSError as error:
        raise DataNotFoundError(f"Expected a model file at {name}, got: {error.strerror or error}.") from error
    try:
        description = json.loads(metadata["recvae"], parse_constant=_refuse_constant)
        if not isinstance(description, dict):
            raise ValueError("its description is none")
        whole = metadata["sha256"] == _checksum(tensors, metadata["recvae"])
    except (ValueError, RecursionError) as error:
        raise _foreign(name, error) from error
    known = description.get("format")
    if type(known) is not int or known != FORMAT:
        raise InvalidDataError(
            f"Expected a model file of format {FORMAT}, got {shown(known)} in {name}; load it with recvae "
            f"{shown(description.get('version', 'of its time')).strip(chr(39))}."
        )
    if not whole:
        raise InvalidDataError(f"The model file {name} is damaged: its content does not fit its checksum.")
    for entry, tensor in tensors.items():
        check_numbers(tensor, entry)
    return tensors, description


def content_checksum(content: bytes) -> str:
    """The checksum inside of what `write_model` wrote: the same for the same model and version of recvae."""
    checksum: str = _header(io.BytesIO(content), "the open file")["__metadata__"]["sha256"]
    return checksum


def check_numbers(tensor: Tensor, name: str) -> None:
    """Refuse a tensor of a type that model files do not have, or with numbers that are not finite: InvalidDataError."""
    if tensor.dtype not in NAMES:
        raise InvalidDataError(f"Expected {name} of one of the types {', '.join(DTYPES)}, got {_kind(tensor)}.")
    if not all_finite(tensor):
        raise InvalidDataError(f"Expected finite numbers as {name}, got NaN or an infinity in {_kind(tensor)}.")


def check_fitted(tensor: Tensor, remedy: str) -> None:
    """Refuse what a fit came to where that is not finite: it would give no lists. Raises TrainingError."""
    if not all_finite(tensor):
        raise TrainingError(f"Expected finite numbers from the fit, got NaN or an infinity; {remedy}.")


def all_finite(tensor: Tensor, largest: float = math.inf) -> bool:
    """Whether all numbers are finite, and smaller than `largest` in size: in one pass, without a copy."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = (bound.item() for bound in tensor.detach().aminmax())  # NaN if one is
    return -largest < low and high < largest


def taken(tensors: Mapping[str, Tensor], name: str, shape: tuple[int | None, ...]) -> Tensor:
    """The tensor of a file by its name: of float32, and of that shape, None for any size. Raises InvalidDataError."""
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != torch.float32 or not _fits(tensor, shape):
        raise InvalidDataError(f"Expected {name} of float32 and shape {shape}, got {_kind(tensor)}.")
    return tensor


def fill(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network without memory of its own, on the meta device, the tensors of a file for weights.

    Raises InvalidDataError, before anything is allocated, where names, shapes or types differ.
    """
    wanted = network.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        here, there = tensors.get(name), wanted.get(name)
        if here is None or there is None or here.shape != there.shape or here.dtype != there.dtype:
            raise InvalidDataError(f"Expected {_kind(there)} as {name}, got {_kind(here)}.")
    network.load_state_dict(tensors, assign=True)


def csr_tensors(matrix: sparse.csr_matrix) -> dict[str, Tensor]:
    """A sparse matrix as tensors of a file."""
    return {name: torch.from_numpy(getattr(matrix, name)) for name in ("data", "indices", "indptr")}


def csr_from(tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> sparse.csr_matrix:
    """The inverse of `csr_tensors`. Raises InvalidDataError where indices point outside of the matrix."""
    data = taken(tensors, "data", (None,))
    indices, indptr = (tensors.get(name) for name in ("indices", "indptr"))
    for index in (indices, indptr):
        if index is None or index.dtype not in (torch.int32, torch.int64) or index.dim() != 1:
            raise InvalidDataError(f"Expected integers as indices of a sparse matrix, got {_kind(index)}.")
    assert indices is not None and indptr is not None
    arrays = data.numpy(), indices.numpy(), indptr.numpy()
    check_arrays(*arrays, shape, "the sparse matrix")
    return sparse.csr_matrix(arrays, shape=shape)


def scalar(tensors: Mapping[str, Tensor], name: str) -> float:
    """The number of a file by its name: a tensor of float64 without dimensions. Raises InvalidDataError."""
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != torch.float64 or tensor.dim():
        raise InvalidDataError(f"Expected {name} as one number of float64, got {_kind(tensor)}.")
    return float(tensor)


def _content(stream: BinaryIO, name: str, size: int | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, and the header's text entries.

    size : of the file in bytes, where that is known. A stream of any size is read no further than its header says
    """
    header = _header(stream, name)
    try:
        entries = _entries(header)
        total = sum(entry.size for entry in entries)
        if size is not None and size != stream.tell() + total:
            raise ValueError(f"it has {size:,} bytes, where its header names {stream.tell() + total:,}")
    except (ValueError, KeyError, TypeError) as error:
        raise _foreign(name, error) from error
    require(total, f"the model file {name}", "a machine with more memory")
    try:
        tensors = {entry.name: _tensor(stream, entry) for entry in entries}
        if stream.read(1):
            raise ValueError("it holds more than its header names")
    except (ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise _foreign(name, error) from error
    return tensors, header["__metadata__"]


def _header(stream: BinaryIO, name: str) -> dict[str, Any]:
    """The header: eight bytes of length, then JSON, as safetensors defines it.

    Nothing else is read where the header is not ours: another file may be of any size.
    """
    start = stream.read(8)
    try:
        size = int.from_bytes(start, "little")
        if len(start) != 8 or size > HEADER:
            raise ValueError("its header is too long, or cut")
        header: dict[str, Any] = json.loads(stream.read(size), parse_constant=_refuse_constant)
        if not all(isinstance(header["__metadata__"][entry], str) for entry in ("recvae", "sha256")):
            raise TypeError("its entries are no text")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _foreign(name, error) from error
    return header


def _entries(header: dict[str, Any]) -> list[_Entry]:
    """The tensors that a header names, in the order of their bytes. Raises ValueError for gaps and overlaps, and more.

    Sizes are Python's integers: what a header claims cannot wrap.
    """
    named = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
    found, end = [], 0
    for name, entry in sorted(named, key=lambda pair: list(pair[1]["data_offsets"])):
        dtype, shape = DTYPES.get(entry["dtype"]), entry["shape"]
        if dtype is None:
            raise ValueError(f"{shown(name)} is of type {shown(entry['dtype'])}, which model files do not have")
        if (
            not isinstance(shape, list)
            or len(shape) > DIMS
            or not all(type(n) is int and 0 <= n < 2**63 for n in shape)
        ):
            raise ValueError(f"{shown(name)} is of shape {shown(shape)}")
        size = math.prod(shape) * dtype.itemsize
        if entry["data_offsets"] != [end, end + size]:
            raise ValueError(f"the bytes of {shown(name)} do not follow those before, or are not as many as it needs")
        found.append(_Entry(name, dtype, tuple(shape), size))
        end += size
    return found


def _tensor(stream: BinaryIO, entry: _Entry) -> Tensor:
    """The next tensor of a file, in memory that is taken as its bytes arrive."""
    content = bytearray()
    while len(content) < entry.size:
        part = stream.read(min(CHUNK, entry.size - len(content)))
        if not part:
            raise ValueError(f"it ends within {shown(entry.name)}")
        content += part
    if not content:
        return torch.empty(entry.shape, dtype=entry.dtype)
    if entry.dtype == torch.bool and torch.frombuffer(content, dtype=torch.uint8).max() > 1:
        raise ValueError(f"{shown(entry.name)} has bytes that are neither true nor false")
    return torch.frombuffer(content, dtype=entry.dtype).reshape(entry.shape)


def _foreign(name: str, error: Exception) -> InvalidDataError:
    return InvalidDataError(f"Expected a model file of recvae, got {name}, which is damaged or another: {error}.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it has {name} in its text, which is no number")


def _fits(tensor: Tensor, shape: tuple[int | None, ...]) -> bool:
    return tensor.dim() == len(shape) and all(n in (None, m) for n, m in zip(shape, tensor.shape, strict=True))


def _kind(tensor: Tensor | None) -> str:
    """What a tensor is, in words."""
    return "nothing" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _raw(tensor: Tensor) -> Any:
    """The bytes of a contiguous tensor on the host, not copied."""
    return tensor.reshape(-1).view(torch.uint8).numpy()


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_raw(tensor))
    return digest.hexdigest()
