"""Atomic writing: files are written next to their final path, then renamed; only logs are appended to."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recvae.errors import OutputError, RecvaeError
from recvae.utils.paths import output_path, real_path
from recvae.utils.signals import undisturbed

NAME_BYTES = 255  # longest file name on most file systems
TRIES = 20
ADDED_BYTES = 10  # added to a name for a temporary folder: a dot, a hyphen, eight random characters


def check_writable(path: Path) -> None:
    """Check that `path` can be written, before the work begins; leaves no file. Raises OutputError."""
    path = output_path(path)
    with writing(path), scratch_folder(_target(path).parent):
        pass


@contextmanager
def scratch_folder(folder: Path, prefix: str = ".recvae-") -> Iterator[Path]:
    """A temporary folder in `folder` for the `with` block. `folder` is created, and removed again if it stays empty.

    Raises
    ------
    OSError
    """
    created: list[Path] = []
    scratch: tempfile.TemporaryDirectory[str] | None = None
    try:
        with undisturbed:
            created, scratch = _make_scratch(folder, prefix)
        yield Path(scratch.name)
    finally:
        with undisturbed:
            if scratch is not None:
                scratch.cleanup()
            _remove_folders(created)


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents. Raises OutputError."""
    folder = output_path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically: readers see the old file or the new one, never a part.

    Raises
    ------
    OutputError
        The old file is then unchanged.
    """
    with replacing(path) as part:
        part.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, to be written in the `with` block, which replaces `path` at its end.

    The new file gets the mode of the old one and, where that is allowed, its owner.

    Raises
    ------
    RecvaeError
        As `write_whole`.
    """
    path = output_path(path)
    with writing(path):
        target = _target(path)  # a link stays a link
        with scratch_folder(target.parent, f".{_shortened(target.name)}-") as scratch:
            part = scratch / target.name
            yield part
            _keep_mode(target, part)
            part.replace(target)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, on a new line if its last one was cut off. Raises OutputError."""
    path = output_path(path)
    with writing(path):
        _make_folders(real_path(path).parent)
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                cut = file.read(1) != b"\n"
                line = "\n" * cut + line
            file.write(f"{line}\n".encode())


def _target(path: Path) -> Path:
    """The path of the file itself, behind links."""
    if path.exists() and not path.is_file():
        raise OSError(0, "it is there and no file")
    return real_path(path)


def _make_scratch(folder: Path, prefix: str) -> tuple[list[Path], tempfile.TemporaryDirectory[str]]:
    """Create a scratch folder. -> the parents that were created for it, innermost first; the scratch folder"""
    for left in reversed(range(TRIES)):
        created = _make_folders(folder)
        try:
            return created, tempfile.TemporaryDirectory(dir=folder, prefix=prefix)
        except OSError as error:
            _remove_folders(created)
            # another process, in `check_writable`, may just have removed the parent folder that it had created
            if not (isinstance(error, FileNotFoundError) and left):
                raise
    raise AssertionError("the last try has raised")


def _make_folders(folder: Path) -> list[Path]:
    """Create a folder and its parents. -> those that were missing, innermost first"""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(0, f"{folder} is no folder")
    try:
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
    except OSError:
        _remove_folders(missing)
        raise
    return missing


def _remove_folders(folders: list[Path]) -> None:
    """Remove the folders that are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _keep_mode(old: Path, new: Path) -> None:
    """Give a new file the mode of the old one, and its owner if this process may."""
    try:
        before = old.stat()
    except FileNotFoundError:
        return
    if hasattr(os, "chown"):
        with suppress(OSError):
            os.chown(new, before.st_uid, before.st_gid)
    new.chmod(stat.S_IMODE(before.st_mode))


def _shortened(name: str) -> str:
    """The beginning of a name, short enough for a temporary name that contains it."""
    return os.fsencode(name)[: NAME_BYTES - ADDED_BYTES].decode(errors="ignore")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """In the `with` block, turn an OSError into an OutputError about `path`."""
    try:
        yield
    except RecvaeError:  # some are subclasses of OSError
        raise
    except OSError as error:
        raise OutputError(f"Expected a file that can be written, got {path}: {error.strerror or error}.") from error
