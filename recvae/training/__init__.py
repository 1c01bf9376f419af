"""Training: the step, the loop, callbacks and checkpoints. The logger "recvae" says what a long run does."""

import logging

logging.getLogger("recvae").addHandler(logging.NullHandler())  # nothing is printed unless a program sets logging up
