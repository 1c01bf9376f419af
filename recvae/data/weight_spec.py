"""Weights of behaviours and half-lives as they are given: this module loads no library, cards and commands use it."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from typing import Any

from recvae.errors import InvalidParameterError, InvalidTypeError, shown

SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0, "year": 365.25 * 86400.0}
SPAN = re.compile(r"(\d+(?:\.\d+)?|\.\d+) ?([a-z]+)")
SHORT = {name[0]: name for name in SECONDS if name != "minute"}  # 30d, 12h; "m" may be taken for a month


def checked_weights(weights: Any) -> dict[str, float]:
    """Weights by behaviour as text. Raises InvalidTypeError, InvalidParameterError."""
    if not isinstance(weights, Mapping):
        raise InvalidTypeError(f"Expected weights as {{behaviour: number}}, got {type(weights).__name__}.")
    checked = {}
    for name, weight in weights.items():
        number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
        if not number or not 0 <= float(weight) < 1e30:
            raise InvalidParameterError(
                f"Expected the weight of {shown(name)} as a number of 0 or more, got {weight!r}."
            )
        checked[str(name)] = float(weight)
    if not any(checked.values()):
        raise InvalidParameterError(f"Expected a behaviour that weighs more than 0, got {checked}.")
    return checked


def half_life_in_units(half_life: Any) -> float:
    """The half-life in seconds, or as the number that it is. Raises InvalidParameterError."""
    if isinstance(half_life, str):
        match = SPAN.fullmatch(half_life.strip().lower())
        unit = "" if match is None else SHORT.get(match[2], match[2].removesuffix("s"))
        if match is None or unit not in SECONDS or float(match[1]) == 0:
            raise InvalidParameterError(
                f"Expected half_life such as '30 days', '12 hours', '2w' or a number, got {shown(half_life)}."
            )
        return float(match[1]) * SECONDS[unit]
    if isinstance(half_life, bool) or not isinstance(half_life, numbers.Real):
        raise InvalidParameterError(f"Expected half_life as a number or as text such as '30 days', got {half_life!r}.")
    number = float(half_life)
    if not 0 < number < math.inf:
        raise InvalidParameterError(f"Expected half_life above 0, got {half_life!r}.")
    return number


def preparation_from_file(rules: Any) -> dict[str, Any]:
    """The filters and weights that a model's file records; files of earlier versions have none.

    Raises
    ------
    ValueError
        If they are not such.
    """
    if not isinstance(rules, dict):
        raise ValueError(f"the preparation of the data is {shown(rules)}")
    return rules | ({"weights": checked_weights(rules["weights"])} if "weights" in rules else {})
