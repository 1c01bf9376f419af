"""Interactions: a CSR matrix of users x items, and the raw ids of its rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.core import k_core as k_core_of
from recvae.data.description import describe
from recvae.data.events import Account, Duplicates, account_for, digest_events, merge_events, select_cells
from recvae.data.ids import Ids as Ids
from recvae.data.ids import as_ids, id_array, listed, match_ids
from recvae.data.names import VALUES, Values
from recvae.data.tables.formats import read_table
from recvae.data.tables.frames import number_ids, read_column, read_numbers, read_times, write_table
from recvae.data.tables.lists import exploded
from recvae.data.tables.options import Column, Columns, Reading, ReadOptions, WithoutId
from recvae.data.validation import as_array, check_canonical, checked_sparse
from recvae.data.weighting import Weighting
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError, UnknownNameError


@dataclass(frozen=True, repr=False, eq=False)
class Interactions:
    """Events of users on items, as a matrix and two id arrays.

    Attributes
    ----------
    matrix : scipy.sparse.csr_matrix
        (n_users, n_items), float32, with sorted indices, every stored value > 0.
    user_ids, item_ids : numpy.ndarray
        Raw ids of the rows and of the columns.
    titles, genres : numpy.ndarray or None
        (n_items,) a string for each item; None if unknown.
    values : str
        How models read the numbers: "binary" (1 for each event), "log1p" (log(1 + value)) or "raw". The matrix keeps
        the values as they came; a model applies the transform to the rows that it is fitted on and to those that it
        scores.
    times : scipy.sparse.csr_matrix or None
        float64 in the structure of `matrix`: the time of the first event of each cell, in seconds since 1970 if it was
        a date, 0 if unknown. None for data without times.
    account : Account or None
        How many rows were read, and why some did not become an event; `print(data.account)` shows it. None for data
        from a matrix.
    preparation : dict
        The filters and weights by which events became this matrix, as JSON values; a model's file keeps them.
    """

    matrix: sparse.csr_matrix
    user_ids: Ids
    item_ids: Ids
    titles: Ids | None = None
    genres: Ids | None = None
    values: Values = "binary"
    times: sparse.csr_matrix | None = None
    account: Account | None = None
    preparation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise InvalidDataError for a matrix that is damaged, not canonical, or does not match the number of ids."""
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
        k_core: bool = False,
        behavior: str | None = None,
        weights: Mapping[str, float] | None = None,
        unknown_behavior: str = "refuse",
        half_life: float | str | None = None,
        duplicates: Duplicates = "sum",
        values: Values = "binary",
        titles: Mapping[Any, str] | None = None,
        genres: Mapping[Any, str] | None = None,
    ) -> Interactions:
        """Build from a table with one event per row: a pandas or polars frame, or a pyarrow table.

        Rows of the matrix are the users in ascending order of raw id; columns are the items, likewise. Steps, in order:
        events with `value` < `min_value` are dropped; values are weighed by behaviour and age; repeated events are
        merged; then items with fewer than `min_item` events are dropped; then users with fewer than `min_user` of the
        remaining events (one pass each, as in Liang et al. 2018).

        Parameters
        ----------
        frame : pandas.DataFrame or polars.DataFrame or pyarrow.Table
            One row per event, or one row per user with a list of items; values and times are then lists of as many.
        user : str
            Column of raw ids of users, integers or strings.
        item : str
            Column of raw ids of items, integers or strings, or of lists of these.
        value : str or None
            Column of values >= 0, such as ratings or counts. Rows of value 0 are dropped. If None, each row counts 1.
        time : str or None
            Column of dates or of numbers; an empty cell or 0 means that the time is unknown. Numbers that all are
            dates from 1973 to 2286 in milliseconds, microseconds or nanoseconds are converted to seconds.
        min_value : float or None
            Drop events below this value.
        min_user, min_item : int
            Drop users and items with fewer events.
        k_core : bool
            Repeat that until all users and items that are left have enough events.
        behavior : str or None
            Column of behaviours, such as view, cart and buy.
        weights : dict or None
            What an event of each behaviour counts, such as {"view": 1, "cart": 3, "buy": 5}: its value, or 1, times
            this. Events of a behaviour that weighs 0 are left out.
        unknown_behavior : str
            What happens to events of behaviours without a weight: "refuse", or "drop", which counts them.
        half_life : float or str or None
            Age at which an event counts half: values are multiplied by 2^(-age / half_life), where ages are counted
            from the latest event. A number in the unit of the times (seconds, if they are dates), or text such as
            "30 days". Needs `time`.
        duplicates : str
            Rule for repeated (user, item) pairs: "sum" adds up their values, "last" keeps the last one (the latest, if
            there is a `time`).
        values : str
            How models read the values: "binary", "log1p" or "raw".
        titles, genres : Mapping or None
            Raw item id -> text.

        Returns
        -------
        Interactions
            The data; its `account` says how many rows did not become an event, and why.

        Raises
        ------
        InvalidDataError
            If a column is missing; if ids are null or placeholders ("nan", "NULL"); if there is text in a column of
            numbers; if values are NaN, infinite or negative; if times come in several units; if no event is left.
        InvalidParameterError
            If there is a `min_value` without `value`, weights without `behavior`, or a `half_life` without `time`.

        Notes
        -----
        Models with `values="binary"`, the default, read any value as 1: for weights and ages to matter, use "raw" or
        "log1p".
        """
        weighting = Weighting(behavior, weights, unknown_behavior, half_life)
        if min_value is not None and value is None:
            raise InvalidParameterError(f"Expected the column of values for min_value={min_value}, got value=None.")
        names = {"user": user, "item": item}
        names |= {role: name for role, name in (("value", value), ("behavior", behavior)) if name is not None}
        columns = {role: read_column(frame, name, gaps=role == "behavior") for role, name in names.items()}
        columns |= {} if time is None else {"time": read_column(frame, time, gaps=True)}
        columns, _ = exploded(columns, "the frame")
        users, user_ids = number_ids(columns["user"], user)
        items, item_ids = number_ids(columns["item"], item)
        counts = np.ones(len(users)) if value is None else read_numbers(columns["value"], value)
        when, unit = (None, "") if time is None else read_times(columns["time"], time)
        preparation = _preparation(min_value, min_user, min_item, k_core, duplicates)
        account = None
        if weighting:
            weighed = weighting.apply(counts, min_value, columns.get("behavior"), when)
            users, items, counts, min_value = users[weighed.rows], items[weighed.rows], weighed.values, None
            when, account = None if when is None else when[weighed.rows], weighed.account
            preparation |= weighed.record
        events = sparse.coo_matrix((counts, (users, items)), shape=(len(user_ids), len(item_ids)))
        matrix, times = merge_events(events, min_value, duplicates, when)
        merged = account_for(counts, min_value, duplicates, matrix.nnz)
        account = merged if account is None else merged.preceded_by(account.left_out, account.notes)
        if weighting and _known(values) == "binary":
            account = account.noted("but values are read as binary, which only asks whether there is an event")
        account = account.noted(f"times came in {unit}, and are seconds" if unit not in ("", "seconds") else "")
        texts = _texts(titles, item_ids), _texts(genres, item_ids)
        data = cls(matrix, user_ids, item_ids, *texts, _known(values), times, account, preparation)
        data = data.filter(max(min_item, 1), max(min_user, 1), k_core)
        return data if titles is None else replace(data, account=_titled(data, titles))

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        user: Column = "user",
        item: Column = "item",
        value: Column | None = None,
        time: Column | None = None,
        behavior: Column | None = None,
        format: str | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        header: bool | None = None,
        quote: str = '"',
        comment: str = "",
        decimal: str = ".",
        missing: Sequence[str] = (),
        without_id: WithoutId = "refuse",
        time_format: str | None = None,
        item_delimiter: str | None = None,
        **options: Any,
    ) -> Interactions:
        """Read events from a file: delimited text of any extension, also compressed, or Parquet, also a folder of it.

        What is not given about a text file (delimiter, encoding, header) is guessed from its first lines; the notes of
        the data's `account` say what. Options that a kind of file does not have are ignored.

        Parameters
        ----------
        path : str or Path
            The file or folder. In text files, a column of ids is read as integers if all of them are written as such
            (7.0 is 7), otherwise as text; a field in quotes may contain line breaks.
        user : str or int
            Column of users, by name or, in a text file, by its position, counted from 0.
        item : str or int
            Column of items, likewise.
        value : str or int or None
            Column of values, likewise; as in `from_frame`.
        time : str or int or None
            Column of times, likewise; as in `from_frame`.
        behavior : str or int or None
            Column of behaviours, likewise; as in `from_frame`.
        format : str or None
            Kind of file, one of `recvae.data.names.FORMATS`; by default, its extension decides.
        delimiter : str or None
            What separates fields, one character or several; or "tab", "space", "whitespace" (one or more blanks).
        encoding : str or None
            Encoding of a text file, such as "utf-8", "latin-1" or "utf-16".
        header : bool or None
            Whether the first line of a text file has the names of the columns.
        quote : str
            Character around fields that may contain delimiters and line breaks; "" if quotes are text.
        comment : str
            Skip lines that begin with this text; "" if there are none.
        decimal : str
            Decimal mark of values in text files, "." or ",".
        missing : sequence of str
            Words that stand for a missing value, apart from an empty field.
        without_id : str
            What happens to rows without a user or an item: "refuse", or "drop", which counts them in the `account`.
        time_format : str or None
            Unit of numeric times ("seconds", "milliseconds", "microseconds", "nanoseconds"), or a pattern of
            `strptime` for dates, such as "%d/%m/%Y %H:%M". By default, numbers and ISO 8601 are recognised.
        item_delimiter : str or None
            What separates the items, if a field has several, as in "7 9 12". JSON arrays are recognised.
        **options : Any
            The other parameters of `from_frame`.

        Returns
        -------
        Interactions
            As from `from_frame`.

        Raises
        ------
        DataNotFoundError
            If there is no such file.
        InvalidDataError
            If a line is broken (the message names its number, from 1, and the column), and as `from_frame`.
        """
        how = ReadOptions(
            format=format,
            delimiter=delimiter,
            encoding=encoding,
            header=header,
            quote=quote,
            comment=comment,
            decimal=decimal,
            missing=missing if isinstance(missing, str) else tuple(missing),  # a string is refused
            without_id=without_id,
            time_format=time_format,
            item_delimiter=item_delimiter,
        )
        return cls.from_reading(read_table(path, Columns(user, item, value, time, behavior), how), **options)

    @classmethod
    def from_lists(cls, lists: Mapping[Any, Any], **options: Any) -> Interactions:
        """Build from the items of each user: {"ann": [7, 9], "bob": [7]}, or with values, {"ann": {7: 5.0, 9: 2.0}}.

        Parameters
        ----------
        lists : Mapping
            Raw ids of users -> a list of raw ids of items, or a mapping of these to values.
        **options : Any
            The other parameters of `from_frame`.

        Raises
        ------
        InvalidTypeError
            If ids are not integers or strings, or some users have values and others have not.
        InvalidDataError
            As `from_frame`.
        """
        valued = {isinstance(items, Mapping) for items in lists.values()}
        if len(valued) > 1:
            raise InvalidTypeError("Expected lists of items or mappings of items to values, got both.")
        of_user = [listed(list(items) if True in valued else items, "items") for items in lists.values()]
        users = id_array(list(lists), "users")
        table = {"user": users[np.repeat(np.arange(len(of_user)), list(map(len, of_user)))]}
        table["item"] = id_array(list(chain.from_iterable(of_user)), "items")
        value = "value" if True in valued else None
        if value is not None:
            table["value"] = as_array([one for items in lists.values() for one in items.values()], "values")
        return cls.from_frame(pa.table(table), value=value, **options)

    @classmethod
    def from_reading(cls, reading: Reading, **options: Any) -> Interactions:
        """Build from the events of a file.

        Parameters
        ----------
        reading : Reading
            What `recvae.data.tables.formats.read_table` returns.
        **options : Any
            The other parameters of `from_frame`.

        Returns
        -------
        Interactions
            As from `from_frame`; its `account` also counts what the reader left out.

        Raises
        ------
        InvalidDataError
            As `from_frame`.
        """
        data = cls.from_frame(reading.table, **reading.columns.by_role(), **options)
        assert data.account is not None
        return replace(data, account=data.account.preceded_by(reading.left_out, reading.notes))

    def write(self, path: str | Path) -> None:
        """Write columns user, item, value and, if known, time to a file, atomically.

        Parameters
        ----------
        path : str or Path
            A .parquet, .csv or .tsv file.
        """
        cells = self.matrix.tocoo()
        columns = {"user": self.user_ids[cells.row], "item": self.item_ids[cells.col], "value": cells.data}
        if self.times is not None:
            columns["time"] = self.times.data
        write_table(path, pa.table(columns))

    def describe(self) -> str:
        """Summary of the data for printing: sizes, density, quantiles of activity and popularity, likely mistakes."""
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
        k_core: bool = False,
        duplicates: Duplicates = "sum",
        values: Values = "binary",
        titles: Mapping[Any, str] | None = None,
        genres: Mapping[Any, str] | None = None,
    ) -> Interactions:
        """Build from a scipy sparse matrix or array (CSR, COO, ...) of users x items, which is copied.

        Filters and duplicates work as in `from_frame`, except that users and items without events keep their row and
        column unless `min_user` and `min_item` say otherwise.

        Parameters
        ----------
        matrix : scipy sparse matrix or array
            (n_users, n_items), values >= 0.
        user_ids, item_ids : sequence or None
            Raw ids of rows and columns; by default 0, 1, 2, ...
        min_value
            As in `from_frame`.
        min_user
            As in `from_frame`.
        min_item
            As in `from_frame`.
        k_core
            As in `from_frame`.
        duplicates
            As in `from_frame`.
        values
            As in `from_frame`.
        titles
            As in `from_frame`.
        genres
            As in `from_frame`.

        Returns
        -------
        Interactions
            Without times, and without an `account`.

        Raises
        ------
        InvalidTypeError
            If the matrix is dense.
        InvalidDataError
            If ids do not fit the shape, and as `from_frame`.
        """
        if not sparse.issparse(matrix) or matrix.ndim != 2:
            raise InvalidTypeError(f"Expected a two-dimensional scipy sparse matrix, got {_name(matrix)}.")
        clean, _ = merge_events(checked_sparse(matrix).tocoo(), min_value, duplicates)
        users, items = as_ids(user_ids, clean.shape[0], "user_ids"), as_ids(item_ids, clean.shape[1], "item_ids")
        texts = _texts(titles, items), _texts(genres, items)
        preparation = _preparation(min_value, min_user, min_item, k_core, duplicates)
        data = cls(clean, users, items, *texts, _known(values), preparation=preparation)
        return data.filter(min_item, min_user, k_core)

    @property
    def n_users(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def n_items(self) -> int:
        return int(self.matrix.shape[1])

    @property
    def n_events(self) -> int:
        return int(self.matrix.nnz)

    def filter(self, min_item: int = 0, min_user: int = 0, k_core: bool = False) -> Interactions:
        """Drop items with fewer than `min_item` events, then users with fewer than `min_user` of those that remain.

        One pass each. If `min_item` is at least 1, items that lose their last event with the users are dropped as well.

        Parameters
        ----------
        min_item, min_user : int
            Smallest number of events of an item, and of a user.
        k_core : bool
            Repeat both until all that are left have enough events.

        Returns
        -------
        Interactions
            A copy.

        Raises
        ------
        InvalidDataError
            If no event is left.
        """
        if k_core:
            return self._core(min_item, min_user)
        counts = np.bincount(self.matrix.indices, minlength=self.n_items)
        filtered = self if min_item < 1 else self.select_items(np.flatnonzero(counts >= min_item))
        active = np.flatnonzero(np.diff(filtered.matrix.indptr) >= min_user)
        if len(active) < filtered.n_users:
            filtered = filtered.select_users(active)
        if filtered.n_events == 0:
            raise InvalidDataError(
                f"No events are left: expected users with at least {min_user} events on items with at least "
                f"{min_item}; lower min_user or min_item."
            )
        left = np.bincount(filtered.matrix.indices, minlength=filtered.n_items)
        filtered = filtered.select_items(np.flatnonzero(left)) if min_item >= 1 and not left.all() else filtered
        if filtered.account is None or filtered.n_events == self.n_events:
            return filtered
        of_items = int(counts[counts < min_item].sum())
        account = filtered.account.without(of_items, f"on items with fewer than {min_item} events")
        of_users = self.n_events - of_items - filtered.n_events
        return replace(filtered, account=account.without(of_users, f"of users with fewer than {min_user} events"))

    def _core(self, min_item: int, min_user: int) -> Interactions:
        """The events of users and on items in the k-core."""
        users, items = k_core_of(self.matrix, min_user, min_item)
        filtered = self.select_users(np.flatnonzero(users)).select_items(np.flatnonzero(items))
        if filtered.n_events == 0:
            raise InvalidDataError(
                f"No events are left: expected a core of users with at least {min_user} events on items with at least "
                f"{min_item} events of these users; lower min_user or min_item."
            )
        if filtered.account is None:
            return filtered
        core = f"outside of the core of users with {min_user} events and items with {min_item}"
        return replace(filtered, account=filtered.account.without(self.n_events - filtered.n_events, core))

    def select_users(self, rows: NDArray[Any]) -> Interactions:
        """Select users by row; all items are kept.

        Parameters
        ----------
        rows : numpy.ndarray
            Indices or a mask.

        Returns
        -------
        Interactions
            A copy.
        """
        return replace(self, user_ids=self.user_ids[rows], **self._cells(lambda cells: cells[rows]))

    def select_items(self, columns: NDArray[Any]) -> Interactions:
        """Select items by column; all users are kept.

        Parameters
        ----------
        columns : numpy.ndarray
            Indices or a mask.

        Returns
        -------
        Interactions
            A copy.
        """

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
        """Select events by a mask; all users and items are kept.

        Parameters
        ----------
        chosen : numpy.ndarray
            Mask over `matrix.data`.

        Returns
        -------
        Interactions
            A copy.
        """
        return replace(self, **self._cells(lambda cells: select_cells(cells, chosen)))

    def align(self, item_ids: Ids) -> tuple[Interactions, int]:
        """Map the data to other columns, such as the items of a model; the users stay the same.

        Parameters
        ----------
        item_ids : numpy.ndarray
            Raw ids of the new columns, matched as by `match_ids`.

        Returns
        -------
        tuple[Interactions, int]
            The data, and how many events were dropped because their item is not among `item_ids`.

        Raises
        ------
        InvalidDataError
            If no event is left.
        """
        cells = self.matrix.tocoo()
        column, shape = match_ids(self.item_ids, item_ids)[cells.col], (self.n_users, len(item_ids))
        known = column >= 0
        if not known.any():
            raise InvalidDataError(
                f"Expected events on some of the {len(item_ids)} items, such as {item_ids.tolist()[0]!r}, got none: "
                f"the items of these data are such as {self.item_ids.tolist()[0]!r}."
            )
        matrix = sparse.csr_matrix((cells.data[known], (cells.row[known], column[known])), shape, dtype=np.float32)
        matrix.sort_indices()
        aligned = replace(self, matrix=matrix, item_ids=item_ids, titles=None, genres=None, times=None)
        return aligned, int((~known).sum())

    def _cells(self, change: Callable[[sparse.csr_matrix], sparse.csr_matrix]) -> dict[str, Any]:
        """The matrix and the times, changed by the same function: they have the same structure."""
        return {"matrix": change(self.matrix), "times": None if self.times is None else change(self.times)}

    def fingerprint(self) -> str:
        """A digest of users, items and events, by which a model can be matched with the data it was trained on."""
        ids = [self.user_ids.tolist()], [self.item_ids.tolist()]
        indptr, indices = self.matrix.indptr.astype(np.int64), self.matrix.indices.astype(np.int64)
        return digest_events(ids, (indptr, indices, self.matrix.data))

    def __repr__(self) -> str:
        return (
            f"Interactions({self.n_users:,} users x {self.n_items:,} items, {self.n_events:,} events, "
            f"values={self.values!r})"
        )


def _preparation(
    min_value: float | None, min_user: int, min_item: int, k_core: bool, duplicates: str
) -> dict[str, Any]:
    """The filters that are set, as JSON values."""
    filters: dict[str, Any] = {"min_value": None if min_value is None else float(min_value)}
    filters |= {"min_user": int(min_user) or None, "min_item": int(min_item) or None, "k_core": k_core or None}
    filters["duplicates"] = None if duplicates == "sum" else duplicates
    return {name: value for name, value in filters.items() if value is not None}


def _texts(texts: Mapping[Any, str] | None, item_ids: Ids) -> Ids | None:
    """The text of each item, matched as by `ItemIndex`: 7 is "7". An item without a text gets its id."""
    if texts is None:
        return None
    written = {_written(item): text for item, text in texts.items()}
    return np.array([written.get(str(item), str(item)) for item in item_ids.tolist()], dtype=object)


def _titled(data: Interactions, titles: Mapping[Any, str]) -> Account | None:
    """Account of data with titles, with a note on the number of items without a title."""
    known = set(map(_written, titles))
    n = sum(str(item) not in known for item in data.item_ids.tolist())
    if data.account is None or not n:
        return data.account
    return data.account.noted(f"{n:,} of {data.n_items:,} items have no title, and go by their id")


def _written(item: Any) -> str:
    """String form of an id; 7.0 becomes "7"."""
    return str(int(item) if isinstance(item, (float, np.floating)) and item.is_integer() else item)


def _known(values: Values) -> Values:
    if values not in VALUES:
        raise UnknownNameError.among("values transform", values, VALUES)
    return values


def _name(thing: object) -> str:
    shape = getattr(thing, "shape", None)
    return type(thing).__name__ + ("" if shape is None else f" of shape {shape}")
