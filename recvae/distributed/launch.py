"""How processes come together: from the environment that `torchrun` makes for each of them, or not at all."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from recvae.distributed.communicator import CPU, SINGLE_PROCESS, Communicator, _current, current_communicator
from recvae.distributed.heartbeat import Heartbeat
from recvae.errors import InvalidParameterError, LostRankError, RecvaeError
from recvae.utils.signals import Stop

dist: Any = torch.distributed  # whose stores have no types
TIMEOUT_S = 600.0
LONGEST_S = 10**6
ADDRESS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
DEVICES = ("auto", "cpu", "cuda")
_joins = itertools.count()  # each has its own names in the store


@contextmanager
def joined(device: str = "auto", timeout_s: float = TIMEOUT_S) -> Iterator[Communicator]:
    """Join the other processes of a training, and be the current communicator within this block.

        torchrun --nproc-per-node 4 train.py        # in which: with recvae.joined(): model.fit(rows)

    The group is the one that is there already, or else that of the environment: RANK, WORLD_SIZE, LOCAL_RANK,
    MASTER_ADDR and MASTER_PORT. Without such, the communicator is `SINGLE_PROCESS`. On GPUs, which is what "auto" means
    where there are some, each rank has that of its LOCAL_RANK.

    Parameters
    ----------
    timeout_s : float
        Seconds after which a rank no longer waits for the others in an exchange.

    Raises
    ------
    InvalidParameterError
        Where the environment is not whole, or has more ranks than this machine has GPUs.
    LostRankError
        Where a rank does not come, or is lost within the block.
    """
    with _member(device, timeout_s) as communicator:
        token = _current.set(communicator)
        try:
            yield communicator
        finally:
            _current.reset(token)


@contextmanager
def _member(device: str, timeout_s: float) -> Iterator[Communicator]:
    if device not in DEVICES:
        raise InvalidParameterError(f"Expected a device of {', '.join(DEVICES)} for ranks, got {device!r}.")
    if not 0 < timeout_s <= LONGEST_S:  # NaN is refused too
        raise InvalidParameterError(f"Expected timeout_s above 0 and up to {LONGEST_S:,} seconds, got {timeout_s!r}.")
    if current_communicator() is not SINGLE_PROCESS:
        yield current_communicator()
    elif dist.is_available() and dist.is_initialized():
        yield from _in_group(_own_device(device), dist.distributed_c10d._get_default_store(), keeper=True)
    elif not dist.is_available() or not _has_address():
        yield SINGLE_PROCESS
    else:
        own = _own_device(device)
        store = _meet(own, timedelta(seconds=timeout_s))
        try:
            keeper = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
            yield from _in_group(own, store, keeper)
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


def _in_group(device: torch.device, store: Any, keeper: bool) -> Iterator[Communicator]:
    """The communicator of the group that there is; on the way out, the others are told why."""
    rank, size = dist.get_rank(), dist.get_world_size()
    register = dist.PrefixStore(f"recvae/{next(_joins)}", store)
    heartbeat = Heartbeat(register, rank, size, keeper=keeper, leave_by_force=device.type == "cuda")
    heartbeat.begin()
    error: BaseException | None = None
    try:
        with _asked_to_end(heartbeat):
            yield Communicator(rank, size, device, heartbeat)
    except BaseException as raised:
        error = raised
        raise
    finally:
        heartbeat.end(error)
        if error is not None and device.type == "cuda" and dist.is_initialized():
            dist.distributed_c10d._abort_process_group()  # what waits for a rank that is gone is not waited for


def _has_address() -> bool:
    """Whether the environment is that of a rank. Raises InvalidParameterError where a part of it is missing."""
    missing = [name for name in ADDRESS if not os.environ.get(name)]
    if {"RANK", "WORLD_SIZE"} <= set(missing):
        return False
    if missing:
        raise InvalidParameterError(
            f"Expected {', '.join(ADDRESS)} in the environment of a rank, found no {', '.join(missing)}; start with "
            "torchrun, which sets them all."
        )
    return True


def _own_device(device: str) -> torch.device:
    """This rank's device, which is also the one that torch uses where none is named."""
    n_gpus = torch.cuda.device_count()
    if device == "cpu" or (device == "auto" and not n_gpus):
        return CPU
    local = _whole("LOCAL_RANK" if os.environ.get("LOCAL_RANK") else "RANK")
    n_ranks = max(local + 1, _whole("LOCAL_WORLD_SIZE") if os.environ.get("LOCAL_WORLD_SIZE") else 0)
    if n_ranks > n_gpus:
        raise InvalidParameterError(
            f"Expected no more ranks than GPUs on a machine, got {n_ranks} ranks and {n_gpus} GPUs; start with "
            f'torchrun --nproc-per-node {max(n_gpus, 1)}, or train on device="cpu".'
        )
    own = torch.device("cuda", local)
    torch.cuda.set_device(own)
    return own


def _meet(device: torch.device, timeout: timedelta) -> Any:
    """Make the process group. -> the store that its ranks share"""
    rank, size, port = _whole("RANK"), _whole("WORLD_SIZE"), _whole("MASTER_PORT")
    if not rank < size:
        raise InvalidParameterError(f"Expected RANK below WORLD_SIZE in the environment, got {rank} and {size}.")
    if not 0 < port < 2**16:
        raise InvalidParameterError(f"Expected MASTER_PORT in the environment from 1 to 65535, got {port}.")
    try:
        store = next(dist.rendezvous(f"env://?rank={rank}&world_size={size}", timeout=timeout))[0]
        _same_device(device, store, rank, size)
        backend, within = "nccl" if device.type == "cuda" else "gloo", dist.PrefixStore("group", store)
        dist.init_process_group(backend, store=within, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError, OSError) as error:
        if isinstance(error, RecvaeError):
            raise
        raise LostRankError(
            f"Rank {rank} of {size} did not find all the others at {os.environ['MASTER_ADDR']} within "
            f"{timeout.total_seconds():g} s: {str(error).splitlines()[0]}; start all ranks at about one time, with one "
            "MASTER_ADDR and MASTER_PORT."
        ) from error
    return store


def _whole(name: str) -> int:
    text = os.environ.get(name, "0")
    if not (text.isdecimal() and len(text) < 10):
        raise InvalidParameterError(f"Expected {name} in the environment as an integer, got {text!r}.")
    return int(text)


def _same_device(device: torch.device, store: Any, rank: int, size: int) -> None:
    """Raise InvalidParameterError, on all ranks, where some are on a GPU and some are not."""
    register = dist.PrefixStore(f"recvae/devices/{next(_joins)}", store)
    register.set(str(rank), device.type)
    found = [register.get(str(each)).decode() for each in range(size)]
    if len(set(found)) > 1:
        listed = ", ".join(f"{kind} on rank {each}" for each, kind in enumerate(found))
        raise InvalidParameterError(f"Expected ranks on one kind of device, got {listed}; name device= on all of them.")


@contextmanager
def _asked_to_end(heartbeat: Heartbeat) -> Iterator[None]:
    """SIGTERM, by which torchrun ends the ranks where one has ended, as an error that says which one that was."""
    before = signal.getsignal(signal.SIGTERM)
    ours = before == signal.SIG_DFL or isinstance(getattr(before, "__self__", None), Stop)  # no one else's is replaced
    if threading.current_thread() is not threading.main_thread() or not ours:
        yield
        return

    def raise_lost(*_: object) -> None:
        if heartbeat.asked:  # an exchange has failed, and its error is on the way
            return
        who = f"Rank {heartbeat.rank} of {heartbeat.size}"
        lost = heartbeat.lost("training, and was asked to end (SIGTERM)")
        raise lost or LostRankError(f"{who} was asked to end (SIGTERM), all others being there.")

    signal.signal(signal.SIGTERM, raise_lost)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
