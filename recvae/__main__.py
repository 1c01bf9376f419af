"""The command `recvae`, and `python -m recvae`: signals are handled from before the libraries load until exit."""

import atexit
import os
import sys
from contextlib import suppress

from recvae.utils.signals import end_at_once, handle
from recvae.utils.streams import keep_numbers


def main() -> int:
    """Run the command line. -> exit status, see `recvae.cli.main.main`; at exit the process ends at once"""
    handle(end_at_once)  # nothing is written while libraries load
    keep_numbers()
    ended: list[int] = []
    atexit.register(_leave, ended)  # first registered, so called last
    from recvae.cli.main import main as run

    ended.append(run())
    return ended[0]


def _leave(ended: list[int]) -> None:
    """End the process at once if the command has finished: output is written, and other exit handlers have run.

    Otherwise Python would now tear down modules, up to a second for torch, while no signal is handled.
    """
    if ended:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # it may be closed
                stream.flush()
        os._exit(ended[0])


if __name__ == "__main__":  # importing this module, as the generator of API pages does, runs nothing
    sys.exit(main())
