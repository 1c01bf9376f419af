"""Find Parquet files in folders, locate the requested columns in each, and determine their common types.

Folders may be nested. Folders named `column=value`, as written by Spark and Hive, define a column of the files in them.
Names that begin with _ or . are skipped. Columns that were not requested are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet

from recvae.errors import InvalidDataError
from recvae.utils.threads import lazy

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
N_IDS = 2  # the first N_IDS requested columns are ids


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file, with the location and type of each requested column.

    Attributes
    ----------
    names : tuple[str, ...]
        Columns of the file, in order.
    types : tuple[pa.DataType | None, ...]
        Types of the requested columns in the file; None for a column in the names of its folders.
    partition : dict[str, str | None]
        Columns in the names of its folders, and their values as text.
    """

    path: str
    names: tuple[str, ...]
    types: tuple[pa.DataType | None, ...]
    partition: dict[str, str | None]


@dataclass(frozen=True)
class ParquetFiles:
    """Files sorted by name, all of which have the requested columns, with types that can be unified."""

    columns: tuple[str, ...]
    parts: tuple[ParquetFile, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the files."""
        return tuple(part.path for part in self.parts)

    @lazy
    def schema(self) -> pa.Schema:
        """Schema of the requested columns: the common type of all files; text in any encoding becomes string."""
        return pa.schema([(name, self._type(index)) for index, name in enumerate(self.columns)])

    @lazy
    def constants(self) -> dict[str, dict[str, pa.Scalar]]:
        """Values of the columns in names of folders, by column and path."""
        values_of: dict[str, dict[str, pa.Scalar]] = {}
        for index, name in enumerate(self.columns):
            parts = [part for part in self.parts if part.types[index] is None]
            if parts:
                texts = pa.array([part.partition[name] for part in parts], pa.string())
                try:
                    values = texts.cast(self.schema.field(name).type)
                except pa.ArrowException as error:
                    raise InvalidDataError(
                        f"Expected {name!r} to be of one type in all files, got {self.schema.field(name).type} in some "
                        f"and {name}={texts[0]} as the name of the folder of {parts[0].path}: {error}."
                    ) from error
                values_of[name] = dict(zip((part.path for part in parts), values, strict=True))
        return values_of

    def read(self) -> pa.Table:
        """Read the requested columns, in the order of the files. Text is dictionary-encoded to save memory."""
        tables = [self._read(list(parts)) for _, parts in groupby(self.parts, key=lambda part: part.types)]
        if len(tables) > 1:
            tables = [table.cast(_encoded(self.schema)) for table in tables]
        return pa.concat_tables(tables)

    def _read(self, parts: list[ParquetFile]) -> pa.Table:
        """Read files with equal types."""
        from pyarrow import dataset  # lazy: it imports pandas, if that is installed

        system, types = pyarrow.fs.LocalFileSystem(), dict(zip(self.columns, parts[0].types, strict=True))
        texts = [name for name, kind in types.items() if kind is not None and _is_text(kind)]
        format = dataset.ParquetFileFormat(dictionary_columns=texts)
        fields = {name: self.schema.field(name).type if kind is None else kind for name, kind in types.items()}
        fields |= {name: pa.dictionary(pa.int32(), fields[name]) for name in texts}
        fragments = [format.make_fragment(part.path, system, self._partition(part.path)) for part in parts]
        files = dataset.FileSystemDataset(fragments, pa.schema(list(fields.items())), format, system)
        table: pa.Table = files.to_table(columns={name: dataset.field(name) for name in self.columns})
        return table

    def _partition(self, path: str) -> Any:
        """Values of the requested columns in the folder names of a file, as an expression."""
        from pyarrow import dataset

        expression = dataset.scalar(True)
        for name, values in self.constants.items():
            if (value := values.get(path)) is not None:
                field = dataset.field(name)
                expression = expression & (field == value if value.is_valid else field.is_null())
        return expression

    def _type(self, index: int) -> pa.DataType:
        name, common = self.columns[index], None
        for part in self.parts:
            kind = part.types[index]
            if kind is None or kind == common:
                continue
            try:
                common = kind if common is None else _common(common, kind)
            except pa.ArrowException as error:
                raise InvalidDataError(
                    f"Expected {name!r} to be of one type in all files, got {kind} in {part.path} and {common} in "
                    f"files before it."
                ) from error
        if common is not None:
            return plain(common)
        return _written([part.partition[name] for part in self.parts], index < N_IDS)


def find_files(path: Path, columns: Sequence[str]) -> ParquetFiles:
    """Find a Parquet file, or those of a folder; all need the named columns, of which the first two are ids.

    Raises
    ------
    InvalidDataError
        If a file lacks a column, has it twice or with another type; the message names the file.
    OSError
        And ArrowException, as raised by pyarrow.
    """
    columns = tuple(columns)
    if len(set(columns)) < len(columns):
        raise InvalidDataError(f"Expected different columns for users, items and values, got {list(columns)}.")
    root = path.absolute()
    paths = sorted(str(file) for file in _walk(root, (root.resolve(),))) if root.is_dir() else [str(root)]
    if not paths:
        raise InvalidDataError(f"Expected Parquet files in the folder {path}, got none.")
    files = ParquetFiles(columns, tuple(_file(path, root, columns) for path in paths))
    _ = files.schema, files.constants  # computed now, to refuse incompatible types early
    return files


def _is_text(kind: pa.DataType) -> bool:
    """Whether a type is text, not dictionary-encoded."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def row_reader(files: ParquetFiles) -> Callable[[pa.Table], Iterator[pa.Table]]:
    """Make a function of a table (path, group) that yields the rows of these row groups, as in `files.schema`.

    A nested function is pickled by value: other processes need not import this package.
    """
    schema, constants = files.schema, files.constants

    def read(groups: pa.Table) -> Iterator[pa.Table]:
        for path, group in zip(groups["path"].to_pylist(), groups["group"].to_pylist(), strict=True):
            fixed = {name: values[path] for name, values in constants.items() if path in values}
            stored = [name for name in schema.names if name not in fixed]
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(row_groups=[group], columns=stored):
                    # select by name: a name with a dot may have matched further columns
                    columns = [
                        pa.repeat(fixed[field.name], len(batch)) if field.name in fixed else batch.column(field.name)
                        for field in schema
                    ]
                    converted = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
                    yield pa.table(converted, schema=schema)

    return read


def row_groups(files: ParquetFiles) -> pa.Table:
    """Table of the row groups of all files: path, group."""
    counts = [pyarrow.parquet.read_metadata(path).num_row_groups for path in files.paths]
    groups = [group for count in counts for group in range(count)]
    paths = [path for path, count in zip(files.paths, counts, strict=True) for _ in range(count)]
    return pa.table({"path": pa.array(paths, pa.string()), "group": pa.array(groups, pa.int64())})


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Files in a folder and its subfolders, following links; `above` are the real paths of the parent folders."""
    for path in folder.iterdir():
        if path.name.startswith(("_", ".")):
            continue
        if not path.is_dir():
            yield path
        elif (real := path.resolve()) in above:
            raise InvalidDataError(f"Expected a folder of Parquet files, got a loop: {path} leads back to {real}.")
        else:
            yield from _walk(path, (*above, real))


def _file(path: str, root: Path, columns: tuple[str, ...]) -> ParquetFile:
    try:
        schema = pyarrow.parquet.read_schema(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise pa.ArrowInvalid(f"{path}: {error}") from error
    names, partition = tuple(schema.names), dict(_partitions(Path(path), root))
    for name in columns:
        if (count := names.count(name)) > 1 or (count == 0 and name not in partition):
            state = f"stands {count} times" if count else "is missing"
            known = [*names, *(name for name in partition if name not in names)]
            raise InvalidDataError(f"Expected one column {name!r}, but it {state} in {path}; the columns are {known}.")
    return ParquetFile(
        path, names, tuple(schema.field(name).type if name in names else None for name in columns), partition
    )


def _partitions(path: Path, root: Path) -> Iterator[tuple[str, str | None]]:
    """The columns in the names of the folders between the root and a file."""
    if path != root:
        for folder in path.relative_to(root).parts[:-1]:
            name, sign, value = folder.partition("=")
            if name and sign:
                yield unquote(name), None if value == NO_VALUE else unquote(value)


def _written(texts: list[str | None], is_id: bool) -> pa.DataType:
    """Infer the type of values given as text: ids are integers only in canonical form, so that 007 stays 007."""
    column = pa.array(texts, pa.string())
    for kind in (pa.int64(), *(() if is_id else (pa.float64(), pa.date32(), pa.timestamp("us")))):
        try:
            converted = column.cast(kind)
        except pa.ArrowException:
            continue
        if not is_id or converted.cast(pa.string()).equals(column):
            return kind
    return pa.string()


def plain(kind: pa.DataType) -> pa.DataType:
    """Normalise a type: any encoding of text becomes string, any kind of list becomes list."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if _is_text(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(plain(kind.value_type))
    return kind


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Common type of two types. Raises ArrowException."""
    one, other = plain(one), plain(other)
    if pa.types.is_list(one) and pa.types.is_list(other):
        return pa.list_(_common(one.value_type, other.value_type))
    schemas = [pa.schema([("column", kind)]) for kind in (one, other)]
    return pa.unify_schemas(schemas, promote_options="permissive").field(0).type


def _encoded(schema: pa.Schema) -> pa.Schema:
    """The schema with text columns dictionary-encoded."""
    return pa.schema(
        [
            (field.name, pa.dictionary(pa.int32(), field.type) if _is_text(field.type) else field.type)
            for field in schema
        ]
    )
