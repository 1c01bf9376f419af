"""Files are whole or not there, written beside their place, then renamed; logs alone grow by lines."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recvae.errors import OutputError, RecvaeError


def check_writable(path: Path) -> None:
    """Make the folder of `path` and try it, now rather than after the work. Raises OutputError."""
    with writing(path):
        _folder(path)
        with tempfile.TemporaryDirectory(dir=path.resolve().parent):
            pass


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`; whoever reads it meets the old file or the new one, never a part.

    Raises OutputError, and leaves what was there.
    """
    with replacing(path) as part:
        part.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to be written in the `with` block, which takes the place of `path` at its end. Raises as `write_whole`."""
    with writing(path):
        place = _folder(path) / path.resolve().name  # a link stays a link
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as scratch:
            part = Path(scratch) / place.name
            yield part
            part.replace(place)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, for others to read at once; below a last line that was cut off. Raises OutputError."""
    with writing(path), path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            cut = file.read(1) != b"\n"
            line = "\n" * cut + line
        file.write(f"{line}\n".encode())


def _folder(path: Path) -> Path:
    folder = path.resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise OSError(0, "it is there and no file")
    return folder


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within the `with` block, what goes wrong with `path` is an OutputError."""
    try:
        yield
    except RecvaeError:  # some are kin of OSError
        raise
    except OSError as error:
        raise OutputError(f"Expected a file that can be written, got {path}: {error.strerror or error}.") from error
