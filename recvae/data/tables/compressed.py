"""Unpack compressed files in memory, recognised by their first bytes, within bounds on their unpacked size."""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, cast

import psutil
import pyarrow as pa

from recvae.errors import InvalidDataError, NotEnoughMemoryError, shown

# extensions that are removed before the kind of a file is looked up
COMPRESSIONS = (".gz", ".bz2", ".zst", ".xz", ".zip")
RATIO = 100  # largest compression ratio that is accepted: text of events has 3 to 10
SMALL = 16 << 20  # unpacked bytes that are accepted at any compression ratio
CHUNK = 1 << 20
ENCRYPTED = 1  # bit of ZipInfo.flag_bits

MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    "zip": re.compile(rb"PK(?:\x03\x04|\x05\x06)"),
}
DAMAGED = (zipfile.BadZipFile, lzma.LZMAError, zlib.error, struct.error, EOFError, RuntimeError, OSError)


def unpacked(path: Path) -> bytes | None:
    """Content of a compressed file (gzip, bzip2, Zstandard, xz, or a zip of one file); None if it is not compressed.

    Raises
    ------
    InvalidDataError
        For damaged or encrypted files, a zip of several files, and more than `RATIO` times the bytes of the file.
    NotEnoughMemoryError
        If the content would not fit into memory.
    """
    with path.open("rb") as file:
        first = file.read(16)
    kind = next((kind for kind, magic in MAGIC.items() if magic.match(first)), None)
    if kind is None:
        return None
    try:
        if kind == "zip":
            return _from_zip(path)
        with _stream(path, kind) as stream:
            return _bounded(stream, path, 0)
    except InvalidDataError:  # it is a ValueError, too
        raise
    except DAMAGED as error:
        raise InvalidDataError(
            f"The file {path} cannot be read: expected a whole file compressed by {kind}, got: {error}."
        ) from error


def _stream(path: Path, kind: str) -> IO[bytes]:
    if kind == "xz":
        return cast(IO[bytes], lzma.open(path))
    stream: Any = pa.input_stream(str(path), compression=kind)
    return cast(IO[bytes], stream)


def _from_zip(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.filename.endswith("/")]
        members = [member for member in members if not member.filename.startswith("__MACOSX/")]
        if len(members) != 1:
            names = ", ".join(shown(member.filename) for member in members[:5])
            raise InvalidDataError(
                f"Expected one file in {path}, got {len(members):,}{': ' if names else ''}{names}"
                f"{', ...' if len(members) > 5 else ''}; unpack it, and name the file of events."
            )
        if members[0].flag_bits & ENCRYPTED:
            raise InvalidDataError(
                f"Expected an archive that anyone can read, got {path}, which is encrypted; unpack it yourself."
            )
        with archive.open(members[0]) as stream:
            return _bounded(stream, path, members[0].file_size)


def _bounded(stream: IO[bytes], path: Path, announced: int) -> bytes:
    """Read a stream to its end, unless it is too large for its file or for memory."""
    packed = path.stat().st_size
    limit, free = max(RATIO * packed, SMALL), psutil.virtual_memory().available
    chunks: list[bytes] = []
    size = 0
    while True:
        if max(size, announced) > limit:
            raise InvalidDataError(
                f"Expected {path} to be at most {RATIO} times its {packed:,} bytes when it is unpacked, got more; "
                f"unpack it yourself where it is to be trusted."
            )
        if max(size, announced) > free // 2:
            raise NotEnoughMemoryError(
                f"Expected {path}, unpacked, to fit into half of the {free / 2**30:.1f} GiB of memory that are free, "
                f"got more; unpack it yourself."
            )
        chunk = stream.read(CHUNK)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
