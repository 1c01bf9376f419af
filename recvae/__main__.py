"""`python -m recvae` is `recvae`."""

import sys

from recvae.cli import main

if __name__ == "__main__":  # whoever looks at the modules, such as the site's API pages, runs nothing
    sys.exit(main())
