"""Read events from JSON: one object a line, an array of objects, or one object of users and their items.

Plain lines are read by `recvae.data.tables.json_lines`. For others msgspec parses, and builds nothing of the keys that
were not asked for. A block that it refuses is parsed again, line by
line, to report the line.
"""

from __future__ import annotations

import ast
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from recvae.data.tables.compressed import unpacked
from recvae.data.tables.json_lines import read_plain_lines
from recvae.data.tables.json_objects import array_within, is_one_object, read_object
from recvae.data.tables.json_values import Values, record_type, values_at
from recvae.data.tables.options import Columns, Reading, ReadOptions
from recvae.data.tables.shaped import ShapedFile, checked_reading, with_found
from recvae.data.tables.text_file import Format, open_text, reading
from recvae.errors import InvalidDataError, shown

BLOCK = 2**22  # bytes of lines that are parsed at a time
ENTRIES = 50_000  # of an array that are parsed at a time
SAMPLE = 1000  # entries in which the keys have to be
PYTHON = (b"{'", b"{u'")
BROKEN = (msgspec.MsgspecError, RecursionError, UnicodeError, SyntaxError, ValueError, MemoryError)

Parse = Callable[[bytes], Any]


def read_json(path: Path, columns: Columns, options: ReadOptions) -> Reading:
    """Read the named keys of JSON; "a.b" is the key b of the object in a, or of each object of the list in a.

    Raises
    ------
    DataNotFoundError
    InvalidDataError
        If the file is malformed, or has no such keys; the message names the line.
    """
    with reading(path):
        encoding = (options.encoding or "utf-8").lower()
        plain = encoding in ("utf-8", "utf8", "utf-8-sig", "ascii")
        source = JsonSource(path, unpacked(path) if plain else open_text(path, Format(encoding=encoding)).content)
        start = source.start()
        if not start.startswith((b"{", b"[")):
            got = "nothing" if not start else shown(start[:20].decode("utf-8", "replace"))
            raise InvalidDataError(
                f"The file {path} cannot be read: expected JSON that begins with {{ or [, got {got}; if it is of "
                f"another kind, name that, as in {options.give('format', 'text')}."
            )
        if start.startswith(b"{") and is_one_object(start, columns):
            content = source.read()
            source.entries = array_within(content)
            if source.entries is None:
                found, notes = read_object(path, content, columns)
                return checked_reading(ShapedFile(path), found, with_found(columns, found), options, notes)
        values, row_of, notes = _read_lines(source, columns)

        def lines() -> Sequence[int]:
            numbers = source.line_numbers()
            return numbers if row_of is None else [numbers[row] for row in row_of()]

        return checked_reading(ShapedFile(path, lines=lines), values, columns, options, notes)


class JsonSource:
    """The bytes of a JSON file, unpacked if it is compressed, as blocks of lines.

    Attributes
    ----------
    entries : list[msgspec.Raw] or None
        The entries of the array, if the file is one object with an array in it.
    """

    def __init__(self, path: Path, content: bytes | None = None):
        self.path, self._content = path, content
        self.entries: list[msgspec.Raw] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the file itself, as it is, has an entry in each line."""
        return self._content is None and self.entries is None and not self.start().startswith(b"[")

    def start(self) -> bytes:
        """The first bytes, without a byte order mark and blanks."""
        with self._open() as stream:
            block: bytes = stream.read(BLOCK)
        return block.removeprefix(b"\xef\xbb\xbf").lstrip()

    def read(self) -> bytes:
        with self._open() as stream:
            content: bytes = stream.read()
        return content.removeprefix(b"\xef\xbb\xbf")

    def blocks(self) -> Iterator[bytes]:
        """Blocks of whole lines, each an entry; those of an array, whose line breaks are blanks between tokens."""
        if self.start().startswith(b"[") or self.entries is not None:
            entries = self._array()
            for start in range(0, len(entries), ENTRIES):
                block = (bytes(entry) for entry in entries[start : start + ENTRIES])
                yield b"\n".join(entry.replace(b"\n", b" ").replace(b"\r", b" ") for entry in block) + b"\n"
            return
        with self._open() as stream:
            rest = b""
            while block := stream.read(BLOCK):
                lines, newline, rest = (rest + block).rpartition(b"\n")
                if newline:
                    yield lines.removeprefix(b"\xef\xbb\xbf") + newline
            if rest.strip():
                yield rest.removeprefix(b"\xef\xbb\xbf")

    def line_numbers(self) -> Sequence[int]:
        """Number of the line of each entry, from 1. Reads the file."""
        if not self.start().startswith(b"[") and self.entries is None:
            with self._open() as lines:
                return [number for number, line in enumerate(lines, 1) if line.strip()]
        content, numbers, line, at = self.read(), [], 1, 0
        for entry in self._array():
            begin = content.find(bytes(entry), at)
            line += content.count(b"\n", at, begin)
            numbers.append(line)
            line += content.count(b"\n", begin, begin + len(bytes(entry)))
            at = begin + len(bytes(entry))
        return numbers

    def _open(self) -> Any:
        return self.path.open("rb") if self._content is None else io.BytesIO(self._content)

    def _array(self) -> list[msgspec.Raw]:
        if self.entries is not None:
            return self.entries
        try:
            return msgspec.json.decode(self.read(), type=list[msgspec.Raw])
        except BROKEN as error:
            raise InvalidDataError(f"The file {self.path} cannot be read: no JSON array: {error}.") from error


def _read_lines(
    source: JsonSource, columns: Columns
) -> tuple[dict[str, pa.ChunkedArray], Callable[[], list[int]] | None, list[str]]:
    """Columns by role; a function that makes the entry of each row, if entries have lists; notes."""
    blocks = source.blocks()
    first = next(blocks, b"")
    python = first.lstrip().startswith(PYTHON)
    sample = _sample(first, ast.literal_eval if python else msgspec.json.decode)
    kind, paths = record_type(columns, sample, source.path)
    decoder = msgspec.json.Decoder(kind)

    def parse(line: bytes) -> Any:
        return msgspec.convert(ast.literal_eval(line.decode()), kind) if python else decoder.decode(line)

    if source.is_plain and not python and all(len(fields) == 1 for fields in paths.values()):
        names = {field.name: field.encode_name for field in msgspec.structs.fields(kind)}
        keys = {role: names[fields[0]] for role, fields in paths.items()}
        plain = read_plain_lines(source.path, keys, sample)
        if plain is not None:
            return plain, None, []
    values, n_entries = Values(list(paths)), 0
    for block in itertools.chain([first], blocks):
        try:
            records = _each(block, parse) if python else decoder.decode_lines(block)
        except BROKEN as error:
            raise _explained(source, block, parse, n_entries) from error
        n_entries += len(records)
        values.add({role: values_at(records, path) for role, path in paths.items()}, source.path)
    notes = ["its lines are Python, not JSON, which is read slowly"] if python else []
    notes += [f"{values.n_empty:,} entries have an empty list"] if values.n_empty else []
    return values.columns(), values.row_of if values.has_lists else None, notes


def _each(block: bytes, parse: Parse) -> list[Any]:
    return [parse(line) for line in block.split(b"\n") if line.strip()]


def _sample(block: bytes, parse: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """The first entries that are objects, whole; lines that cannot be parsed are reported later."""
    entries = []
    for line in itertools.islice(filter(bytes.strip, io.BytesIO(block)), SAMPLE):
        try:
            entry = parse(line.decode().strip())
        except BROKEN:
            break
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def _explained(source: JsonSource, block: bytes, parse: Parse, before: int) -> InvalidDataError:
    """The error for the first entry of a block that cannot be parsed."""
    for index, line in enumerate(line for line in block.split(b"\n") if line.strip()):
        try:
            parse(line)
        except BROKEN as error:
            number = source.line_numbers()[before + index]
            return ShapedFile(source.path).refused(
                number, f"expected an object of JSON, got {shown(line[:60].decode('utf-8', 'replace'))}: {error}."
            )
    return InvalidDataError(f"The file {source.path} cannot be read: expected an object of JSON in each line.")
