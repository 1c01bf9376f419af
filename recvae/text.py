"""Delimited text -> a table of the columns asked for, as what its bytes are found to be: quotes, lines, ids, numbers.

pyarrow reads. Before, the bytes are scanned once for what it would take without a word: quotes that are never closed,
line breaks within quotes, NUL. A file that is refused is read again, slowly, to name the line.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from recvae.errors import DataNotFoundError, InvalidDataError
from recvae.quotes import Quotes, scan_quotes

COMPRESSIONS = (".gz", ".bz2", ".zst")
UTF_8 = ("utf-8", "utf8", "utf-8-sig", "ascii", "us-ascii")
SEPARATOR = "\x1f"  # the unit separator of ASCII, which text does not use: stands in for a delimiter of many characters
CLOSING = re.compile(r'((?:[^"]|"")*+)"')  # the rest of a field in quotes
INTEGER = re.compile(r"-?\d+")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
BLOCK, LARGEST_BLOCK = 2**20, 2**31 - 1  # bytes that a thread parses at a time
# what libraries write where there is nothing; as an id, it would make one user of all who have none
MISSING = (
    *("#N/A", "#NA", "-nan", "<NA>", "N/A", "NA", "NAN", "NONE", "NULL", "NaN", "NaT", "None", "Null"),
    *("\\N", "n/a", "nan", "nil", "none", "null", "undefined"),
)
DATE = r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?: ?Z|[+-]\d\d(?::?\d\d)?)?)?"


@dataclass(frozen=True)
class Format:
    """How a text file is written.

    names : of the columns, "" for those that are not read; None where the first line says them
    header : whether the first line is none of the rows
    quoted : whether a field in quotes may hold delimiters and line breaks; else quotes are text
    spill : whether the last of the named columns may hold delimiters, where nothing is quoted
    """

    delimiter: str = ","
    names: tuple[str, ...] | None = None
    header: bool = True
    encoding: str = "utf-8"
    quoted: bool = True
    spill: bool = False

    @property
    def one(self) -> str:
        """The delimiter as the one character that the parser takes."""
        return self.delimiter if len(self.delimiter) == 1 else SEPARATOR


@dataclass(frozen=True)
class TextFile:
    """A text file, or `content` in its place, to be read in one way or another."""

    path: Path
    format: Format = field(default_factory=Format)
    content: bytes | None = None

    def open(self) -> IO[bytes]:
        return self.path.open("rb") if self.content is None else io.BytesIO(self.content)

    def size(self) -> int:
        return self.path.stat().st_size if self.content is None else len(self.content)

    def source(self) -> Any:
        """The file as pyarrow takes it."""
        return self.path if self.content is None else pa.BufferReader(self.content)

    def records(self, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Number of its first line, from 1, and fields of each row, the header among them. Slow.

        Raises InvalidDataError for bytes that are no text, where `strict`.
        """
        several = len(self.format.delimiter) > 1
        with io.TextIOWrapper(self.open(), "utf-8-sig", errors="surrogateescape", newline="") as lines:
            for number, fields in self.split(lines) if self.format.quoted else self._unquoted(lines):
                line = "".join(fields) if strict else ""
                if not line.isascii() and re.search("[\udc80-\udcff]", line):
                    shown = line.encode("utf-8", "surrogateescape")[:40]
                    raise self.refused(number, f"no text in UTF-8: {shown!r}; write it so, or name its encoding.")
                yield number, [f.replace(SEPARATOR, self.format.delimiter) for f in fields] if several else fields

    def split(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """The rows of quoted text, as the module csv reads them, but of any length: its limit is one of the process."""
        delimiter = self.format.one
        fields: list[str] = []
        pieces: list[str] = []  # of a field in quotes that goes on in the next line
        start = 1
        for number, line in enumerate(lines, 1):
            if not pieces:
                start, rest = number, line.rstrip("\r\n")
                if '"' not in rest:
                    if rest:
                        yield number, rest.split(delimiter)
                    continue
            rest = line
            while True:
                if not pieces and rest.startswith('"'):
                    pieces, rest = [""], rest[1:]
                if pieces:
                    closing = CLOSING.match(rest)
                    if closing is None:
                        pieces.append(rest)
                        break
                    rest = rest[closing.end() :]
                    pieces.append(closing[1])
                more, found, rest = rest.partition(delimiter)
                fields.append("".join(pieces).replace('""', '"') + (more if found else more.rstrip("\r\n")))
                pieces = []
                if not found:
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

    def row(self, index: int) -> tuple[int, list[str]]:
        """The line and the fields of the row at an index, from 0, the header not counted."""
        return next(itertools.islice(self.records(), index + int(self.format.header), None), (0, []))

    def line_of(self, offset: int) -> int:
        """The number, from 1, of the line that a byte is in."""
        with self.open() as file:
            before = file.read(offset)
        return 1 + before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n")

    def refused(self, line: int, reason: str) -> InvalidDataError:
        return InvalidDataError(f"The file {self.path} cannot be read: line {line}: {reason}")


def read_delimited(
    path: Path,
    format: Format,
    columns: Sequence[str],
    *,
    n_ids: int = 2,
    numbers: Sequence[str] = (),
    content: bytes | None = None,
) -> pa.Table:
    """The named columns of a delimited text file.

    The first `n_ids` are ids: integers where all of a column are written as such, 7.0 being 7, and else text, so that
    007 stays 007. `numbers` are those that hold numbers only, the others hold times. `content` may
    stand in for what the file holds.

    Raises DataNotFoundError, and InvalidDataError that names the line and the column.
    """
    with said(path):
        text = open_text(path, format, content)
        names = _names(text, columns)
        ids = [names.index(name) for name in columns[:n_ids]]
        quotes = check_bytes(text, names, ids)
        table = _read(text, columns, n_ids, quotes, None if format.names is None else names)
        for index, name in enumerate(columns[:n_ids]):
            table = table.set_column(index, name, checked_ids(text, table[name], name))
        _check_header(text, table, names)
        for name in columns[n_ids:]:
            check = _check_numbers if name in numbers else _check_times
            check(text, table[name], name)
    return table


def open_text(path: Path, format: Format, content: bytes | None = None) -> TextFile:
    """The file as UTF-8 with a delimiter of one character: as it lies on the disk, or in memory where it is another.

    Raises InvalidDataError for bytes that are no text of its encoding.
    """
    if content is None and path.suffix.lower() in COMPRESSIONS:
        with pa.input_stream(str(path)) as stream:
            content = stream.read()
    if format.encoding.lower() not in UTF_8:
        try:
            content = (path.read_bytes() if content is None else content).decode(format.encoding).encode()
        except UnicodeDecodeError as error:
            line = TextFile(path, format, error.object).line_of(error.start)
            raise InvalidDataError(
                f"The file {path} cannot be read: line {line} is no text in {format.encoding}: {error}; name its "
                f"encoding."
            ) from error
    if len(format.delimiter) > 1:
        content = path.read_bytes() if content is None else content
        at = content.find(SEPARATOR.encode())
        if at >= 0:
            raise TextFile(path, format, content).refused(
                TextFile(path, format, content).line_of(at),
                f"a control character (0x1f), which cannot be read with a delimiter of {len(format.delimiter)} "
                f"characters; take it out.",
            )
        content = content.replace(format.delimiter.encode(), SEPARATOR.encode())
    return TextFile(path, format, content)


def check_bytes(text: TextFile, names: Sequence[str], ids: Sequence[int]) -> Quotes:
    """What quotes do in a file of columns `names`, of which those at `ids` have ids.

    Raises InvalidDataError for a quote that is never closed, or closed by one of another row, and for NUL.
    """
    first = next(itertools.islice(text.records(), int(text.format.header), None), (0, []))[1]
    shapes = [_shape(first[place]) if place < len(first) else _shape("") for place in ids]

    def is_row(line: str) -> bool:
        """Whether a line within quotes could stand as a row of its own."""
        _, fields = next(text.split([line]), (0, []))
        return len(fields) == len(names) and all(
            shape.fullmatch(fields[place].strip('"')) for place, shape in zip(ids, shapes, strict=True)
        )

    with text.open() as file:
        quotes = scan_quotes(file, text.format.one.encode(), text.format.quoted, len(names), is_row)
    if quotes.nul is not None:
        raise text.refused(
            text.line_of(quotes.nul), "a NUL byte: the file is damaged, or its encoding is another, such as utf-16."
        )
    if quotes.open is not None:
        line = text.line_of(quotes.open)
        before = _before(text, quotes.open)
        place = before.count(text.format.one)
        column = f" in column {names[place]!r}" if place < len(names) and names[place] else ""
        raise text.refused(
            line,
            f"a quote{column} is not closed{' before the end of the file' if quotes.end else ' in its row'}; close it, "
            f"take it out, or, within a field in quotes, write it twice.",
        )
    return quotes


@contextmanager
def said(path: Path) -> Iterator[None]:
    """Within this, what libraries raise for a file becomes an error of ours, in one line."""
    try:
        yield
    except InvalidDataError:  # a ValueError too
        raise
    except FileNotFoundError as error:
        raise DataNotFoundError(f"Expected a file of events at {path}, got: {error.strerror or error}.") from error
    except (pa.ArrowException, OSError, EOFError, UnicodeError, LookupError) as error:
        reason = " ".join(str(error).split())
        raise InvalidDataError(f"The file {path} cannot be read: {reason}") from error


def check_columns(wanted: Sequence[str], known: Iterable[Any]) -> None:
    """Refuse columns of which one is wanted twice, or is not there once."""
    known = list(known)
    if len(set(wanted)) < len(wanted):
        raise InvalidDataError(f"Expected different columns for users, items and values, got {list(wanted)}.")
    for name in wanted:
        found = [column for column in known if column == name]
        if len(found) != 1:
            state = "is missing" if not found else f"stands {len(found)} times"
            raise InvalidDataError(f"Expected one column {name!r}, but it {state}; the columns are {known}.")


def number_texts(ids: Sequence[str]) -> pa.ChunkedArray:
    """Ids that came as text, as `read_delimited` has them: integers where all are written as such."""
    return as_numbers(encoded(ids))


def encoded(ids: Sequence[str]) -> pa.ChunkedArray:
    """Texts as a dictionary, of which each is held once."""
    return pa.chunked_array([pa.array(ids, pa.string()).dictionary_encode()])


def as_numbers(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids as integers if each is written as one, 7.0 among them, else as they are.

    ids : chunks with one dictionary of text
    """
    if ids.num_chunks == 0 or ids.null_count:
        return ids
    numbers = _integers(ids.chunk(0).dictionary)
    return ids if numbers is None else pa.chunked_array([numbers.take(chunk.indices) for chunk in ids.chunks])


def _integers(texts: pa.Array) -> pa.Array | None:
    """Texts as integers, if each is written as one would write an integer, or a float that is one."""
    if not len(texts) or not NUMBER.fullmatch(texts[0].as_py()):
        return None
    if pc.any(pc.match_substring(texts, ".")).as_py():
        texts = pc.replace_substring_regex(texts, r"\.0*$", "")
    try:
        numbers = texts.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    return numbers if numbers.cast(pa.string()).equals(texts) else None


def missing_word(ids: pa.Array) -> str | None:
    """The first of distinct ids, all of them text, that is blank or a word for nothing."""
    blank = pc.equal(pc.utf8_trim_whitespace(ids), "")
    found = pc.or_(blank, pc.is_in(ids, value_set=pa.array(MISSING, ids.type)))
    index = pc.index(found, True).as_py()
    return None if index < 0 else str(ids[index].as_py())


def no_id(word: str | None, where: str, name: str) -> InvalidDataError:
    """The error for a row that has nothing, or a word for nothing, in a column."""
    found = "none" if word is None or not word.strip() else repr(word)
    hint = "" if found == "none" else "; where it is an id, write it in another way"
    return InvalidDataError(f"Expected a value in every row of {name!r}, got {found} in {where}; drop such rows{hint}.")


def _names(text: TextFile, columns: Sequence[str]) -> list[str]:
    """Names of all columns. Raises InvalidDataError where one of `columns` is not there once."""
    if text.format.names is not None:
        return [name or f"_{index}" for index, name in enumerate(text.format.names)]
    line, names = next(text.records(strict=True), (0, []))
    if not names:
        raise InvalidDataError(f"The file {text.path} cannot be read: Empty CSV file, expected a line of column names.")
    try:
        check_columns(columns, names)
    except InvalidDataError as error:
        hint = f"line {line} looks like a row: begin the file with their names" if _is_data(names) else ""
        if len(names) == 1:
            hint = f"is the delimiter another than {text.format.delimiter!r}?"
        raise InvalidDataError(f"{str(error)[:-1]}{'; ' if hint else ''}{hint or '.'}") from error
    if _is_data(names):
        raise text.refused(line, f"expected names of columns, got a row: {names}; begin the file with their names.")
    return names


def _is_data(names: Sequence[str]) -> bool:
    """Whether what should be names of columns are numbers, and not those of the columns."""
    return all(map(NUMBER.fullmatch, names)) and not _is_counted(names)


def _read(text: TextFile, columns: Sequence[str], n_ids: int, quotes: Quotes, names: list[str] | None) -> pa.Table:
    convert = pyarrow.csv.ConvertOptions(
        include_columns=list(columns),
        column_types=dict.fromkeys(columns[:n_ids], pa.dictionary(pa.int32(), pa.string())),
        null_values=[""],
        strings_can_be_null=True,
    )
    parse = pyarrow.csv.ParseOptions(
        delimiter=text.format.one,
        quote_char='"' if text.format.quoted else False,
        newlines_in_values=quotes.breaks,
    )
    skip = next(text.records(), (0, []))[0] if text.format.header and names is not None else 0
    block = BLOCK if quotes.longest < BLOCK // 2 else text.size() + 1
    while True:
        options = pyarrow.csv.ReadOptions(column_names=names, skip_rows=skip, block_size=min(block, LARGEST_BLOCK))
        try:
            return pyarrow.csv.read_csv(text.source(), options, parse, convert)
        except pa.ArrowInvalid as error:
            if block == BLOCK and "straddl" in str(error):  # a row is longer than a block
                block = text.size() + 1
                continue
            _explain(text, names)
            raise


def _explain(text: TextFile, names: Sequence[str] | None) -> None:
    """Raise an error that names the line for what the parser refused."""
    expected = None if names is None else len(names)
    for line, fields in text.records(strict=True):
        expected = len(fields) if expected is None else expected
        if len(fields) != expected:
            shown = text.format.delimiter.join(fields)
            raise text.refused(line, f"Expected {expected} columns, got {len(fields)}: {shown[:60]!r}.")


def checked_ids(text: TextFile, ids: pa.ChunkedArray, name: str, lines: Sequence[int] | None = None) -> pa.ChunkedArray:
    """A column of ids in a dictionary as numbers or text.

    lines : of each id, where that is not the line of its row

    Raises InvalidDataError for rows without an id, and for one id in two writings.
    """

    def line(index: int) -> int:
        return text.row(index)[0] if lines is None else int(lines[index])

    if ids.null_count:
        raise no_id(None, f"line {line(pc.index(ids.is_null(), True).as_py())} of {text.path}", name)
    if not len(ids):
        return ids
    ids = ids.unify_dictionaries()
    if len(text.format.delimiter) > 1:
        ids = _restored(ids, text.format.delimiter)
    numbers = as_numbers(ids)
    if not pa.types.is_dictionary(numbers.type):
        return numbers
    texts = ids.chunk(0).dictionary
    word = missing_word(texts)
    if word is not None:
        raise no_id(word, f"line {line(_first(ids, word))} of {text.path}", name)
    if lines is None:
        _refuse_header(text, ids, name)
    for odd, reason in _odd_ids(texts):
        raise text.refused(line(_first(ids, odd)), f"{odd!r} in column {name!r} {reason}.")
    return ids


def _odd_ids(texts: pa.Array) -> Iterator[tuple[str, str]]:
    """Those of the distinct ids that are another one in another writing, and why they cannot stand."""
    bare = pc.utf8_trim_whitespace(texts)
    others = [(bare, "is {!r} in another row: take out the spaces around it")]
    if pc.any(pc.ends_with(texts, ".0")).as_py():
        whole = pc.replace_substring_regex(texts, r"^(-?\d+)\.0$", r"\1")
        others.append((whole, "is {!r} in another row: write both in one way"))
    for other, reason in others:
        changed = pc.not_equal(other, texts)
        if not pc.any(changed).as_py():
            continue
        index = pc.index(pc.and_(changed, pc.is_in(other, value_set=texts)), True).as_py()
        if index >= 0:
            yield texts[index].as_py(), reason.format(other[index].as_py())
    index = pc.index(pc.not_equal(bare, texts), True).as_py()
    if index >= 0 and _integers(bare.unique()) is not None:
        yield texts[index].as_py(), "has spaces around it: take these out, or make them part of the delimiter"
    if NUMBER.fullmatch(texts[0].as_py()) and pc.all(pc.match_substring_regex(texts, f"^{NUMBER.pattern}$")).as_py():
        index = pc.index(pc.match_substring_regex(texts, "[eE]"), True).as_py()
        if index >= 0:
            yield texts[index].as_py(), "is a number that may have lost digits: write ids in full"


def _refuse_header(text: TextFile, ids: pa.ChunkedArray, name: str) -> None:
    """Refuse a first row that is a header: the names of columns, or text where all others are integers."""
    if text.format.header or text.format.names is None:
        return
    line, fields = next(text.records())
    header = any(
        column and re.sub("[^a-z]", "", field.lower()).removesuffix("id") == column
        for field, column in zip(fields, text.format.names, strict=False)
    )
    if not header and len(ids) > 1:
        codes = pa.chunked_array([chunk.indices for chunk in ids.slice(1).chunks]).unique()
        header = _integers(ids.chunk(0).dictionary.take(codes)) is not None
    if header:
        raise text.refused(
            line, f"expected a row, got what looks like names, as in column {name!r}: {fields}; set header = true."
        )


def _check_header(text: TextFile, table: pa.Table, names: Sequence[str]) -> None:
    """Refuse a row that was skipped as the header: one with a number in each column that has only numbers."""
    if not text.format.header or text.format.names is None or not len(table):
        return
    line, fields = next(text.records())
    places = [names.index(name) for name in table.column_names if _is_number(table[name].type)]
    shown = [fields[place] for place in places if place < len(fields)]
    if shown and all(map(NUMBER.fullmatch, shown)) and not _is_counted(fields):
        raise text.refused(line, f"expected names of columns, got a row: {fields}; set header = false.")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_counted(names: Sequence[str]) -> bool:
    """Whether columns are called by their number."""
    return list(names) in ([str(k) for k in range(len(names))], [str(k + 1) for k in range(len(names))])


def _check_numbers(text: TextFile, column: pa.ChunkedArray, name: str) -> None:
    """Refuse what is no number in a column of numbers."""
    kind, odd = column.type, column.is_null()
    if pa.types.is_floating(kind) and not column.null_count:
        odd = pc.invert(pc.is_finite(column))
    if pa.types.is_string(kind):
        known = pc.match_substring_regex(column, f"^ *(?:{NUMBER.pattern}|[+-]?(?i:nan|inf|infinity)) *$")
        odd = pc.invert(pc.fill_null(known, False))
    elif not (_is_number(kind) or pa.types.is_boolean(kind)):
        odd = pc.is_valid(column)  # dates
    index = pc.index(odd, True).as_py()
    if index < 0:
        return
    found = column[index].as_py()
    if found is None:
        raise text.refused(text.row(index)[0], f"Expected a value in every row of {name!r}, got none.")
    expected = "Expected finite values" if _is_number(kind) else "Expected numbers"
    hint = "; where these are names of columns, set header = true" if index == 0 and not text.format.header else ""
    kinds = "" if _is_number(kind) else f"{kind}: "
    raise text.refused(text.row(index)[0], f"{expected} in column {name!r}, got {kinds}{found!s:.40}{hint}.")


def _check_times(text: TextFile, column: pa.ChunkedArray, name: str) -> None:
    """Refuse what is neither a date nor a number nor nothing in a column of times."""
    if not pa.types.is_string(column.type):
        return
    known = pc.match_substring_regex(column, rf"^\s*(?:{DATE}|{NUMBER.pattern})?\s*$")
    index = pc.index(known, False).as_py()
    if index >= 0:
        raise text.refused(
            text.row(index)[0],
            f"Expected dates or numbers in column {name!r}, got {column[index].as_py()!r:.40}; write dates as "
            f"2018-01-31 or 2018-01-31T12:00:00.",
        )


def _restored(ids: pa.ChunkedArray, delimiter: str) -> pa.ChunkedArray:
    """Ids with the delimiter of many characters where it was in quotes."""
    texts = pc.replace_substring(ids.chunk(0).dictionary, SEPARATOR, delimiter)
    return pa.chunked_array([pa.DictionaryArray.from_arrays(chunk.indices, texts) for chunk in ids.chunks])


def _first(ids: pa.ChunkedArray, name: str) -> int:
    """The index of the first row with an id."""
    code = pc.index(ids.chunk(0).dictionary, name).as_py()
    return int(pc.index(pa.chunked_array([chunk.indices for chunk in ids.chunks]), pa.scalar(code, pa.int32())).as_py())


def _shape(example: str) -> re.Pattern[str]:
    """What ids look like, of which one is `example`."""
    if INTEGER.fullmatch(example):
        return INTEGER
    return re.compile(r"\S(.*\S)?" if re.search(r"\s", example) else r"\S+")


def _before(text: TextFile, offset: int) -> str:
    """What stands before a byte in its row, fields in quotes left out."""
    with text.open() as file:
        before = file.read(offset)
    start = max(before.rfind(b"\n"), before.rfind(b"\r")) + 1
    return re.sub(r'"[^"]*"', "", before[start:].decode("utf-8", "replace"))
