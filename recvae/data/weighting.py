"""What an event counts: weights by behaviour (view, cart, buy), and decay by age with a half-life."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recvae.data.events import Account, at_least, check_min_value
from recvae.data.names import UNKNOWN_BEHAVIOR
from recvae.data.rows import LARGEST
from recvae.data.tables.frames import DATES, read_column, read_numbers
from recvae.data.weight_spec import checked_weights, half_life_in_units
from recvae.errors import InvalidDataError, InvalidParameterError, UnknownNameError, shown

Values = NDArray[np.float64]

SMALLEST = 1 / LARGEST  # smaller values are refused by models


@dataclass(frozen=True)
class Weighting:
    """The rules for the value of an event: (value or 1) * weight of its behaviour * 2^(-age / half_life).

    Attributes
    ----------
    behavior : str or None
        Column of behaviours.
    weights : Mapping or None
        Weight of each behaviour; one of weight 0 is no event.
    unknown_behavior : str
        What happens to rows of other behaviours, or without any: "refuse", or "drop", which counts them.
    half_life : float or str or None
        Age at which an event counts half: a number in the unit of the times, or text such as "30 days".

    Raises
    ------
    RecvaeError
        If the weights or the half-life are not such.
    """

    behavior: str | None = None
    weights: Mapping[str, float] | None = None
    unknown_behavior: str = "refuse"
    half_life: float | str | None = None

    def __post_init__(self) -> None:
        """Check the arguments, and that a column of behaviours and weights come together."""
        if self.unknown_behavior not in UNKNOWN_BEHAVIOR:
            raise UnknownNameError.among("rule for unknown behaviours", self.unknown_behavior, UNKNOWN_BEHAVIOR)
        if self.weights is not None:
            object.__setattr__(self, "weights", checked_weights(self.weights))
        if self.half_life is not None:
            half_life_in_units(self.half_life)
        if self.behavior is None and self.weights is not None:
            raise InvalidParameterError(
                f"Expected the column of behaviours for weights={dict(self.weights)}, got none."
            )

    def __bool__(self) -> bool:
        """Whether there is any rule."""
        return self.behavior is not None or self.half_life is not None

    def record(self) -> dict[str, Any]:
        """The rules that are set, for JSON."""
        rules = {
            "behavior": self.behavior,
            "weights": None if self.weights is None else dict(self.weights),
            "unknown_behavior": None if self.behavior is None else self.unknown_behavior,
            "half_life": self.half_life,
        }
        return {name: rule for name, rule in rules.items() if rule is not None}

    def apply(
        self, values: Values, min_value: float | None, behaviors: pa.ChunkedArray | None, times: Values | None
    ) -> Weighed:
        """Weigh events.

        Parameters
        ----------
        values : Values
            (E,) values of the rows, 1 for each if there are none.
        min_value : float or None
            Rows with a smaller value, before it is weighed, are left out.
        behaviors : pa.ChunkedArray or None
            (E,) the column of behaviours.
        times : Values or None
            (E,) times, 0 if unknown.

        Raises
        ------
        InvalidDataError
            For behaviours without a weight, if they are to be refused, and for rows without a time.
        InvalidParameterError
            For a half-life without times, or in days of times that are no dates.
        """
        if min_value is not None:
            check_min_value(min_value)
        kept, account = at_least(values, min_value), Account(len(values))
        below = int((~kept).sum())
        account = account.without(below, "" if min_value is None else f"below {min_value:g}")
        record = self.record()
        if behaviors is not None:
            factors, account = self._by_behavior(behaviors, kept, account)
            kept = kept & (factors > 0)
            values = values * factors
        if self.half_life is not None:
            reference = self._reference(times, kept)
            record["reference_time"] = reference
            assert times is not None
            before = values
            values = values * np.exp2((times - reference) / half_life_in_units(self.half_life))
            old = kept & (values < SMALLEST) & (before != 0)
            account = account.without(int(old.sum()), f"of no weight at a half-life of {self.half_life}")
            kept = kept & ~old
            unit = " seconds" if not isinstance(self.half_life, str) and DATES[0] < reference < DATES[1] else ""
            age = f"counted half for each {self.half_life}{unit} before {_moment(reference)}"
            account = account.noted(age)
        return Weighed(values[kept], np.flatnonzero(kept), account, record)

    def _by_behavior(
        self, column: pa.ChunkedArray, kept: NDArray[np.bool_], account: Account
    ) -> tuple[Values, Account]:
        """Weight of each row, 0 for rows that are left out; and the account of these."""
        codes, names = behavior_codes(column)
        weights, name = self.weights, str(self.behavior)
        if weights is None:
            raise InvalidParameterError(
                f"Expected weights for the behaviours in {name!r}, such as {dict.fromkeys(names[:3], 1)}, got none."
            )
        counts = np.bincount(codes[kept], minlength=len(names))
        unknown = [index for index, known in enumerate(names) if known not in weights and counts[index]]
        if unknown and self.unknown_behavior == "refuse":
            raise unknown_behavior(names[unknown[0]], int(counts[unknown[0]]), name, weights)
        for index in unknown:
            account = account.without(
                int(counts[index]), f"of the behaviour {shown(names[index])}, which has no weight"
            )
        for index, known in enumerate(names):
            if weights.get(known) == 0:
                account = account.without(int(counts[index]), f"of the behaviour {shown(known)}, which weighs 0")
        absent = [known for known in weights if known not in names]
        note = f"no row has the behaviour {shown(absent[0])}" if absent else ""
        said = ", ".join(f"{known} {weight:g}" for known, weight in weights.items())
        factors = np.array([weights.get(known, 0.0) for known in names], dtype=np.float64)
        return factors[codes], account.noted(f"weighed by {name}: {said}", note)

    def _reference(self, times: Values | None, kept: NDArray[np.bool_]) -> float:
        """The latest time of all events, from which ages are counted."""
        if times is None:
            raise InvalidParameterError(
                f"Expected the column of times for half_life={self.half_life!r}, got time=None."
            )
        chosen = times[kept]
        unknown = int((chosen == 0).sum())
        if unknown or not len(chosen):
            raise InvalidDataError(
                f"Expected a time for each event with a half-life, got {unknown:,} of {len(chosen):,} without; leave "
                f"these out."
            )
        last = float(chosen.max())
        if isinstance(self.half_life, str) and not (DATES[0] < chosen.min() and last < DATES[1]):
            raise InvalidParameterError(
                f"Expected times that are dates for half_life={self.half_life!r}, got numbers up to {last:g}; give a "
                f"number in their unit."
            )
        return last


@dataclass(frozen=True)
class Weighed:
    """Events after weighing: their values, the rows that they were, the account of the others, and the rules."""

    values: Values
    rows: NDArray[np.int64]
    account: Account
    record: dict[str, Any] = field(default_factory=dict)


def weighed_events(
    frame: Any, weighting: Weighting, user: str, item: str, value: str | None, min_value: float | None
) -> tuple[pa.Table, str]:
    """Events of a frame with weighed values, for histories: 0 is an item seen, and so is a value below `min_value`.

    Returns
    -------
    tuple[pa.Table, str]
        A table with the columns of users and items, without rows that were dropped; the name of its column of values.

    Raises
    ------
    InvalidDataError
        For behaviours without a weight, if they are to be refused.
    InvalidParameterError
        If there are no weights.
    """
    if not any(hasattr(type(frame), name) for name in ("columns", "column_names")):
        raise InvalidParameterError(f"Expected behavior with a frame only, got {type(frame).__name__}.")
    if min_value is not None:
        check_min_value(min_value)
    column = read_column(frame, str(weighting.behavior), gaps=True)
    values = np.ones(len(column)) if value is None else read_numbers(read_column(frame, value), value)
    codes, names = behavior_codes(column)
    known = np.array([name in (weighting.weights or {}) for name in names], dtype=bool)
    factors, _ = weighting._by_behavior(column, np.ones(len(column), dtype=bool), Account(len(column)))
    weighed = np.where(at_least(values, min_value), values * factors, 0.0)
    name = f"{user} {item} value"  # another name than those of its columns
    columns = [read_column(frame, user), read_column(frame, item), pa.array(weighed)]
    return pa.table(columns, names=[user, item, name]).filter(pa.array(known[codes])), name


def weighed_rows(
    read: Callable[[pa.Table], Iterator[pa.Table]], weighting: Weighting, has_value: bool, min_value: float | None
) -> Callable[[pa.Table], Iterator[pa.Table]]:
    """Make a reader of columns user, item, [value,] behavior a reader of user, item and weighed value.

    A nested function is pickled by value. Behaviours without a weight are left out: a check precedes.
    """

    weighting = replace(weighting, behavior="behavior")

    def weighed(groups: pa.Table) -> Iterator[pa.Table]:
        for rows in read(groups):
            names = ["user", "item", *["value"][: int(has_value)], "behavior"]
            table, _ = weighed_events(
                rows.rename_columns(names), weighting, "user", "item", "value" if has_value else None, min_value
            )
            yield table.rename_columns(["user", "item", "value"])

    return weighed


def behavior_codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[str]]:
    """Number the distinct behaviours, as text; a missing one is "". -> (code of each row, behaviours)"""
    texts = pc.fill_null(column.cast(pa.string()), "")
    encoded = texts.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def unknown_behavior(name: str, rows: int, column: str, weights: Mapping[str, float]) -> InvalidDataError:
    """The error for rows of a behaviour without a weight."""
    return InvalidDataError(
        f"Expected behaviours that have a weight ({', '.join(weights)}) in column {column!r}, got {shown(name)} in "
        f"{rows:,} rows; give it one, 0 to leave it out, or say unknown_behavior='drop'."
    )


def _moment(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).date().isoformat() if DATES[0] < time < DATES[1] else f"{time:g}"
