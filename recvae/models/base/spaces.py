"""Where a search looks for a hyper-parameter: declared beside it, as in `hyper(..., search=log(1e-4, 1e-2))`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from recvae.errors import InvalidParameterError


@dataclass(frozen=True)
class Range:
    """The numbers from low to high, both among them: evenly, or by ratio, that is evenly in their logarithm."""

    low: float
    high: float
    by_ratio: bool = False
    whole: bool = False


# a range, or a list of values of any kind, None among them where it is one
Space = Range | list[Any]


def uniform(low: float, high: float) -> Range:
    """Numbers from low to high, any as likely: for shares."""
    return Range(low, high)


def log(low: float, high: float) -> Range:
    """Numbers from low > 0 to high by ratio, .001 to .01 as likely as .01 to .1: for rates and penalties."""
    return Range(low, high, by_ratio=True)


def whole(low: int, high: int) -> Range:
    """Integers from low >= 1 to high by ratio, 32 to 64 as likely as 256 to 512: for widths and counts."""
    return Range(low, high, by_ratio=True, whole=True)


def check_space(space: Space, default: Any, low: float | None, high: float | None) -> None:
    """Raise InvalidParameterError unless the space holds the default and lies within the allowed range."""
    if not isinstance(space, Range):
        found = default in space
    else:
        allowed = (float("-inf") if low is None else low, float("inf") if high is None else high)
        within = allowed[0] <= space.low < space.high <= allowed[1] and (space.low > 0 or not space.by_ratio)
        within = within and math.isfinite(space.low) and math.isfinite(space.high)
        found = within and default is not None and space.low <= default <= space.high
    if not found:
        raise InvalidParameterError(
            f"Expected a search space in the range of its hyper-parameter, default {default!r} included, got {space}."
        )
