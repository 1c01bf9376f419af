"""What a model can do beyond ranking: a verb needs a hook, and a model without that hook refuses the verb by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from recvae.errors import NotSupportedError

F = TypeVar("F", bound=Callable[..., Any])


def hook(what: str) -> Callable[[F], F]:
    """Mark a hook that a model may define or not; `what` says in words what a model without it does not have."""

    def mark(method: F) -> F:
        method.__dict__["absent"] = what
        return method

    return mark


def needs(*names: str) -> Callable[[F], F]:
    """Mark a verb that needs one of the hooks of these names. Without any, the verb raises NotSupportedError."""

    def decorate(verb: F) -> F:
        @functools.wraps(verb)
        def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
            absent = _lacking(type(self), names)
            if absent is not None:
                raise NotSupportedError(
                    f"{type(self).__name__} has no {verb.__name__}: it has no {absent}. It has {_listed(type(self))}."
                )
            self._check_fitted()
            return verb(self, *args, **kwargs)

        checked.__dict__["needs"] = names
        return checked  # type: ignore[return-value]

    return decorate


def absence(cls: type, name: str) -> str | None:
    """What a class lacks that does not define a hook; None for one that does."""
    return getattr(getattr(cls, name), "absent", None)


def _lacking(cls: type, names: tuple[str, ...]) -> str | None:
    """What a class lacks that has none of these hooks; None for one that has."""
    lacks = [absence(cls, name) for name in names]
    return None if None in lacks else lacks[0]


def abilities(cls: type) -> frozenset[str]:
    """The verbs of a model class that some models do not have, and this one has."""
    verbs = {name: getattr(getattr(cls, name), "needs", None) for name in dir(cls) if not name.startswith("_")}
    return frozenset(name for name, needed in verbs.items() if needed and _lacking(cls, needed) is None)


def _listed(cls: type) -> str:
    return ", ".join(["fit", "recommend", "score", *sorted(abilities(cls))])
