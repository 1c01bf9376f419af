"""Interactions: a CSR matrix of users x items and the raw ids of its rows and columns. All data enters through here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.description import describe
from recvae.data.events import Account, Duplicates, account_for, digest_events, merge_events, select_cells
from recvae.data.ids import Ids as Ids
from recvae.data.ids import as_ids, match_ids
from recvae.data.rows import VALUES, Values
from recvae.data.tables.frames import number_ids, read_column, read_numbers, read_table, write_table
from recvae.data.tables.times import read_times
from recvae.data.validation import check_canonical, checked_sparse
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError, UnknownNameError


@dataclass(frozen=True, repr=False, eq=False)
class Interactions:
    """What users did, as a matrix and two id arrays.

    Attributes
    ----------
    matrix : sparse.csr_matrix
        scipy.sparse.csr_matrix (n_users, n_items), float32, sorted indices, every stored value > 0.
    user_ids, item_ids : Ids
        Raw ids of the rows and of the columns.
    titles, genres : Ids or None
        A string for each item, or None where they are not known.
    values : Values
        How models read the numbers: "binary" (1 for each event), "log1p" (log(1 + value)) or "raw". The matrix keeps
        what came; a model applies the transform to training rows and to the rows it scores alike.
    times : sparse.csr_matrix or None
        csr_matrix of the structure of `matrix`, float64: when the first such event was, in seconds since 1970 if it
        came as a date, 0 where that is not known; None for data without times.
    account : Account or None
        What became of the rows that were read, as `print(data.account)` says it; None for a matrix.
    """

    matrix: sparse.csr_matrix
    user_ids: Ids
    item_ids: Ids
    titles: Ids | None = None
    genres: Ids | None = None
    values: Values = "binary"
    times: sparse.csr_matrix | None = None
    account: Account | None = None

    def __post_init__(self) -> None:
        """Raise InvalidDataError for a matrix that is damaged, not in order or of another size than the ids."""
        shape = len(self.user_ids), len(self.item_ids)
        for name, matrix in (("matrix", self.matrix), ("times", self.times)):
            if matrix is not None:
                check_canonical(matrix, shape, f"the {name} of Interactions", "make them with Interactions.from_matrix")

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        user: str = "user",
        item: str = "item",
        value: str | None = None,
        time: str | None = None,
        min_value: float | None = None,
        min_user: int = 0,
        min_item: int = 0,
        duplicates: Duplicates = "sum",
        values: Values = "binary",
        titles: Mapping[Any, str] | None = None,
        genres: Mapping[Any, str] | None = None,
    ) -> Interactions:
        """Build from a table of events, one row each: a pandas or polars frame, or a pyarrow table.

        Rows of the matrix are the users in ascending order of raw id, columns the items likewise. Steps, in order:
        events with `value` < `min_value` go; items with fewer than `min_item` events go; users with fewer than
        `min_user` of the remaining events go (one pass each, as Liang et al. 2018 do it); repeated (user, item)
        pairs count once and are added up (`duplicates="sum"`) or the last one stands ("last", by `time` where there is
        one); explicit zeros are no events and go before counting. Without `value` each row counts 1. `time` is a
        column of dates or of numbers, in which nothing and 0 mean that the time is not known; numbers that all are
        dates in milliseconds, microseconds or nanoseconds (from 1973 to 2286) become seconds. How many rows are no
        events of their own, and why, is in `account`.

        Raises
        ------
        InvalidDataError
            For a missing column, null ids and those that are words for nothing ("nan", "NULL"), text where numbers
            belong, NaN, infinite or negative values, times in several units, and where no event is left.
        """
        if min_value is not None and value is None:
            raise InvalidParameterError(f"Expected the column of values for min_value={min_value}, got value=None.")
        users, user_ids = number_ids(read_column(frame, user), user)
        items, item_ids = number_ids(read_column(frame, item), item)
        counts = np.ones(len(users)) if value is None else read_numbers(read_column(frame, value), value)
        events = sparse.coo_matrix((counts, (users, items)), shape=(len(user_ids), len(item_ids)))
        when, unit = (None, "") if time is None else read_times(read_column(frame, time, gaps=True), time)
        matrix, times = merge_events(events, min_value, duplicates, when)
        account = account_for(counts, min_value, duplicates, matrix.nnz)
        account = account.noted(f"times came in {unit}, and are seconds" if unit not in ("", "seconds") else "")
        texts = _texts(titles, item_ids), _texts(genres, item_ids)
        data = cls(matrix, user_ids, item_ids, *texts, _known(values), times, account)
        data = data.filter(max(min_item, 1), max(min_user, 1))
        return data if titles is None else replace(data, account=_titled(data, titles))

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        user: str = "user",
        item: str = "item",
        value: str | None = None,
        time: str | None = None,
        **options: Any,
    ) -> Interactions:
        """Read events from a Parquet file or folder, or from a delimited text file: .parquet, .csv, .tsv, .csv.gz.

        Columns and `options` as in `from_frame`. In text files ids are integers where all are written so (7.0 is 7),
        and else text; fields in quotes may hold line breaks.

        Raises
        ------
        DataNotFoundError
        InvalidDataError
            That names a broken line, from 1, and its column.
        RecvaeError
            As `from_frame`.
        """
        columns = [name for name in (user, item, value, time) if name is not None]
        table = read_table(path, columns, [] if value is None else [value])
        return cls.from_frame(table, user=user, item=item, value=value, time=time, **options)

    def write(self, path: str | Path) -> None:
        """Write columns user, item, value and, where known, time to a .parquet, .csv or .tsv file, atomically."""
        cells = self.matrix.tocoo()
        columns = {"user": self.user_ids[cells.row], "item": self.item_ids[cells.col], "value": cells.data}
        if self.times is not None:
            columns["time"] = self.times.data
        write_table(path, pa.table(columns))

    def describe(self) -> str:
        """Sizes, density, how active users and how popular items are, and what looks wrong: to be printed."""
        return describe(self.matrix, self.values, self.times, self.account)

    @classmethod
    def from_matrix(
        cls,
        matrix: Any,
        *,
        user_ids: Sequence[Any] | Ids | None = None,
        item_ids: Sequence[Any] | Ids | None = None,
        min_value: float | None = None,
        min_user: int = 0,
        min_item: int = 0,
        duplicates: Duplicates = "sum",
        values: Values = "binary",
        titles: Mapping[Any, str] | None = None,
        genres: Mapping[Any, str] | None = None,
    ) -> Interactions:
        """Build from a scipy sparse matrix or array (CSR, COO, ...) of users x items, which is copied.

        The filters and duplicates work as in `from_frame`, except that users and items without events keep their row
        and column unless `min_user` and `min_item` say otherwise. Ids are 0, 1, 2, ... where none are given.

        Raises
        ------
        InvalidTypeError
            For anything dense.
        InvalidDataError
        RecvaeError
            As `from_frame` and where ids do not fit.
        """
        if not sparse.issparse(matrix) or matrix.ndim != 2:
            raise InvalidTypeError(f"Expected a two-dimensional scipy sparse matrix, got {_name(matrix)}.")
        clean, _ = merge_events(checked_sparse(matrix).tocoo(), min_value, duplicates)
        users, items = as_ids(user_ids, clean.shape[0], "user_ids"), as_ids(item_ids, clean.shape[1], "item_ids")
        data = cls(clean, users, items, _texts(titles, items), _texts(genres, items), _known(values))
        return data.filter(min_item, min_user)

    @property
    def n_users(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def n_items(self) -> int:
        return int(self.matrix.shape[1])

    @property
    def n_events(self) -> int:
        return int(self.matrix.nnz)

    def filter(self, min_item: int = 0, min_user: int = 0) -> Interactions:
        """Drop items with fewer than `min_item` events, then users with fewer than `min_user` of those that remain.

        One pass each. An item whose last event goes with its users goes as well if `min_item` is at least 1.
        """
        counts = np.bincount(self.matrix.indices, minlength=self.n_items)
        kept = self if min_item < 1 else self.select_items(np.flatnonzero(counts >= min_item))
        active = np.flatnonzero(np.diff(kept.matrix.indptr) >= min_user)
        if len(active) < kept.n_users:
            kept = kept.select_users(active)
        if kept.n_events == 0:
            raise InvalidDataError(
                f"No events are left: expected users with at least {min_user} events on items with at least "
                f"{min_item}; lower min_user or min_item."
            )
        left = np.bincount(kept.matrix.indices, minlength=kept.n_items)
        kept = kept.select_items(np.flatnonzero(left)) if min_item >= 1 and not left.all() else kept
        if kept.account is None or kept.n_events == self.n_events:
            return kept
        of_items = int(counts[counts < min_item].sum())
        account = kept.account.without(of_items, f"on items with fewer than {min_item} events")
        of_users = self.n_events - of_items - kept.n_events
        return replace(kept, account=account.without(of_users, f"of users with fewer than {min_user} events"))

    def select_users(self, rows: NDArray[Any]) -> Interactions:
        """The given rows (indices or mask), all items kept."""
        return replace(self, user_ids=self.user_ids[rows], **self._cells(lambda cells: cells[rows]))

    def select_items(self, columns: NDArray[Any]) -> Interactions:
        """The given columns (indices or mask), all users kept."""

        def choose(cells: sparse.csr_matrix) -> sparse.csr_matrix:
            chosen = cells[:, columns]
            chosen.sort_indices()
            return chosen

        return replace(
            self,
            item_ids=self.item_ids[columns],
            titles=None if self.titles is None else self.titles[columns],
            genres=None if self.genres is None else self.genres[columns],
            **self._cells(choose),
        )

    def select_events(self, chosen: NDArray[np.bool_]) -> Interactions:
        """The events that a mask over `matrix.data` chooses, all users and items kept."""
        return replace(self, **self._cells(lambda cells: select_cells(cells, chosen)))

    def align(self, item_ids: Ids) -> tuple[Interactions, int]:
        """The same users over other columns, such as a model's items; and how many events were on none of them.

        Ids are matched as by `match_ids`.

        Raises
        ------
        InvalidDataError
            Where no event is left.
        """
        cells = self.matrix.tocoo()
        column, shape = match_ids(self.item_ids, item_ids)[cells.col], (self.n_users, len(item_ids))
        known = column >= 0
        if not known.any():
            raise InvalidDataError(
                f"Expected events on some of the {len(item_ids)} items, such as {item_ids.tolist()[0]!r}, got none: "
                f"the items here are such as {self.item_ids.tolist()[0]!r}."
            )
        matrix = sparse.csr_matrix((cells.data[known], (cells.row[known], column[known])), shape, dtype=np.float32)
        matrix.sort_indices()
        aligned = replace(self, matrix=matrix, item_ids=item_ids, titles=None, genres=None, times=None)
        return aligned, int((~known).sum())

    def _cells(self, change: Callable[[sparse.csr_matrix], sparse.csr_matrix]) -> dict[str, Any]:
        """What `change` makes of the matrix and of the times, which have one structure."""
        return {"matrix": change(self.matrix), "times": None if self.times is None else change(self.times)}

    def fingerprint(self) -> str:
        """A digest of users, items and events, by which a model can be held against the data it was trained on."""
        ids = [self.user_ids.tolist()], [self.item_ids.tolist()]
        indptr, indices = self.matrix.indptr.astype(np.int64), self.matrix.indices.astype(np.int64)
        return digest_events(ids, (indptr, indices, self.matrix.data))

    def __repr__(self) -> str:
        return (
            f"Interactions({self.n_users:,} users x {self.n_items:,} items, {self.n_events:,} events, "
            f"values={self.values!r})"
        )


def _texts(texts: Mapping[Any, str] | None, item_ids: Ids) -> Ids | None:
    """The text of each item, matched as by `ItemIndex`: 7 is "7". An item without has its id."""
    if texts is None:
        return None
    written = {_written(item): text for item, text in texts.items()}
    return np.array([written.get(str(item), str(item)) for item in item_ids.tolist()], dtype=object)


def _titled(data: Interactions, titles: Mapping[Any, str]) -> Account | None:
    """The account of data with titles, which says how many items have none."""
    known = set(map(_written, titles))
    n = sum(str(item) not in known for item in data.item_ids.tolist())
    if data.account is None or not n:
        return data.account
    return data.account.noted(f"{n:,} of {data.n_items:,} items have no title, and go by their id")


def _written(item: Any) -> str:
    """How an id is written; 7.0 equals 7."""
    return str(int(item) if isinstance(item, (float, np.floating)) and item.is_integer() else item)


def _known(values: Values) -> Values:
    if values not in VALUES:
        raise UnknownNameError.among("values transform", values, VALUES)
    return values


def _name(thing: object) -> str:
    shape = getattr(thing, "shape", None)
    return type(thing).__name__ + ("" if shape is None else f" of shape {shape}")
