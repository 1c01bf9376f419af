"""Every error the package raises on purpose: one base, each a subclass of the built-in that a caller would expect."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from typing import Self

LONGEST_NAME = 100  # characters of an unknown name that are compared with the known ones
LONGEST = 4000  # characters of a message: it may quote data of any length
UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control and format characters (bidi marks), lone surrogates, line breaks


def escaped(text: str) -> str:
    """Text with control characters, which could steer a terminal, and lone surrogates as escapes."""
    if text.isprintable():
        return text
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in UNPRINTABLE else c for c in text)


def one_line(text: str, longest: int = LONGEST) -> str:
    """Text as one line of at most about `longest` characters before escapes, safe to show on any terminal."""
    text = " ".join(line.strip() for line in lines) if len(lines := text.splitlines()) > 1 else text
    if len(text) > longest:
        text = f"{text[: longest // 2]} ... {text[-longest // 2 :]}"
    return escaped(text)


def shown(value: object, width: int = 80) -> str:
    """The `repr` of a value for a message: on one line, shortened to `width` characters."""
    try:
        text = one_line(repr(value))
    except (ValueError, RecursionError):  # an integer with more digits than Python converts, or deeply nested lists
        text = f"{type(value).__name__} too long or too deep to be shown"
    return text if len(text) <= width else f"{text[: width - 3]}..."


class RecvaeError(Exception):
    """Base of all errors that recvae raises on purpose. Messages say what was expected, what came, and what to do.

    `str(error)` is one line without control characters, whatever data or file names it quotes.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


class InvalidDataError(RecvaeError, ValueError):
    """Data whose content cannot be used: negative or NaN values, no events, a wrong shape, a damaged file."""


class InvalidTypeError(RecvaeError, TypeError):
    """An object of the wrong kind, such as a dense array where a sparse matrix is expected."""


class InvalidParameterError(RecvaeError, ValueError):
    """A parameter outside its range, or in conflict with others."""


class OutOfRangeError(RecvaeError, IndexError):
    """An item or user index that the model does not have."""


class UnknownNameError(RecvaeError, ValueError):
    """A data set, model, metric or option that does not exist; the message lists the nearest names."""

    @classmethod
    def among(cls, kind: str, name: object, known: Iterable[str]) -> Self:
        """The error for an unknown `name` of some `kind`, such as "metric"; the message lists the `known` names."""
        names = sorted(known)
        by_lower = {known_name.lower(): known_name for known_name in names}
        text = name if isinstance(name, str) else shown(name)
        matches = difflib.get_close_matches(text[:LONGEST_NAME].lower(), by_lower, n=3, cutoff=0.5)
        near = [by_lower[match] for match in matches]
        known_names = f"known are {', '.join(names)}." if names else "there is none."
        hint = f"did you mean {' or '.join(near)}?" if near else known_names
        return cls(f"There is no {kind} called {shown(text)}; {hint}")


class UnknownUsersError(RecvaeError, NotImplementedError):
    """Users outside the training data, for a model that has parameters for each user and cannot score new ones."""


class NotSupportedError(RecvaeError, NotImplementedError):
    """A model was asked for something that it cannot do."""


class NotFittedError(RecvaeError, ValueError, AttributeError):
    """A model was asked for something that only a fitted model has."""


class TrainingError(RecvaeError, ArithmeticError):
    """Training failed, for example because the loss is no longer finite."""


class LostRankError(RecvaeError, RuntimeError):
    """Another rank of the training has ended, or did not answer in time."""


class NotEnoughMemoryError(RecvaeError, MemoryError):
    """Something would not fit into the available memory."""


class DataNotFoundError(RecvaeError, FileNotFoundError):
    """A data set that is not on this machine and could not be fetched."""


class OutputError(RecvaeError, OSError):
    """A file that cannot be written."""


class MissingDependencyError(RecvaeError, ImportError):
    """A library of one of the extras is needed, and is not installed or cannot be loaded."""


class EngineError(RecvaeError, RuntimeError):
    """The engine that runs the work, such as a cluster, failed."""
