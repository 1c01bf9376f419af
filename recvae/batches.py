"""A CSR matrix that lives on the device, and ragged batches gathered from it: no dense users x items input anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Events of B users, one after the other: user b has items[offsets[b] : offsets[b + 1]]."""

    items: Tensor  # (E,) int64, column of each event
    values: Tensor  # (E,) float32
    offsets: Tensor  # (B + 1,) int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def rows(self) -> Tensor:
        """Row of each event. -> (E,)"""
        lengths = self.offsets.diff()
        return torch.repeat_interleave(torch.arange(len(self), device=lengths.device), lengths)

    def sum(self, events: Tensor) -> Tensor:
        """Sum of one number for each event (E,) by user. -> (B,)"""
        return events.new_zeros(len(self)).index_add_(0, self.rows, events)


class DeviceRows:
    """Rows (U, I) of a CSR matrix, moved to `device` once."""

    def __init__(self, matrix: sparse.csr_matrix, device: torch.device):
        self.indptr = torch.from_numpy(matrix.indptr.astype(np.int64)).to(device)
        self.items = torch.from_numpy(matrix.indices.astype(np.int64)).to(device)
        self.values = torch.from_numpy(matrix.data.astype(np.float32)).to(device)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def all(self) -> Batch:
        """All rows as one batch."""
        return Batch(self.items, self.values, self.indptr)

    def gather(self, rows: Tensor) -> Batch:
        """The given rows (B,), in that order."""
        starts = self.indptr[rows]
        lengths = self.indptr[rows + 1] - starts
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        total = int(offsets[-1])
        # event e of the batch is event e - offsets[b] + starts[b] of the matrix
        shift = torch.repeat_interleave(starts - offsets[:-1], lengths, output_size=total)
        events = torch.arange(total, device=shift.device) + shift
        return Batch(self.items[events], self.values[events], offsets)

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """All rows once, in a random order, in batches; the last one may be smaller."""
        order = torch.randperm(len(self), generator=generator, device=generator.device).to(self.indptr.device)
        for rows in order.split(batch_size):
            yield self.gather(rows)
