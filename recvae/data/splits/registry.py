"""Registry of splits by name, for data set cards and the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from recvae.data.interactions import Interactions
from recvae.data.splits.holdout import Split
from recvae.data.splits.known_users import given_split, leave_last_split, per_user_split, temporal_split
from recvae.data.splits.strong import strong_split
from recvae.errors import InvalidParameterError, UnknownNameError
from recvae.utils.checks import check_fraction, check_integer

SPLITS: dict[str, Callable[..., Split]] = {
    "strong": strong_split,
    "per-user": per_user_split,
    "leave-last": leave_last_split,
    "temporal": temporal_split,
    "given": given_split,
}


def split_options(kind: str) -> list[str]:
    """The names of the options of a kind of split. Raises UnknownNameError."""
    if kind not in SPLITS:
        raise UnknownNameError.among("split", kind, SPLITS)
    return [name for name in inspect.signature(SPLITS[kind]).parameters if name not in ("data", "train", "test")]


def check_split(kind: str, options: dict[str, Any]) -> None:
    """Check the options of a kind of split, before any data are read.

    Raises
    ------
    UnknownNameError
        For an unknown kind.
    InvalidParameterError
        For unknown or missing options, and for shares and numbers out of range.
    """
    known = split_options(kind)
    for name, value in options.items():
        if name not in known:
            raise InvalidParameterError(f"Expected {', '.join(known)} for the {kind} split, got {name}.")
        if name.endswith("_share") and value is not None:
            check_fraction(name, value)
        elif name in ("heldout_users", "last"):
            check_integer(name, value, 1)
    if kind == "strong" and "heldout_users" not in options:
        raise InvalidParameterError("Expected heldout_users for the strong split: how many to test on.")


def make_split(data: Interactions, kind: str, test: Interactions | None = None, **options: Any) -> Split:
    """Split `data` in one of the ways of `SPLITS`; "given" needs the `test` interactions as well.

    Raises
    ------
    RecvaeError
        As `check_split`, and as the function of the split.
    """
    check_split(kind, options)
    if kind == "given" and test is None:
        raise InvalidParameterError("Expected test interactions (--test-input) for the given split, got none.")
    if kind != "given" and test is not None:
        raise InvalidParameterError(f"Expected no test interactions (--test-input) for the {kind} split; leave it out.")
    parts = [data] if test is None else [data, test]
    return SPLITS[kind](*parts, **options)
