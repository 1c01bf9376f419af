"""The folder that the preprocessing of the VAE papers leaves, its files, the ids in them, and how they are written.

    train.csv                               events of the training users
    validation_tr.csv, validation_te.csv    of the validation users: folded in, and held out
    test_tr.csv, test_te.csv                of the test users
    unique_sid.txt                          raw ids of the items; the item of line k is the sid k - 1
    unique_uid.txt                          raw ids of the users, likewise; not all folders have it

The .csv files have the header uid,sid. Users are numbered from 0: first those of the training, then those of
validation, then those of the test.

References
----------
Liang et al. 2018, "Variational Autoencoders for Collaborative Filtering", and its notebook. RecVAE's preprocessing
leaves the same files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.ids import Ids
from recvae.data.interactions import Interactions
from recvae.data.tables.frames import number_ids
from recvae.data.tables.options import ReadOptions
from recvae.data.tables.text_columns import checked_ids, encoded
from recvae.data.tables.text_file import SEPARATOR, Format, TextFile, open_text, reading
from recvae.errors import InvalidDataError, OutputError
from recvae.utils.files import scratch_folder, write_whole, writing
from recvae.utils.paths import output_path

TRAIN, ITEMS, USERS = "train.csv", "unique_sid.txt", "unique_uid.txt"
PARTS = {"valid": ("validation_tr.csv", "validation_te.csv"), "test": ("test_tr.csv", "test_te.csv")}
NEEDED = (TRAIN, *PARTS["valid"], *PARTS["test"], ITEMS)
ONE_COLUMN = Format(SEPARATOR, ("id",), False, options=ReadOptions(quote=""))

Numbers = NDArray[np.int64]
# folded in, held out, and the raw ids of the rows
Part = tuple[sparse.csr_matrix, sparse.csr_matrix, Ids]


class RawIds(NamedTuple):
    """Raw ids of a file, in ascending order, and the position of each of its lines among them."""

    ids: Ids
    position: Numbers

    @classmethod
    def of_numbers(cls, n: int) -> RawIds:
        return cls(np.arange(n), np.arange(n))


def read_ids(path: Path) -> RawIds:
    """Raw ids, one in each line."""
    with reading(path):
        text = open_text(path, ONE_COLUMN)
        return parse_ids(text)


def parse_ids(text: TextFile) -> RawIds:
    """Raw ids in the lines of a text file. Raises InvalidDataError for empty lines and repeated ids."""
    lines: list[int] = []
    names: list[str] = []
    for line, fields in text.records(strict=True):
        lines.append(line)
        names.append(SEPARATOR.join(fields))
        if line != len(lines):
            raise text.refused(len(lines), "expected an id, got an empty line: numbers of ids count lines.")
    if not names:
        raise text.refused(1, "expected an id in each line, got an empty file.")
    position, ids = number_ids(checked_ids(text, encoded(names), text.path.stem, lines), text.path.stem)
    if len(ids) < len(names):
        _, first = np.unique(position, return_index=True)
        again = int(np.setdiff1d(np.arange(len(names)), first)[0])
        raise text.refused(again + 1, f"{names[again]!r} is there twice.")
    return RawIds(ids, position)


def write_files(folder: str | Path, train: Interactions, parts: Mapping[str, Part], known_users: bool) -> None:
    """Write all files to a new or an empty folder, or none.

    Parameters
    ----------
    parts : Mapping[str, Part]
        The users of "valid" and "test"; those with nothing held out are left out.
    known_users : bool
        Whether they are training users, and have the numbers of these.

    Raises
    ------
    InvalidDataError
        If values are not read as binary, or ids cannot be written in lines.
    OutputError
    """
    target = output_path(folder)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise OutputError(f"Expected a new or an empty folder for the split, got {target}, which is there; name one.")
    if train.values != "binary":
        raise InvalidDataError(
            f"Expected data whose values are read as binary, as the files have none, got values={train.values!r}."
        )
    contents = _contents(train, parts, known_users)
    with writing(target), scratch_folder(target.parent) as scratch:
        made = scratch / "split"
        for name, content in contents.items():
            write_whole(made / name, content)
        made.rename(target)


def _contents(train: Interactions, parts: Mapping[str, Part], known_users: bool) -> dict[str, bytes]:
    """The content of each file."""
    active = np.flatnonzero(np.diff(train.matrix.indptr))
    matrices = {TRAIN: (train.matrix[active], train.user_ids[active])}
    for part, names in PARTS.items():
        fold_in, held_out, ids = parts[part]
        some = np.flatnonzero(np.diff(held_out.indptr))
        if (np.diff(fold_in.indptr)[some] == 0).any():
            raise InvalidDataError(f"Expected something folded in for each {part} user, got users without.")
        matrices |= {name: (matrix[some], ids[some]) for name, matrix in zip(names, (fold_in, held_out), strict=True)}
    numbered = [TRAIN] if known_users else [TRAIN, *(PARTS[part][0] for part in PARTS)]
    everyone = np.concatenate([np.asarray(matrices[name][1], dtype=object) for name in numbered])
    part_of = np.repeat(np.arange(len(numbered)), [len(matrices[name][1]) for name in numbered])
    order = np.lexsort((_as_read(everyone, USERS).position, part_of))  # in ascending order within each part
    uid_of = {str(everyone[index]): uid for uid, index in enumerate(order.tolist())}
    column = _as_read(train.item_ids, ITEMS).position
    contents = {
        name: _csv(matrix, np.array([uid_of[str(user)] for user in ids.tolist()], dtype=np.int64), column)
        for name, (matrix, ids) in matrices.items()
    }
    contents[ITEMS] = _lines(train.item_ids[np.argsort(column)].tolist())
    return contents | {USERS: _lines(everyone[order].tolist())}


def _as_read(ids: Ids, name: str) -> RawIds:
    """The ids as they will be read. Raises InvalidDataError for those that cannot be."""
    names = [str(item) for item in ids.tolist()]
    for text in names:
        if "\n" in text or "\r" in text or not text:
            raise InvalidDataError(f"Expected ids without line breaks for {name}, got {text!r:.60}.")
    return parse_ids(TextFile(Path(name), ONE_COLUMN, _lines(names)))


def _csv(matrix: sparse.csr_matrix, uids: Numbers, column: Numbers) -> bytes:
    """Rows uid,sid in ascending order."""
    uid = np.repeat(uids, np.diff(matrix.indptr))
    sid = column[matrix.indices]
    order = np.lexsort((sid, uid))
    sink = pa.BufferOutputStream()
    options = pyarrow.csv.WriteOptions(include_header=False)
    pyarrow.csv.write_csv(pa.table({"uid": uid[order], "sid": sid[order]}), sink, options)
    return b"uid,sid\n" + sink.getvalue().to_pybytes()


def _lines(ids: Sequence[object]) -> bytes:
    return "".join(f"{item}\n" for item in ids).encode()
