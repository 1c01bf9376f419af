"""Atomic replacement of a model's state: threads that read it see either the old state or the new one.

Methods that read a model work on a snapshot of it (`reads`). Methods that change a model run one after the other
(`changes`): each computes the new state next to the old one, and replaces that at the end (`become`).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from recvae.utils.threads import after_fork

F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M")

# a lock for each model; not an attribute of it, as locks cannot be pickled or copied
_locks: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()
_guard = threading.Lock()  # protects _locks


def snapshot(model: M) -> M:
    """A snapshot of a model: another object with its current state, which a later `become` does not change.

    Both share one `__dict__`: what is cached in the snapshot, such as an index of ids, is cached in the model too.
    """
    copy = object.__new__(type(model))
    copy.__dict__ = model.__dict__
    return copy


def become(model: Any, state: dict[str, Any]) -> None:
    """Set attributes of a model, all at once; snapshots keep the old ones, as the `__dict__` is replaced."""
    model.__dict__ = model.__dict__ | state


def reads(method: F) -> F:
    """Decorator of a method that reads a model: it sees one state from its beginning to its end."""

    @functools.wraps(method)
    def on_snapshot(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(snapshot(self), *args, **kwargs)

    return on_snapshot  # type: ignore[return-value]


def changes(method: F) -> F:
    """Decorator of a method that changes a model: a lock serialises such calls, so that no change is lost."""

    @functools.wraps(method)
    def with_lock(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _lock_of(self):
            return method(self, *args, **kwargs)

    return with_lock  # type: ignore[return-value]


def _lock_of(model: Any) -> threading.RLock:
    with _guard:
        return _locks.setdefault(model, threading.RLock())


@after_fork
def _unlock() -> None:
    """Renew the locks in the child of a fork, where the threads that held them do not exist."""
    global _locks, _guard
    _locks, _guard = WeakKeyDictionary(), threading.Lock()
