"""Scan the quotes in the bytes of a text file: detect line breaks within fields, and quotes that are never closed."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

LF, CR = b"\n\r"
SHARE = 2 / 3  # if this share of the lines of a quoted field could be rows, they are rows
BLOCK = 1 << 20  # bytes; fits the CPU cache


@dataclass(frozen=True)
class Quotes:
    """Result of a scan of a file.

    Attributes
    ----------
    breaks : bool
        Whether a field in quotes has line breaks.
    longest : int
        Bytes of the longest field with line breaks.
    open : int or None
        Byte offset of a quote that is not closed, or only by a quote of another row.
    end : bool
        Whether the file ends within that quote.
    nul : int or None
        Byte offset of the first NUL.
    integers : tuple[bool, ...]
        For each column of ids, whether it seems to have integers, written so that Arrow may parse them.
    """

    breaks: bool = False
    longest: int = 0
    open: int | None = None
    end: bool = False
    nul: int | None = None
    integers: tuple[bool, ...] = ()


def scan_quotes(
    file: IO[bytes],
    delimiter: bytes,
    quote: bytes,
    n_columns: int,
    is_row: Callable[[str], bool],
    look: Callable[[bytes], None],
) -> Quotes:
    """Scan all bytes once; without a `quote` character, this is only a search for NUL.

    A quote opens a field if it is the first character, and closes it if a delimiter or the end of a line follows; a
    doubled quote within is text. A field of several lines is accepted, unless text follows its closing quote, or most
    of its lines could be rows of their own (`is_row`): then its opening quote was never closed, and the closing one
    belongs to another row. `look` gets each block.
    """
    start, opened, size, carried = 0, 0, BLOCK, b""
    breaks, longest = False, 0
    while True:
        new = file.read(size)
        new += file.readline() if new else b""
        look(new)
        at = new.find(b"\0")
        if at >= 0:
            return Quotes(nul=start + len(carried) + at)
        if not new:
            return Quotes(breaks, longest, opened, True) if carried else Quotes(breaks, longest)
        block = carried + new
        carried = b""
        if quote and quote in block and not _is_plain(block, delimiter[0], quote[0]):
            scan = _scan(block, delimiter[0], quote[0], n_columns, is_row)
            if scan.wrong is not None:
                return Quotes(breaks, longest, start + scan.wrong)
            breaks, longest = breaks or scan.breaks, max(longest, scan.longest)
            if scan.tail is not None:
                opened = start + scan.tail
                carried, block = block[scan.rest :], block[: scan.rest]
        start += len(block)
        size = max(BLOCK, 2 * len(carried))  # grows, so that repeated scans stay a bounded share of the work


def _is_plain(block: bytes, delimiter: int, quote: int) -> bool:
    """Whether quotes open and close fields in turn, with no quote or line break within a field: the usual case."""
    a = np.frombuffer(block, np.uint8)
    at = np.flatnonzero(a == quote)
    if len(at) % 2:
        return False
    edge = np.zeros(256, dtype=bool)
    edge[[delimiter, LF, CR]] = True
    opens, closes = at[::2], at[1::2]
    before, after = opens[int(opens[0] == 0) :] - 1, closes[: len(closes) - int(closes[-1] + 1 == len(a))] + 1
    if not (edge[a[before]].all() and edge[a[after]].all()):
        return False
    if edge[a[opens + 1]].any() or edge[a[closes - 1]].any() or (closes == opens + 1).any():
        return False  # could open as well as close
    breaks = np.flatnonzero((a == LF) | (a == CR) if b"\r" in block else a == LF)
    return not (np.searchsorted(at, breaks) & 1).any()


@dataclass(frozen=True)
class _Found:
    """Result of a scan of a block of whole lines.

    Attributes
    ----------
    wrong : int or None
        Offset of the opening quote of the first field that is closed by a quote of another row.
    tail : int or None
        Offset of the opening quote of a field that continues after the block; its row begins at `rest`.
    """

    breaks: bool = False
    longest: int = 0
    wrong: int | None = None
    tail: int | None = None
    rest: int = 0


def _scan(block: bytes, delimiter: int, quote: int, n_columns: int, is_row: Callable[[str], bool]) -> _Found:
    a = np.frombuffer(block, np.uint8)
    where = np.flatnonzero((a == quote) | (a == LF) | (a == CR))
    kind = a[where]
    quotes = np.flatnonzero(kind == quote)
    at = where[quotes]
    edge = np.zeros(256, dtype=bool)
    edge[[delimiter, LF, CR]] = True
    before = np.where(at > 0, a[at - 1], LF)
    after = a[np.minimum(at + 1, len(a) - 1)]
    after[at + 1 == len(a)] = LF
    if block.startswith(b"\xef\xbb\xbf") and at[0] == 3:  # a byte order mark
        before[0] = LF
    toggles = (kind == quote).astype(np.uint8)
    toggles[quotes[_literal(at, edge[before] | (before == quote), edge[after] | (after == quote))]] = 0
    inside = np.cumsum(toggles, dtype=np.uint8) & 1
    within = np.flatnonzero((inside == 1) & (kind != quote))
    opens = np.zeros(len(where), dtype=np.intp)  # index of the quote that opens the field, without doubled quotes
    first = quotes[(toggles[quotes] == 1) & (inside[quotes] == 1) & (before != quote)]
    tail, rest = None, 0
    if inside[-1]:
        tail = int(where[first[-1]])
        rows = np.flatnonzero((inside == 0) & (kind != quote))  # the ends of rows
        rest = int(where[rows[-1]]) + 1 if len(rows) else 0
    if not len(within):
        return _Found(tail=tail, rest=rest)
    opens[first] = first
    opens = np.maximum.accumulate(opens)
    closes = quotes[(toggles[quotes] == 1) & (inside[quotes] == 0) & (after != quote)]
    loose = np.zeros(len(where) + 1, dtype=bool)
    loose[closes] = ~edge[after[np.searchsorted(quotes, closes)]]
    fields, starts = np.unique(opens[within], return_index=True)
    closing = np.searchsorted(closes, fields)
    closed = closing < len(closes)  # False for a field that continues after the block
    ends = np.append(closes, len(where))[closing]
    longest = int((np.append(where, len(a))[ends] - where[fields]).max())
    suspects = _dense(a, where, kind, within, starts, delimiter, n_columns - 1)
    wrong = None
    for index in np.flatnonzero(closed & (loose[ends] | suspects)):
        opened, end = int(where[fields[index]]), int(where[ends[index]])
        if loose[ends[index]] or _are_rows(block, opened, end, is_row):
            wrong = opened
            break
    return _Found(True, longest, wrong, tail, rest)


def _literal(at: NDArray[np.intp], opens: NDArray[np.bool_], closes: NDArray[np.bool_]) -> list[int]:
    """Indices of quotes that are text, in fields that do not begin with a quote.

    In valid text, quotes open and close alternately; only those that break the alternation are examined one by one.
    """
    is_odd = np.arange(len(at)) % 2 == 1
    wrong = [np.flatnonzero(~np.where(is_odd == bool(turn), opens, closes)).tolist() for turn in (0, 1)]
    literal: list[int] = []
    turn = k = 0  # if k + turn is even, quote k should open a field
    while True:
        index = bisect.bisect_left(wrong[turn], k)
        if index == len(wrong[turn]):
            return literal
        k = wrong[turn][index]
        if (k + turn) % 2 == 0:
            literal.append(k)
            turn, k = 1 - turn, k + 1
            while k < len(at) and at[k] == at[k - 1] + 1:
                literal.append(k)
                turn, k = 1 - turn, k + 1
        else:  # text after a closing quote
            k += 1


def _dense(
    a: NDArray[np.uint8],
    where: NDArray[np.intp],
    kind: NDArray[np.uint8],
    within: NDArray[np.intp],
    starts: NDArray[np.intp],
    delimiter: int,
    least: int,
) -> NDArray[np.bool_]:
    """For each field with line breaks `within`, whether enough of its lines have `least` delimiters or more."""
    delimiters = np.flatnonzero(a == delimiter)
    breaks = np.flatnonzero((kind == LF) | (kind == CR))
    begin = where[within] + 1
    following = np.searchsorted(breaks, within, side="right")
    end = np.append(where, len(a))[np.append(breaks, len(where))[following]]
    enough = np.searchsorted(delimiters, end) - np.searchsorted(delimiters, begin) >= least
    enough |= (kind[within] == CR) & (np.append(a, 0)[begin] == LF)  # CR LF is one line break
    sizes = np.diff(np.append(starts, len(enough)))
    return np.asarray(np.add.reduceat(enough.astype(np.intp), starts) >= SHARE / 2 * sizes)


def _are_rows(block: bytes, opened: int, end: int, is_row: Callable[[str], bool]) -> bool:
    """Whether most lines of a field could be rows of their own, if its opening quote were text."""
    start = max(block.rfind(b"\n", 0, opened), block.rfind(b"\r", 0, opened)) + 1
    stop = min((at for at in (block.find(b"\n", end), block.find(b"\r", end)) if at >= 0), default=len(block))
    text = (block[start:opened] + block[opened + 1 : stop]).decode("utf-8", "replace")
    first, *others = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    others = [line for line in others if line]
    return is_row(first) and sum(map(is_row, others)) >= SHARE * len(others)
