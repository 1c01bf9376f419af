"""Model files: tensors and a JSON description in one safetensors file. Nothing in it is ever executed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from scipy import sparse
from torch import Tensor, nn

from recvae.errors import DataNotFoundError, InvalidDataError, InvalidTypeError
from recvae.files import write_whole
from recvae.validation import check_arrays

FORMAT = 1
HEADER = 100_000_000  # bytes of text in a safetensors file, at most

File = str | Path | BinaryIO


def write_model(file: File, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """Write to a path, whole, or to an open binary file. Raises OutputError; InvalidDataError for too much text."""
    check_file(file, "write")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(description | {"format": FORMAT}, default=lambda number: number.item())  # numpy's numbers
    content = safetensors.torch.save(plain, {"recvae": text, "sha256": _checksum(plain, text)})
    if int.from_bytes(content[:8], "little") > HEADER:
        raise InvalidDataError(f"Expected ids and titles of at most {HEADER:,} bytes, got more; save without titles.")
    write_bytes(file, content)


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

    Raises DataNotFoundError where there is no file, InvalidDataError for one that is damaged, foreign or of a newer
    format.
    """
    check_file(file, "read")
    name = str(file) if isinstance(file, (str, Path)) else getattr(file, "name", "the open file")
    try:
        if isinstance(file, (str, Path)):
            with Path(file).open("rb") as stream:
                content, metadata = _content(stream, name)
        else:
            content, metadata = _content(file, name)
    except OSError as error:
        raise DataNotFoundError(f"Expected a model file at {name}, got: {error.strerror}.") from error
    try:
        tensors = safetensors.torch.load(content)
        description = json.loads(metadata["recvae"])
        if not isinstance(description, dict):
            raise ValueError("its description is none")
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError, AssertionError) as error:
        raise InvalidDataError(
            f"Expected a model file of recvae, got {name}, which is damaged or another: {error}."
        ) from error
    if description.get("format") != FORMAT:
        raise InvalidDataError(
            f"Expected a model file of format {FORMAT}, got {description.get('format')} in {name}; load it with recvae "
            f"{description.get('version', 'of its time')}."
        )
    if metadata.get("sha256") != _checksum(tensors, metadata["recvae"]):
        raise InvalidDataError(f"The model file {name} is damaged: its content does not fit its checksum.")
    return tensors, description


def content_checksum(content: bytes) -> str:
    """The checksum inside of what `write_model` wrote: the same for the same model and version of recvae."""
    return _content(io.BytesIO(content), "the open file")[1]["sha256"]


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
    data, indices, indptr = (
        taken(tensors, "data", (None,)).numpy(),
        tensors["indices"].numpy(),
        tensors["indptr"].numpy(),
    )
    check_arrays(data, indices, indptr, shape, "the sparse matrix of the file")
    return sparse.csr_matrix((data, indices, indptr), shape=shape)


def _content(stream: BinaryIO, name: str) -> tuple[bytes, dict[str, str]]:
    """All of a file, and the header's text entries: eight bytes of length, then JSON, as safetensors defines it.

    The rest is read only where the header is ours: another file may be of any size.
    """
    start = stream.read(8)
    try:
        size = int.from_bytes(start, "little")
        if size > HEADER:
            raise ValueError("its header is too long")
        start += stream.read(size)
        metadata: dict[str, str] = json.loads(start[8:])["__metadata__"]
        if not all(isinstance(metadata[entry], str) for entry in ("recvae", "sha256")):
            raise TypeError("its entries are no text")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidDataError(f"Expected a model file of recvae, got {name}, which is damaged or another.") from error
    return start + stream.read(), metadata


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
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
