"""Download an archive, verify its checksum and unpack it, atomically: a failure leaves no files behind."""

from __future__ import annotations

import errno
import lzma
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch

from recvae.data.tables.compressed import CHUNK, ENCRYPTED, RATIO, SMALL
from recvae.datasets.card import Card, Download
from recvae.errors import DataNotFoundError, InvalidDataError, OutputError, RecvaeError, shown
from recvae.utils.files import scratch_folder
from recvae.utils.paths import check_below, is_below
from recvae.utils.progress import DownloadBar

MEMBERS = 100_000  # largest number of files in an archive
# raised by zipfile and its decompressors for corrupt input; NotImplementedError is a RuntimeError
DAMAGED = (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error, RuntimeError, ValueError)


def fetch(card: Card, home: Path, show_progress: bool = True) -> Path:
    """Return the folder of the data set below `home`, after downloading and unpacking it if it is missing.

    An existing folder is used as it is; an existing archive in `home` is verified and used. All work happens in a
    temporary folder next to the final path, which a single rename completes.

    Raises
    ------
    DataNotFoundError
        If the data are missing and cannot be downloaded, for example without a network.
    InvalidDataError
        For a wrong checksum or a damaged archive.
    """
    source, final = card.download, home / card.name
    for folder in [final] if source is None else [final, home / source.folder]:
        if folder.is_dir():
            return folder
    if source is None:
        raise DataNotFoundError(
            f"The data set {card.name} is not in {home} and cannot be downloaded; put it in {final}."
        )
    with _scratch(home, card.name) as scratch:
        archive = home / source.archive
        if archive.exists():
            _check(archive, source)
        else:
            archive = _download(card, source, home, scratch, show_progress)
        folder = _unpack(archive, source.folder, scratch)
        try:
            folder.replace(final)
        except OSError as error:
            if not final.is_dir():  # otherwise another process has just created it, with the same data
                raise DataNotFoundError(f"Expected to put the data in {final}, got: {error.strerror}.") from error
    return final


def _download(card: Card, source: Download, home: Path, scratch: Path, show_progress: bool) -> Path:
    pooch.get_logger().setLevel("ERROR")
    name = source.archive
    try:
        with DownloadBar(f"downloading {card.title}", show_progress) as bar:
            fetcher = pooch.HTTPDownloader(progressbar=bar, timeout=30)
            pooch.retrieve(source.url, known_hash=None, fname=name, path=scratch, downloader=fetcher)
    except (OSError, ValueError) as error:  # the errors of requests are OSError or ValueError
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"Expected room to download {name} to {home}, got: {error.strerror}.") from error
        raise DataNotFoundError(
            f"The data set {card.name} is not in {home} and could not be downloaded ({type(error).__name__}); "
            f"fetch {source.url} on a machine with network and put it in {home}, as it is or unpacked."
        ) from error
    _check(scratch / name, source)
    return scratch / name


def _check(archive: Path, source: Download) -> None:
    algorithm, _, expected = source.checksum.partition(":")
    if not archive.is_file():
        raise InvalidDataError(f"Expected the archive of the data set at {archive}, got no file.")
    digest = pooch.file_hash(str(archive), alg=algorithm)
    if digest != expected:
        raise InvalidDataError(
            f"Expected {algorithm} {expected} of {archive.name}, got {digest} ({archive.stat().st_size:,} bytes): the "
            f"file is truncated or another one; delete it if it is there, and load again."
        )


def _unpack(archive: Path, folder: str, scratch: Path) -> Path:
    """Unpack the archive. -> folder of the data set. Raises InvalidDataError for a wrong archive, OutputError."""
    top = scratch / "content"
    top.mkdir()
    try:
        with zipfile.ZipFile(archive) as content:
            # not `is_dir`, which fails for an empty name in older versions of Python
            members = [member for member in content.infolist() if not member.filename.endswith("/")]
            _check_members(members, archive, scratch)
            for member in members:
                _unpack_member(content, member, top)
    except RecvaeError:  # some are subclasses of the errors below
        raise
    except OSError as error:
        raise OutputError(
            f"Expected to unpack {archive.name} in {scratch.parent}, got: {error.strerror}; nothing of it is kept."
        ) from error
    except DAMAGED as error:
        raise InvalidDataError(
            f"Expected a whole zip archive, got {archive.name}, which is damaged: {error}."
        ) from error
    if not check_below(top, folder, "the folder of the data set").is_dir():
        raise InvalidDataError(f"Expected a folder {folder} in {archive.name}, got none; it is another archive.")
    return top / folder


def _check_members(members: list[zipfile.ZipInfo], archive: Path, scratch: Path) -> None:
    """Check the table of contents before anything is written. Raises InvalidDataError, OutputError."""
    if len(members) > MEMBERS:
        raise InvalidDataError(f"Expected at most {MEMBERS:,} files in {archive.name}, got {len(members):,}.")
    for member in members:
        if member.flag_bits & ENCRYPTED:
            raise InvalidDataError(
                f"Expected an archive that anyone can read, got {archive.name}, which is encrypted; unpack it yourself."
            )
        if not is_below(member.filename.replace("\\", "/")):
            raise InvalidDataError(f"Expected files within the archive {archive.name}, got {shown(member.filename)}.")
    size, packed = sum(member.file_size for member in members), archive.stat().st_size
    if size > max(RATIO * packed, SMALL):
        raise InvalidDataError(
            f"Expected {archive.name} to be at most {RATIO} times its {packed:,} bytes when it is unpacked, got "
            f"{size:,} bytes; unpack it yourself where it is to be trusted."
        )
    free = shutil.disk_usage(scratch).free
    if size > free:
        raise OutputError(
            f"Expected {size:,} bytes of room to unpack {archive.name}, got {free:,} in {scratch.parent}."
        )


def _unpack_member(content: zipfile.ZipFile, member: zipfile.ZipInfo, top: Path) -> None:
    """Write one file; fail if it has more bytes than the table of contents says."""
    target = check_below(top, member.filename, "a file of an archive")
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with content.open(member) as packed, target.open("xb") as file:
        while chunk := packed.read(CHUNK):
            written += len(chunk)
            if written > member.file_size:
                raise zipfile.BadZipFile(f"{shown(member.filename)} is longer than it says")
            file.write(chunk)


@contextmanager
def _scratch(home: Path, name: str) -> Iterator[Path]:
    """Temporary folder next to the final one; a `home` created for it is removed again if it stays empty."""
    try:
        with scratch_folder(home, f".{name[:50]}-") as scratch:
            yield scratch
    except RecvaeError:
        raise
    except OSError as error:
        raise DataNotFoundError(
            f"The data set {name} is not in {home}, and nothing can be written there ({error.strerror}); name another "
            f"folder with home=, --data-home or RECVAE_DATA."
        ) from error
