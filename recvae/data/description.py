"""Text summary of interactions, to check that data were read as intended."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.events import Account
from recvae.data.tables.frames import DATES


def describe(
    matrix: sparse.csr_matrix, values: str, times: sparse.csr_matrix | None, account: Account | None = None
) -> str:
    """Summary text: sizes, density, quantiles of activity, popularity and values, times, account, likely mistakes."""
    n_users, n_items = matrix.shape
    quantiles = "   ".join(f"{name:>7}" for name in ("min", "10 %", "median", "90 %", "max"))
    lines = [
        f"{n_users:,} users x {n_items:,} items, {matrix.nnz:,} events ({matrix.nnz / (n_users * n_items):.3%} of "
        f"all pairs)",
        f"{'':>16} {quantiles}",
    ]
    counts = {
        "events per user": np.diff(matrix.indptr),
        "events per item": np.bincount(matrix.indices, minlength=n_items),
        "value": matrix.data,
    }
    for name, column in counts.items():
        five = np.quantile(column, [0, 0.1, 0.5, 0.9, 1])
        lines.append(f"{name:>16} {'   '.join(f'{round(float(number), 2):>7,g}' for number in five)}")
    lines.append(f"values are read as {values}")
    if times is not None:
        lines.append(_times(times.data))
    if account is not None:
        lines.append(str(account))
    if n_items > 50 * n_users:
        lines.append(
            f"There are {n_items / n_users:,.0f} times as many items as users: are the rows the items? "
            f"Then exchange user and item, or transpose the matrix."
        )
    return "\n".join(lines)


def _times(times: NDArray[np.float64]) -> str:
    known = times[times != 0]
    unknown = "" if len(known) == len(times) else f"; {len(times) - len(known):,} events have no time"
    if not len(known):
        return "times: none is known"
    first, last = float(known.min()), float(known.max())
    if DATES[0] < first and last < DATES[1]:
        ends = [datetime.fromtimestamp(time, UTC).date().isoformat() for time in (first, last)]
    else:
        ends = [f"{time:,g}" for time in (first, last)]
    return f"times from {ends[0]} to {ends[1]}{unknown}"
