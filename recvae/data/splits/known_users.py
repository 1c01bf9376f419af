"""Weak generalisation: test users are training users, some of whose events are held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.ids import match_ids
from recvae.data.interactions import Interactions
from recvae.data.names import SPLIT_SEED
from recvae.data.splits.holdout import Holdout, Split
from recvae.data.tables.frames import DATES, UNITS, unit_of
from recvae.errors import InvalidDataError, InvalidParameterError, InvalidTypeError
from recvae.utils.checks import check_fraction, check_integer

TRAIN, VALID, TEST = 0, 1, 2
Time = float | str


def per_user_split(
    data: Interactions, test_share: float = 0.2, valid_share: float = 0.1, seed: int = SPLIT_SEED
) -> Split:
    """Hold out events of every user at random: `int(test_share * n)` of the n events are for test.

    Of the m remaining events, `valid_share * m` are for validation, rounded down or up at random, such that it is that
    many on average; never all. Items without training or validation events are dropped.

    Parameters
    ----------
    data : Interactions
        All events.
    test_share : float
        Share of each user's events for test, in (0, 1).
    valid_share : float
        Share of each user's other events for validation, in (0, 1).
    seed : int
        Seed of the draws.

    Returns
    -------
    Split
        With `refit`: training and validation events together.

    Raises
    ------
    InvalidParameterError
        If a share is outside of (0, 1), or so small that nothing is held out.
    """
    _check(data)
    test_share, valid_share = check_fraction("test_share", test_share), check_fraction("valid_share", valid_share)
    random = np.random.RandomState(check_integer("seed", seed, 0, 2**32 - 1))
    part = np.zeros(data.n_events, dtype=np.int8)
    _hide(data, part, TEST, random.random_sample(data.n_events), lambda n: test_share * n)
    _hide_for_validation(data, part, valid_share, random)
    return _split(data, part)


def leave_last_split(data: Interactions, last: int = 1) -> Split:
    """Hold out the `last` events of each user by time for test, and as many before these for validation.

    Events at the same time are ordered by item. Users with fewer than 2 * last + 1 events are only trained on:
    validation and test drop and count them.

    Parameters
    ----------
    data : Interactions
        All events, with times.
    last : int
        Number of events of each user for test, and for validation.

    Returns
    -------
    Split
        With `refit`: training and validation events together.

    Raises
    ------
    InvalidDataError
        If times are not known.
    """
    _check(data)
    times, last = _known_times(data), check_integer("last", last, 1)
    enough = np.diff(data.matrix.indptr) > 2 * last
    part = np.zeros(data.n_events, dtype=np.int8)
    for purpose in (TEST, VALID):
        _hide(data, part, purpose, times, lambda n: last * enough)
    return _split(data, part)


def temporal_split(
    data: Interactions,
    test_share: float | None = None,
    valid_share: float | None = None,
    *,
    test_start: Time | None = None,
    valid_start: Time | None = None,
) -> Split:
    """Split at one point in time for all users: events from `test_start` on are for test.

    Events from `valid_start` until `test_start` are for validation. A repeated event has the time of the first one.
    Users and items that appear only in the test period are dropped; the users are counted.

    Parameters
    ----------
    data : Interactions
        All events, with times.
    test_share, valid_share : float or None
        Without a start: the share of all events that are for test, the latest ones, and of the events before them for
        validation, as nearly as events at the same time allow; by default 0.1 each.
    test_start, valid_start : float or str or None
        A date such as "2018-01-31" (UTC), or a number in the unit of the data's times.

    Returns
    -------
    Split
        With `refit`: training and validation events together.

    Raises
    ------
    InvalidDataError
        If times are not known.
    InvalidParameterError
        If a start leaves a part empty, or if both a start and a share are given.
    """
    _check(data)
    times = _known_times(data)
    test_from = _start("test", test_start, test_share, times)
    before = times[times < test_from]
    if not len(before):
        raise InvalidParameterError(
            f"Expected events before the test, got none from before {_date(test_from)}; take a later test_start (a "
            f"date is written 2018-01-31)."
        )
    valid_from = _start("valid", valid_start, valid_share, before)
    part = np.where(times >= test_from, TEST, np.where(times >= valid_from, VALID, TRAIN)).astype(np.int8)
    return _split(data, part)


def given_split(train: Interactions, test: Interactions, valid_share: float = 0.1, seed: int = SPLIT_SEED) -> Split:
    """Use the test events that come with the data.

    Of the n training events of each user, `valid_share * n` are for validation, rounded down or up at random, such that
    it is that many on average; never all. Users and items are those of `train`; test events of other users or on other
    items are dropped, and these users counted.

    Parameters
    ----------
    train, test : Interactions
        Training and test events, disjoint.
    valid_share : float
        Share of each user's training events for validation, in (0, 1).
    seed : int
        Seed of the draws.

    Returns
    -------
    Split
        With `refit`: training and validation events together.

    Raises
    ------
    InvalidDataError
        If an event is in both, or if test and training have no users or no items in common.
    """
    _check(train)
    _check(test)
    valid_share = check_fraction("valid_share", valid_share)
    random = np.random.RandomState(check_integer("seed", seed, 0, 2**32 - 1))
    part = np.zeros(train.n_events, dtype=np.int8)
    _hide_for_validation(train, part, valid_share, random)
    user, item = match_ids(test.user_ids, train.user_ids), match_ids(test.item_ids, train.item_ids)
    cells = test.matrix.tocoo()
    row, column = user[cells.row], item[cells.col]
    known = (row >= 0) & (column >= 0)
    matrix = sparse.csr_matrix((cells.data[known], (row[known], column[known])), shape=train.matrix.shape)
    both = matrix.multiply(train.matrix).nnz
    if both:
        raise InvalidDataError(f"Expected test events that are not in training, got {both:,} that are; drop these.")
    return _assemble(train, part, replace(train, matrix=matrix, times=None), int((user < 0).sum()))


def _check(data: Interactions) -> None:
    if not isinstance(data, Interactions):
        raise InvalidTypeError(f"Expected Interactions, got {type(data).__name__}; see Interactions.from_matrix.")


def _known_times(data: Interactions) -> NDArray[np.float64]:
    if data.times is None:
        raise InvalidDataError("Expected events with times for a split by time, got data without; name their column.")
    unknown = int((data.times.data == 0).sum())
    if unknown:
        raise InvalidDataError(
            f"Expected a time for each event, got {unknown:,} of {data.n_events:,} without (0 means: not known); "
            f"leave these out, or split in another way."
        )
    times: NDArray[np.float64] = data.times.data
    return times


def _date(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat() if DATES[0] < time < DATES[1] else f"{time:g}"


def _seconds(time: Time, times: NDArray[np.float64]) -> float:
    """Convert a start to the unit of the data's times; a date requires that these are in seconds."""
    dates = unit_of(times[times != 0])
    try:
        number = float(time)
    except (TypeError, ValueError):
        pass
    else:  # a number may be in the original unit of the times
        return number / UNITS[unit_of(np.array([number])) or "seconds"] if dates == "seconds" else number
    try:
        date = datetime.fromisoformat(str(time))
    except ValueError as error:
        raise InvalidParameterError(f"Expected a date such as 2018-01-31, or a number, got {time!r}.") from error
    if dates != "seconds" and float(times.max()) > DATES[1]:
        raise InvalidDataError(
            f"Expected times in seconds since 1970 for a split at {time!r}, got numbers from {times.min():.15g} to "
            f"{times.max():.15g}, perhaps milliseconds; turn them into seconds or dates, or name such a number."
        )
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _start(part: str, start: Time | None, share: float | None, times: NDArray[np.float64]) -> float:
    """First time of the events for `part`: the given start, or such that about a share of all events follow."""
    if start is not None:
        if share is not None:
            raise InvalidParameterError(f"Expected {part}_start or {part}_share, got both: {start!r} and {share!r}.")
        return _seconds(start, times)
    wanted = len(times) * (0.1 if share is None else check_fraction(f"{part}_share", share))
    known, counts = np.unique(times, return_counts=True)
    if len(known) < 2:
        raise InvalidDataError(f"Expected events of different times, got {len(times):,} of one: {_date(known[0])}.")
    later = counts[::-1].cumsum()[::-1]  # number of events at or after each time
    return float(known[1:][np.abs(later[1:] - wanted).argmin()])


def _hide(
    data: Interactions,
    part: NDArray[np.int8],
    purpose: int,
    keys: NDArray[np.float64],
    size: Callable[[NDArray[np.int64]], NDArray[Any]],
) -> None:
    """Move those events of each user with the largest keys from training to `purpose`.

    Parameters
    ----------
    size : Callable[[NDArray[np.int64]], NDArray[Any]]
        Number of training events of each user (U,) -> number of them to move (U,), rounded down.
    """
    free = part == TRAIN
    row_of = np.repeat(np.arange(data.n_users), np.diff(data.matrix.indptr))
    n = np.bincount(row_of[free], minlength=data.n_users)  # (U,) training events of each user
    order = np.flatnonzero(free)
    order = order[np.lexsort((keys[order], row_of[order]))]  # by user, then key
    rank = np.arange(len(order)) - np.repeat(np.cumsum(n) - n, n)
    part[order[rank >= np.repeat(n - size(n).astype(np.int64), n)]] = purpose


def _hide_for_validation(
    data: Interactions, part: NDArray[np.int8], valid_share: float, random: np.random.RandomState
) -> None:
    """Move a share of each user's training events to validation, rounded down or up at random, but never all.

    Rounded down, users with fewer than 1 / valid_share events, often most of them, would have no say in validation.
    """
    keys, rounding = random.random_sample(data.n_events), random.random_sample(data.n_users)
    _hide(data, part, VALID, keys, lambda n: np.minimum(valid_share * n + rounding, np.maximum(n - 1, 0)))


def _split(data: Interactions, part: NDArray[np.int8]) -> Split:
    return _assemble(data, part, data.select_events(part == TEST), 0)


def _assemble(data: Interactions, part: NDArray[np.int8], held: Interactions, unknown: int) -> Split:
    """Assemble the split: `part` marks training and validation events of `data`, `held` has the test events."""
    seen = data.select_events(part < TEST)
    known = np.flatnonzero(np.diff(seen.matrix.indptr))
    vocabulary = np.flatnonzero(np.bincount(seen.matrix.indices, minlength=data.n_items))
    unknown += data.n_users - len(known)
    seen, held, train, valid = (
        events.select_users(known).select_items(vocabulary)
        for events in (seen, held, data.select_events(part == TRAIN), data.select_events(part == VALID))
    )
    if not train.n_events:
        raise InvalidParameterError("Expected events to train on, got none; hold out less, or from a later time on.")
    return Split(train, _holdout(train, valid, 0, "validation"), _holdout(seen, held, unknown, "test"), refit=seen)


def _holdout(seen: Interactions, held: Interactions, unknown: int, purpose: str) -> Holdout:
    """Holdout of the users with both fold-in and held-out events; the others are dropped."""
    rows = np.flatnonzero((np.diff(seen.matrix.indptr) > 0) & (np.diff(held.matrix.indptr) > 0))
    if not len(rows):
        raise InvalidParameterError(
            f"Expected users with something held out for {purpose}, got none: users have too few events, or the times "
            f"leave no one; hold out more."
        )
    return Holdout(
        fold_in=seen.matrix[rows],
        held_out=held.matrix[rows],
        users=seen.user_ids[rows],
        dropped=seen.n_users - len(rows) + unknown,
        item_counts=np.bincount(seen.matrix.indices, minlength=seen.n_items),
        n_train=seen.n_users,
        train_rows=rows,
        item_ids=seen.item_ids,
        reason="they have nothing in training, or nothing on its items held out",
    )
