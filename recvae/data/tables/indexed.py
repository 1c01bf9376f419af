"""Read lines of "label index:value index:value ...": a user in each line (LIBSVM), or an event (libFM)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recvae.data.tables.options import Columns, Reading, ReadOptions
from recvae.data.tables.shaped import ShapedFile, checked_reading, with_found
from recvae.data.tables.text_file import Format, check_bytes, open_text, reading
from recvae.errors import InvalidDataError

KINDS = ("libsvm", "libfm")
FEATURE = r"^\d+:[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"


def read_indexed(path: Path, columns: Columns, options: ReadOptions, kind: str) -> Reading:
    """Read lines of a label and features.

    "libsvm": a line is a user, whose id is the number of the line, from 1; features are items and their values; labels
    are not read. "libfm": a line is an event; its first feature is the user, its second the item, its label the value.

    Raises
    ------
    DataNotFoundError
    InvalidDataError
        For lines of another form, and for lines of two features each, of which the name of the file does not say what
        they are; the message names the line.
    """
    with reading(path):
        plain = replace(options, quote="")
        text = open_text(path, Format(encoding=options.encoding or "utf-8", header=False, options=plain))
        check_bytes(text, (), ())
        with text.open() as file:
            content = file.read().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").decode()
        lines = pc.split_pattern(pa.array([content], pa.large_string()), "\n").flatten()
        lines = pc.utf8_trim_whitespace(pc.replace_substring_regex(lines, r"#.*$", ""))  # comments, as LIBSVM has them
        numbers = np.flatnonzero(pc.not_equal(lines, "").to_numpy(zero_copy_only=False)) + 1
        lists = pc.split_pattern_regex(lines.filter(pc.not_equal(lines, "")), r"[ \t]+")
        lengths, parts = pc.list_value_length(lists).to_numpy().astype(np.int64), lists.flatten()
        if not len(lengths):
            raise InvalidDataError(f"The file {path} cannot be read: expected lines of index:value, got none.")
        first = pc.fill_null(pc.match_substring(parts, ":"), False).to_numpy(zero_copy_only=False)
        starts = np.cumsum(lengths) - lengths
        is_feature = np.ones(len(parts), dtype=bool)
        is_feature[starts] = first[starts]  # a line may have no label
        row = np.repeat(np.arange(len(lengths)), np.add.reduceat(is_feature.astype(np.int64), starts))
        features = parts.filter(pa.array(is_feature))
        wrong = pc.index(pc.match_substring_regex(features, FEATURE), False).as_py()
        if wrong >= 0:
            raise text.refused(int(numbers[row[wrong]]), f"expected index:value, got {features[wrong].as_py()!r:.40}.")
        pairs = pc.split_pattern(features, ":").flatten()
        indices = pa.chunked_array([pairs.take(pa.array(np.arange(0, len(pairs), 2))).cast(pa.int64())])
        values = pairs.take(pa.array(np.arange(1, len(pairs), 2))).cast(pa.float64())
        counts = np.bincount(row, minlength=len(lengths))
        if kind == "libfm":
            labels = parts.take(pa.array(starts))
            return _events(text.path, columns, options, (numbers, counts, indices, values, labels, first[starts]))
        if options.format is None and (counts == 2).all() and len(counts) > 2 and (values.to_numpy() == 1).all():
            raise text.refused(
                int(numbers[0]),
                f"expected to tell users from events, got two features of value 1 in each line; say "
                f"{options.give('format', 'libfm')} if each line is an event, {options.give('format', 'libsvm')} if it "
                f"is a user.",
            )
        found = {"user": pa.chunked_array([pa.array(numbers[row])]), "item": indices}
        found["value"] = pa.chunked_array([values])
        notes = ["users are the numbers of the lines, from 1; labels are not read"]
        shaped = ShapedFile(path, lines=lambda: numbers[row].tolist())
        return checked_reading(shaped, found, with_found(columns, found), options, notes)


def _events(path: Path, columns: Columns, options: ReadOptions, parts: tuple[Any, ...]) -> Reading:
    numbers, counts, indices, values, labels, unlabelled = parts
    text = ShapedFile(path, lines=lambda: numbers.tolist())
    wrong = np.flatnonzero((counts != 2) | unlabelled)
    if len(wrong):
        raise text.refused(
            int(numbers[wrong[0]]), f"expected a label and two features, a user and an item, got {counts[wrong[0]]}."
        )
    if not (values.to_numpy() == 1).all():
        index = int(np.flatnonzero(values.to_numpy() != 1)[0])
        raise text.refused(
            int(numbers[index // 2]),
            f"expected features of value 1, a user and an item, got {values[index].as_py():g}.",
        )
    found = {
        "user": indices.take(pa.array(np.arange(0, len(indices), 2))),
        "item": indices.take(pa.array(np.arange(1, len(indices), 2))),
        "value": pa.chunked_array([labels]),
    }
    notes = ["the first feature is the user, the second the item, the label the value"]
    return checked_reading(text, found, with_found(columns, found), options, notes)
