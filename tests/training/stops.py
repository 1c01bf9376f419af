"""A callback that interrupts a fit, for tests that resume it."""

from recvae.training.callbacks import Callback


class StopError(Exception):
    pass


class StopAt(Callback):
    """Raises StopError once so many steps are done."""

    def __init__(self, steps):
        self.left = steps

    def on_step_end(self, epoch, step):
        self.left -= 1
        if self.left < 0:
            raise StopError
