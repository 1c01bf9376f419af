"""What a network is trained on: rows in memory, or shards on disk, as batches on a device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.batches import DeviceRows, RowSource
from recvae.data.shards import Shards, ShuffledRows


def on_device(rows: sparse.csr_matrix | Shards, device: torch.device) -> RowSource:
    """Rows in which an event weighs 1 in the mean: with counts, the likelihood would else outgrow the KL term.

    The encoder reads rows at unit norm, so that in scoring nothing has to be divided.
    """
    if isinstance(rows, Shards):
        return ShuffledRows(rows, device, scale=1 / rows.mean_value())
    return DeviceRows(rows * np.float32(1 / rows.data.mean(dtype=np.float64)), device)


def item_counts(rows: sparse.csr_matrix | Shards) -> NDArray[np.int64]:
    """How many users have each item. -> (I,)"""
    return rows.item_counts if isinstance(rows, Shards) else np.bincount(rows.indices, minlength=rows.shape[1])
