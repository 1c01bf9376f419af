"""Launching: the process group of the ranks that torchrun started, and how a rank reports its end to the others."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from recvae.distributed.communicator import (
    CPU,
    SINGLE_PROCESS,
    Communicator,
    _current,
    current_communicator,
)
from recvae.distributed.heartbeat import Heartbeat
from recvae.errors import InvalidParameterError, LostRankError, RecvaeError
from recvae.utils.signals import Stop

dist: Any = torch.distributed  # its stores are untyped
TIMEOUT_S = 600.0
MAX_TIMEOUT_S = 10**6
ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
DEVICES = ("auto", "cpu", "cuda")
_block_numbers = itertools.count()  # each `joined` block has its own keys in the store


@contextmanager
def joined(device: str = "auto", timeout_s: float = TIMEOUT_S) -> Iterator[Communicator]:
    """In this context, train together with the other ranks that were launched.

        torchrun --nproc-per-node 4 train.py        # train.py has: with recvae.joined(): model.fit(rows)

    It uses the existing process group, or else creates one from the environment variables RANK, WORLD_SIZE, LOCAL_RANK,
    MASTER_ADDR and MASTER_PORT, which torchrun sets. Without either, the communicator is `SINGLE_PROCESS`.

    Parameters
    ----------
    device : str
        "auto", "cpu" or "cuda"; "auto" takes GPUs if there are any. Each rank uses the GPU of its LOCAL_RANK.
    timeout_s : float
        Seconds after which a rank stops waiting for the others in a collective operation.

    Returns
    -------
    Communicator
        The communicator of the ranks, as in `with recvae.joined() as communicator`.

    Raises
    ------
    InvalidParameterError
        If the environment is incomplete or invalid, or there are more ranks than GPUs on this machine.
    LostRankError
        If a rank does not connect in time, or is lost within the block.
    """
    if device not in DEVICES:
        raise InvalidParameterError(f"Expected a device of {', '.join(DEVICES)} for ranks, got {device!r}.")
    if not 0 < timeout_s <= MAX_TIMEOUT_S:  # NaN is refused too
        raise InvalidParameterError(
            f"Expected timeout_s above 0 and up to {MAX_TIMEOUT_S:,} seconds, got {timeout_s!r}."
        )
    if current_communicator() is not SINGLE_PROCESS or not _is_launched():
        yield current_communicator()
        return
    rank_device = _rank_device(device)
    with _process_group(rank_device, timedelta(seconds=timeout_s)) as (store, store_on_rank_0):
        heartbeat = Heartbeat(
            dist.PrefixStore(f"recvae/{next(_block_numbers)}", store),
            dist.get_rank(),
            dist.get_world_size(),
            store_on_rank_0=store_on_rank_0,
            abort_when_stuck=rank_device.type == "cuda",
        )
        with _watched(heartbeat, rank_device):
            communicator = Communicator(heartbeat.rank, heartbeat.size, rank_device, heartbeat)
            token = _current.set(communicator)
            try:
                yield communicator
            finally:
                _current.reset(token)


def _is_launched() -> bool:
    """Whether this process was launched as a rank. Raises InvalidParameterError for an incomplete environment."""
    if not dist.is_available():
        return False
    missing = [name for name in ENVIRONMENT if not os.environ.get(name)]
    if dist.is_initialized() or not missing:
        return True
    if {"RANK", "WORLD_SIZE"} <= set(missing):
        return False
    raise InvalidParameterError(
        f"Expected {', '.join(ENVIRONMENT)} in the environment of a rank, got no {', '.join(missing)}; start with "
        "torchrun, which sets them all."
    )


def _rank_device(device: str) -> torch.device:
    """The device of this rank; a GPU also becomes the current device of torch.cuda."""
    n_gpus = torch.cuda.device_count()
    if device == "cpu" or (device == "auto" and not n_gpus):
        return CPU
    local_rank = _environment_integer("LOCAL_RANK" if os.environ.get("LOCAL_RANK") else "RANK")
    n_local = max(local_rank + 1, _environment_integer("LOCAL_WORLD_SIZE"))
    if n_local > n_gpus:
        raise InvalidParameterError(
            f"Expected no more ranks than GPUs on a machine, got {n_local} ranks and {n_gpus} GPUs; start with "
            f'torchrun --nproc-per-node {max(n_gpus, 1)}, or train on device="cpu".'
        )
    rank_device = torch.device("cuda", local_rank)
    torch.cuda.set_device(rank_device)
    return rank_device


@contextmanager
def _process_group(device: torch.device, timeout: timedelta) -> Iterator[tuple[Any, bool]]:
    """The existing process group, or one from the environment for this block. -> its store; whether rank 0 hosts it"""
    if dist.is_initialized():
        yield dist.distributed_c10d._get_default_store(), True
        return
    store = _init_process_group(device, timeout)
    try:
        yield store, os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    finally:
        if dist.is_initialized():  # it may have been aborted
            dist.destroy_process_group()


def _init_process_group(device: torch.device, timeout: timedelta) -> Any:
    """Create the process group from the environment. -> the store that its ranks share"""
    rank, size, port = (_environment_integer(name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    if not rank < size:
        raise InvalidParameterError(f"Expected RANK below WORLD_SIZE in the environment, got {rank} and {size}.")
    if not 0 < port < 2**16:
        raise InvalidParameterError(f"Expected MASTER_PORT in the environment from 1 to 65535, got {port}.")
    try:
        # create the store first: in `init_process_group` alone, ranks that choose different backends would hang
        store, _, _ = next(dist.rendezvous("env://", timeout=timeout))
        _check_same_device(device, store, rank, size)
        backend, group_store = "nccl" if device.type == "cuda" else "gloo", dist.PrefixStore("group", store)
        dist.init_process_group(backend, store=group_store, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError, OSError) as error:
        if isinstance(error, RecvaeError):
            raise
        raise LostRankError(
            f"Rank {rank} of {size} did not find all the others at {os.environ['MASTER_ADDR']} within "
            f"{timeout.total_seconds():g} s: {str(error).splitlines()[0]}; start all ranks at about the same time, "
            "with the same MASTER_ADDR and MASTER_PORT."
        ) from error
    return store


def _check_same_device(device: torch.device, store: Any, rank: int, size: int) -> None:
    """Raise InvalidParameterError on all ranks if some are on a GPU and some are not."""
    devices = dist.PrefixStore(f"recvae/devices/{next(_block_numbers)}", store)
    devices.set(str(rank), device.type)
    types = [devices.get(str(other)).decode() for other in range(size)]
    if len(set(types)) > 1:
        listed = ", ".join(f"{kind} on rank {other}" for other, kind in enumerate(types))
        raise InvalidParameterError(f"Expected ranks on one kind of device, got {listed}; name device= on all of them.")


def _environment_integer(name: str) -> int:
    text = os.environ.get(name) or "0"
    if not (text.isdecimal() and len(text) < 10):
        raise InvalidParameterError(f"Expected {name} in the environment as an integer, got {text!r}.")
    return int(text)


@contextmanager
def _watched(heartbeat: Heartbeat, device: torch.device) -> Iterator[None]:
    """Run the heartbeat in this context; then report to the other ranks and to torchrun how this one ended."""
    heartbeat.start()
    error: BaseException | None = None
    try:
        with _sigterm_as_error(heartbeat):
            yield
    except BaseException as raised:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        error = raised
        if not isinstance(raised, LostRankError):  # a LostRankError is not the root cause
            with suppress(OSError):
                get_error_handler().record_exception(raised)  # for the table of failures that torchrun prints
        raise
    finally:
        heartbeat.stop(error)
        if error is not None and device.type == "cuda" and dist.is_initialized():
            dist.distributed_c10d._abort_process_group()  # `destroy_process_group` would wait for the lost rank


@contextmanager
def _sigterm_as_error(heartbeat: Heartbeat) -> Iterator[None]:
    """Turn SIGTERM, which torchrun sends to all ranks after one has failed, into an error that names that rank."""
    previous = signal.getsignal(signal.SIGTERM)
    replaceable = previous == signal.SIG_DFL or isinstance(getattr(previous, "__self__", None), Stop)
    if threading.current_thread() is not threading.main_thread() or not replaceable:  # a handler of the caller is kept
        yield
        return

    def raise_lost(*_: object) -> None:
        if not heartbeat.diagnosing:
            lost = heartbeat.lost_rank("training, and was asked to end (SIGTERM)")
            rank = f"Rank {heartbeat.rank} of {heartbeat.size}"
            raise lost or LostRankError(f"{rank} was asked to end (SIGTERM), while all others were alive.")

    signal.signal(signal.SIGTERM, raise_lost)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
