"""Checks of input and output paths, and that no output overwrites an input."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recvae.errors import (
    DataNotFoundError,
    InvalidDataError,
    InvalidParameterError,
    InvalidTypeError,
    OutputError,
    RecvaeError,
)

PathLike = str | os.PathLike[str]


def as_path(path: Any) -> Path:
    """A path with `~` expanded; it need not exist.

    Raises
    ------
    InvalidTypeError
        If it is not a path.
    InvalidParameterError
        If it is empty or contains a NUL.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(text := os.fspath(path), str):
        raise InvalidTypeError(f"Expected a path as text or a pathlib.Path, got {type(path).__name__}.")
    if not text or "\0" in text:
        raise InvalidParameterError(f"Expected the path of a file or a folder, got {text!r}.")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise InvalidParameterError(f"Expected a path that the file system can hold, got {text!r}.") from None
    expanded = os.path.expanduser(text)  # noqa: PTH111 (pathlib drops the ./ of ./~name, which is no home)
    if text.startswith("~") and expanded == text:
        raise InvalidParameterError(f"Expected the home of a user of this machine, got {text!r}; write ./ before it.")
    result = Path(expanded)
    # as_path of the result has to be the result itself
    return Path.cwd() / result if str(result).startswith("~") else result


def input_path(path: Any) -> Path:
    """Check an input path. Raises as `as_path`, and DataNotFoundError for a loop of links or too long a name."""
    return _usable(as_path(path), DataNotFoundError)


def output_path(path: Any) -> Path:
    """Check an output path. Raises as `as_path`, and OutputError for a loop of links or too long a name."""
    return _usable(as_path(path), OutputError)


def real_path(path: Path) -> Path:
    """The path with links and dots resolved, as far as it exists; a loop of links stays as it is."""
    return Path(os.path.realpath(path))


def check_below(folder: Path, name: str, what: str) -> Path:
    """The path of `name` in `folder`. Raises InvalidDataError if it leads out of the folder, by dots or by links."""
    path = folder / name
    if not is_below(name) or not real_path(path).is_relative_to(real_path(folder)):
        raise InvalidDataError(f"Expected {what} to be within {folder}, got {name!r}, which leads out of it.")
    return path


def is_name(name: str) -> bool:
    """Whether this is a plain file name, not a path that leads out of the folder."""
    return is_below(name) and len(Path(name).parts) == 1 and "\\" not in name and name == Path(name).name


def is_below(name: str) -> bool:
    """Whether a name, taken by itself, stays within a folder: relative, not empty, without `..`."""
    parts = Path(name).parts
    return bool(parts) and not Path(name).is_absolute() and ".." not in parts and "\0" not in name


def check_apart(outputs: Mapping[str, Path], inputs: Iterable[Path]) -> None:
    """Refuse an output that is an input, lies within one or contains one; symbolic and hard links are resolved.

    Parameters
    ----------
    outputs : Mapping[str, Path]
        Files and folders that are written, by the name of the argument.
    inputs : Iterable[Path]
        Files and folders that are read.

    Raises
    ------
    InvalidParameterError
        The message names both paths.
    """
    read = list(inputs)
    for name, output in outputs.items():
        for source in read:
            relation = relation_of(output, source)
            if relation:
                raise InvalidParameterError(
                    f"Expected {name} to be another file than those that are read, and outside of their folders, got "
                    f"{output}, which {relation} {source}."
                )


def relation_of(output: Path, source: Path) -> str:
    """How an output relates to another path, in words; an empty string if they are separate."""
    output, source = real_path(output), real_path(source)
    if output == source or _same(output, source):
        return "is"
    if _linked_within(output, source):
        return "is a file of"
    if any(above == source or _same(above, source) for above in output.parents):
        return "lies within"
    if any(above == output or _same(above, output) for above in source.parents):
        return "holds"
    return ""


def _linked_within(output: Path, source: Path) -> bool:
    """Whether an output is a hard link to one of the files of an input folder."""
    try:
        if not (output.is_file() and output.stat().st_nlink > 1 and source.is_dir()):
            return False
        return any(_same(output, path) for path in source.rglob("*"))
    except OSError:
        return False


def _same(one: Path, other: Path) -> bool:
    """Whether both exist and are the same file or folder, as on a disk that ignores case."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def _usable(path: Path, error: type[RecvaeError]) -> Path:
    try:
        path.stat()
    except OSError as reason:
        if reason.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            raise error(f"Expected the path of a file or a folder, got {path}: {reason.strerror}.") from reason
    return path
