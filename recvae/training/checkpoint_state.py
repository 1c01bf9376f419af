"""The content of a checkpoint: the state of a run as tensors and facts, checked when it is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from recvae.errors import InvalidDataError
from recvae.nn.optim import RowwiseAdam
from recvae.nn.sharded import sharded_parameters
from recvae.training.callbacks import Epoch
from recvae.training.parallel import ParallelStrategy
from recvae.training.state import TrainState
from recvae.utils.folder import (
    MANIFEST,
    Manifest,
    Written,
    check_integer,
    check_number,
    sound_manifest,
)

PATTERN = "step-*.safetensors"
# tensors that optimizers keep per parameter; for other optimizers only the shapes are checked
MOMENTS: dict[type[torch.optim.Optimizer], set[str]] = {
    RowwiseAdam: {"step", "second"},
    torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}


@dataclass(frozen=True)
class Size:
    """The size of a run: its users, its epochs, and the steps in an epoch."""

    users: int
    epochs: int
    steps: int


def facts_of(state: TrainState) -> dict[str, Any]:
    """The part of a state that is not tensors."""
    return {
        "seed": state.seed,
        "best": state.best,
        "best_epoch": state.best_epoch,
        "history": [asdict(epoch) for epoch in state.history],
    }


def tensors_of(state: TrainState, strategy: ParallelStrategy) -> dict[str, Tensor]:
    """The tensors of a state by name, on rank 0; sharded ones are gathered there, and missing on other ranks."""
    sharded, parameters = sharded_parameters(state.network), dict(state.network.named_parameters())
    tensors: dict[str, Tensor] = {}

    def add(full_name: str, tensor: Tensor, parameter: str) -> None:
        """Add a tensor with the shape of `parameter`, or of its rows on this rank, which are gathered."""
        by_rows = parameter in sharded and tensor.dim() > 0
        complete = sharded[parameter].communicator.gather(tensor) if by_rows else tensor
        if complete is not None:
            tensors[full_name] = complete.contiguous()

    for name, parameter in parameters.items():
        add(f"network.{name}", parameter.detach(), name)
    for name, tensor in state.best_weights.items():
        add(f"best.{name}", tensor, name)
    for name, tensor in state.averages.items():
        add(f"average.{name}", tensor, name)
    for number, optimizer in enumerate(state.optimizers):
        names = _parameter_names(optimizer, parameters)
        for index, moments in optimizer.state_dict()["state"].items():
            for moment, tensor in moments.items():
                if isinstance(tensor, Tensor):  # it is None for SGD without momentum
                    add(f"optimizer.{number}.{index}.{moment}", tensor, names[index])
    prior = getattr(state.network, "prior", None)
    if state.step and prior is not None:
        tensors |= {f"prior.{name}": tensor.contiguous() for name, tensor in prior.epoch_state().items()}
    losses = torch.stack(state.losses) if state.losses else torch.empty(0, 3, device=state.device)
    return tensors | {"steps": strategy.reduce_losses(losses)}


def _parameter_names(optimizer: torch.optim.Optimizer, parameters: dict[str, Any]) -> list[str]:
    """Names of the parameters of an optimizer, in the order of its state."""
    by_parameter = {id(parameter): name for name, parameter in parameters.items()}
    return [by_parameter[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def restore(
    state: TrainState, folder: Path, manifest: Manifest[Written], strategy: ParallelStrategy, size: Size
) -> None:
    """Restore a new state from the checkpoint in the folder, tensors and position."""
    with sound_manifest(folder):
        history = _check_facts(manifest, size)
    (part,) = manifest.parts
    path = folder / part.file
    if not part.is_whole(folder):
        raise InvalidDataError(
            f"Expected the checkpoint {path} as it was written, got other content; delete {folder} to begin again."
        )
    try:
        facts, tensors = manifest.facts, _read(path, state)
        _check_tensors(state, tensors, facts["step"], size)
        _fill(state, tensors, strategy)
        state.history = history
        state.seed, state.best, state.best_epoch = facts["seed"], facts["best"], facts["best_epoch"]
    except (
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
        OSError,
        AttributeError,
        safetensors.SafetensorError,
    ) as error:
        reason = ascii(str(error).partition("\n")[0])[1:-1]
        raise InvalidDataError(
            f"Expected the checkpoint {path} to fit the file {folder / MANIFEST}, got: {reason:.200}; delete {folder} "
            f"to begin again."
        ) from error


def _check_facts(manifest: Manifest[Written], size: Size) -> list[Epoch]:
    """The records of completed epochs. Raises ValueError, KeyError or TypeError for facts that no such run writes."""
    facts, history = manifest.facts, list[Epoch]()
    if len(manifest.parts) != 1 or not Path(manifest.parts[0].file).match(PATTERN):
        raise ValueError(f"expected one file {PATTERN}, got {len(manifest.parts)} files")
    check_integer("seed", facts["seed"], high=2**64 - 1)
    check_integer("epoch", facts["epoch"], high=size.epochs)
    check_integer("step", facts["step"], high=size.steps)
    if type(facts["history"]) is not list or len(facts["history"]) != facts["epoch"]:
        raise ValueError(f"expected a history of {facts['epoch']} epochs")
    check_integer("best_epoch", facts["best_epoch"], 1, max(1, facts["epoch"]))
    if facts["best"] != -math.inf:
        check_number("best", facts["best"])
    for number, record in enumerate(facts["history"], 1):
        epoch = Epoch(**record)
        check_integer("epoch", epoch.epoch, number, number)
        for name in ("nll", "kl", "loss", "beta", "seconds"):
            check_number(name, getattr(epoch, name))
        for name in ("valid", "best", "users_per_second"):
            if getattr(epoch, name) not in (None, -math.inf):
                check_number(name, getattr(epoch, name))
        if type(epoch.part) is not str:
            raise ValueError(f"expected the name of a part, got {epoch.part!r:.80}")
        history.append(epoch)
    return history


def _check_tensors(state: TrainState, tensors: dict[str, Tensor], done: int, size: Size) -> None:
    """Raise ValueError or KeyError unless the tensors are those of such a state."""
    parameters = dict(state.network.named_parameters())
    groups: dict[str, set[str]] = {"network": set(), "best": set(), "average": set(), "prior": set()}
    moments: dict[tuple[int, int], set[str]] = {}
    for full_name, tensor in tensors.items():
        kind, _, name = full_name.partition(".")
        if not tensor.isfinite().all():
            raise ValueError(f"numbers that are not finite in {full_name}")
        if kind in ("network", "best", "average"):
            _check_shape(full_name, tensor, parameters[name].shape, parameters[name].dtype)
        elif kind == "optimizer":
            number, index, moment = _check_moment(full_name, tensor, state.optimizers, parameters)
            moments.setdefault((number, index), set()).add(moment)
        elif kind == "prior":
            _check_shape(full_name, tensor, _prior_shape(state.network, tensor, size), torch.float32)
        elif full_name != "steps":
            raise ValueError(f"a tensor {full_name!r:.80}")
        if kind in groups:
            groups[kind].add(name)
    _check_shape("steps", tensors["steps"], (done, 3), torch.float32)
    incomplete = any(groups[kind] not in (set(), set(parameters)) for kind in ("best", "average"))
    if groups["network"] != set(parameters) or incomplete:
        raise ValueError("the tensors of another network")
    for (number, index), names in moments.items():
        expected = next((known for kind, known in MOMENTS.items() if isinstance(state.optimizers[number], kind)), names)
        if names != expected:
            raise ValueError(f"of optimizer {number} and parameter {index} only {', '.join(sorted(names))}")


def _check_moment(
    full_name: str, tensor: Tensor, optimizers: Sequence[torch.optim.Optimizer], parameters: dict[str, Any]
) -> tuple[int, int, str]:
    """Raise ValueError or LookupError unless it is a moment. -> indices of optimizer and parameter, its name"""
    number, index, moment = full_name.split(".")[1:]
    check_integer("the number of an optimizer", int(number), 0, len(optimizers) - 1)
    names = _parameter_names(optimizers[int(number)], parameters)
    check_integer("the number of a parameter", int(index), 0, len(names) - 1)
    parameter = parameters[names[int(index)]]
    shape: tuple[int, ...] = {"step": (), "second": tuple(parameter.shape[:1])}.get(moment, tuple(parameter.shape))
    negative = moment in ("step", "second", "exp_avg_sq") and tensor.numel() and tensor.min() < 0
    if tuple(tensor.shape) != shape or negative:
        raise ValueError(f"a moment {full_name} of shape {tuple(tensor.shape)}, or below 0")
    return int(number), int(index), moment


def _check_shape(name: str, tensor: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != tuple(shape) or tensor.dtype != dtype:
        raise ValueError(f"{name} of {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {tuple(shape)}")


def _read(path: Path, state: TrainState) -> dict[str, Tensor]:
    """The tensors of the file; for sharded parameters, only the rows of this rank."""
    sharded, parameters = sharded_parameters(state.network), dict(state.network.named_parameters())
    names = [_parameter_names(optimizer, parameters) for optimizer in state.optimizers]
    tensors = {}
    with safetensors.safe_open(path, "pt", device=str(state.device)) as file:
        for full_name in file.keys():  # noqa: SIM118 (it is no dictionary)
            kind, _, name = full_name.partition(".")
            if kind == "optimizer":
                number, index, _ = name.split(".", 2)
                name = names[int(number)][int(index)]
            items = sharded.get(name) if kind in ("network", "best", "average", "optimizer") else None
            stored = file.get_slice(full_name)
            by_rows = items is not None and stored.get_shape()  # the count of steps is a scalar
            tensors[full_name] = stored[items.start : items.stop] if items and by_rows else file.get_tensor(full_name)
    return tensors


def _fill(state: TrainState, tensors: dict[str, Tensor], strategy: ParallelStrategy) -> None:
    """Load the tensors into the network, the optimizers, the prior and the state."""
    with torch.no_grad():
        for name, parameter in state.network.named_parameters():
            parameter.copy_(tensors.pop(f"network.{name}"))
    losses = tensors.pop("steps")
    if not strategy.data_parallel_group.is_main_process:  # losses are summed over ranks at the end of the epoch
        losses = torch.zeros_like(losses)
    state.losses = list(losses.unbind())
    groups: dict[str, dict[str, Tensor]] = {"best": {}, "average": {}, "prior": {}}
    moments: dict[int, dict[int, dict[str, Tensor]]] = {number: {} for number in range(len(state.optimizers))}
    for full_name, tensor in tensors.items():
        kind, name = full_name.split(".", 1)
        if kind in groups:
            groups[kind][name] = tensor
        else:
            number, index, moment = name.split(".", 2)
            moments[int(number)].setdefault(int(index), {})[moment] = tensor
    state.best_weights, state.averages = groups["best"], groups["average"]
    prior = getattr(state.network, "prior", None)
    if prior is not None:
        prior.load_epoch_state(groups["prior"])
    for optimizer, of_parameters in zip(state.optimizers, moments.values(), strict=True):
        optimizer.load_state_dict(optimizer.state_dict() | {"state": of_parameters})


def _prior_shape(network: nn.Module, tensor: Tensor, size: Size) -> tuple[int, ...]:
    """The expected shape of a prior's tensor, a row per user; a custom network fixes only the number of users."""
    latent_dim = getattr(getattr(network, "decoder", None), "latent_dim", None)
    return (size.users, *tensor.shape[1:]) if latent_dim is None else (size.users, int(latent_dim))
