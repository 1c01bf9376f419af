"""Signals: raised once, and neither lost nor raised where what they interrupt cannot clean up."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from recvae.utils.files import write_whole
from recvae.utils.folder import claimed
from recvae.utils.signals import StoppedError, stoppable, undisturbed

SWALLOWS = """
import signal
import time

try:
    signal.raise_signal(signal.SIGTERM)
    for _ in range(20):
        time.sleep(0.01)
except BaseException:
    raised = True
"""


def test_a_signal_at_any_moment_leaves_nothing_behind(tmp_path):
    """Neither where a file is written nor where a folder is held, while that is made or removed."""
    moments, deadline, n = random.Random(0), time.monotonic() + 1, 0
    before = signal.getsignal(signal.SIGALRM)

    def write(stop):
        signal.signal(signal.SIGALRM, stop.raise_stopped)
        signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-4, 4e-3))
        while True:
            write_whole(tmp_path / "file", b"content")
            with claimed(tmp_path / "folder", ["*.arrow"]):
                pass

    try:
        while n < 20 or time.monotonic() < deadline:
            n += 1
            with stoppable() as stop, pytest.raises(StoppedError):
                write(stop)
            assert {path.name for path in tmp_path.iterdir()} <= {"file"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_signal_waits_for_the_end_of_what_is_not_to_be_disturbed():
    done = []

    def work():
        with undisturbed:
            with undisturbed:
                signal.raise_signal(signal.SIGTERM)  # SIGINT is ignored in the background of a shell
                done.append("inside")
            done.append("outside")

    with stoppable() as stop, pytest.raises(StoppedError):
        work()
    assert done == ["inside", "outside"]
    assert stop.signal == signal.SIGTERM

    def in_a_thread():
        with undisturbed:
            done.append("in a thread")

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert done[2:] == ["in a thread"]


COMMAND = """
from recvae.utils.signals import end_at_once, handle, stoppable, undisturbed

handle(end_at_once)  # as the command does
with stoppable():
    if {writes}:
        with undisturbed:
            pass
    try:
        import swallows
        import time
        time.sleep(5)
    except KeyboardInterrupt:
        print("cleaned up")
"""


@pytest.mark.parametrize(("writes", "status", "out"), [(False, 143, ""), (True, 0, "cleaned up\n")])
def test_a_command_that_has_created_nothing_ends_during_an_import(writes, status, out, tmp_path):
    (tmp_path / "swallows.py").write_text(SWALLOWS)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path.cwd())])}
    code = COMMAND.format(writes=writes)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (status, out), done.stderr


def test_a_signal_waits_for_the_end_of_an_import(tmp_path, monkeypatch):
    """A module that catches all exceptions while it is loaded would keep the signal to itself."""
    (tmp_path / "swallows.py").write_text(SWALLOWS)
    monkeypatch.syspath_prepend(tmp_path)
    with stoppable() as stop:
        import swallows

        with pytest.raises(StoppedError):
            time.sleep(5)
    assert not hasattr(swallows, "raised")
    assert stop.signal == signal.SIGTERM
    del sys.modules["swallows"]
