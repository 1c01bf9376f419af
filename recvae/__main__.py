"""The command `recvae`, and `python -m recvae`: signals are handled before the libraries are loaded."""

import sys

from recvae.signals import end_at_once, handle
from recvae.streams import keep_numbers


def main() -> int:
    """Run the command line. -> exit status, see `recvae.cli.main`"""
    handle(end_at_once)  # nothing is written while libraries load
    keep_numbers()
    from recvae.cli import main as run

    return run()


if __name__ == "__main__":  # anyone who looks at the modules, such as the site's API pages, runs nothing
    sys.exit(main())
