"""Schedules of the KL weight beta, in fractions of the run, so that they do not depend on the number of steps."""

from __future__ import annotations

from collections.abc import Callable

# progress in [0, 1], cap, share of the run (or of a cycle) over which beta grows -> beta
Schedule = Callable[[float, float, float], float]


def constant_schedule(progress: float, cap: float, anneal: float) -> float:
    """The cap from the first step on."""
    return cap


def linear_schedule(progress: float, cap: float, anneal: float) -> float:
    """Linear growth from 0 to the cap over the first `anneal` of the run, then the cap.

    References
    ----------
    Liang et al. 2018, section 2.2.2.
    """
    return cap if progress >= anneal else cap * progress / anneal


def cyclical_schedule(progress: float, cap: float, anneal: float) -> float:
    """Four cycles, each with linear growth from 0 to the cap over the share `anneal` of the cycle, then the cap.

    References
    ----------
    Fu et al. 2019.
    """
    return cap if progress >= 1 else linear_schedule(progress * 4 % 1, cap, anneal)


# the values of the parameter kl_schedule of models
SCHEDULES: dict[str, Schedule] = {
    "linear": linear_schedule,
    "constant": constant_schedule,
    "cyclical": cyclical_schedule,
}
