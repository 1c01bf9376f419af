"""Checks of single arguments: an integer within a range, a number, a fraction between 0 and 1."""

from __future__ import annotations

import math
import numbers
from typing import Any

from recvae.errors import InvalidParameterError, shown

LARGEST_INT = 2**63 - 1


def check_integer(name: str, value: Any, low: int, high: float = math.inf) -> int:
    """`value` as an int. Raises InvalidParameterError unless it is an integer from `low` to `high`."""
    most = LARGEST_INT if high == math.inf else high
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not low <= int(value) <= most:
        limit = f"from {low} to {high}" if high < math.inf else f"of at least {low}"
        if isinstance(value, numbers.Integral) and int(value) > most:
            limit = f"from {low} to {most}"
        raise InvalidParameterError(f"Expected {name} to be an integer {limit}, got {shown(value)}.")
    return int(value)


def check_number(name: str, value: Any, *, zero: bool = True) -> float:
    """`value` as a float. Raises InvalidParameterError unless it is a finite number of 0 or more; above 0 if `zero` is
    False.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not (real and (value > 0 or (zero and value == 0))):
        least = "of 0 or more" if zero else "above 0"
        raise InvalidParameterError(f"Expected {name} to be a finite number {least}, got {shown(value)}.")
    return float(value)


def check_fraction(name: str, value: Any) -> float:
    """`value` as a float. Raises InvalidParameterError unless it lies between 0 and 1, exclusive."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and 0 < value < 1):
        raise InvalidParameterError(f"Expected a {name} between 0 and 1, got {shown(value)}.")
    return float(value)


def is_list_of(value: Any, kind: type) -> bool:
    """Whether a value is a list or tuple of objects of a kind."""
    return isinstance(value, (list, tuple)) and all(isinstance(element, kind) for element in value)
