"""Check the columns of a text file: ids as integers or text, numbers and times; errors name the line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from recvae.data.tables.text_file import SEPARATOR, TextFile
from recvae.errors import InvalidDataError

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

# written by libraries for missing values; as an id, they would merge all users without one
MISSING = (
    *("#N/A", "#NA", "-nan", "<NA>", "N/A", "NA", "NAN", "NONE", "NULL", "NaN", "NaT", "None", "Null"),
    *("\\N", "n/a", "nan", "nil", "none", "null", "undefined"),
)

DATE = r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?: ?Z|[+-]\d\d(?::?\d\d)?)?)?"


def number_texts(ids: Sequence[str]) -> pa.ChunkedArray:
    """Convert ids given as text as `read_delimited` does: to integers if all are written as such."""
    return as_numbers(encoded(ids))


def encoded(ids: Sequence[str]) -> pa.ChunkedArray:
    """Dictionary-encode texts."""
    return pa.chunked_array([pa.array(ids, pa.string()).dictionary_encode()])


def as_numbers(ids: pa.ChunkedArray, mark: str = ".") -> pa.ChunkedArray:
    """Convert ids to integers if each is written as one (7.0 is 7), otherwise return them unchanged.

    Parameters
    ----------
    ids : pa.ChunkedArray
        Dictionary-encoded text; all chunks share one dictionary.
    mark : str
        Decimal mark.
    """
    if ids.num_chunks == 0 or ids.null_count:
        return ids
    numbers = _integers(ids.chunk(0).dictionary, mark)
    return ids if numbers is None else pa.chunked_array([numbers.take(chunk.indices) for chunk in ids.chunks])


def _integers(texts: pa.Array, mark: str = ".") -> pa.Array | None:
    """Convert texts to integers; None unless each is a canonical integer, or one followed by the mark and zeros."""
    if not len(texts) or not NUMBER.fullmatch(texts[0].as_py().replace(mark, ".")):
        return None
    if pc.any(pc.match_substring(texts, mark)).as_py():
        texts = pc.replace_substring_regex(texts, rf"\{mark}0*$", "")
    try:
        numbers = texts.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    return numbers if numbers.cast(pa.string()).equals(texts) else None


def missing_word(ids: pa.Array) -> str | None:
    """First of the distinct text ids that is blank or a word for a missing value; None if there is none."""
    index = pc.index(_is_missing(ids), True).as_py()
    return None if index < 0 else str(ids[index].as_py())


def _is_missing(ids: pa.Array) -> pa.Array:
    """Mask of the distinct text ids that are blank or a word for a missing value."""
    blank = pc.equal(pc.utf8_trim_whitespace(ids), "")
    return pc.or_(blank, pc.is_in(ids, value_set=pa.array(MISSING, ids.type)))


def without_id(ids: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Mask of the rows of a dictionary-encoded column that have no id; None if there is none."""
    masks = []
    for chunk in ids.chunks:
        missing = _is_missing(chunk.dictionary)
        masks.append(pc.fill_null(missing.take(chunk.indices), True))
    mask = pa.chunked_array(masks, pa.bool_())
    return mask if pc.any(mask).as_py() else None


def no_id(word: str | None, where: str, name: str, remedy: str = "") -> InvalidDataError:
    """Make the error for a row with a blank, or a word for a missing value, in a column."""
    got = "none" if word is None or not word.strip() else repr(word)
    hint = f"; drop such rows{f', as {remedy} does' if remedy else ''}"
    hint += "" if got == "none" else "; where it is an id, write it in another way"
    return InvalidDataError(f"Expected a value in every row of {name!r}, got {got} in {where}{hint}.")


def checked_ids(text: TextFile, ids: pa.ChunkedArray, name: str, lines: Sequence[int] | None = None) -> pa.ChunkedArray:
    """Check a dictionary-encoded column of ids. -> integers, or dictionary-encoded text

    Parameters
    ----------
    lines : Sequence[int] or None
        Line of each id, if rows of the column are not lines of the file.

    Raises
    ------
    InvalidDataError
        For rows without an id, and for ids that are written in two ways.
    """
    remedy = "" if lines is not None else text.format.options.give("without_id", "drop")

    def line(index: int) -> int:
        return text.line(index) if lines is None else int(lines[index])

    if ids.null_count:
        raise no_id(None, f"line {line(pc.index(ids.is_null(), True).as_py())} of {text.path}", name, remedy)
    if not len(ids) or pa.types.is_integer(ids.type):
        return ids
    ids = ids.unify_dictionaries()
    if text.format.several:
        ids = _restored(ids, text.format.delimiter)
    numbers = as_numbers(ids, text.format.options.decimal)
    if not pa.types.is_dictionary(numbers.type):
        return numbers
    texts = ids.chunk(0).dictionary
    word = missing_word(texts)
    if word is not None:
        raise no_id(word, f"line {line(_first(ids, word))} of {text.path}", name, remedy)
    if lines is None and (text.kept is None or text.kept[0] == 0):
        _refuse_header(text, ids, name)
    for text_id, reason in _ambiguous_ids(texts):
        raise text.refused(line(_first(ids, text_id)), f"{text_id!r} in column {name!r} {reason}.")
    return ids


def _ambiguous_ids(texts: pa.Array) -> Iterator[tuple[str, str]]:
    """Yield distinct ids that may be another spelling of an id, with the reason to refuse them."""
    bare = pc.utf8_trim_whitespace(texts)
    others = [(bare, "is {!r} in another row: take out the spaces around it")]
    if pc.any(pc.and_(pc.ends_with(texts, "0"), pc.match_substring(texts, "."))).as_py():
        whole = pc.replace_substring_regex(texts, r"^(-?\d+)\.0+$", r"\1")
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
    """Refuse a first row that looks like a header: names of columns, or text if all other ids are integers."""
    if text.format.header or text.format.names is None:
        return
    line, fields = next(text.records(strict=True))
    if any(map(NUMBER.fullmatch, fields)):
        return
    header = any(
        column and re.sub("[^a-z]", "", field.lower()).removesuffix("id") == column
        for field, column in zip(fields, text.format.names, strict=False)
    )
    if not header and len(ids) > 1:
        codes = pa.chunked_array([chunk.indices for chunk in ids.slice(1).chunks]).unique()
        header = _integers(ids.chunk(0).dictionary.take(codes)) is not None
    if header:
        raise text.refused(
            line,
            f"expected a row, got what looks like names, as in column {name!r}: {fields}; "
            f"{text.format.options.to_set('header', True)}.",
        )


# names of columns that the field uses, without "id"
KNOWN = ("user", "item", "movie", "film", "track", "artist", "product", "rating", "score", "value", "time", "timestamp")


def looks_like_name(field: str) -> bool:
    """Whether a field is a usual name of a column, such as userId."""
    return re.sub("[^a-z]", "", field.lower()).removesuffix("id") in KNOWN


def check_header(text: TextFile, table: pa.Table, names: Sequence[str]) -> None:
    """Refuse a header that looks like a row, with a number in each numeric column."""
    if not text.format.header or text.format.names is None or not len(table):
        return
    line, fields = next(text.records(strict=True))
    numeric = [names.index(name) for name in table.column_names if _is_number(table[name].type)]
    shown = [fields[column] for column in numeric if column < len(fields)]
    if shown and all(map(NUMBER.fullmatch, shown)) and not is_counted(fields):
        raise text.refused(
            line,
            f"expected names of columns, got a row: {fields}; {text.format.options.to_set('header', False)}.",
        )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def is_counted(names: Sequence[str]) -> bool:
    """Whether the names of columns are their numbers, from 0 or from 1."""
    return list(names) in ([str(k) for k in range(len(names))], [str(k + 1) for k in range(len(names))])


def check_number_column(text: TextFile, column: pa.ChunkedArray, name: str) -> None:
    """Refuse values that are not numbers in a column of numbers, with the line in the error."""
    kind, invalid, options = column.type, column.is_null(), text.format.options
    if pa.types.is_floating(kind) and not column.null_count:
        invalid = pc.invert(pc.is_finite(column))
    if pa.types.is_string(kind):
        known = pc.match_substring_regex(column, f"^ *(?:{_number(options.decimal)}|[+-]?(?i:nan|inf|infinity)) *$")
        invalid = pc.invert(pc.fill_null(known, False))
    elif not (_is_number(kind) or pa.types.is_boolean(kind)):
        invalid = pc.is_valid(column)  # dates
    index = pc.index(invalid, True).as_py()
    if index < 0:
        return
    value = column[index].as_py()
    if value is None:
        raise text.refused(text.line(index), f"Expected a value in every row of {name!r}, got none.")
    expected = "Expected finite values" if _is_number(kind) else "Expected numbers"
    hint = ""
    if index == 0 and text.kept is None and not text.format.header:
        hint = f"; where these are names of columns, {options.give('header', True)}"
    for mark in {".", ","} - {options.decimal}:
        if re.fullmatch(_number(mark), str(value)):
            hint = f"; where {mark} is the decimal mark, {options.give('decimal', mark)}"
    kinds = "" if _is_number(kind) else f"{kind}: "
    raise text.refused(text.line(index), f"{expected} in column {name!r}, got {kinds}{value!r:.40}{hint}.")


def _number(mark: str) -> str:
    """Pattern of a number with this decimal mark."""
    return NUMBER.pattern.replace(r"\.", re.escape(mark))


def check_time_column(text: TextFile, column: pa.ChunkedArray, name: str) -> None:
    """Refuse text that is not a date, a number or blank in a column of times."""
    if not pa.types.is_string(column.type):
        return
    known = pc.match_substring_regex(column, rf"^\s*(?:{DATE}|{NUMBER.pattern})?\s*$")
    index = pc.index(known, False).as_py()
    if index >= 0:
        raise text.refused(
            text.line(index),
            f"Expected dates or numbers in column {name!r}, got {column[index].as_py()!r:.40}; write dates as "
            f"2018-01-31 or 2018-01-31T12:00:00, or name their format, such as "
            f"{text.format.options.give('time_format', '%d/%m/%Y')}.",
        )


def _restored(ids: pa.ChunkedArray, delimiter: str) -> pa.ChunkedArray:
    """Restore delimiters of several characters within quoted ids."""
    texts = pc.replace_substring(ids.chunk(0).dictionary, SEPARATOR, delimiter)
    return pa.chunked_array([pa.DictionaryArray.from_arrays(chunk.indices, texts) for chunk in ids.chunks])


def _first(ids: pa.ChunkedArray, name: str) -> int:
    """Index of the first row with an id."""
    code = pc.index(ids.chunk(0).dictionary, name).as_py()
    return int(pc.index(pa.chunked_array([chunk.indices for chunk in ids.chunks]), pa.scalar(code, pa.int32())).as_py())
