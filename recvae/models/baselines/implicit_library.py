"""Access to the library implicit, if it is installed, and a limit of BLAS to one thread while it runs."""

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
    """The library, with the modules that the baselines use. Raises MissingDependencyError."""
    for module in ("cpu.als", "cpu.bpr", "cpu.lmf", "nearest_neighbours"):
        require(f"implicit.{module}", extra="benchmark", purpose="Each of ALS, ItemKNN, BPR and LMF")
    _threadpools()
    return sys.modules["implicit"]


def writable(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """The same rows, with writable arrays: implicit's compiled code accepts no others, though it does not write."""
    arrays = (rows.data, rows.indices, rows.indptr)
    return rows if all(array.flags.writeable for array in arrays) else rows.copy()


class _BlasLimit:
    """Limits BLAS to one thread, from when the first thread of this process asks for it until the last is done.

    The limit is process-wide: if each thread restored the value that it had read, the last one might restore the limit.
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
    """Limit BLAS to one thread, as implicit has threads of its own, and nested threads are slow."""
    limit = _limit
    limit.enter()
    try:
        yield
    finally:
        if limit is _limit:  # a child that was forked within the block has a new limit
            limit.leave()


@functools.cache
def _threadpools() -> Any:
    """The thread pools of the loaded libraries; cached, as finding them takes longer than scoring one user."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@after_fork
def _one_thread() -> None:
    """Reset the limit, as the threads that held it do not exist here; implicit may have another OpenMP than torch."""
    global _limit
    _limit = _BlasLimit()
    if _threadpools.cache_info().currsize:
        _threadpools().limit(limits=1, user_api="openmp")
