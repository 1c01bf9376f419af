"""Schedules of the KL weight beta over the course of training, in fractions of the run, so that they fit any data."""

from __future__ import annotations

from collections.abc import Callable

# progress in [0, 1], cap, share of the run (or of a cycle) that the climb takes -> beta
Schedule = Callable[[float, float, float], float]


def constant_schedule(progress: float, cap: float, anneal: float) -> float:
    """The cap from the first step on."""
    return cap


def linear_schedule(progress: float, cap: float, anneal: float) -> float:
    """From 0 to the cap in the first `anneal` of the run, then the cap.

    References
    ----------
    Liang et al. 2018, section 2.2.2.
    """
    return cap if progress >= anneal else cap * progress / anneal


def cyclical_schedule(progress: float, cap: float, anneal: float) -> float:
    """Four times from 0 to the cap, each climb `anneal` of a quarter of the run.

    References
    ----------
    Fu et al. 2019.
    """
    return cap if progress >= 1 else linear_schedule(progress * 4 % 1, cap, anneal)


# the models' parameter kl_schedule takes these names
SCHEDULES: dict[str, Schedule] = {
    "linear": linear_schedule,
    "constant": constant_schedule,
    "cyclical": cyclical_schedule,
}
