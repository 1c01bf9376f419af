"""How a command ends on Ctrl-C (SIGINT) or when another program asks (SIGTERM).

This module imports no library: its handlers are installed before libraries are loaded, which takes seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SAID = {signal.SIGINT: "recvae: stopped.", signal.SIGTERM: "recvae: stopped, as SIGTERM asks."}
AGAIN = 1.0  # seconds after which a second signal is no longer taken for the first: `timeout` sends its own twice
RETRY = 0.05


class StoppedError(KeyboardInterrupt):
    """What a signal raises in the main thread, for `finally` blocks to clean up."""


class _Shield:
    """The number of `undisturbed` blocks that the main thread is in, and whether a signal waits for their end."""

    depth = 0
    waits = False


@contextmanager
def undisturbed() -> Iterator[None]:
    """Defer signals to the end of this block, so that what it creates or removes is complete."""
    if threading.current_thread() is not threading.main_thread():  # where no signal is raised
        yield
        return
    _Shield.depth += 1
    try:
        yield
    finally:
        _Shield.depth -= 1
        if _Shield.waits and not _Shield.depth:
            _Shield.waits = False
            raise StoppedError


class Stop:
    """The signal that a command has received, if any."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._at = 0.0

    def raise_stopped(self, number: int, frame: FrameType | None) -> None:
        """The handler: raise once; end at once at a second signal a while later."""
        if self.signal is None:
            self.signal, self._at = signal.Signals(number), time.monotonic()
            if _Shield.depth:
                _Shield.waits = True
                return
            raise StoppedError
        if time.monotonic() - self._at > AGAIN:
            end_at_once(number, frame)

    def retry(self, unraisable: Any) -> None:
        """The hook for exceptions that Python cannot raise: a signal among them would be lost, and is sent again."""
        if isinstance(unraisable.exc_value, StoppedError) and self.signal is not None:
            number, self.signal = self.signal, None
            threading.Timer(RETRY, os.kill, (os.getpid(), number)).start()
        else:
            sys.__unraisablehook__(unraisable)


def status_of(number: int) -> int:
    """The exit status by which a shell knows the signal: 130 or 143."""
    return 128 + number


def end_at_once(number: int, frame: FrameType | None = None) -> None:
    """The handler where there is nothing to clean up: say so, and end."""
    with suppress(OSError):
        os.write(2, f"{SAID[signal.Signals(number)]}\n".encode())
    os._exit(status_of(number))


def handle(handler: Any) -> dict[signal.Signals, Any]:
    """Install `handler` for both signals, except one that the process was started to ignore. -> the handlers before"""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SAID:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    return before


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Within this block a signal raises KeyboardInterrupt, once, and is remembered."""
    stop = Stop()
    before, hook = handle(stop.raise_stopped), sys.unraisablehook
    sys.unraisablehook = stop.retry
    try:
        yield stop
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
