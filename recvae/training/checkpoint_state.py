"""What a checkpoint holds: the state of a training as tensors and facts, and the same checked and put back."""

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


@dataclass(frozen=True)
class Size:
    """How large a run is: its users, its epochs, and the steps of an epoch."""

    users: int
    epochs: int
    steps: int


def facts_of(state: TrainState) -> dict[str, Any]:
    """What of a state is no tensor."""
    return {
        "seed": state.seed,
        "best": state.best,
        "best_epoch": state.best_epoch,
        "history": [asdict(epoch) for epoch in state.history],
    }


def tensors_of(state: TrainState, strategy: ParallelStrategy) -> dict[str, Tensor]:
    """The tensors of a state by name; where ranks have slices, whole ones, in the memory of the writer alone."""
    cut, named = sharded_parameters(state.network), dict(state.network.named_parameters())
    found: dict[str, Tensor] = {}

    def add(full: str, tensor: Tensor, name: str) -> None:
        """Of the parameter `name`, or of its shape in its rows."""
        by_rows = name in cut and tensor.dim() > 0
        whole = cut[name].communicator.gather(tensor) if by_rows else tensor
        if whole is not None:
            found[full] = whole.contiguous()

    for name, parameter in named.items():
        add(f"network.{name}", parameter.detach(), name)
    for name, tensor in state.best_weights.items():
        add(f"best.{name}", tensor, name)
    for number, optimizer in enumerate(state.optimizers):
        names = _names(optimizer, named)
        for index, moments in optimizer.state_dict()["state"].items():
            for moment, tensor in moments.items():
                add(f"optimizer.{number}.{index}.{moment}", tensor, names[index])
    prior = getattr(state.network, "prior", None)
    if state.step and prior is not None:
        found |= {f"prior.{name}": tensor.contiguous() for name, tensor in prior.epoch_state().items()}
    return found | {"steps": strategy.reduce_losses(_stacked(state.losses, state.device))}


def _names(optimizer: torch.optim.Optimizer, named: dict[str, Any]) -> list[str]:
    """Names of the parameters of an optimizer, in the order of its state."""
    by_parameter = {id(parameter): name for name, parameter in named.items()}
    return [by_parameter[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def restore(
    state: TrainState, folder: Path, manifest: Manifest[Written], strategy: ParallelStrategy, size: Size
) -> None:
    """Bring a fresh state to the place that the folder holds."""
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
    """The epochs that the run has behind it. Raises ValueError, KeyError or TypeError for what no such run writes."""
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
    """Raise ValueError or KeyError for tensors that no such state has."""
    parameters = dict(state.network.named_parameters())
    groups: dict[str, set[str]] = {"network": set(), "best": set(), "prior": set()}
    moments: dict[tuple[int, int], set[str]] = {}
    for full, tensor in tensors.items():
        kind, _, name = full.partition(".")
        if not tensor.isfinite().all():
            raise ValueError(f"numbers that are not finite in {full}")
        if kind in ("network", "best"):
            _check_shape(full, tensor, parameters[name].shape, parameters[name].dtype)
        elif kind == "optimizer":
            number, index, moment = _check_moment(full, tensor, state.optimizers, parameters)
            moments.setdefault((number, index), set()).add(moment)
        elif kind == "prior":
            _check_shape(full, tensor, _prior_shape(state.network, tensor, size), torch.float32)
        elif full != "steps":
            raise ValueError(f"a tensor {full!r:.80}")
        if kind in groups:
            groups[kind].add(name)
    _check_shape("steps", tensors["steps"], (done, 3), torch.float32)
    if groups["network"] != set(parameters) or groups["best"] not in (set(), set(parameters)):
        raise ValueError("the tensors of another network")
    for (number, index), found in moments.items():
        by_row = isinstance(state.optimizers[number], RowwiseAdam)
        if found != ({"step", "second"} if by_row else {"step", "exp_avg", "exp_avg_sq"}):
            raise ValueError(f"of optimizer {number} and parameter {index} only {', '.join(sorted(found))}")


def _check_moment(
    full: str, tensor: Tensor, optimizers: Sequence[torch.optim.Optimizer], parameters: dict[str, Any]
) -> tuple[int, int, str]:
    """Raise ValueError or LookupError for what is no moment of a parameter. -> the numbers of both, and its name"""
    number, index, moment = full.split(".")[1:]
    check_integer("the number of an optimizer", int(number), 0, len(optimizers) - 1)
    names = _names(optimizers[int(number)], parameters)
    check_integer("the number of a parameter", int(index), 0, len(names) - 1)
    parameter = parameters[names[int(index)]]
    shapes: dict[str, Any] = {
        "step": (),
        "second": parameter.shape[:1],
        "exp_avg": parameter.shape,
        "exp_avg_sq": parameter.shape,
    }
    if tuple(tensor.shape) != tuple(shapes[moment]) or (moment != "exp_avg" and tensor.numel() and tensor.min() < 0):
        raise ValueError(f"a moment {full} of shape {tuple(tensor.shape)}, or below 0")
    return int(number), int(index), moment


def _check_shape(name: str, tensor: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != tuple(shape) or tensor.dtype != dtype:
        raise ValueError(f"{name} of {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {tuple(shape)}")


def _read(path: Path, state: TrainState) -> dict[str, Tensor]:
    """What the file holds, and of tables that are cut this rank's rows."""
    cut, names = (
        sharded_parameters(state.network),
        [_names(each, dict(state.network.named_parameters())) for each in state.optimizers],
    )
    found = {}
    with safetensors.safe_open(path, "pt", device=str(state.device)) as file:
        for full in file.keys():  # noqa: SIM118 (it is no dictionary)
            kind, _, name = full.partition(".")
            if kind == "optimizer":
                number, index, _ = name.split(".", 2)
                name = names[int(number)][int(index)]
            items = cut.get(name) if kind in ("network", "best", "optimizer") else None
            by_rows = items is not None and file.get_slice(full).get_shape()
            found[full] = file.get_slice(full)[items.start : items.stop] if items and by_rows else file.get_tensor(full)
    return found


def _fill(state: TrainState, tensors: dict[str, Tensor], strategy: ParallelStrategy) -> None:
    with torch.no_grad():
        for name, parameter in state.network.named_parameters():
            parameter.copy_(tensors.pop(f"network.{name}"))
    steps = tensors.pop("steps")
    # they are summed over ranks
    state.losses = list((steps if strategy.data_parallel_group.is_main_process else torch.zeros_like(steps)).unbind())
    groups: dict[str, dict[str, Tensor]] = {"best": {}, "prior": {}}
    moments: dict[int, dict[int, dict[str, Tensor]]] = {number: {} for number in range(len(state.optimizers))}
    for full, tensor in tensors.items():
        kind, name = full.split(".", 1)
        if kind in groups:
            groups[kind][name] = tensor
        else:
            optimizer, index, moment = name.split(".", 2)
            moments[int(optimizer)].setdefault(int(index), {})[moment] = tensor
    state.best_weights = groups["best"]
    prior = getattr(state.network, "prior", None)
    if prior is not None:
        prior.load_epoch_state(groups["prior"])
    for each, found in zip(state.optimizers, moments.values(), strict=True):
        each.load_state_dict(each.state_dict() | {"state": found})


def _stacked(losses: Sequence[Tensor], device: torch.device) -> Tensor:
    """Of S steps. -> (S, 3)"""
    return torch.stack([*losses]) if losses else torch.empty(0, 3, device=device)


def _prior_shape(network: nn.Module, tensor: Tensor, size: Size) -> tuple[int, ...]:
    """That of what a prior keeps of each user; of one's own network only the number of users is known."""
    latent_dim = getattr(getattr(network, "decoder", None), "latent_dim", None)
    return (size.users, *tensor.shape[1:]) if latent_dim is None else (size.users, int(latent_dim))
