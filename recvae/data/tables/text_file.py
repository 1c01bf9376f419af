"""A delimited text file: its format, its rows one by one, and checks of its bytes."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from recvae.data.tables.compressed import unpacked
from recvae.data.tables.options import WHITESPACE, ReadOptions
from recvae.data.tables.quotes import Quotes, scan_quotes
from recvae.data.tables.spelling import Spelling
from recvae.errors import DataNotFoundError, InvalidDataError

UTF_8 = ("utf-8", "utf8", "utf-8-sig", "ascii", "us-ascii")

SEPARATOR = "\x1f"  # ASCII unit separator, not used in text: replaces a delimiter of several characters

NUL = "a NUL byte: the file is damaged, or its encoding is another, such as utf-16."

INTEGER = re.compile(r"-?\d+")
SAMPLE = 1000  # rows from which the form of ids is inferred


@dataclass(frozen=True)
class Format:
    """Format of a delimited text file.

    Attributes
    ----------
    delimiter : str
        One character or several, or `WHITESPACE`.
    names : tuple[str, ...] or None
        Names of the columns, "" for those that are not read; None if they are in the first line.
    header : bool
        Whether the first line is a header.
    spill : bool
        Whether the last of the named columns may contain delimiters, if there is no quote character.
    options : ReadOptions
        The other options: quote, comment, decimal, missing, without_id, time_format.
    """

    delimiter: str = ","
    names: tuple[str, ...] | None = None
    header: bool = True
    encoding: str = "utf-8"
    spill: bool = False
    options: ReadOptions = field(default_factory=ReadOptions)

    @property
    def one(self) -> str:
        """The delimiter as a single character, as the parser requires."""
        if self.delimiter == WHITESPACE:
            return " "
        return SEPARATOR if self.several else self.delimiter

    @property
    def several(self) -> bool:
        """Whether the delimiter has several bytes, which `SEPARATOR` replaces."""
        return self.delimiter != WHITESPACE and len(self.delimiter.encode()) > 1

    @property
    def quote(self) -> str:
        """The character around fields, "" if quotes are text."""
        return self.options.quote


@dataclass(frozen=True)
class TextFile:
    """A text file.

    Attributes
    ----------
    content : bytes or None
        What is read instead of the content of the file.
    kept : NDArray[np.int64] or None
        Rows of the file that are left in its table; None for all.
    """

    path: Path
    format: Format = field(default_factory=Format)
    content: bytes | None = None
    kept: NDArray[np.int64] | None = None

    def open(self) -> IO[bytes]:
        return self.path.open("rb") if self.content is None else io.BytesIO(self.content)

    def size(self) -> int:
        return self.path.stat().st_size if self.content is None else len(self.content)

    def source(self) -> Any:
        """The file as an input of pyarrow."""
        return self.path if self.content is None else pa.BufferReader(self.content)

    def records(self, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of the first line, from 1, and the fields of each row, including the header. Slow.

        Raises
        ------
        InvalidDataError
            For bytes that are not UTF-8, if `strict`.
        """
        several = self.format.several
        with io.TextIOWrapper(self.open(), "utf-8-sig", errors="surrogateescape", newline="") as lines:
            for number, fields in self.split(lines) if self.format.quote else self._unquoted(lines):
                line = "".join(fields) if strict else ""
                if not line.isascii() and re.search("[\udc80-\udcff]", line):
                    shown = line.encode("utf-8", "surrogateescape")[:40]
                    hint = self.format.options.give("encoding", "latin-1")
                    raise self.refused(number, f"no text in UTF-8: {shown!r}; name its encoding, such as {hint}.")
                yield number, [f.replace(SEPARATOR, self.format.delimiter) for f in fields] if several else fields

    def split(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Split quoted text into rows, as the module csv does, but without its limit on field size, which is global."""
        delimiter, quote = self.format.one, self.format.quote
        q = re.escape(quote)
        closes = re.compile(f"((?:[^{q}]|{q}{q})*+){q}")  # the rest of a field in quotes
        fields: list[str] = []
        pieces: list[str] = []  # of a quoted field that continues on the next line
        start = 1
        for number, line in enumerate(lines, 1):
            if not pieces:
                start, rest = number, line.rstrip("\r\n")
                if quote not in rest:
                    if rest:
                        yield number, rest.split(delimiter)
                    continue
            rest = line
            while True:
                if not pieces and rest.startswith(quote):
                    pieces, rest = [""], rest[1:]
                if pieces:
                    closing = closes.match(rest)
                    if closing is None:
                        pieces.append(rest)
                        break
                    rest = rest[closing.end() :]
                    pieces.append(closing[1])
                more, delimited, rest = rest.partition(delimiter)
                fields.append("".join(pieces).replace(quote * 2, quote) + (more if delimited else more.rstrip("\r\n")))
                pieces = []
                if not delimited:
                    yield start, fields
                    fields = []
                    break
        if pieces:
            yield start, [*fields, "".join(pieces)]

    def _unquoted(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        most = len(self.format.names or ()) - 1 if self.format.spill else -1
        for number, line in enumerate(lines, 1):
            if line.strip("\r\n"):
                yield number, line.rstrip("\r\n").split(self.format.one, most)

    def line(self, index: int) -> int:
        """Line number of a row of the table by its index."""
        return self.row(index if self.kept is None else int(self.kept[index]))[0]

    def row(self, index: int) -> tuple[int, list[str]]:
        """Line number and fields of a row by its index, from 0, not counting the header."""
        return next(itertools.islice(self.records(), index + int(self.format.header), None), (0, []))

    def line_of(self, offset: int) -> int:
        """Number of the line, from 1, at a byte offset."""
        with self.open() as file:
            before = file.read(offset)
        return 1 + before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n")

    def refused(self, line: int, reason: str) -> InvalidDataError:
        return InvalidDataError(f"The file {self.path} cannot be read: line {line}: {reason}")


def open_text(path: Path, format: Format, content: bytes | None = None) -> TextFile:
    """Open a file as UTF-8 with a delimiter of one character; other files are converted in memory, line by line.

    Raises
    ------
    InvalidDataError
        For bytes that are invalid in the encoding, and for control characters that clash with a long delimiter.
    """
    content = unpacked(path) if content is None else content
    if format.encoding.lower() not in UTF_8:
        content = _as_utf_8(path, format, content)
    comment = format.options.comment.encode()
    if comment or format.one != format.delimiter:
        content = path.read_bytes() if content is None else content
    if content is None:
        return TextFile(path, format)
    if comment and comment in content:  # an empty line keeps the number of lines
        content = re.sub(rb"(?m)^(\xef\xbb\xbf)?" + re.escape(comment) + rb"[^\r\n]*", b"", content)
    if format.delimiter == WHITESPACE:
        content = _single_blanks(content, format.quote.encode())
    elif format.several:
        at = content.find(SEPARATOR.encode())
        if at >= 0:
            raise TextFile(path, format, content).refused(
                TextFile(path, format, content).line_of(at),
                f"a control character (0x1f), which cannot be read with a delimiter of {len(format.delimiter)} "
                f"characters; take it out.",
            )
        content = content.replace(format.delimiter.encode(), SEPARATOR.encode())
    return TextFile(path, format, content)


def _as_utf_8(path: Path, format: Format, content: bytes | None) -> bytes:
    try:
        return (path.read_bytes() if content is None else content).decode(format.encoding).encode()
    except UnicodeDecodeError as error:
        line = TextFile(path, format, error.object).line_of(error.start)
        raise InvalidDataError(
            f"The file {path} cannot be read: line {line} is no text in {format.encoding}: {error}; "
            f"{format.options.give('encoding', '...')} names another."
        ) from error


def _single_blanks(content: bytes, quote: bytes) -> bytes:
    """Replace runs of blanks outside of quotes by one blank, and remove those at the ends of lines."""
    if quote and quote in content:
        field = b"%(q)s(?:[^%(q)s]|%(q)s%(q)s)*+%(q)s" % {b"q": re.escape(quote)}
        content = re.sub(field + rb"|[ \t]+", lambda found: found[0] if found[0][:1] == quote else b" ", content)
    else:
        content = re.sub(rb"[ \t]+", b" ", content)
    return re.sub(rb"(?m)^ | (?=\r?$)", b"", content)


def check_bytes(text: TextFile, names: Sequence[str], ids: Sequence[int]) -> Quotes:
    """Check quotes and NUL in a file with columns `names`, of which those at indices `ids` are ids.

    Raises
    ------
    InvalidDataError
        For a quote that is never closed, or closed by a quote of another row, and for NUL.
    """
    first = itertools.islice(text.records(), int(text.format.header), SAMPLE)
    rows = [fields for _, fields in first if len(fields) == len(names)] if ids else []
    shapes = [_shape([fields[column] for fields in rows]) for column in ids]

    def is_row(line: str) -> bool:
        """Whether a line within quotes could be a row of its own."""
        _, fields = next(text.split([line]), (0, []))
        return len(fields) == len(names) and all(
            shape.fullmatch(fields[column].strip(text.format.quote)) for column, shape in zip(ids, shapes, strict=True)
        )

    delimiter, quote = text.format.one.encode(), text.format.quote.encode()
    spelling = Spelling(delimiter, quote)
    spelling.is_plain = INTEGER in shapes  # else it need not look
    with text.open() as file:
        quotes = scan_quotes(file, delimiter, quote, len(names), is_row, spelling.look)
    if quotes.nul is not None:
        raise text.refused(text.line_of(quotes.nul), NUL)
    if quotes.open is not None:
        line = text.line_of(quotes.open)
        before = _before(text, quotes.open)
        column = before.count(text.format.one)
        name = f" in column {names[column]!r:.40}" if column < len(names) and names[column] else ""
        raise text.refused(
            line,
            f"a quote{name} is not closed{' before the end of the file' if quotes.end else ' in its row'}; close it, "
            f"take it out, or, within a field in quotes, write it twice; where quotes are text, "
            f"{text.format.options.give('quote', '')}.",
        )
    return replace(quotes, integers=tuple(spelling.is_plain and shape is INTEGER for shape in shapes))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Context manager that converts errors of libraries on a file into a RecvaeError of one line."""
    try:
        yield
    except InvalidDataError:  # it is a ValueError, too
        raise
    except FileNotFoundError as error:
        raise DataNotFoundError(f"Expected a file of events at {path}, got: {error.strerror or error}.") from error
    except (pa.ArrowException, OSError, EOFError, UnicodeError, LookupError) as error:
        reason = " ".join(str(error).split())
        raise InvalidDataError(f"The file {path} cannot be read: {reason}") from error


def _shape(examples: Sequence[str]) -> re.Pattern[str]:
    """Pattern of ids like the examples: integers, or text, with inner blanks if an example has some."""
    if examples and all(map(INTEGER.fullmatch, examples)):
        return INTEGER
    return re.compile(r"\S(.*\S)?" if any(re.search(r"\S[ \t]\S", example) for example in examples) else r"\S+")


def _before(text: TextFile, offset: int) -> str:
    """Text before a byte offset in its line, without quoted fields."""
    with text.open() as file:
        before = file.read(offset)
    start = max(before.rfind(b"\n"), before.rfind(b"\r")) + 1
    quote = re.escape(text.format.quote)
    return re.sub(f"{quote}[^{quote}]*{quote}", "", before[start:].decode("utf-8", "replace"))
