"""Files are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recvae.errors import OutputError


def check_writable(path: Path) -> None:
    """Make the folder of `path` and try it, now rather than after the work. Raises OutputError."""
    with _said(path):
        _folder(path)
        with tempfile.TemporaryDirectory(dir=path.resolve().parent):
            pass


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`; whoever reads it meets the old file or the new one, never a part.

    Raises OutputError, and leaves what was there.
    """
    with _said(path):
        place = _folder(path) / path.resolve().name  # a link stays a link
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as scratch:
            part = Path(scratch) / place.name
            part.write_bytes(content)
            part.replace(place)


def _folder(path: Path) -> Path:
    folder = path.resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise OSError(0, "it is there and no file")
    return folder


@contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"Expected a file that can be written, got {path}: {error.strerror}.") from error
