"""Read the folder that the preprocessing of the VAE papers leaves; `recvae.data.splits.papers` says what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.events import Account
from recvae.data.interactions import Interactions
from recvae.data.splits.holdout import Holdout, Split
from recvae.data.splits.papers import ITEMS, NEEDED, PARTS, TRAIN, USERS, Numbers, RawIds, read_ids
from recvae.data.tables.text import read_delimited
from recvae.data.tables.text_file import Format, TextFile, open_text
from recvae.errors import DataNotFoundError, InvalidDataError
from recvae.utils.paths import input_path

INNER = "pro_sg"  # name that the papers' notebook gives to the folder, within that of the data set


def find_split_folder(folder: Path) -> Path | None:
    """The folder with the files, `folder` or its subfolder pro_sg; None if neither has a train.csv."""
    return next((path for path in (folder, folder / INNER) if (path / TRAIN).is_file()), None)


def read_split(folder: str | Path) -> Split:
    """Read a folder that the papers' preprocessing, or `Split.write`, has left.

    Users of each part and items are in ascending order of raw id, as in `strong_split`; every event has the value 1.
    Without unique_uid.txt the raw ids of users are their numbers. If validation and test users are training users, the
    split has a `refit`: training and validation events together.

    Parameters
    ----------
    folder : str or Path
        The folder, or one whose subfolder pro_sg it is.

    Returns
    -------
    Split
        Users with nothing held out are dropped, and counted.

    Raises
    ------
    DataNotFoundError
        If a file is missing.
    InvalidDataError
        If a file is damaged, or does not fit the others; the message names the file and the line.
    """
    path = input_path(folder)
    path = find_split_folder(path) or path
    for name in NEEDED:
        if not (path / name).is_file():
            raise DataNotFoundError(
                f"Expected {', '.join(NEEDED)} in the folder of a split, got {path}, which has no {name}."
            )
    items = read_ids(path / ITEMS)
    users = read_ids(path / USERS) if (path / USERS).exists() else None
    tables = {name: _read_pairs(path / name, items, users) for name in NEEDED if name != ITEMS}
    if users is None:
        users = RawIds.of_numbers(1 + max(int(table.uid.max()) for table in tables.values()))
    return _Folder(tables, items, users).split()


@dataclass(frozen=True)
class _Pairs:
    """The pairs of a file, and the file, for messages."""

    text: TextFile
    uid: Numbers
    sid: Numbers

    @property
    def name(self) -> str:
        return self.text.path.name

    def refuse_where(self, wrong: NDArray[np.bool_], reason: str) -> None:
        """Raise InvalidDataError for the first row of a mask, if it has any; {uid} and {sid} are those of the row."""
        if wrong.any():
            row = int(wrong.argmax())
            line, _ = self.text.row(row)
            raise self.text.refused(line, reason.format(uid=self.uid[row], sid=self.sid[row]))


@dataclass(frozen=True)
class _Folder:
    """The content of a folder whose files are each in order: what they say together."""

    tables: dict[str, _Pairs]
    items: RawIds
    users: RawIds

    def split(self) -> Split:
        """The split. Raises InvalidDataError for files that contradict each other."""
        train = self.tables[TRAIN]
        known = np.zeros(len(self.users.ids), dtype=bool)  # training users, by uid
        known[train.uid] = True
        weak = self._are_training_users(known)
        for part in PARTS:
            self._check_part(part, weak)
        row_of, users = self._rows(train)
        matrix = self._matrix(train, row_of, len(users))
        data = Interactions(matrix, self.users.ids[users], self.items.ids, account=self._account(matrix.nnz))
        valid = self._holdout("valid", data, weak)
        refit = None
        if weak:
            table = self.tables[PARTS["valid"][1]]
            both = matrix + self._matrix(table, row_of, len(users))
            refit = Interactions(both, data.user_ids, data.item_ids)
        return Split(data, valid, self._holdout("test", data if refit is None else refit, weak), refit)

    def _are_training_users(self, known: NDArray[np.bool_]) -> bool:
        """Whether validation and test users are training users: all of them, or none."""
        tables = [self.tables[name] for names in PARTS.values() for name in names]
        weak = bool(known[tables[0].uid[0]])
        for table in tables:
            expected = "is a training user, unlike the first of validation_tr.csv"
            if weak:
                expected = "is no training user, unlike the first of validation_tr.csv"
            table.refuse_where(known[table.uid] != weak, f"the user {{uid}} {expected}.")
        return weak

    def _check_part(self, part: str, weak: bool) -> None:
        """Check held-out events against the users and the events that are folded in, and against other parts."""
        fold_in, held_out = (self.tables[name] for name in PARTS[part])
        held_out.refuse_where(
            ~np.isin(held_out.uid, fold_in.uid), f"the user {{uid}} is not in {fold_in.name}, as all users should be."
        )
        others = [fold_in] + ([self.tables[TRAIN]] if weak else [])
        if part == "test":
            valid = self.tables[PARTS["valid"][1]]
            others += [valid] if weak else []
            if not weak:
                for table in (fold_in, held_out):
                    table.refuse_where(np.isin(table.uid, valid.uid), f"the user {{uid}} is in {valid.name}, too.")
        for other in others:
            both = np.isin(self._keys(held_out), self._keys(other))
            held_out.refuse_where(both, f"the pair {{uid}},{{sid}} is in {other.name}, too.")

    def _keys(self, table: _Pairs) -> Numbers:
        return table.uid * len(self.items.ids) + table.sid

    def _rows(self, table: _Pairs) -> tuple[Numbers, Numbers]:
        """Row of each uid, users in ascending order of raw id; and the users' positions among all ids."""
        users = np.flatnonzero(np.bincount(self.users.position[table.uid]))
        return np.searchsorted(users, self.users.position), users

    def _matrix(self, table: _Pairs, row_of: Numbers, n_rows: int) -> sparse.csr_matrix:
        """Canonical rows, 1 for each pair; repeated pairs count once."""
        cells = row_of[table.uid], self.items.position[table.sid]
        values, shape = np.ones(len(table.uid), dtype=np.float32), (n_rows, len(self.items.ids))
        matrix = sparse.csr_matrix((values, cells), shape=shape)
        matrix.sum_duplicates()
        matrix.data[:] = 1
        return matrix

    def _holdout(self, part: str, seen: Interactions, weak: bool) -> Holdout:
        fold_in, held_out = (self.tables[name] for name in PARTS[part])
        row_of, users = self._rows(held_out)
        within = np.isin(fold_in.uid, held_out.uid)
        folded = _Pairs(fold_in.text, fold_in.uid[within], fold_in.sid[within])
        ids = self.users.ids[users]
        return Holdout(
            self._matrix(folded, row_of, len(users)),
            self._matrix(held_out, row_of, len(users)),
            ids,
            dropped=(seen.n_users if weak else self._drawn(part)) - len(users),
            item_counts=np.bincount(seen.matrix.indices, minlength=seen.n_items),
            n_train=seen.n_users,
            train_rows=np.searchsorted(seen.user_ids, ids) if weak else None,
            item_ids=seen.item_ids,
        )

    def _drawn(self, part: str) -> int:
        """Number of users who were drawn for a part, those without any event among them, by their numbers."""
        first = {name: min(self.tables[n].uid.min() for n in names) for name, names in PARTS.items()}
        last = {name: 1 + max(self.tables[n].uid.max() for n in names) for name, names in PARTS.items()}
        train = self.tables[TRAIN].uid
        start, end = (train.max() + 1, first["test"]) if part == "valid" else (first["test"], len(self.users.ids))
        if start <= first[part] and last[part] <= end:  # numbered as the papers do
            return int(end - start)
        return int(np.count_nonzero(np.bincount(self.tables[PARTS[part][0]].uid)))

    def _account(self, n_events: int) -> Account:
        rows = len(self.tables[TRAIN].uid)
        notes = []
        for name, table in self.tables.items():
            repeated = int((np.diff(np.sort(self._keys(table))) == 0).sum())
            if repeated and name != TRAIN:
                notes.append(f"{repeated:,} rows of {name} repeat a pair, which counts once")
        return Account(rows).without(rows - n_events, "that repeat a pair, which counts once").noted(*notes)


def _read_pairs(path: Path, items: RawIds, users: RawIds | None) -> _Pairs:
    """The columns uid and sid of a file. Raises InvalidDataError for numbers that no line of the ids has."""
    format = Format(",")
    try:
        table = read_delimited(path, format, ["uid", "sid"]).table
    except InvalidDataError as error:
        if str(path) in str(error):
            raise
        raise InvalidDataError(f"The file {path} cannot be read: line 1: {error}") from error
    text = open_text(path, format)
    if not len(table):
        raise text.refused(2, "expected a row uid,sid, got the end of the file.")
    pairs = _Pairs(text, *(_numbers(text, table[name], name) for name in ("uid", "sid")))
    for numbers, known, of in ((pairs.sid, items, ITEMS), (pairs.uid, users, USERS)):
        least, most = numbers < 0, np.zeros(len(numbers), dtype=bool)
        what = "sid" if of == ITEMS else "uid"
        pairs.refuse_where(least, f"expected a {what} of 0 or more, got {{{what}}}.")
        if known is not None:
            most = numbers >= len(known.position)
            pairs.refuse_where(
                most, f"expected a {what} below {len(known.position)}, the lines of {of}, got {{{what}}}."
            )
    return pairs


def _numbers(text: TextFile, column: pa.ChunkedArray, name: str) -> Numbers:
    if pa.types.is_integer(column.type):
        numbers: Numbers = column.cast(pa.int64()).to_numpy()
        return numbers
    texts = column.cast(pa.string())
    row = pc.index(pc.match_substring_regex(texts, r"^-?\d{1,18}$"), False).as_py()
    raise text.refused(text.row(row)[0], f"expected a number as {name}, got {texts[row].as_py()!r:.40}.")
