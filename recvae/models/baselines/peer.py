"""The library implicit, where it is installed, and BLAS held to one thread around it."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scipy import sparse

from recvae.utils.optional import require
from recvae.utils.threads import after_fork


def implicit_library() -> Any:
    """The library with the modules that are needed of it. Raises MissingDependencyError."""
    for module in ("cpu.als", "cpu.bpr", "cpu.lmf", "nearest_neighbours"):
        require(f"implicit.{module}", extra="benchmark", purpose="Each of ALS, ItemKNN, BPR and LMF")
    _threadpools()
    return sys.modules["implicit"]


def writable(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """The same rows over arrays that implicit's compiled code accepts: writable ones, though it writes to none."""
    arrays = (rows.data, rows.indices, rows.indptr)
    return rows if all(array.flags.writeable for array in arrays) else rows.copy()


class _BlasLimit:
    """BLAS at one thread from when the first thread of this process asks for it until the last is done.

    The limit is that of the process: restored by each thread for itself, it would be left as the last one found it.
    """

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0
        self.limits: Any = None

    def enter(self) -> None:
        with self.lock:
            if self.users == 0:
                self.limits = _threadpools().limit(limits=1, user_api="blas")
            self.users += 1

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.limits.restore_original_limits()


_limit = _BlasLimit()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """implicit's own threads and those of BLAS get in each other's way."""
    limit = _limit
    limit.enter()
    try:
        yield
    finally:
        if limit is _limit:  # not so in a child that was forked within
            limit.leave()


@functools.cache
def _threadpools() -> Any:
    """The thread pools of the loaded libraries; looking for them takes longer than scoring one user."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@after_fork
def _one_thread() -> None:
    """Forget who is within, for those threads are not here; implicit may have an OpenMP that is not torch's."""
    global _limit
    _limit = _BlasLimit()
    if _threadpools.cache_info().currsize:
        _threadpools().limit(limits=1, user_api="openmp")
