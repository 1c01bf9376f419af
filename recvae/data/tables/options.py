"""What a file of events is read as: its columns, its options, and the table that a reader returns.

This module loads no library, so that the command line can name the options.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from recvae.errors import InvalidParameterError, InvalidTypeError, UnknownNameError, shown

if TYPE_CHECKING:
    import pyarrow as pa

# a column by its name, or by its position, counted from 0 as pandas does
Column = str | int
WithoutId = Literal["refuse", "drop"]
WITHOUT_ID = ("refuse", "drop")
# units of numeric times; any other `time_format` is a pattern such as "%d/%m/%Y"
TIME_UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
WHITESPACE = "whitespace"  # a delimiter: one or more blanks or tabs
DELIMITERS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";", "pipe": "|"}
# where options are given, and how an error names one: parameter, flag, key of a card
Spoken = Literal["python", "flag", "card"]


@dataclass(frozen=True)
class Columns:
    """The columns of a file of events, by name or by position from 0; None for a column that is not read.

    A position stands for a column of text without a header; a string of digits does so, too, unless a column has it as
    its name. `user` is None for a table of items only, or of any one kind of ids.
    """

    user: Column = "user"
    item: Column = "item"
    value: Column | None = None
    time: Column | None = None
    behavior: Column | None = None

    def __post_init__(self) -> None:
        """Raise InvalidTypeError or InvalidParameterError for what is neither a name nor a position."""
        for role, column in vars(self).items():
            if column is None and role != "item":
                continue
            if isinstance(column, bool) or not isinstance(column, (str, int)):
                raise InvalidTypeError(
                    f"Expected {role} as the name of a column or its position from 0, got {shown(column)}."
                )
            if isinstance(column, int) and column < 0:
                raise InvalidParameterError(f"Expected {role} as a position from 0, got {column}.")

    def __iter__(self) -> Iterator[Column]:
        """The columns that are read, in the order user, item, value, time, behavior."""
        return iter([column for column in vars(self).values() if column is not None])

    @property
    def names(self) -> list[str]:
        """Names of these columns in the table that a reader returns: those that were asked for, positions as text."""
        return list(map(str, self))

    def by_role(self) -> dict[str, Any]:
        """The same names as keywords of `Interactions.from_frame`; None for a column that is not read."""
        return {role: None if column is None else str(column) for role, column in vars(self).items()}

    @property
    def numbers(self) -> list[str]:
        """Names of the columns that hold numbers only."""
        return [] if self.value is None else [str(self.value)]

    @property
    def texts(self) -> list[str]:
        """Names of the columns that hold any text, which may be missing."""
        return [] if self.behavior is None else [str(self.behavior)]


@dataclass(frozen=True)
class ReadOptions:
    """How a file of events is read. None means that the first lines decide.

    Attributes
    ----------
    format : str or None
        Kind of file, one of `recvae.data.tables.formats.FORMATS`; by default, its extension decides.
    delimiter : str or None
        What separates fields: one character or several, or the names "tab", "space", "whitespace" (blanks or tabs).
    encoding : str or None
        Encoding of the text.
    header : bool or None
        Whether the first line has the names of the columns.
    quote : str
        Character around fields that may contain delimiters and line breaks; "" if quotes are text.
    comment : str
        Lines that begin with it are skipped; "" if there are none.
    decimal : str
        Decimal mark of values, "." or ",".
    missing : Sequence[str]
        Further words that stand for a missing value, apart from an empty field.
    without_id : str
        What happens to rows without a user or an item: "refuse", or "drop", which counts them in the account.
    time_format : str or None
        Unit of numeric times, one of `TIME_UNITS`, or a pattern of `strptime`, such as "%d/%m/%Y %H:%M".
    item_delimiter : str or None
        What separates the items, if a field of the column of items has several.
    spoken : str
        Where the options come from, so that an error can name them: "python", "flag" or "card".
    """

    format: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    header: bool | None = None
    quote: str = '"'
    comment: str = ""
    decimal: str = "."
    missing: Sequence[str] = ()
    without_id: WithoutId = "refuse"
    time_format: str | None = None
    item_delimiter: str | None = None
    spoken: Spoken = "python"

    def __post_init__(self) -> None:
        """Raise InvalidParameterError, InvalidTypeError or UnknownNameError for options that cannot be."""
        for name in ("format", "delimiter", "encoding", "time_format", "item_delimiter", "quote", "comment", "decimal"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise InvalidTypeError(f"Expected {self.name_of(name)} as text, got {shown(value)}.")
            if value == "" and name not in ("quote", "comment"):
                raise InvalidParameterError(f"Expected {self.name_of(name)} with at least one character, got ''.")
        if self.header not in (None, True, False):
            raise InvalidTypeError(f"Expected {self.name_of('header')} as true or false, got {shown(self.header)}.")
        if len(self.quote) > 1 or not self.quote.isascii():
            raise InvalidParameterError(
                f"Expected {self.name_of('quote')} as one ASCII character, or none, got {shown(self.quote)}."
            )
        if self.decimal not in (".", ","):
            raise InvalidParameterError(f"Expected {self.name_of('decimal')} as . or , got {shown(self.decimal)}.")
        if self.without_id not in WITHOUT_ID:
            raise UnknownNameError.among("rule for rows without an id", self.without_id, WITHOUT_ID)
        if isinstance(self.missing, str) or not all(isinstance(word, str) for word in self.missing):
            raise InvalidTypeError(f"Expected {self.name_of('missing')} as words, got {shown(self.missing)}.")

    @property
    def separator(self) -> str | None:
        """The delimiter with its name, such as "tab", replaced by the characters; `WHITESPACE` for "whitespace"."""
        return None if self.delimiter is None else DELIMITERS.get(self.delimiter, self.delimiter)

    def name_of(self, option: str) -> str:
        """An option as it is written where it was given."""
        return f"--{option.replace('_', '-')}" if self.spoken == "flag" else option

    def by_position(self) -> str:
        """How to name the columns of a file without a header, for the end of an error."""
        if self.spoken == "flag":
            return "name the columns by position, from 0, as --no-header --user 0 --item 1 does"
        return "name the columns by position, from 0, as header=False, user=0, item=1 does"

    def column_flags(self) -> str:
        """The options that name columns."""
        return "--user, --item, --value, --time" if self.spoken == "flag" else "user=, item=, value=, time="

    def to_set(self, option: str, value: object) -> str:
        """The same as `give`, with a verb."""
        return f"{'give' if self.spoken == 'flag' else 'set'} {self.give(option, value)}"

    def give(self, option: str, value: object) -> str:
        """How to set an option, for the end of an error: "header=False", "--no-header", "header = false"."""
        if self.spoken == "flag":
            if isinstance(value, bool):
                return f"--{'' if value else 'no-'}{option.replace('_', '-')}"
            return f"{self.name_of(option)} {shown(value) if isinstance(value, str) else value}"
        text = str(value).lower() if self.spoken == "card" and isinstance(value, bool) else shown(value)
        return f"{option} = {text}" if self.spoken == "card" else f"{option}={text}"


@dataclass(frozen=True)
class Reading:
    """Events as a reader returns them.

    Attributes
    ----------
    table : pyarrow.Table
        One row per event; ids as integers or text, without missing ones.
    columns : Columns
        Names of its columns. A reader of a shape that has values of its own, such as a matrix of ratings, names them
        here even if they were not asked for.
    left_out : Mapping[str, int]
        Rows that were dropped, by reason, for the account.
    notes : tuple[str, ...]
        What was guessed, for the account.
    """

    table: pa.Table
    columns: Columns
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def noted(self, *notes: str) -> Self:
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *filter(None, notes)))
