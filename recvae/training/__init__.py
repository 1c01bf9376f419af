"""Training: the loop, its state, checkpoints, callbacks and progress."""
