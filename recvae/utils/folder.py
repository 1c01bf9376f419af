"""A resumable folder: a manifest of its files and of the settings that produce them, and a lock against other runs."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from recvae.errors import InvalidDataError, InvalidParameterError, OutputError
from recvae.utils.files import check_writable, make_folder, write_whole, writing
from recvae.utils.optional import require
from recvae.utils.signals import undisturbed

# readers of Parquet folders ignore names that begin with _ or .
MANIFEST = "_manifest.json"
SCRATCH = ".recvae-scratch"  # exists only while a run writes to the folder
FORMAT = 1
LARGEST_MANIFEST = 1 << 30  # bytes


@dataclass(frozen=True, kw_only=True)
class Written:
    """The record of a file in the folder: its name, size and checksum."""

    file: str
    bytes: int
    sha256: str

    def check(self) -> None:
        """Raise ValueError for values that no run writes, such as the name of a file outside the folder."""
        name = self.file
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError(f"expected the name of a file in the folder, got {name!r:.80}")
        check_integer("bytes", self.bytes)
        if not isinstance(self.sha256, str) or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"expected a SHA-256, got {self.sha256!r:.80}")

    def has_size(self, folder: Path) -> bool:
        """Whether the file exists and has the size that was written."""
        try:
            return (folder / self.file).stat().st_size == self.bytes
        except OSError:
            return False

    def is_whole(self, folder: Path) -> bool:
        """Whether the file exists and its content is what was written."""
        try:
            return self.has_size(folder) and digest_of(folder / self.file) == self.sha256
        except OSError:
            return False


W = TypeVar("W", bound=Written)


@dataclass(frozen=True)
class Manifest(Generic[W]):
    """What a run with `settings` writes to a folder, and which parts of it exist.

    Attributes
    ----------
    kind : str
        The kind of parts, such as "lists".
    facts : dict[str, Any]
        Further facts about the content, such as the position of a checkpoint.

    Notes
    -----
    It contains no time and no path: the same settings give the same file. The file has a checksum of its content.
    """

    kind: str
    settings: dict[str, Any]
    parts: list[W] = field(default_factory=list)
    done: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the manifest, atomically. Raises OutputError."""
        content = asdict(self) | {"format": FORMAT}
        content["sha256"] = _checksum(content)
        write_whole(folder / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())

    def with_part(self, number: int, part: W) -> Manifest[W]:
        """A copy of the manifest with part `number` replaced, or appended."""
        return replace(self, parts=[*self.parts[:number], part, *self.parts[number + 1 :]])


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def load_manifest(folder: Path, kind: str, part: type[W]) -> Manifest[W] | None:
    """The manifest of a folder with parts of this kind; None if it has no manifest.

    All of it is checked: types, ranges, names of files, and the checksum, which older manifests do not have.

    Raises
    ------
    InvalidDataError
    """
    with sound_manifest(folder):
        try:
            if (folder / MANIFEST).stat().st_size > LARGEST_MANIFEST:
                raise ValueError(f"it has more than {LARGEST_MANIFEST:,} bytes")
            content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"), parse_constant=_constant)
        except FileNotFoundError:
            return None
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, got {type(content).__name__}")
        version = content["format"]
        if type(version) is not int or version != FORMAT:
            raise ValueError(f"it is of format {version!r:.80}, and {FORMAT} is known")
        checksum = content.pop("sha256", None)
        for name, expected in (("kind", str), ("settings", dict), ("parts", list), ("done", bool), ("facts", dict)):
            if type(content[name]) is not expected:
                raise ValueError(f"expected {name} to be of type {expected.__name__}, got {content[name]!r:.80}")
        if content["kind"] == kind:
            if checksum is not None and checksum != _checksum(content):
                raise ValueError("it does not fit its checksum")
            del content["format"]
            content["parts"] = [part(**fields) for fields in content["parts"]]
            for listed in content["parts"]:
                listed.check()
            if len({listed.file for listed in content["parts"]}) < len(content["parts"]):
                raise ValueError("it lists a file twice")
            return Manifest(**content)
    raise InvalidDataError(
        f"Expected a folder of {kind}, got {folder}, which holds {ascii(content['kind'])[1:-1]:.80}; take another."
    )


def check_integer(name: str, value: Any, low: int = 0, high: int = 2**63 - 1) -> None:
    """Raise ValueError unless `value` is an integer from `low` to `high`."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"expected {name} to be an integer from {low} to {high}, got {value!r:.80}")


def check_number(name: str, value: Any, low: float = -math.inf) -> None:
    """Raise ValueError unless `value` is a finite number of at least `low`."""
    if type(value) not in (int, float) or not math.isfinite(value) or value < low:
        raise ValueError(f"expected {name} to be a finite number, got {value!r:.80}")


def _checksum(content: dict[str, Any]) -> str:
    """The SHA-256 of the content of a manifest."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _constant(name: str) -> float:
    """Parse -Infinity in JSON, the best metric before any validation. Raises ValueError for NaN and Infinity."""
    if name != "-Infinity":
        raise ValueError(f"expected numbers, got {name}")
    return -math.inf


@contextmanager
def sound_manifest(folder: Path) -> Iterator[None]:
    """In the `with` block, turn an error in the manifest into an InvalidDataError."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else ascii(str(error))[1:-1]
        raise InvalidDataError(
            f"The file {folder / MANIFEST} is damaged ({reason:.200}): delete the folder to begin again."
        ) from error


def read_manifest(folder: Path, kind: str, part: type[W], settings: dict[str, Any]) -> Manifest[W]:
    """The manifest of a run with `settings`; a new one for an empty folder.

    Raises
    ------
    InvalidParameterError
        If the folder was started with other settings.
    InvalidDataError
        For a damaged one.
    """
    manifest = load_manifest(folder, kind, part)
    if manifest is None:
        return Manifest(kind, settings)
    for name, value in settings.items():
        before = manifest.settings.get(name)
        if before != value:
            shown = f"{value!s:.200} instead of {before!s:.200}".encode("ascii", "backslashreplace").decode()
            change = "other files or changed ones" if name == "input" else " ".join(shown.split())
            raise InvalidParameterError(
                f"Expected the {name} with which {folder} was begun, got {change}; take another folder, or delete that "
                f"one."
            )
    return manifest


@contextmanager
def claimed(folder: Path, files: Sequence[str]) -> Iterator[Path]:
    """Lock `folder`, created if it is missing, for one run; remove the temporary files of a killed run.

    Parameters
    ----------
    files : Sequence[str]
        Patterns of the names of the files that the run writes there.

    Yields
    ------
    Path
        Folder for scratch files.

    Raises
    ------
    OutputError
        If the folder holds something else, which is then left unchanged.

    Notes
    -----
    The scratch folder is removed at the end, as is a new `folder` that has stayed empty.
    """
    library = require("filelock", extra="large", purpose="Writing a folder in parts")
    scratch = folder / SCRATCH
    resolved(folder)
    with writing(folder):
        _check_ours(folder)
        new = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    try:
        with _locked(library, folder, scratch):
            with writing(folder):
                leftovers = [path for name in (*files, MANIFEST) for path in folder.glob(f".{name}-*")]
                leftovers += [path for path in scratch.iterdir() if path.name != "lock"]
            for path in leftovers:
                shutil.rmtree(path, ignore_errors=True)
            yield scratch
    finally:
        with undisturbed:
            for path in new:
                with suppress(OSError):  # it is not empty
                    path.rmdir()


def resolved(folder: Path) -> Path:
    """The folder with links resolved. Raises OutputError for a loop of links, and for an invalid path."""
    try:
        return folder.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"Expected a folder that can be written, got {str(folder)!r}: {error}.") from error


@contextmanager
def _locked(library: Any, folder: Path, scratch: Path) -> Iterator[None]:
    """Hold the lock in the scratch folder; both exist only during the `with` block."""
    acquired = False
    try:
        make_folder(scratch)
        check_writable(scratch / "lock")
        with undisturbed:
            lock = library.FileLock(scratch / "lock")  # released when the process ends
            try:
                lock.acquire(timeout=0)
            except library.Timeout:
                raise OutputError(f"Expected {folder} for this run alone, but another one is writing to it.") from None
            except (OSError, NotImplementedError) as error:
                raise OutputError(f"Expected a folder on a disk that has locks, got {folder}: {error}.") from error
            acquired = True
        yield
    finally:
        with undisturbed:
            if acquired:
                shutil.rmtree(scratch, ignore_errors=True)
                lock.release()
            else:  # remove only what was created here
                with suppress(OSError):
                    scratch.rmdir()


def _check_ours(folder: Path) -> None:
    """Raise OutputError for a folder that is neither empty nor from an earlier run, and for links in it."""
    for path in (folder / SCRATCH / "lock", *(folder.iterdir() if folder.is_dir() else ())):
        if path.is_symlink():
            raise OutputError(
                f"Expected a folder with files of its own, got {path}, which is a link to something else; delete the "
                f"link, or take another folder."
            )
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"Expected a folder for the parts, got {folder}, which is a file.")
    if not folder.is_dir() or (folder / MANIFEST).exists():
        return
    # a run that was killed at its start may have left the scratch folder or a temporary manifest
    others = sorted(
        path.name for path in folder.iterdir() if path.name != SCRATCH and not path.name.startswith(f".{MANIFEST}-")
    )
    if others:
        raise OutputError(
            f"Expected an empty folder for the parts, or one that was begun before, got {folder} with {others[0]} in "
            f"it; take another."
        )
