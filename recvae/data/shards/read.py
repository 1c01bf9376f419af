"""Read a folder of shards: a users x items matrix on disk, accessed as CSR matrices of some of its rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.ids import Ids
from recvae.data.names import VALUES, Values
from recvae.data.rows import LARGEST
from recvae.data.shards.files import (
    ITEMS,
    KIND,
    REMEDY,
    USERS,
    CsrRows,
    ShardFile,
    heldout_names,
    is_shard,
    joined,
    read_counts,
    read_ids,
    read_lengths,
    read_shard,
    shard_name,
)
from recvae.data.splits.holdout import Holdout
from recvae.data.splits.strong import hold_out
from recvae.errors import DataNotFoundError, InvalidDataError, InvalidParameterError, InvalidTypeError, OutOfRangeError
from recvae.utils.checks import check_fraction
from recvae.utils.folder import MANIFEST, Manifest, check_integer, load_manifest, sound_manifest
from recvae.utils.paths import input_path
from recvae.utils.threads import lazy


class Shards:
    """A folder written by `write_shards`: rows of training users, in ascending order of raw id, over the items.

    Attributes
    ----------
    n_users, n_items, n_events
        Numbers of training users, of items, and of events of training users.
    values : Values
        Transform of the values, as in `Interactions`.
    heldout_users : int or None
        Number of users held out for validation, and for test, before users with too few events are dropped; None if all
        users are in the shards.
    bounds
        (shards + 1,) first row of each shard, and the total number of rows.

    Raises
    ------
    DataNotFoundError
        If there are no shards in the folder.
    InvalidDataError
        If they are incomplete, or a file is missing or of another size.

    Notes
    -----
    Opening reads the manifest and the size of each file, nothing else.
    """

    def __init__(self, folder: str | Path):
        self.folder = input_path(folder)
        manifest = _finished(self.folder)
        with sound_manifest(self.folder):
            _check(manifest)
        self._settings, self._files = manifest.settings, {piece.file: piece for piece in manifest.parts}
        self.shard_files = [piece for piece in manifest.parts if is_shard(piece.file)]
        self.bounds = np.cumsum([0, *(piece.rows for piece in self.shard_files)])
        self.n_users, self.n_events = int(self.bounds[-1]), sum(piece.events for piece in self.shard_files)
        self.values: Values = self._settings["values"]
        self.heldout_users: int | None = self._settings["heldout_users"]
        self.n_items, self._fingerprint = self._files[ITEMS].rows, str(manifest.facts["fingerprint"])
        self.check()

    @property
    def shape(self) -> tuple[int, int]:
        """(n_users, n_items), as of a matrix."""
        return self.n_users, self.n_items

    @property
    def nnz(self) -> int:
        """Number of events, as of a sparse matrix."""
        return self.n_events

    def __repr__(self) -> str:
        return (
            f"Shards({self.n_users:,} users x {self.n_items:,} items, {self.n_events:,} events, values="
            f"{self.values!r}, {len(self.shard_files):,} shards in {self.folder})"
        )

    def check(self, deep: bool = False) -> None:
        """Check the size of each file and, if `deep`, its digest. Raises InvalidDataError."""
        for piece in self._files.values():
            path = self.folder / piece.file
            if not path.exists():
                raise InvalidDataError(f"Expected the file {path}, which is missing; {REMEDY}.")
            if not piece.has_size(self.folder):
                size = path.stat().st_size
                raise InvalidDataError(f"Expected {piece.bytes:,} bytes in {path}, got {size:,}; {REMEDY}.")
            if deep and not piece.is_whole(self.folder):
                raise InvalidDataError(f"Expected {path} as it was written, got other content; {REMEDY}.")

    @lazy
    def item_ids(self) -> Ids:
        """Raw ids of the columns, as `Interactions` has them."""
        ids: Ids = read_ids(self.folder / ITEMS, self.n_items).to_numpy()
        return ids

    @lazy
    def item_counts(self) -> NDArray[np.int64]:
        """(n_items,) number of training users of each item."""
        return read_counts(self.folder / ITEMS, self.n_items, self.n_events)

    @lazy
    def user_ids(self) -> pa.ChunkedArray:
        """Raw ids of the rows, as an Arrow array: Python objects for millions of strings would take much memory."""
        return read_ids(self.folder / USERS, self.n_users)

    @property
    def valid(self) -> Holdout:
        """The validation users, in memory, as of `strong_split`. Raises InvalidParameterError if there are none."""
        return self._holdout("valid", "validation")

    @property
    def test(self) -> Holdout:
        """The test users, as `valid`."""
        return self._holdout("test", "test")

    def mean_value(self) -> float:
        """Mean value of the events, after the transform `values`."""
        return sum(piece.total for piece in self.shard_files) / self.n_events

    def fingerprint(self) -> str:
        """The digest that `Interactions.fingerprint` gives for the same users, items and events."""
        return self._fingerprint

    def stored(self, number: int) -> CsrRows:
        """Read-only CSR arrays of a shard. Raises as `shard`."""
        return read_shard(self.folder, self._piece(number), self.n_items)

    def lengths(self, number: int) -> NDArray[np.int64]:
        """Number of events of each user of a shard. Raises as `shard`."""
        return read_lengths(self.folder, self._piece(number))

    def shard(self, number: int) -> sparse.csr_matrix:
        """Read-only matrix of the users of a shard, over the bytes of its file.

        Returns
        -------
        sparse.csr_matrix
            (users, n_items) float32.

        Raises
        ------
        OutOfRangeError
        InvalidDataError
            If the content of the file has changed.
        """
        return self.stored(number).matrix(self.n_items)

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """Copy the users of rows [start, stop) into memory. Raises as `take`."""
        if not 0 <= start <= stop <= self.n_users:
            raise OutOfRangeError(f"Expected 0 <= start <= stop <= {self.n_users}, got {start} and {stop}.")
        return self.take(np.arange(start, stop))

    def take(self, rows: Any) -> sparse.csr_matrix:
        """Copy the users of the given rows, in any order, into memory.

        Returns
        -------
        sparse.csr_matrix
            (len(rows), n_items) float32.

        Raises
        ------
        OutOfRangeError
        InvalidTypeError
            For anything but integers.
        RecvaeError
            As `shard`.
        """
        wanted = np.asarray(rows)
        if wanted.size == 0:
            return sparse.csr_matrix((0, self.n_items), dtype=np.float32)
        return self.stored_rows(wanted).matrix(self.n_items)

    def stored_rows(self, wanted: NDArray[Any]) -> CsrRows:
        """CSR arrays of the rows that `take` returns as a matrix."""
        if wanted.dtype.kind not in "iu" or wanted.ndim != 1:
            raise InvalidTypeError(f"Expected a list of integers as rows, got {wanted.dtype} {wanted.shape}.")
        if wanted.min() < 0 or wanted.max() >= self.n_users:
            outside = wanted[(wanted < 0) | (wanted >= self.n_users)][0]
            raise OutOfRangeError(f"Expected rows from 0 to {self.n_users - 1}, got {outside}.")
        by_shard = np.argsort(wanted, kind="stable")
        taken = joined(list(self._taken(wanted[by_shard].astype(np.int64))))
        back = np.empty_like(by_shard)
        back[by_shard] = np.arange(len(back))
        return taken.take(back)

    def _piece(self, number: int) -> ShardFile:
        if not 0 <= number < len(self.shard_files):
            raise OutOfRangeError(f"Expected a shard from 0 to {len(self.shard_files) - 1}, got {number}.")
        return self.shard_files[number]

    def _taken(self, wanted: NDArray[np.int64]) -> Iterator[CsrRows]:
        """Read rows given in ascending order, shard by shard."""
        numbers = np.searchsorted(self.bounds, wanted, side="right") - 1
        for number in np.unique(numbers):
            yield self.stored(int(number)).take(wanted[numbers == number] - self.bounds[number])

    def _holdout(self, part: str, purpose: str) -> Holdout:
        names = heldout_names(part)
        if names[1] not in self._files:
            raise InvalidParameterError(
                f"Expected shards written with heldout_users (--heldout-users), got {self.folder} without."
            )
        users: Ids = read_ids(self.folder / names[0], self._files[names[1]].rows).to_numpy()
        matrix = read_shard(self.folder, self._files[names[1]], self.n_items).matrix(self.n_items)
        seed, share = self._settings["split_seed"], self._settings["test_share"]
        training = {"item_counts": self.item_counts, "n_train": self.n_users, "item_ids": self.item_ids}
        return hold_out(matrix, users, share, seed, purpose, **training)


def _check(manifest: Manifest[ShardFile]) -> None:
    """Raise ValueError or KeyError if parts, settings and facts of the manifest are inconsistent."""
    settings, facts = manifest.settings, manifest.facts
    if settings["values"] not in VALUES:
        raise ValueError(f"expected values to be one of {', '.join(VALUES)}, got {settings['values']!r:.80}")
    check_integer("split_seed", settings["split_seed"], high=2**32 - 1)
    check_fraction("test_share", settings["test_share"])
    files = {piece.file: piece for piece in manifest.parts}
    shards = [piece for piece in manifest.parts if is_shard(piece.file)]
    heldout = [heldout_names(part) for part in ("valid", "test")]
    names = [ITEMS, USERS, *(shard_name(number) for number in range(len(shards)))]
    if settings["heldout_users"] is not None:
        check_integer("heldout_users", settings["heldout_users"], 1)
        names += [name for pair in heldout for name in pair]
    if sorted(files) != sorted(names) or [piece.file for piece in shards] != sorted(piece.file for piece in shards):
        raise ValueError(f"expected the files {', '.join(names)}"[:150])
    n_users, n_events = sum(piece.rows for piece in shards), sum(piece.events for piece in shards)
    n_items = files[ITEMS].rows
    if files[USERS].rows != n_users or not n_items <= n_events:
        raise ValueError(f"{files[USERS].rows} users and {n_items} items do not fit {n_events} events of {n_users}")
    for users, rows in heldout:
        if users in files and files[users].rows != files[rows].rows:
            raise ValueError(f"{users} and {rows} have different numbers of rows")
    for piece in manifest.parts:
        most = piece.events * (1 if settings["values"] == "binary" else LARGEST)
        if not min(piece.events, 1e-30) <= piece.total <= most or (most == piece.events != piece.total):
            raise ValueError(f"a total of {piece.total} does not fit {piece.events} events in {piece.file}")
    for name, count in (("users", n_users), ("items", n_items), ("events", n_events)):
        if facts[name] != count:
            raise ValueError(f"expected {count} {name}, got {facts[name]!r:.80}")
    if not re.fullmatch("[0-9a-f]{32}", facts["fingerprint"]):
        raise ValueError(f"expected a fingerprint, got {facts['fingerprint']!r:.80}")


def _finished(folder: Path) -> Manifest[ShardFile]:
    manifest = load_manifest(folder, KIND, ShardFile)
    if manifest is None:
        raise DataNotFoundError(
            f"Expected a folder of shards, as recvae shard writes it, got {folder} without {MANIFEST}."
        )
    if not manifest.done:
        raise InvalidDataError(
            f"Expected shards that are finished, got {folder}, which is not; run the recvae shard command that began "
            f"it once more."
        )
    return manifest
