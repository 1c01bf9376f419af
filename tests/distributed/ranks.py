"""Processes that train together, for tests: each calls one function within `joined`, and what it returns comes back."""

import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import torch

from recvae.distributed.launch import joined
from tests.processes import CONTEXT


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def environment(rank, size, port):
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }


def _rank(rank, size, port, function, folder, options):
    os.environ.update(environment(rank, size, port))
    torch.set_num_threads(1)
    try:
        with joined("cpu", timeout_s=options.pop("timeout_s", 60)) as communicator:
            found = function(communicator, **options)
        torch.save(found, folder / f"{rank}.pt")
    except BaseException as error:
        (folder / f"{rank}.error").write_text(f"{type(error).__name__}: {error}")
        traceback.print_exc()
        os._exit(1)


def run_ranks(function, size, folder: Path, **options):
    """-> what each rank's call gave, or the text of its error; None where it was killed"""
    port = free_port()
    arguments = [(rank, size, port, function, folder, options) for rank in range(size)]
    processes = [CONTEXT.Process(target=_rank, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
        assert process.exitcode is not None
    return [_result(folder, rank) for rank in range(size)]


def _result(folder, rank):
    if (folder / f"{rank}.pt").exists():
        return torch.load(folder / f"{rank}.pt", weights_only=False)
    error = folder / f"{rank}.error"
    return error.read_text() if error.exists() else None


def torchrun(script: Path, size):
    """A script in `size` processes that torchrun starts. -> the process, ended"""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size), "--master-port"]
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [*command, str(free_port()), str(script)],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, "PYTHONPATH": root},
    )
