"""Tensors in the format of safetensors: eight bytes of length, a header in JSON, then the bytes of each tensor.

The safetensors library writes metadata in an order that differs between processes, and reads a whole file before it
checks the header. Here equal tensors give equal bytes, and the header is checked before memory is allocated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, NoReturn

import torch
from torch import Tensor

from recvae.errors import shown

CHUNK = 16 << 20  # bytes that are read at a time
DIMS = 8  # of a tensor, at most
# names in safetensors of the dtypes in model files: those that numpy has, too
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


class Entry(NamedTuple):
    """A tensor as the header of a file describes it."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    size: int  # in bytes


def packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, list[Any]]:
    """Serialise contiguous tensors on the host, of `DTYPES`. -> the header, and the buffers that follow it"""
    header: dict[str, Any] = {"__metadata__": metadata}
    names, end = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)), 0  # widest first, for alignment
    for name in names:
        tensor, begin = tensors[name], end
        end += tensor.nbytes
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, [raw_bytes(tensors[name]) for name in names]


def read_header(stream: BinaryIO, longest: int) -> dict[str, Any]:
    """Read only the header of a file. Raises ValueError or RecursionError if it is invalid."""
    start = stream.read(8)
    size = int.from_bytes(start, "little")
    if len(start) != 8 or size > longest:
        raise ValueError("its header is too long, or cut")
    text = stream.read(size)
    header = json.loads(text, parse_constant=refuse_constant)
    if len(text) != size or not isinstance(header, dict):
        raise ValueError("its header is cut, or none")
    return header


def tensor_entries(header: dict[str, Any]) -> list[Entry]:
    """The tensors that a header lists, in the order of their bytes.

    Sizes are Python integers, which cannot overflow.

    Raises
    ------
    ValueError
        For gaps or overlaps, and for unknown dtypes or invalid shapes.
    """
    named = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
    entries, end = [], 0
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
        entries.append(Entry(name, dtype, tuple(shape), size))
        end += size
    return entries


def read_tensors(stream: BinaryIO, entries: Sequence[Entry]) -> dict[str, Tensor]:
    """The tensors after the header, which has been read. Raises ValueError if bytes are missing or left over."""
    tensors = {entry.name: _tensor(stream, entry) for entry in entries}
    if stream.read(1):
        raise ValueError("it holds more than its header names")
    return tensors


def _tensor(stream: BinaryIO, entry: Entry) -> Tensor:
    """Read the next tensor of a file; memory is allocated as its bytes arrive."""
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


def refuse_constant(name: str) -> NoReturn:
    """A `parse_constant` for json: raise ValueError for NaN and Infinity."""
    raise ValueError(f"it has {name} in its text, which is no number")


def raw_bytes(tensor: Tensor) -> Any:
    """A view of the bytes of a contiguous tensor on the host."""
    return tensor.reshape(-1).view(torch.uint8).numpy()
