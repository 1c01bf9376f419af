"""How long an epoch takes on this machine, by a few steps of a network that is then thrown away."""

from __future__ import annotations

import statistics
import time
from itertools import islice
from typing import Any

import torch
from scipy import sparse

from recvae.data.batches import Batch
from recvae.data.shards import Shards
from recvae.models.autoencoder.forecast import Forecast
from recvae.models.autoencoder.source import on_device
from recvae.nn.products import in_bfloat16
from recvae.nn.scratch import reused
from recvae.training.loop import How, State, run_steps

STEPS = 5  # of each phase, of which the first is for warming up


def seconds_per_epoch(model: Any, rows: sparse.csr_matrix | Shards, found: Forecast) -> float:
    """Of training alone, without validation. model : an autoencoder, not fitted or not to be changed"""
    plan = model._plan(rows, model.epochs, model._beta, found.impl)
    state = model._untrained(rows.shape[1], found.impl == "sampled")
    source = on_device(rows, state.device)
    batches = list(islice(source.batches_of(0, plan.batch_size), STEPS))
    lower = torch.autocast(state.device.type, torch.bfloat16, enabled=in_bfloat16(plan.precision, state.device))
    if state.network.prior is not None:
        state.network.prior.renew(state.network.encoder, source)
    each = plan.steps(len(source)) / len(plan.passes)
    total = 0.0
    with reused():  # as in an epoch, whose steps have memory that is warm
        for phase in plan.phases:
            how = How(lower, plan.max_grad_norm, phase, sampler=plan.sampler)
            seconds = [_step(state, batch, plan.beta(0.5), how) for batch in batches]
            total += each * phase.passes * statistics.median(seconds[1:] or seconds)
    return total


def _step(state: State, batch: Batch, beta: float, how: How) -> float:
    started = time.perf_counter()
    state.done = 0
    state.make_room(1)
    run_steps(state, [batch], [beta], how)
    state.steps.cpu()  # a GPU is done when the host has it
    return time.perf_counter() - started
