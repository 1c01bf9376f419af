"""The library implicit, where it is installed, and BLAS held to one thread around it."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from typing import Any

from scipy import sparse

from recvae.errors import MissingDependencyError


def implicit_library() -> Any:
    """The library with the modules that are needed of it. Raises MissingDependencyError."""
    try:
        import implicit.cpu.als
        import implicit.cpu.bpr
        import implicit.cpu.lmf
        import implicit.nearest_neighbours
    except ImportError as error:
        raise MissingDependencyError(
            "ALS, item-KNN, BPR and LMF need the library implicit, which is not installed; "
            'run: pip install "recvae[benchmark]"'
        ) from error
    return implicit


def writable(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """The same rows over arrays that implicit's compiled code accepts: writable ones, though it writes to none."""
    arrays = (rows.data, rows.indices, rows.indptr)
    return rows if all(array.flags.writeable for array in arrays) else rows.copy()


def one_blas_thread() -> AbstractContextManager[Any]:
    """implicit's own threads and those of BLAS get in each other's way."""
    limits: AbstractContextManager[Any] = _threadpools().limit(limits=1, user_api="blas")
    return limits


@functools.cache
def _threadpools() -> Any:
    """The thread pools of the loaded libraries; looking for them takes longer than scoring one user."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
