"""The fitted state of a model, changed all at once: who reads in another thread sees the old one or the new one.

Who reads works on a snapshot. Who changes a model waits for anyone else who does, makes the new state next to the old
one, and then puts it in place of that (`become`).
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

# next to the models, not in them: a lock has no place in pickles and copies
_changing: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()
_guard = threading.Lock()


def snapshot(model: M) -> M:
    """The model as it is now: another object with the same state, which `become` does not change.

    What is remembered in it, such as an index of ids, is remembered in that state of the model.
    """
    now = object.__new__(type(model))
    now.__dict__ = model.__dict__
    return now


def become(model: Any, state: dict[str, Any]) -> None:
    """Give a model these attributes, all at once, and leave the snapshots of it as they are."""
    model.__dict__ = model.__dict__ | state


def reads(verb: F) -> F:
    """Mark a verb that reads a model: it sees one state from its beginning to its end."""

    @functools.wraps(verb)
    def on_one_state(self: Any, *args: Any, **kwargs: Any) -> Any:
        return verb(snapshot(self), *args, **kwargs)

    return on_one_state  # type: ignore[return-value]


def changes(verb: F) -> F:
    """Mark a verb that changes a model: another that does so waits for its end, and nothing that it did is lost."""

    @functools.wraps(verb)
    def one_by_one(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _lock_of(self):
            return verb(self, *args, **kwargs)

    return one_by_one  # type: ignore[return-value]


def _lock_of(model: Any) -> threading.RLock:
    with _guard:
        return _changing.setdefault(model, threading.RLock())


@after_fork
def _unlock() -> None:
    """In the child of a fork: threads that held a lock are not there."""
    global _changing, _guard
    _changing, _guard = WeakKeyDictionary(), threading.Lock()
