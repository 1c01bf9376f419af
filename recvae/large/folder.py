"""A folder of files: what is in it, by which settings it was made, and who may write to it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from recvae.errors import InvalidDataError, InvalidParameterError, MissingDependencyError, OutputError
from recvae.files import check_writable, make_folder, write_whole

# readers of folders pass over names that begin with _ or .
MANIFEST = "_manifest.json"
SCRATCH = ".recvae-scratch"  # for as long as a run lasts
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file of a folder, as it was written."""

    file: str
    bytes: int
    sha256: str

    def has_size(self, folder: Path) -> bool:
        """Whether the file is there in its size."""
        try:
            return (folder / self.file).stat().st_size == self.bytes
        except OSError:
            return False

    def is_whole(self, folder: Path) -> bool:
        """Whether the file is there as it was written, byte for byte."""
        try:
            return self.has_size(folder) and digest_of(folder / self.file) == self.sha256
        except OSError:
            return False


W = TypeVar("W", bound=Written)


@dataclass(frozen=True)
class Manifest(Generic[W]):
    """What the folder is to hold, from `settings`, and which parts of it are there.

    kind : what the parts are, such as "lists"
    facts : what else is known of the whole once it is done

    It tells no time and no place: the same settings make the same file.
    """

    kind: str
    settings: dict[str, Any]
    parts: list[W] = field(default_factory=list)
    done: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it, atomically. Raises OutputError."""
        write_whole(folder / MANIFEST, (json.dumps(asdict(self) | {"format": FORMAT}, indent=1) + "\n").encode())

    def with_part(self, number: int, part: W) -> Manifest[W]:
        """The same with a part in its place."""
        return replace(self, parts=[*self.parts[:number], part, *self.parts[number + 1 :]])


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def load_manifest(folder: Path, kind: str, part: type[W]) -> Manifest[W] | None:
    """What the folder of such parts holds; None where it has no manifest. Raises InvalidDataError."""
    with sound_manifest(folder):
        try:
            found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        if (version := found.pop("format")) != FORMAT:
            raise ValueError(f"it is of format {version}, and {FORMAT} is known")
        if found["kind"] == kind:
            found["parts"] = [part(**each) for each in found["parts"]]
            return Manifest(**found)
    raise InvalidDataError(f"Expected a folder of {kind}, got {folder}, which holds {found['kind']}; take another.")


@contextmanager
def sound_manifest(folder: Path) -> Iterator[None]:
    """Within the `with` block, what is not in the manifest as it should be is an InvalidDataError."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidDataError(
            f"The file {folder / MANIFEST} is damaged ({error}): delete the folder to begin again."
        ) from error


def read_manifest(folder: Path, kind: str, part: type[W], settings: dict[str, Any]) -> Manifest[W]:
    """What the folder holds of what `settings` make; a new one for an empty folder.

    Raises InvalidParameterError where it was made by other settings, InvalidDataError for a damaged one.
    """
    manifest = load_manifest(folder, kind, part)
    if manifest is None:
        return Manifest(kind, settings)
    for name, value in settings.items():
        before = manifest.settings.get(name)
        if before != value:
            change = "other files or changed ones" if name == "input" else f"{value} in the place of {before}"
            raise InvalidParameterError(
                f"Expected the {name} with which {folder} was begun, got {change}; take another folder, or delete that "
                f"one."
            )
    return manifest


@contextmanager
def claimed(folder: Path, files: Sequence[str]) -> Iterator[Path]:
    """Hold `folder`, made where it is not, for one run alone; clean what a killed run left. -> folder for scratch files

    files : patterns of the names of what the run writes there

    The scratch folder goes at the end, and a new `folder` too where nothing came of it. Raises OutputError for a folder
    that holds something else, of which nothing is touched.
    """
    _check_ours(folder)
    library, scratch, is_new = _filelock(), folder / SCRATCH, not folder.exists()
    make_folder(scratch)
    check_writable(scratch / "lock")
    lock = library.FileLock(scratch / "lock")  # it ends with the process
    try:
        lock.acquire(timeout=0)
    except library.Timeout:
        raise OutputError(f"Expected {folder} for this run alone, but another one is writing to it.") from None
    except (OSError, NotImplementedError) as error:
        raise OutputError(f"Expected a folder on a disk that has locks, got {folder}: {error}.") from error
    try:
        left = [path for name in (*files, MANIFEST) for path in folder.glob(f".{name}-*")]
        for path in [*left, *(path for path in scratch.iterdir() if path.name != "lock")]:
            shutil.rmtree(path, ignore_errors=True)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.release()
        if is_new:
            with suppress(OSError):  # there is something in it
                folder.rmdir()


def _check_ours(folder: Path) -> None:
    """Refuse a folder that is neither empty nor one that a run has begun."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"Expected a folder for the parts, got {folder}, which is a file.")
    if not folder.is_dir() or (folder / MANIFEST).exists():
        return
    # a run that was killed at its very beginning may have left these
    strange = sorted(
        path.name for path in folder.iterdir() if path.name != SCRATCH and not path.name.startswith(f".{MANIFEST}-")
    )
    if strange:
        raise OutputError(
            f"Expected an empty folder for the parts, or one that was begun before, got {folder} with {strange[0]} in "
            f"it; take another."
        )


def _filelock() -> Any:
    try:
        import filelock
    except ImportError as error:
        raise MissingDependencyError(
            "Writing a folder in parts needs the library filelock, which is not installed; run: pip install "
            '"recvae[large]"'
        ) from error
    return filelock
