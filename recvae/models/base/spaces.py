"""Search spaces, declared with a hyper-parameter, as in `hyper(..., search=log(1e-4, 1e-2))`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from recvae.errors import InvalidParameterError


@dataclass(frozen=True)
class Range:
    """The numbers from low to high, both included; uniformly, or uniformly in their logarithm."""

    low: float
    high: float
    log_scale: bool = False
    integer: bool = False

    def __str__(self) -> str:
        """The text that identifies a search space in studies: if it changed, existing studies would be refused."""
        return f"Range(low={self.low!r}, high={self.high!r}, by_ratio={self.log_scale}, whole={self.integer})"


# a range, or a list of values of any kind, which may include None
Space = Range | list[Any]


def uniform(low: float, high: float) -> Range:
    """Numbers from low to high, uniformly: for shares."""
    return Range(low, high)


def log(low: float, high: float) -> Range:
    """Numbers from low > 0 to high, uniformly in their logarithm: for rates and penalties."""
    return Range(low, high, log_scale=True)


def integers(low: int, high: int) -> Range:
    """Integers from low >= 1 to high, uniformly in their logarithm: for widths and counts."""
    return Range(low, high, log_scale=True, integer=True)


def check_space(space: Space, default: Any, low: float | None, high: float | None) -> None:
    """Raise InvalidParameterError unless the space contains the default and lies within the allowed range."""
    if not isinstance(space, Range):
        valid = default in space
    else:
        allowed = (float("-inf") if low is None else low, float("inf") if high is None else high)
        within = allowed[0] <= space.low < space.high <= allowed[1] and (space.low > 0 or not space.log_scale)
        finite = math.isfinite(space.low) and math.isfinite(space.high)
        valid = within and finite and default is not None and space.low <= default <= space.high
    if not valid:
        raise InvalidParameterError(
            f"Expected a search space in the range of its hyper-parameter, default {default!r} included, got {space}."
        )
