"""The kinds of files of events, by name and by extension, and the one function that reads them all.

To add a kind, write a function of a path, the columns and the options that returns a `Reading`, and add it to
`FORMATS` here and its name to `recvae.data.names.FORMATS`. Large libraries are imported within the function.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recvae.data.parquet.files import find_files
from recvae.data.tables.compressed import COMPRESSIONS
from recvae.data.tables.options import Columns, Reading, ReadOptions
from recvae.data.tables.text import read_text
from recvae.data.tables.text_file import reading
from recvae.errors import UnknownNameError
from recvae.utils.paths import input_path

log = logging.getLogger("recvae")


@dataclass(frozen=True)
class FileFormat:
    """A kind of file: its reader, and the extensions by which it is recognised, without that of a compression."""

    read: Callable[[Path, Columns, ReadOptions], Reading]
    endings: tuple[str, ...]


def read_table(path: str | Path, columns: Columns | None = None, options: ReadOptions | None = None) -> Reading:
    """Read the columns of a file of events, or of a folder of Parquet files.

    The kind of file is `options.format`, else that of its extension; any other file is delimited text.

    Raises
    ------
    DataNotFoundError
    InvalidDataError
        For missing or repeated columns, and broken lines.
    UnknownNameError
        For an unknown `format`.
    """
    path = input_path(path)
    columns, options = columns or Columns(), options or ReadOptions()
    result = FORMATS[kind_of(path, options)].read(path, columns, options)
    for note in result.notes:
        log.info("%s: %s", path, note)
    return result


def kind_of(path: Path, options: ReadOptions) -> str:
    """Name of the kind of a file. Raises UnknownNameError for an unknown `format`."""
    if options.format is not None:
        if options.format not in FORMATS:
            raise UnknownNameError.among("format", options.format, FORMATS)
        return options.format
    if path.is_dir():
        return "parquet"
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return next((kind for kind, format in FORMATS.items() if name.endswith(format.endings)), "text")


def _read_parquet(path: Path, columns: Columns, options: ReadOptions) -> Reading:
    del options
    with reading(path):
        return Reading(find_files(path, columns.names).read(), columns)


FORMATS: dict[str, FileFormat] = {
    "text": FileFormat(read_text, (".csv", ".tsv", ".txt")),
    "parquet": FileFormat(_read_parquet, (".parquet",)),
}
