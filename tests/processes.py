"""Processes that tests start in order to kill them: forks of one that has loaded the libraries, and has no threads."""

import sys

from torch import multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch._dynamo", "recvae.models.rec_vae", "recvae.models.h_vamp", "tests.distributed.ranks"]
)


def _run(code, arguments):
    sys.argv = ["-c", *arguments]
    exec(code, {"__name__": "__main__"})


def start_process(code, *arguments):
    """Start a process that runs this Python code, with these texts in `sys.argv`. -> a multiprocessing.Process"""
    process = CONTEXT.Process(target=_run, args=(code, list(map(str, arguments))))
    process.start()
    return process
