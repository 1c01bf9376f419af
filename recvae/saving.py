"""Model files: tensors and a JSON description in one safetensors file. Nothing in it is ever executed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from scipy import sparse
from torch import Tensor

from recvae.errors import DataNotFoundError, InvalidDataError, InvalidTypeError
from recvae.files import write_whole
from recvae.rows import check_structure

FORMAT = 1

File = str | Path | BinaryIO


def write_model(file: File, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """Write to a path, atomically, or to an open binary file."""
    check_file(file, "write")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(description | {"format": FORMAT}, default=lambda number: number.item())  # numpy's numbers
    metadata = {"recvae": text, "sha256": _checksum(plain, text)}
    write_bytes(file, safetensors.torch.save(plain, metadata))


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
        content = Path(file).read_bytes() if isinstance(file, (str, Path)) else file.read()
    except OSError as error:
        raise DataNotFoundError(f"Expected a model file at {name}, got: {error.strerror}.") from error
    metadata = _metadata(content, name)
    try:
        tensors = safetensors.torch.load(content)
        description = json.loads(metadata["recvae"])
        if not isinstance(description, dict):
            raise ValueError("its description is none")
    except (safetensors.SafetensorError, KeyError, ValueError, RecursionError) as error:
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


def csr_tensors(matrix: sparse.csr_matrix) -> dict[str, Tensor]:
    """A sparse matrix as tensors of a file."""
    return {name: torch.from_numpy(getattr(matrix, name)) for name in ("data", "indices", "indptr")}


def csr_from(tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> sparse.csr_matrix:
    """The inverse of `csr_tensors`. Raises InvalidDataError where indices point outside of the matrix."""
    arrays = tuple(tensors[name].numpy() for name in ("data", "indices", "indptr"))
    matrix = sparse.csr_matrix(arrays, shape=shape)
    check_structure(matrix)
    return matrix


def _metadata(content: bytes, name: str) -> dict[str, str]:
    """The header's text entries: eight bytes of length, then JSON, as safetensors defines it."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata: dict[str, str] = header["__metadata__"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidDataError(f"Expected a model file of recvae, got {name}, which is damaged or another.") from error
    return metadata


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
