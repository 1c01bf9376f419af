"""What a training would take, before it begins: memory by a count, time by a few steps, and what to change."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
import torch

from recvae.errors import InvalidParameterError
from recvae.models.autoencoder.footprint import Memory, Sizes, count
from recvae.models.base.params import get_params
from recvae.nn import VAE

WIDE = 200_000  # items from which on a sampled likelihood is taken where it is left open
GIB = 2**30


@dataclass(frozen=True)
class Forecast:
    """What `plan` found.

    Attributes
    ----------
    impl, why : str
        How the likelihood is computed, and what decided it.
    parameters : int
        Numbers that are learnt.
    memory : Memory
        Bytes by what they are for, and `memory.peak`.
    available : int
        Bytes that are there.
    seconds_per_epoch : float or None
        By a few steps on this machine; None where it would not fit, or was not tried.
    remedies : list[tuple[str, int]]
        What would make it fit, and to how many bytes.
    """

    model: str
    sizes: Sizes
    impl: str
    why: str
    parameters: int
    memory: Memory
    available: int
    seconds_per_epoch: float | None = None
    remedies: list[tuple[str, int]] = field(default_factory=list)

    @property
    def fits(self) -> bool:
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
            + (f", linear path {_gib(memory.path)}" if memory.path else ""),
            f"  peak {_gib(memory.peak)}, {_gib(self.available)} available: "
            + ("it fits" if self.fits else "it does not fit"),
        ]
        if self.seconds_per_epoch is not None:
            lines.append(f"  an epoch takes about {_time(self.seconds_per_epoch)} here")
        lines += [f"  with {change}: {_gib(peak)}" for change, peak in self.remedies]
        return "\n".join(lines)

    def refusal(self) -> str:
        """One sentence for a fit that would die."""
        text = (
            f"Expected {_gib(self.memory.peak)} of memory for {self.model} on {self.sizes.users:,} users x "
            f"{self.sizes.items:,} items ({self.impl} likelihood), got {_gib(self.available)} available"
        )
        changes = [f"{change} ({_gib(peak)})" for change, peak in self.remedies]
        return f"{text}; " + (f"take {', or '.join(changes)}." if changes else "take fewer items or smaller layers.")


def choose_impl(impl: str, likelihood: str, able: bool, sizes: Sizes, exact: Memory, available: int) -> tuple[str, str]:
    """How the likelihood is computed where that is left open, and why.

    Parameters
    ----------
    able : bool
        Whether the network can learn by a sampled likelihood.
    exact : Memory
        What the exact one would take.
    """
    if impl != "auto":
        return impl, "as asked for"
    if likelihood != "multinomial" or not able:
        return "exact", f"the sampled one is of multinomial likelihoods with plain logits ({likelihood} here)"
    if sizes.items > WIDE:
        return "sampled", f"{sizes.items:,} items are more than {WIDE:,}, and the exact one looks at all in each step"
    if exact.peak > available:
        return "sampled", f"the exact one would take {_gib(exact.peak)}, and {_gib(available)} are available"
    return "exact", f"{sizes.items:,} items are no more than {WIDE:,}, and it fits into memory"


def forecast(model: Any, sizes: Sizes, device: torch.device) -> Forecast:
    """What training an autoencoder on data of these sizes takes, time left out."""
    found = _found(model, sizes, device, available(device))
    return found if found.fits else replace(found, remedies=_remedies(model, found, device))


def _found(model: Any, sizes: Sizes, device: torch.device, room: int) -> Forecast:
    """The same, without what to change. Raises InvalidParameterError for what cannot go together."""
    network = _shape_of(model, sizes.items)
    exact = _count(model, network, "exact", sizes, device)
    able = network.decoder.temperature is None
    impl, why = choose_impl(model.impl, model.likelihood, able, sizes, exact, room)
    if impl == "sampled" and (model.likelihood != "multinomial" or not able):
        raise InvalidParameterError(
            f'Expected the multinomial likelihood and logits="dot" for impl="sampled", got {model.likelihood} and '
            f'{"dot" if able else "cosine"}; take impl="exact".'
        )
    memory = exact if impl == "exact" else _count(model, network, impl, sizes, device)
    total = sum(p.numel() for p in network.parameters())
    return Forecast(type(model).__name__, sizes, impl, why, total, memory, room)


def _remedies(model: Any, found: Forecast, device: torch.device) -> list[tuple[str, int]]:
    """What would make it fit, simplest first; or else what goes furthest."""
    params, peaks, texts = get_params(model), [], []
    everything, smallest = params, found.sizes
    for text, change, smaller in _changes(model, found):
        with suppress(InvalidParameterError):  # such as ends of two widths, which cannot be tied
            other = type(model)(**params | change)
            peaks.append((text, _found(other, smaller, device, found.available).memory.peak))
            texts.append(text)
            everything = everything | change
            smallest = replace(smallest, batch=min(smallest.batch, smaller.batch), on_disk=smaller.on_disk)
    if len(texts) > 1:
        peak = _found(type(model)(**everything), smallest, device, found.available).memory.peak
        peaks.append((" with ".join(texts), peak))
    return helpful(peaks, found.available)


def _changes(model: Any, found: Forecast) -> list[tuple[str, dict[str, Any], Sizes]]:
    """Each change in words, of hyper-parameters, and of sizes; whether it can be made is not known yet."""
    sizes, params = found.sizes, get_params(model)
    changes: list[tuple[str, dict[str, Any], Sizes]] = []
    if found.impl == "dense":
        changes.append(('impl="exact"', {"impl": "exact"}, sizes))
    elif found.impl == "exact" and sizes.tensor_ranks == 1:
        changes.append(('impl="sampled"', {"impl": "sampled"}, sizes))
    if params["tables"] == "separate":
        changes.append(('tables="tied"', {"tables": "tied"}, sizes))
    if sizes.batch > 100:
        changes.append(("batch_size=100", {"batch_size": 100}, replace(sizes, batch=100)))
    if params.get("form", "sparse") != "sparse":
        changes.append(('form="sparse"', {"form": "sparse"}, sizes))
    widths = {name: params[name] for name in ("hidden_dims", "hidden_dim", "latent_dim") if params.get(name)}
    narrow: dict[str, Any] = {name: _halved(width) for name, width in widths.items()}
    changes.append((", ".join(f"{name}={value}" for name, value in narrow.items()), narrow, sizes))
    if type(model).out_of_core and not sizes.on_disk:
        changes.append(("shards on disk (recvae shard)", {}, replace(sizes, on_disk=True)))
    return changes


def _halved(width: Any) -> Any:
    return tuple(max(1, each // 2) for each in width) if isinstance(width, tuple) else max(1, width // 2)


def _shape_of(model: Any, n_items: int) -> VAE:
    """The model's network without memory of its own."""
    with torch.device("meta"):
        network: VAE = model._built(n_items)
    return network


def _count(model: Any, network: VAE, impl: str, sizes: Sizes, device: torch.device) -> Memory:
    memory = count(network, impl, sizes, model.candidates, model.precision, device)
    return memory if sizes.begun else replace(memory, path=model._beside(sizes.items, memory.peak))


def available(device: torch.device) -> int:
    """Bytes that are there for the taking."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def helpful(found: Sequence[tuple[str, int]], room: int) -> list[tuple[str, int]]:
    """Of changes and what they lead to those that make it fit; or else the two that go furthest."""
    fitting = [(change, peak) for change, peak in found if peak <= room]
    return fitting[:3] or sorted(found, key=lambda each: each[1])[:2]


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:,.1f} GiB" if n_bytes >= GIB / 10 else f"{n_bytes / 2**20:,.0f} MiB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
