"""Plan of a training run: how the likelihood is computed, memory, time, and changes that make it fit.

`plan_memory` counts bytes (`memory_estimate`), `seconds_per_epoch` times a few steps.
"""

from __future__ import annotations

import statistics
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import psutil
import torch
from scipy import sparse

from recvae.data.batches import Batch
from recvae.data.shards import Shards
from recvae.errors import InvalidParameterError
from recvae.models.autoencoder.memory_estimate import DataSizes, MemoryEstimate, estimate_memory
from recvae.models.autoencoder.options import MANY_ITEMS, averaging, latent_dim, starts_spectrally
from recvae.models.autoencoder.shape import Shape
from recvae.models.base.params import get_params, with_params
from recvae.nn import VAE
from recvae.training.state import default_batch_size
from recvae.training.trainer import Trainer, rows_on_device
from recvae.utils.device import find_device

CALIBRATION_STEPS = 5  # of each phase; the first one is a warm-up and not counted
GIB = 2**30


@dataclass(frozen=True)
class MemoryPlan:
    """The memory and time that a training run would take; `print` shows them.

    Parameters
    ----------
    model : str
        Name of the class.
    sizes : DataSizes
        Of the data.
    impl, why : str
        How the likelihood is computed, and the reason for that choice.
    parameters : int
        Number of weights.
    memory : MemoryEstimate
        Bytes by purpose, and `memory.peak`.
    available : int
        Bytes of memory that are free.
    seconds_per_epoch : float or None
        Measured with a few steps on this machine; None if the training would not fit, or without calibration.
    remedies : list of (str, int)
        Changes that would make it fit, and the peak in bytes that each leads to.
    """

    model: str
    sizes: DataSizes
    impl: str
    why: str
    parameters: int
    memory: MemoryEstimate
    available: int
    seconds_per_epoch: float | None = None
    remedies: list[tuple[str, int]] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether the peak is at most the available memory."""
        return self.memory.peak <= self.available

    def __str__(self) -> str:
        sizes, memory = self.sizes, self.memory
        lines = [
            f"{self.model} on {sizes.users:,} users x {sizes.items:,} items, {sizes.events:,} events"
            + (", read from disk" if sizes.on_disk else ""),
            f"  {self.impl} likelihood: {self.why}",
            f"  {self.parameters:,} parameters: weights {_gib(memory.weights)}, optimizer {_gib(memory.optimizer)}, "
            f"gradients {_gib(memory.gradients)}",
            f"  a step of {sizes.batch:,} users {_gib(memory.step)}, rows {_gib(memory.rows)}"
            + (f", best weights so far {_gib(memory.best)}" if memory.best else "")
            + (f", averages of the weights {_gib(memory.averages)}" if memory.averages else "")
            + (f", linear path {_gib(memory.path)}" if memory.path else ""),
            f"  peak {_gib(memory.peak)}, {_gib(self.available)} available: "
            + ("it fits" if self.fits else "it does not fit"),
        ]
        if self.seconds_per_epoch is not None:
            lines.append(f"  an epoch takes about {_duration(self.seconds_per_epoch)} here")
        lines += [f"  with {change}: {_gib(peak)}" for change, peak in self.remedies]
        return "\n".join(lines)

    def refusal(self) -> str:
        """The sentence with which `fit` refuses a training that does not fit into memory."""
        text = (
            f"Expected {_gib(self.memory.peak)} of memory for {self.model} on {self.sizes.users:,} users x "
            f"{self.sizes.items:,} items ({self.impl} likelihood), got {_gib(self.available)} available"
        )
        changes = [f"{change} ({_gib(peak)})" for change, peak in self.remedies]
        return f"{text}; " + (f"take {', or '.join(changes)}." if changes else "take fewer items or smaller layers.")


def plan_training(
    model: Any, rows: sparse.csr_matrix | Shards, validated: bool, extras_allocated: bool = False
) -> MemoryPlan:
    """Plan the training of an autoencoder on rows; all ranks get the plan of the main process.

    Parameters
    ----------
    model : Autoencoder
    rows : csr_matrix or Shards
    validated : bool
        Whether there are validation users.
    extras_allocated : bool
        Whether what the model has in addition to its network is in memory already.
    """
    n_users, n_items = rows.shape
    strategy = model._strategy()
    sizes = DataSizes(
        users=n_users,
        items=n_items,
        events=rows.nnz,
        batch=int(model.batch_size or default_batch_size(n_users)),
        on_disk=isinstance(rows, Shards),
        validated=validated,
        tensor_ranks=strategy.communicator.size if strategy.tensor_parallel else 1,
        data_ranks=strategy.data_parallel_group.size,
        extras_allocated=extras_allocated,
    )
    plan: MemoryPlan = strategy.communicator.broadcast(plan_memory(model, sizes, find_device(model.device)))
    return plan


def plan_memory(model: Any, sizes: DataSizes, device: torch.device) -> MemoryPlan:
    """Plan the memory of training an autoencoder on data of these sizes, with remedies where it does not fit.

    Raises
    ------
    InvalidParameterError
        For options that exclude each other.
    """
    plan = _plan_without_remedies(model, sizes, device, available_bytes(device))
    return plan if plan.fits else replace(plan, remedies=_remedies(model, plan, device))


def _plan_without_remedies(model: Any, sizes: DataSizes, device: torch.device, available: int) -> MemoryPlan:
    with torch.device("meta"):  # shapes without memory
        network: VAE = model._built(sizes.items)

    def estimate(impl: str) -> MemoryEstimate:
        options, start = model.training, starts_spectrally(model, sizes.items)
        averaged = averaging(model, Shape(sizes.users, sizes.items, sizes.events), impl) > 0
        settings = options.num_negatives, options.precision, device, start, averaged
        memory = estimate_memory(network, impl, sizes, *settings)
        return memory if sizes.extras_allocated else replace(memory, path=model._extra_bytes(sizes, memory))

    chunked, plain_logits = estimate("chunked"), network.decoder.temperature is None
    impl, why = choose_impl(model.training.impl, model.likelihood, plain_logits, sizes.items, chunked, available)
    if impl == "sampled" and (model.likelihood != "multinomial" or not plain_logits):
        raise InvalidParameterError(
            f'Expected the multinomial likelihood and logits="dot" for training__impl="sampled", got '
            f'{model.likelihood} and {"dot" if plain_logits else "cosine"}; take "chunked".'
        )
    n_parameters = sum(p.numel() for p in network.parameters())
    memory = chunked if impl == "chunked" else estimate(impl)
    return MemoryPlan(type(model).__name__, sizes, impl, why, n_parameters, memory, available)


def choose_impl(
    impl: str, likelihood: str, plain_logits: bool, n_items: int, chunked: MemoryEstimate, available: int
) -> tuple[str, str]:
    """Choose how the likelihood is computed where `impl` is "auto".

    Parameters
    ----------
    impl, likelihood : str
        As the model has them.
    plain_logits : bool
        Whether logits are inner products, as the sampled likelihood needs them.
    n_items : int
    chunked : MemoryEstimate
        What the chunked likelihood would take.
    available : int
        Bytes of memory that are free.

    Returns
    -------
    (str, str)
        The choice, and the reason in words.
    """
    if impl != "auto":
        return impl, "as asked for"
    if likelihood != "multinomial" or not plain_logits:
        return "chunked", f"the sampled one is of multinomial likelihoods with plain logits ({likelihood} here)"
    if n_items > MANY_ITEMS:
        return (
            "sampled",
            f"{n_items:,} items are more than {MANY_ITEMS:,}, and the chunked one looks at all in each step",
        )
    if chunked.peak > available:
        return "sampled", f"the chunked one would take {_gib(chunked.peak)}, and {_gib(available)} are available"
    return "chunked", f"{n_items:,} items are no more than {MANY_ITEMS:,}, and it fits into memory"


def available_bytes(device: torch.device) -> int:
    """Free memory of the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _remedies(model: Any, plan: MemoryPlan, device: torch.device) -> list[tuple[str, int]]:
    """Up to three changes that make the training fit, simplest first; else the two that save the most memory."""
    remedies: list[tuple[str, int]] = []
    all_changes: dict[str, Any] = {}
    smallest = plan.sizes
    for text, change, sizes in _possible_changes(model, plan):
        with suppress(InvalidParameterError):  # such as tied embeddings of layers of different widths
            changed = with_params(model, change)
            peak = _plan_without_remedies(changed, sizes, device, plan.available).memory.peak
            remedies.append((text, peak))
            all_changes |= change
            smallest = replace(smallest, batch=min(smallest.batch, sizes.batch), on_disk=sizes.on_disk)
    if len(remedies) > 1:
        changed = with_params(model, all_changes)
        peak = _plan_without_remedies(changed, smallest, device, plan.available).memory.peak
        remedies.append((" with ".join(text for text, _ in remedies), peak))
    fitting = [(text, peak) for text, peak in remedies if peak <= plan.available]
    return fitting[:3] or sorted(remedies, key=lambda remedy: remedy[1])[:2]


def _possible_changes(model: Any, plan: MemoryPlan) -> list[tuple[str, dict[str, Any], DataSizes]]:
    """Candidate changes: their text, hyper-parameters and sizes of the data. Some may be invalid for the model."""
    sizes, params = plan.sizes, get_params(model)
    changes: list[tuple[str, dict[str, Any], DataSizes]] = []
    if plan.impl == "reference":
        changes.append(('training__impl="chunked"', {"training__impl": "chunked"}, sizes))
    elif plan.impl == "chunked" and sizes.tensor_ranks == 1:
        changes.append(('training__impl="sampled"', {"training__impl": "sampled"}, sizes))
    if not model.output.tied_embeddings:
        changes.append(("output__tied_embeddings=True", {"output__tied_embeddings": True}, sizes))
    if sizes.batch > 100:
        changes.append(("batch_size=100", {"batch_size": 100}, replace(sizes, batch=100)))
    if params.get("form", "sparse") != "sparse":
        changes.append(('form="sparse"', {"form": "sparse"}, sizes))
    widths = {name: params[name] for name in ("hidden_dims", "hidden_dim", "latent_dim") if params.get(name)}
    if "latent_dim" in params:
        widths["latent_dim"] = latent_dim(model, sizes.items)
    half = {name: _half(width) for name, width in widths.items()}
    changes.append((", ".join(f"{name}={width}" for name, width in half.items()), half, sizes))
    if type(model).out_of_core and not sizes.on_disk:
        changes.append(("shards on disk (recvae shard)", {}, replace(sizes, on_disk=True)))
    return changes


def _half(width: Any) -> Any:
    return tuple(max(1, w // 2) for w in width) if isinstance(width, tuple) else max(1, width // 2)


def seconds_per_epoch(trainer: Trainer, rows: sparse.csr_matrix | Shards) -> float:
    """Time a few steps of a trainer, which changes its network: both are to be discarded afterwards.

    Parameters
    ----------
    trainer : Trainer
        With fresh weights.
    rows : csr_matrix or Shards
        The training rows.

    Returns
    -------
    float
        Seconds of an epoch of training alone, without validation.
    """
    config, source = trainer.config, rows_on_device(rows, trainer.state.device)
    batches = list(islice(source.batches_of(0, config.users_per_step(len(source))), CALIBRATION_STEPS))
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
    trainer.step(batch, trainer.config.beta_at(0.5)).cpu()  # copying the losses to the host waits for the GPU
    return time.perf_counter() - started


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:,.1f} GiB" if n_bytes >= GIB / 10 else f"{n_bytes / 2**20:,.0f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
