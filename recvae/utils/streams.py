"""Standard output and error of the command line, which may be closed, full, or of a limited encoding."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from recvae.errors import OutputError, escaped

if TYPE_CHECKING:
    from rich.console import Console


def keep_numbers() -> None:
    """Open the standard streams that are closed, so that no other file gets the file descriptor of one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor


def put(text: str, data: bool = True) -> None:
    """Write results to standard output, all at once.

    Parameters
    ----------
    data : bool
        Whether programs read the text: a character that the encoding lacks is then an error. In text for people it
        is shown as an escape.

    Raises
    ------
    OutputError
        If standard output is closed or full, or its encoding lacks a character.
    """
    stream = sys.stdout
    if stream is None:
        raise OutputError("Expected a standard output to write to, but it is closed; name a file with --out.")
    if data and stream.isatty():  # a title may contain control sequences
        text = "\n".join(escaped(line) for line in text.split("\n"))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding, getattr(stream, "errors", None) or "strict")
    except UnicodeEncodeError as error:
        if data:
            raise OutputError(
                f"Expected a standard output of all characters, but {encoding} has no {text[error.start]!r}; set "
                f"PYTHONIOENCODING=utf-8, or name a file with --out."
            ) from None
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError) as error:
        _mute(stream)
        reason = getattr(error, "strerror", None) or "it was closed"
        raise OutputError(f"Expected a standard output that takes all of the results, got: {reason}.") from None


def note(line: str) -> None:
    """Write a line for people to standard error; it is dropped if that is closed or full."""
    stream = sys.stderr
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = "\n".join(escaped(part) for part in line.split("\n"))
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except (OSError, ValueError):
        _mute(stream)


@contextmanager
def printed() -> Iterator[Console]:
    """Yield a console for tables; its text is written to standard output at the end of the block.

    It is as wide as the terminal, or 120 wide where there is none. Text is shown as it is: no markup, no emoji codes.

    Raises
    ------
    RecvaeError
        As `put`.
    """
    from rich.console import Console

    width = None if sys.stdout is not None and sys.stdout.isatty() else 120
    console = Console(width=width, markup=False, emoji=False)
    with console.capture() as captured:
        yield console
    put(captured.get(), data=False)


def _mute(stream: Any) -> None:
    """Discard later writes to a stream, such as its flush at the end of the process."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
