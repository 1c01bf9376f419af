"""Handling of Ctrl-C (SIGINT) and SIGTERM in commands.

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
AGAIN = 1.0  # seconds in which a second signal counts as a repetition of the first: `timeout` sends its signal twice
RETRY = 0.05


class StoppedError(KeyboardInterrupt):
    """Raised in the main thread by a signal, so that `finally` blocks clean up."""


class _Shield:
    """The depth of nested `undisturbed` blocks in the main thread, and whether a signal is pending."""

    depth = 0
    waits = False


@contextmanager
def undisturbed() -> Iterator[None]:
    """Defer signals to the end of this block, so that what it creates or removes is complete."""
    if threading.current_thread() is not threading.main_thread():  # signals are raised in the main thread only
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
        """The signal handler: raise once; on a second signal, later than `AGAIN`, end the process at once."""
        if self.signal is None:
            self.signal, self._at = signal.Signals(number), time.monotonic()
            if _Shield.depth:
                _Shield.waits = True
                return
            raise StoppedError
        if time.monotonic() - self._at > AGAIN:
            end_at_once(number, frame)

    def retry(self, unraisable: Any) -> None:
        """The hook for unraisable exceptions: a signal that was raised there would be lost, and is sent again."""
        if isinstance(unraisable.exc_value, StoppedError) and self.signal is not None:
            number, self.signal = self.signal, None
            threading.Timer(RETRY, os.kill, (os.getpid(), number)).start()
        else:
            sys.__unraisablehook__(unraisable)


def status_of(number: int) -> int:
    """The exit status of a process that a signal ended, by shell convention: 130 or 143."""
    return 128 + number


def end_at_once(number: int, frame: FrameType | None = None) -> None:
    """The signal handler if there is nothing to clean up: print a line, and end the process."""
    with suppress(OSError):
        os.write(2, f"{SAID[signal.Signals(number)]}\n".encode())
    os._exit(status_of(number))


def handle(handler: Any) -> dict[signal.Signals, Any]:
    """Install `handler` for both signals, except for those that are ignored. -> the previous handlers"""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SAID:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    return before


@contextmanager
def stoppable() -> Iterator[Stop]:
    """In this block a signal raises KeyboardInterrupt, once; `Stop.signal` records it."""
    stop = Stop()
    before, hook = handle(stop.raise_stopped), sys.unraisablehook
    sys.unraisablehook = stop.retry
    try:
        yield stop
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
