"""Bring an archive to this machine and unpack it: checked, atomic, with nothing left behind when it fails."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import pooch

from recvae.cards import Card, Download
from recvae.errors import DataNotFoundError, InvalidDataError
from recvae.progress import DownloadBar


def fetch(card: Card, home: Path, show_progress: bool = True) -> Path:
    """The folder of the data set below `home`; downloaded and unpacked if it is not there.

    A folder that is there is used as it is, and so is the archive if somebody has put it there. All work happens in
    a temporary folder beside the final place and one rename ends it.

    Raises DataNotFoundError without network, InvalidDataError for a wrong checksum or a damaged archive.
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
        archive = home / source.url.rpartition("/")[2]
        if archive.exists():
            _check(archive, source)
        else:
            archive = _download(card, source, home, Path(scratch), show_progress)
        folder = _unpack(archive, source.folder, Path(scratch))
        try:
            folder.replace(final)
        except OSError as error:
            if not final.is_dir():  # if it is, another process was faster, with the same data
                raise DataNotFoundError(f"Expected to put the data in {final}, got: {error.strerror}.") from error
    return final


def _download(card: Card, source: Download, home: Path, scratch: Path, show_progress: bool) -> Path:
    pooch.get_logger().setLevel("ERROR")
    name = source.url.rpartition("/")[2]
    try:
        with DownloadBar(f"downloading {card.title}", show_progress) as bar:
            fetcher = pooch.HTTPDownloader(progressbar=bar, timeout=30)
            pooch.retrieve(source.url, known_hash=None, fname=name, path=scratch, downloader=fetcher)
    except OSError as error:  # what requests raises is one
        raise DataNotFoundError(
            f"The data set {card.name} is not in {home} and could not be downloaded ({type(error).__name__}); "
            f"fetch {source.url} on a machine with network and put it in {home}, as it is or unpacked."
        ) from error
    _check(scratch / name, source)
    return scratch / name


def _check(archive: Path, source: Download) -> None:
    algorithm, _, expected = source.checksum.partition(":")
    found = pooch.file_hash(str(archive), alg=algorithm)
    if found != expected:
        raise InvalidDataError(
            f"Expected {algorithm} {expected} of {archive.name}, got {found} ({archive.stat().st_size:,} bytes): the "
            f"file is truncated or another one; delete it if it is there, and load again."
        )


def _unpack(archive: Path, folder: str, scratch: Path) -> Path:
    try:
        with zipfile.ZipFile(archive) as content:
            content.extractall(scratch / "content")
    except (zipfile.BadZipFile, EOFError) as error:
        raise InvalidDataError(
            f"Expected a whole zip archive, got {archive.name}, which is damaged: {error}."
        ) from error
    if not (scratch / "content" / folder).is_dir():
        raise InvalidDataError(f"Expected a folder {folder} in {archive.name}, got none; it is another archive.")
    return scratch / "content" / folder


def _scratch(home: Path, name: str) -> tempfile.TemporaryDirectory[str]:
    try:
        home.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=home, prefix=f".{name}-")
    except OSError as error:
        raise DataNotFoundError(
            f"The data set {name} is not in {home}, and nothing can be written there ({error.strerror}); name another "
            f"folder with home=, --data-home or RECVAE_DATA."
        ) from error
