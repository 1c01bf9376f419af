"""How long an epoch takes on this machine, by a few steps of a network that is then thrown away."""

from __future__ import annotations

import statistics
import time
from itertools import islice
from typing import Any

from scipy import sparse

from recvae.data.batches import Batch
from recvae.data.shards import Shards
from recvae.training.trainer import Trainer, rows_on_device

STEPS = 5  # of each phase, of which the first is for warming up


def seconds_per_epoch(model: Any, rows: sparse.csr_matrix | Shards, impl: str) -> float:
    """Of training alone, without validation. model : an autoencoder, which is not changed"""
    trainer: Trainer = model._trainer(model._untrained(rows.shape[1], 0), rows, impl, 0)
    config, source = trainer.config, rows_on_device(rows, trainer.state.device)
    batches = list(islice(source.batches_of(0, config.users_per_step(len(source))), STEPS))
    trainer.start_epoch(source)
    steps_per_pass = config.steps_per_epoch(len(source)) / len(config.passes)
    total, pass_index = 0.0, 0
    for phase in config.phases:
        with trainer.in_pass(pass_index):
            seconds = [_timed_step(trainer, batch) for batch in batches]
        total += steps_per_pass * phase.passes * statistics.median(seconds[1:] or seconds)
        pass_index += phase.passes
    return total


def _timed_step(trainer: Trainer, batch: Batch) -> float:
    started = time.perf_counter()
    trainer.step(batch, trainer.config.beta_at(0.5)).cpu()  # a GPU is done when the host has its losses
    return time.perf_counter() - started
