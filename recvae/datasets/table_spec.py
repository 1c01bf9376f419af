"""A table of a data set card: which files, in which layout, with which columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from recvae.errors import shown
from recvae.utils.paths import is_below

# layout -> the columns that the card has to name; `recvae.datasets.parsers.LAYOUTS` has the parsers
LAYOUT_COLUMNS: dict[str, tuple[str, ...]] = {
    "columns": ("user", "item"),
    "adjacency": (),
    "baskets": (),
    "counted": (),
    "blocks": ("user",),
}


class TableSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a card: one file of the data set, or several that match a pattern; Parquet or delimited text.

    Attributes
    ----------
    columns : list[str]
        Names of the columns in order, "" for those that are not read.
    layout : str
        One of `LAYOUT_COLUMNS`: "columns", one event in each line; "adjacency", one user in each line, with all items;
        "baskets", the items of a user in each line, and "counted", their number and the items: users are the numbers of
        the lines, from 1; "blocks", a line "item:" before the lines of its events.
    quoted : bool
        Whether fields may be quoted and then contain the delimiter; if not, the last column of the item table may.
    genre_flags : list[str]
        Names of the last columns, if there is one 0/1 column per genre.
    """

    columns: list[str] = []
    file: str = ""
    layout: str = "columns"
    delimiter: Annotated[str, Meta(min_length=1, pattern=r"^[\x00-\x7f]*$")] = ","
    header: bool = False
    quoted: bool = True
    encoding: Annotated[str, Meta(min_length=1)] = "utf-8"
    genre_flags: list[str] = []

    def __post_init__(self) -> None:
        if self.file and not is_below(self.file):
            raise TypeError(f"file = {shown(self.file)} is no path below the folder of the data set")
        if self.layout not in LAYOUT_COLUMNS:
            raise TypeError(f"layout = {shown(self.layout)} is none of {', '.join(LAYOUT_COLUMNS)}")

    def check_columns(self, required: Sequence[str]) -> None:
        """Raise TypeError if a `required` column is missing."""
        missing = [name for name in required if name not in self.columns]
        if missing:
            raise TypeError(f"columns = {shown(self.columns)} lacks {' and '.join(missing)}")
