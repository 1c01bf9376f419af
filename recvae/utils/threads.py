"""Forks and threads: hooks that reset state in a forked child, and lazy properties that need no lock."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")
Reset = Callable[[], None]


def after_fork(reset: Reset) -> Reset:
    """Decorator: call the function in each forked child, before anything else runs there.

    It must not import or wait for a lock: another thread may hold the lock, and threads are not copied by a fork.
    """
    if hasattr(os, "register_at_fork"):  # missing on Windows, which has no fork
        os.register_at_fork(after_in_child=reset)
    return reset


@after_fork
def _one_thread() -> None:
    """Make torch compute in one thread.

    A fork copies the state of an OpenMP pool but none of its threads: the next matrix product in the child would wait
    for them forever. With one thread it does not wait. (OpenBLAS starts new threads by itself.)
    """
    set_num_threads = getattr(sys.modules.get("torch"), "set_num_threads", None)  # None while torch is being imported
    if set_num_threads is not None:
        set_num_threads(1)


class lazy(Generic[T]):  # noqa: N801 (a decorator)
    """A property that is computed once and kept in the object's `__dict__`; concurrent threads may each compute it.

    Before Python 3.12, functools.cached_property holds a lock while it computes, one for all objects of a class;
    threads wait for each other, and a child that is forked in the meantime has it locked for ever.
    """

    def __init__(self, compute: Callable[[Any], T]):
        self.compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> T | Self:
        if instance is None:
            return self
        value: T = instance.__dict__.setdefault(self.name, self.compute(instance))
        return value
