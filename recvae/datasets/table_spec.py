"""A table of a data set card: which files, in which layout, with which columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from recvae.data.names import FORMATS
from recvae.data.tables.options import Columns, ReadOptions, WithoutId
from recvae.errors import RecvaeError, shown
from recvae.utils.paths import is_below

# layout -> the columns that the card has to name; `recvae.datasets.parsers.LAYOUTS` has the parsers
LAYOUT_COLUMNS: dict[str, tuple[str, ...]] = {
    "columns": ("user", "item"),
    "adjacency": (),
    "baskets": (),
    "counted": (),
    "blocks": ("user",),
    # kinds of files of `recvae.data.tables.formats` that name their columns, or need no names
    **{kind: () for kind in FORMATS if kind not in ("text", "parquet")},
}
ROLES = tuple(vars(Columns()))


class TableSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a card: one file of the data set, or several that match a pattern; Parquet or delimited text.

    Attributes
    ----------
    columns : list[str]
        Names of the columns in order, "" for those that are not read.
    file : str
        Path of the file below the folder of the data set, or a pattern such as "part-*.csv".
    layout : str
        One of `LAYOUT_COLUMNS`: "columns", one event in each line; "adjacency", one user in each line, with all items;
        "baskets", the items of a user in each line, and "counted", their number and the items: users are the numbers of
        the lines, from 1; "blocks", a line "item:" before the lines of its events; or a kind of file such as "json",
        whose columns or keys are found by name.
    names : dict[str, str]
        In Parquet files and such kinds, the column or key of user, item, value, time and behavior, where it has another
        name.
    delimiter : str
        What separates fields, one character or several; or "tab", "space", "whitespace" (one or more blanks, tabs).
    header : bool
        Whether the first line has the names of the columns, which is then skipped.
    quoted : bool
        Whether fields may be quoted and then contain the delimiter; if not, the last column of the item table may.
    quote : str
        The character around quoted fields.
    encoding : str
        Encoding of the text.
    comment : str
        Lines that begin with it are skipped; "" if there are none.
    decimal : str
        Decimal mark of values, "." or ",".
    missing : list[str]
        Words that stand for a missing value, apart from an empty field.
    without_id : str
        What happens to rows without a user or an item: "refuse", or "drop", which counts them.
    time_format : str or None
        Unit of numeric times, such as "milliseconds", or a pattern of strptime for dates, such as "%d/%m/%Y".
    genre_flags : list[str]
        Names of the last columns, if there is one 0/1 column per genre.
    """

    columns: list[str] = []
    file: str = ""
    layout: str = "columns"
    names: dict[str, str] = {}
    delimiter: Annotated[str, Meta(min_length=1)] = ","
    header: bool = False
    quoted: bool = True
    quote: Annotated[str, Meta(min_length=1, max_length=1)] = '"'
    encoding: Annotated[str, Meta(min_length=1)] = "utf-8"
    comment: str = ""
    decimal: str = "."
    missing: list[str] = []
    without_id: WithoutId = "refuse"
    time_format: str | None = None
    genre_flags: list[str] = []

    def __post_init__(self) -> None:
        if self.file and not is_below(self.file):
            raise TypeError(f"file = {shown(self.file)} is no path below the folder of the data set")
        if self.layout not in LAYOUT_COLUMNS:
            raise TypeError(f"layout = {shown(self.layout)} is none of {', '.join(LAYOUT_COLUMNS)}")
        others = [role for role in self.names if role not in ROLES]
        if others:
            raise TypeError(f"names has {shown(others[0])}, which is none of {', '.join(ROLES)}")
        try:
            self.options()
        except RecvaeError as error:
            raise TypeError(str(error).rstrip(".")) from None

    def options(self) -> ReadOptions:
        """How the file is read."""
        return ReadOptions(
            delimiter=self.delimiter,
            encoding=self.encoding,
            header=self.header,
            quote=self.quote if self.quoted else "",
            comment=self.comment,
            decimal=self.decimal,
            missing=tuple(self.missing),
            without_id=self.without_id,
            time_format=self.time_format,
            spoken="card",
        )

    def check_columns(self, required: Sequence[str]) -> None:
        """Raise TypeError if a `required` column is missing."""
        missing = [name for name in required if name not in self.columns]
        if missing:
            raise TypeError(f"columns = {shown(self.columns)} lacks {' and '.join(missing)}")
