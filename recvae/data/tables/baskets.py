"""Read lines of ids: a user and all items ("adjacency"), items alone ("baskets"), or their number first ("counted").

pyarrow splits. Of baskets and counted lines, the user is the number of the line, from 1.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recvae.data.tables.options import WHITESPACE, Columns, Reading, ReadOptions
from recvae.data.tables.shaped import ShapedFile, checked_reading
from recvae.data.tables.text_file import Format, check_bytes, open_text, reading
from recvae.errors import InvalidDataError

KINDS = ("adjacency", "baskets", "counted")


def read_lists(path: Path, columns: Columns, options: ReadOptions, kind: str) -> Reading:
    """Read a list of ids in each line, as one of `KINDS` says; empty lines and users without items are skipped.

    Raises
    ------
    DataNotFoundError
    InvalidDataError
        For another delimiter, empty ids, a wrong number of items, and a header; the message names the line.
    """
    with reading(path):
        lines = IdLines(path, options)
        skip = int(kind != "baskets")  # ids before the items
        if kind == "counted":
            lines.check_counts(options)
        else:
            lines.refuse_counts(skip, options)
        lines.check_header(options)
        lengths = np.maximum(lines.lengths - skip, 0)
        starts = np.cumsum(lines.lengths) - lines.lengths
        is_item = np.ones(len(lines.ids), dtype=bool)
        if skip:
            is_item[starts[lines.lengths > 0]] = False
        row = np.repeat(np.arange(len(lengths)), lengths)
        found = {"item": lines.ids.filter(pa.array(is_item))}
        if kind == "adjacency":
            found["user"] = lines.ids.take(pa.array(np.repeat(starts, lengths)))
        else:
            found["user"] = pa.chunked_array([pa.array(lines.numbers[row])])
        text = ShapedFile(path, lines=lambda: lines.numbers[row].tolist())
        notes = [] if kind == "adjacency" else ["users are the numbers of the lines, from 1"]
        empty = int((lengths == 0).sum())
        notes += [f"{empty:,} lines have no items"] if empty else []
        return checked_reading(text, found, columns, options, [*lines.notes, *notes])


class IdLines:
    """The ids of the lines of a file.

    Attributes
    ----------
    ids : pa.ChunkedArray
        All ids, dictionary-encoded, in order.
    lengths, numbers : NDArray[np.int64]
        (L,) number of ids of each line, and its number, from 1.
    notes : list[str]
        What was guessed.
    """

    def __init__(self, path: Path, options: ReadOptions):
        self.notes: list[str] = []
        self.text = open_text(
            path, Format(encoding=options.encoding or "utf-8", header=False, options=replace(options, quote=""))
        )
        check_bytes(self.text, (), ())
        with self.text.open() as file:
            content = file.read().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        try:
            lines = pc.split_pattern(pa.array([content.decode()], pa.large_string()), "\n").flatten()
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            shown = content[error.start : error.start + 20]
            hint = options.give("encoding", "latin-1")
            reason = f"no text in UTF-8: {shown!r}; name its encoding, such as {hint}."
            raise self.text.refused(line, reason) from error
        used = pc.not_equal(pc.utf8_trim_whitespace(lines), "").to_numpy(zero_copy_only=False)
        if options.comment:
            used &= ~pc.starts_with(lines, options.comment).to_numpy(zero_copy_only=False)
        self.numbers: NDArray[np.int64] = np.flatnonzero(used) + 1
        self.lines = lines.filter(pa.array(used))
        if options.header:
            self.numbers, self.lines = self.numbers[1:], self.lines[1:]
        if not len(self.lines):
            raise InvalidDataError(f"The file {path} cannot be read: expected lines of ids, got none.")
        self._split(options)

    def check_header(self, options: ReadOptions) -> None:
        """Refuse a first line of names: without a number, where all others are numbers."""
        first = int(self.lengths[0])
        texts = self.ids.cast(pa.string())
        numeric = pc.match_substring_regex(texts, r"^\d+$").to_numpy().astype(bool)
        if len(self.lengths) > 1 and not numeric[:first].any() and numeric[first:].all():
            names = texts[:first].to_pylist()
            raise self.text.refused(
                int(self.numbers[0]),
                f"expected ids, got what looks like names: {names}; set {options.give('header', True)}.",
            )

    def check_counts(self, options: ReadOptions) -> None:
        """Refuse lines that do not begin with the number of their items."""
        wrong = self._counted(0) != self.lengths - 1
        if wrong.any():
            index = int(np.flatnonzero(wrong)[0])
            raise self._refused(
                index,
                f"expected the number of items and as many items, got {self.lengths[index] - 1} items after the first",
                f"for lines of items alone, say {options.give('format', 'baskets')}",
            )

    def refuse_counts(self, skip: int, options: ReadOptions) -> None:
        """Refuse files with the number of items in front of them."""
        relevant = self.lengths > skip
        for position in range(skip + 1):
            counted = relevant & (self._counted(position) == self.lengths - position - 1)
            if relevant.sum() > 1 + position and counted.sum() >= 0.9 * relevant.sum():
                what = ("instead of a user" if skip else "in front") if position == 0 else "after the user"
                mend = "take it out" if position else f"say {options.give('format', 'counted')}"
                expected = "a user and all items" if skip else "items"
                raise self._refused(
                    int(np.flatnonzero(counted)[0]),
                    f"expected {expected}, got the number of items {what}, here and in {counted.sum():,} of "
                    f"{relevant.sum():,} lines",
                    mend,
                )

    def _counted(self, position: int) -> NDArray[np.int64]:
        """The number at a position of each line, -1 where there is none."""
        starts = np.cumsum(self.lengths) - self.lengths + position
        has = self.lengths > position
        texts = self.ids.take(pa.array(starts[has])).cast(pa.string())
        short = pc.match_substring_regex(texts, r"^(0|[1-9]\d{0,8})$")
        numbers = pc.if_else(short, texts, "-1").cast(pa.int64()).to_numpy()
        out = np.full(len(has), -1, dtype=np.int64)
        out[has] = numbers
        return out

    def _split(self, options: ReadOptions) -> None:
        delimiter = options.separator
        if delimiter is None:
            delimiter = _guessed(self.lines[:1000].to_pylist())
            self.notes.append(f"delimiter {delimiter if delimiter == WHITESPACE else repr(delimiter)} guessed")
        if delimiter == WHITESPACE:
            lists = pc.split_pattern_regex(pc.utf8_trim_whitespace(self.lines), r"[ \t]+")
        else:
            lists = pc.split_pattern(pc.utf8_rtrim(self.lines, delimiter + "\r"), delimiter)
        self.lengths = pc.list_value_length(lists).to_numpy().astype(np.int64)
        ids = lists.flatten()
        blank = pc.or_(pc.equal(ids, ""), pc.not_equal(pc.utf8_trim_whitespace(ids), ids))
        index = pc.index(blank, True).as_py()
        if index >= 0:
            line = int(np.searchsorted(np.cumsum(self.lengths), index, side="right"))
            raise self._refused(line, "an empty or spaced id", "")
        other = pc.match_substring(ids, "\t")
        if pc.any(other).as_py():
            line = int(np.searchsorted(np.cumsum(self.lengths), pc.index(other, True).as_py(), side="right"))
            raise self._refused(line, f"another delimiter than {delimiter!r}", "")
        self.ids = pa.chunked_array([ids.cast(pa.string()).dictionary_encode()])

    def _refused(self, index: int, reason: str, mend: str) -> InvalidDataError:
        mend = f"; {mend}." if mend else "."
        return self.text.refused(int(self.numbers[index]), f"{reason}: {self.lines[index].as_py()[:40]!r}{mend}")


def _guessed(lines: list[str]) -> str:
    """The delimiter of the first lines: a tab, comma, semicolon or bar if one is in most of them, else blanks."""
    for delimiter in ("\t", ",", ";", "|"):
        if sum(delimiter in line for line in lines) > len(lines) / 2:
            return delimiter
    return WHITESPACE
