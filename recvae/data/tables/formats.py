"""The kinds of files of events, by name and by extension, and the one function that reads them all.

To add a kind, write a function of a path, the columns and the options that returns a `Reading`, and add it to
`FORMATS` here and its name to `recvae.data.names.FORMATS`. Large libraries are imported within the function.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pyarrow as pa

from recvae.data.parquet.files import find_files
from recvae.data.tables.compressed import COMPRESSIONS
from recvae.data.tables.kinds import kind_by_content
from recvae.data.tables.lists import items_apart
from recvae.data.tables.options import Columns, Reading, ReadOptions
from recvae.data.tables.text import check_columns, read_text
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
    kind, note = kind_of(path, options)
    result = FORMATS[kind].read(path, columns, options).noted(note)
    if kind in ("text", "parquet", "arrow", "excel"):
        result = items_apart(result, options, str(path))
    for note in result.notes:
        log.info("%s: %s", path, note)
    return result


def kind_of(path: Path, options: ReadOptions) -> tuple[str, str]:
    """Name of the kind of a file, and a note if its content decided. Raises UnknownNameError, InvalidDataError."""
    if options.format is not None:
        if options.format not in FORMATS:
            raise UnknownNameError.among("format", options.format, FORMATS)
        return options.format, ""
    if path.is_dir():
        return "parquet", ""
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    kind = next((kind for kind, format in FORMATS.items() if name.endswith(format.endings)), None)
    if kind is not None:
        return kind, ""
    with reading(path):
        return kind_by_content(path, options)


def _read_parquet(path: Path, columns: Columns, options: ReadOptions) -> Reading:
    del options
    with reading(path):
        return Reading(find_files(path, columns.names).read(), columns)


def _read_arrow(path: Path, columns: Columns, options: ReadOptions) -> Reading:
    from pyarrow import feather

    del options
    with reading(path):
        names = pa.ipc.open_file(str(path)).schema.names
        check_columns(columns.names, names)
        return Reading(feather.read_table(str(path), columns=columns.names), columns)


def _reader(module: str, function: str, *arguments: str) -> Callable[[Path, Columns, ReadOptions], Reading]:
    """A reader of a module of this folder, which is imported when a file of its kind is read."""

    def read(path: Path, columns: Columns, options: ReadOptions) -> Reading:
        reader = getattr(import_module(f"recvae.data.tables.{module}"), function)
        result: Reading = reader(path, columns, options, *arguments)
        return result

    return read


FORMATS: dict[str, FileFormat] = {
    "text": FileFormat(read_text, (".csv", ".tsv", ".tab")),
    "parquet": FileFormat(_read_parquet, (".parquet",)),
    "arrow": FileFormat(_read_arrow, (".feather", ".arrow", ".ipc")),
    "json": FileFormat(_reader("json_files", "read_json"), (".json", ".jsonl", ".ndjson")),
    "inter": FileFormat(_reader("inter", "read_inter"), (".inter",)),
    **{kind: FileFormat(_reader("baskets", "read_lists", kind), ()) for kind in ("adjacency", "baskets", "counted")},
    "matrix": FileFormat(_reader("matrices", "read_matrix"), ()),
    "npz": FileFormat(_reader("sparse_files", "read_npz"), (".npz",)),
    "npy": FileFormat(_reader("sparse_files", "read_npy"), (".npy",)),
    "mtx": FileFormat(_reader("sparse_files", "read_mtx"), (".mtx",)),
    "libsvm": FileFormat(_reader("indexed", "read_indexed", "libsvm"), (".libsvm", ".svm", ".svmlight")),
    "libfm": FileFormat(_reader("indexed", "read_indexed", "libfm"), (".libfm",)),
    "excel": FileFormat(_reader("excel", "read_excel"), (".xlsx", ".xls", ".xlsb", ".ods")),
}
