"""Which items may be ranked: one mask for the rankers of torch and of numpy. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

PAD_ID = -1
PAD_SCORE = float(np.finfo(np.float32).min)  # -FLT_MAX, as implicit pads
Ranking = tuple[NDArray[np.int32], NDArray[np.float32]]


def _same(array: NDArray[Any]) -> Any:
    return array


class Allowed(NamedTuple):
    """The items that may be ranked; None where there is no restriction."""

    items: NDArray[np.bool_] | None = None  # (I,), for all users
    only: sparse.csr_matrix | None = None  # (U, I), the only items of each user
    never: sparse.csr_matrix | None = None  # (U, I), items excluded for each user
    seen: sparse.csr_matrix | None = None  # (U, I), nor these, which the user has seen; stored zeros count too
    limited: NDArray[np.bool_] | None = None  # (U,), the users whom `only` restricts; None for all
    repeatable: NDArray[np.bool_] | None = None  # (I,), items that are allowed although they are in the user's row

    def apply(
        self,
        scores: Any,
        users: slice,
        rows: sparse.csr_matrix | None = None,
        convert: Callable[[NDArray[Any]], Any] = _same,
    ) -> None:
        """Set the scores (B, I) of items that may not be ranked to -inf, for a block of `users`.

        Parameters
        ----------
        scores : Tensor or ndarray
            Contiguous.
        rows : csr_matrix, optional
            (B, I), items of the users themselves, which are excluded unless they are `repeatable`.
        convert : callable
            From an index array of numpy to one of the library of the scores.
        """
        flat = scores.reshape(-1)
        if self.only is not None:
            cells = convert(cells_of(self.only[users]))
            kept = flat[cells]  # a copy
            if self.limited is None:
                scores[:] = -np.inf
            else:
                scores[convert(np.flatnonzero(self.limited[users]))] = -np.inf
            flat[cells] = kept
        if self.items is not None:
            scores[:, convert(np.flatnonzero(~self.items))] = -np.inf
        if rows is not None:
            cells = cells_of(rows)
            if self.repeatable is not None:
                cells = cells[~self.repeatable[rows.indices]]
            flat[convert(cells)] = -np.inf
        for masked in (self.never, self.seen):
            if masked is not None:
                flat[convert(cells_of(masked[users]))] = -np.inf

    def take(self, users: NDArray[np.int64]) -> Allowed:
        """The same for some of the users."""
        parts = {name: getattr(self, name) for name in ("only", "never", "seen", "limited")}
        return self._replace(**{name: None if part is None else part[users] for name, part in parts.items()})


def cells_of(rows: Any) -> NDArray[np.int64]:
    """Indices of the stored entries in the flattened matrix."""
    first = np.arange(rows.shape[0], dtype=np.int64) * rows.shape[1]
    return np.repeat(first, np.diff(rows.indptr)) + rows.indices
