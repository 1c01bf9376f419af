"""The command `recvae`, and `python -m recvae`: signals are handled before the libraries are loaded, and to the end."""

import atexit
import os
import sys
from contextlib import suppress

from recvae.utils.signals import end_at_once, handle
from recvae.utils.streams import keep_numbers


def main() -> int:
    """Run the command line. -> exit status, see `recvae.cli.main.main`; with it the process ends as soon as it exits"""
    handle(end_at_once)  # nothing is written while libraries load
    keep_numbers()
    ended: list[int] = []
    atexit.register(_leave, ended)  # what is registered first is called last
    from recvae.cli.main import main as run

    ended.append(run())
    return ended[0]


def _leave(ended: list[int]) -> None:
    """End at once where the command has ended: all is written, and what libraries had to do at exit is done.

    Python would now take modules apart, for as long as a second of torch's, in which no signal is handled.
    """
    if ended:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # it may be closed
                stream.flush()
        os._exit(ended[0])


if __name__ == "__main__":  # anyone who looks at the modules, such as the site's API pages, runs nothing
    sys.exit(main())
