"""Training: a step, the loop, and what is told and kept of it. The logger "recvae" says what a long run does."""

import logging

logging.getLogger("recvae").addHandler(logging.NullHandler())  # nothing is printed unless a program sets logging up
