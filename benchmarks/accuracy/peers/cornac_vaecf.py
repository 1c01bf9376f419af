"""Seconds per epoch of Cornac's VAECF, 600-200-600. Runs in an environment with Cornac, not with recvae.

python cornac_vaecf.py MATRIX.npz BATCH EPOCHS
"""

import json
import sys
import time
from collections.abc import Iterator

from cornac.data import Dataset
from cornac.models import VAECF
from cornac.models.vaecf import vaecf
from scipy import sparse


class Epochs:
    """Stands in for Cornac's progress bar, and notes when each epoch ends."""

    def __init__(self, first: int, after_last: int, **_: object):
        self.epochs = range(first, after_last)

    def __iter__(self) -> Iterator[int]:
        for epoch in self.epochs:
            started = time.perf_counter()
            yield epoch
            SECONDS.append(time.perf_counter() - started)

    def set_postfix(self, **_: object) -> None:
        """Nothing to show."""


SECONDS: list[float] = []


def main() -> None:
    """Train, print the seconds of each epoch."""
    cells = sparse.load_npz(sys.argv[1]).tocoo()
    vaecf.trange = Epochs
    model = VAECF(
        k=200, autoencoder_structure=[600], likelihood="mult", n_epochs=int(sys.argv[3]), batch_size=int(sys.argv[2])
    )
    model.fit(Dataset.from_uir(list(zip(cells.row, cells.col, cells.data, strict=True)), seed=0))
    print(json.dumps({"seconds": SECONDS}))


main()
