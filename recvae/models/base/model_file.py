"""Model files: tensors and a JSON description in one safetensors file. Nothing in it is ever executed."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from scipy import sparse
from torch import Tensor, nn

from recvae.data.validation import check_arrays
from recvae.errors import DataNotFoundError, InvalidDataError, InvalidTypeError, OutputError, shown
from recvae.utils.files import write_whole
from recvae.utils.finite import all_finite
from recvae.utils.memory import require_memory
from recvae.utils.paths import input_path, output_path
from recvae.utils.tensor_file import (
    DTYPES,
    NAMES,
    packed,
    raw_bytes,
    read_header,
    read_tensors,
    refuse_constant,
    tensor_entries,
)

FORMAT = 1
HEADER = 100_000_000  # bytes of text in a safetensors file, at most
File = str | os.PathLike[str] | BinaryIO


def write_model(file: File, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """Write to a path, whole, or to an open binary file: the same bytes for the same model, in any process.

    Raises
    ------
    OutputError
    InvalidDataError
        For too much text, for numbers that are not finite and for types of tensors that would not be read again.
    """
    check_file(file, "write")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, tensor in plain.items():
        check_numbers(tensor, name)
    text = json.dumps(description | {"format": FORMAT}, default=lambda number: number.item())  # numpy's numbers
    header, body = packed(plain, {"recvae": text, "sha256": _checksum(plain, text)})
    if len(header) > HEADER:
        raise InvalidDataError(f"Expected ids and titles of at most {HEADER:,} bytes, got more; save without titles.")
    write_bytes(file, b"".join([header, *body]))


def write_bytes(file: File, content: bytes) -> None:
    """Write to a path, atomically, or to an open binary file. Raises InvalidTypeError, OutputError."""
    target = check_file(file, "write")
    if isinstance(target, Path):
        write_whole(target, content)
        return
    try:
        written = target.write(content)
        while isinstance(written, int) and written < len(content):  # a file without a buffer may take less than all
            more = target.write(memoryview(content)[written:])
            if not more:
                raise OSError(0, f"it took {written:,} of {len(content):,} bytes")
            written += more
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"Expected an open binary file that can be written, got {_called(target)}: {reason}."
        ) from error


def check_file(file: File, verb: str) -> Path | BinaryIO:
    """What a caller gave: a path, checked for that direction, or an open binary file. `verb` is "read" or "write".

    Raises
    ------
    InvalidTypeError
        For another thing, such as a file that was opened as text.
    RecvaeError
        As `recvae.utils.paths` does.
    """
    if isinstance(file, (str, os.PathLike)):
        return input_path(file) if verb == "read" else output_path(file)
    if not hasattr(file, verb):
        raise InvalidTypeError(f"Expected a path or an open binary file, got {type(file).__name__}.")
    if hasattr(file, "encoding"):
        raise InvalidTypeError(f"Expected a file opened as binary, got {_called(file)}, which is open as text.")
    return file


def _called(file: BinaryIO) -> str:
    """What to call an open file."""
    return str(getattr(file, "name", "the open file"))


def read_model(file: File) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_model` wrote.

    What the header claims is held against the size of the file before anything else is read.

    Returns
    -------
    tuple[dict[str, Tensor], dict[str, Any]]
        (tensors, description).

    Raises
    ------
    DataNotFoundError
        Where there is no file.
    InvalidDataError
        For one that is damaged, foreign or of a newer format, or that holds numbers that are not finite.
    NotEnoughMemoryError
        For one that memory does not hold.
    """
    file = check_file(file, "read")
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
        description = json.loads(metadata["recvae"], parse_constant=refuse_constant)
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


def taken(tensors: Mapping[str, Tensor], name: str, shape: tuple[int | None, ...]) -> Tensor:
    """The tensor of a file by its name: of float32, and of that shape, None for any size. Raises InvalidDataError."""
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != torch.float32 or not _fits(tensor, shape):
        raise InvalidDataError(f"Expected {name} of float32 and shape {shape}, got {_kind(tensor)}.")
    return tensor


def fill(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network without memory of its own, on the meta device, the tensors of a file for weights.

    Raises
    ------
    InvalidDataError
        Before anything is allocated, where names, shapes or types differ.
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
    indices, indptr = (tensors.get(name, torch.empty(0)) for name in ("indices", "indptr"))
    arrays = data.numpy(), indices.numpy(), indptr.numpy()
    check_arrays(*arrays, shape, "the sparse matrix of the file")
    return sparse.csr_matrix(arrays, shape=shape)


def scalar(tensors: Mapping[str, Tensor], name: str) -> float:
    """The number of a file by its name: a tensor of float64 without dimensions. Raises InvalidDataError."""
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != torch.float64 or tensor.dim():
        raise InvalidDataError(f"Expected {name} as one number of float64, got {_kind(tensor)}.")
    return float(tensor)


def _content(stream: BinaryIO, name: str, size: int | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file and the header's text entries; nothing is read after a header that is not ours."""
    header = _header(stream, name)
    try:
        entries = tensor_entries(header)
        total = sum(entry.size for entry in entries)
        if size is not None and size != stream.tell() + total:
            raise ValueError(f"it has {size:,} bytes, where its header names {stream.tell() + total:,}")
    except (ValueError, KeyError, TypeError) as error:
        raise _foreign(name, error) from error
    require_memory(total, f"the model file {name}", "a machine with more memory")
    try:
        return read_tensors(stream, entries), header["__metadata__"]
    except (ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise _foreign(name, error) from error


def _header(stream: BinaryIO, name: str) -> dict[str, Any]:
    try:
        header = read_header(stream, HEADER)
        if not all(isinstance(header["__metadata__"][entry], str) for entry in ("recvae", "sha256")):
            raise TypeError("its entries are no text")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _foreign(name, error) from error
    return header


def _foreign(name: str, error: Exception) -> InvalidDataError:
    return InvalidDataError(f"Expected a model file of recvae, got {name}, which is damaged or another: {error}.")


def _fits(tensor: Tensor, shape: tuple[int | None, ...]) -> bool:
    return tensor.dim() == len(shape) and all(n in (None, m) for n, m in zip(shape, tensor.shape, strict=True))


def _kind(tensor: Tensor | None) -> str:
    """What a tensor is, in words."""
    return "nothing" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()
