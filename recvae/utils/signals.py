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
from contextlib import _GeneratorContextManager, contextmanager, suppress
from types import FrameType
from typing import Any

SAID = {signal.SIGINT: "recvae: stopped.", signal.SIGTERM: "recvae: stopped, as SIGTERM asks."}
AGAIN = 1.0  # seconds in which a second signal counts as a repetition of the first: `timeout` sends its signal twice
RETRY = 0.05  # seconds until a signal that came at a wrong moment is sent again


class StoppedError(KeyboardInterrupt):
    """Raised in the main thread by a signal, so that `finally` blocks clean up."""


class _Undisturbed:
    """How many of these blocks the main thread is in, whether a signal is pending, and whether there was any block."""

    def __init__(self) -> None:
        self.depth = 0
        self.pending = False
        self.used = False

    def __enter__(self) -> None:
        self.used = True
        if _in_main_thread():  # signals are raised there only
            self.depth += 1

    def __exit__(self, *_: object) -> None:
        if _in_main_thread():
            self.depth -= 1
            if self.pending and not self.depth:
                self.pending = False
                raise StoppedError


def _in_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident


# `with undisturbed:` defers signals to the end of the block, so that what it creates or removes is complete
undisturbed = _Undisturbed()
# Python runs handlers between any two instructions. Before the first one of these the block has been called for, but
# not begun; a `finally` would be left before its block
BOUNDS = (_Undisturbed.__enter__.__code__, _Undisturbed.__exit__.__code__)
# and in these a generator that is to clean up has not been resumed, or its `with` block not been entered
MANAGERS = (_GeneratorContextManager.__enter__.__code__, _GeneratorContextManager.__exit__.__code__)
IMPORTS = "<frozen importlib._bootstrap>"  # the file of Python's functions that load a module


class Stop:
    """The signal that a command has received, if any."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._at: float | None = None  # when the first signal came
        self._sent_again = False  # whether the next one is that signal
        self._imports = _imports(sys._getframe())  # modules that are being loaded already
        self.before: dict[signal.Signals, Any] = {}  # the handlers that this one has replaced

    def raise_stopped(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: raise once; on a second signal, later than `AGAIN`, end the process at once.

        While a module is loaded nothing is raised: some catch all exceptions there, and some that are written in C++
        abort the process. Then a command that has created no file yet ends at once; otherwise the signal waits.
        """
        now, sent_again, self._sent_again = time.monotonic(), self._sent_again, False
        self._at = now if self._at is None else self._at
        if now - self._at > AGAIN and not sent_again:  # a person insists
            end_at_once(number, frame)
        if self.signal is not None:
            return
        importing = _imports(frame) > self._imports
        if importing and not undisturbed.used and self.before.get(signal.Signals(number)) is end_at_once:
            end_at_once(number, frame)
        if importing or (frame is not None and frame.f_code in MANAGERS):
            self._send_later(number)
            return
        self.signal = signal.Signals(number)
        if undisturbed.depth or _at_bounds(frame):
            undisturbed.pending = True
            return
        raise StoppedError

    def retry(self, unraisable: Any) -> None:
        """The hook for unraisable exceptions: a signal that was raised there would be lost, and is sent again."""
        if isinstance(unraisable.exc_value, StoppedError) and self.signal is not None:
            number, self.signal = self.signal, None
            self._send_later(number)
        else:
            sys.__unraisablehook__(unraisable)

    def _send_later(self, number: int) -> None:
        """Send a signal to this process again."""

        def send() -> None:
            self._sent_again = True
            os.kill(os.getpid(), number)

        threading.Timer(RETRY, send).start()


def _at_bounds(frame: FrameType | None) -> bool:
    """Whether a frame is one of those that begin and end an `undisturbed` block, or is called by it."""
    while frame is not None and frame.f_code not in BOUNDS:
        frame = frame.f_back
    return frame is not None


def _imports(frame: FrameType | None) -> int:
    """How many of Python's functions that load modules have called a frame."""
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename == IMPORTS
        frame = frame.f_back
    return count


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
    stop.before, hook = handle(stop.raise_stopped), sys.unraisablehook
    sys.unraisablehook = stop.retry
    try:
        yield stop
    finally:
        sys.unraisablehook = hook
        for number, handler in stop.before.items():
            signal.signal(number, handler)
