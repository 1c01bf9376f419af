"""Ragged batches of users, gathered from a CSR matrix on the device, so that no dense users x items input is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor


def shuffle(n: int, key: int, stream: int) -> NDArray[np.int64]:
    """Random permutation of n: the order of 64-bit draws of Philox, whose stream numpy keeps stable over versions."""
    bits = np.random.Philox(key=np.array([key, stream], dtype=np.uint64)).random_raw(n)
    return np.argsort(bits, kind="stable")


class Negatives(NamedTuple):
    """Sampled negatives: sum_c weights[c] f(items[c]), over the sampled items that the user does not have, is an
    unbiased estimate of the sum of f over all items that the user does not have."""

    items: Tensor  # (C,) int64, ascending, distinct
    weights: Tensor  # (C,) float32, above 0


@dataclass(frozen=True)
class Batch:
    """Events of B users, one user after the other: user b has items[offsets[b] : offsets[b + 1]].

    Attributes
    ----------
    items : Tensor
        (E,) integers, the column of each event.
    values : Tensor
        (E,) float32.
    offsets : Tensor
        (B + 1,) int64.
    bounds : numpy.ndarray or None
        The offsets on the host, if they are known there.
    users : Tensor or None
        (B,) int64, the rows that the batch was gathered from.
    negatives : Negatives or None
        Sampled items, for a sampled likelihood.
    """

    items: Tensor  # (E,) integers, column of each event
    values: Tensor  # (E,) float32
    offsets: Tensor  # (B + 1,) int64
    bounds: NDArray[np.int64] | None = None  # copy of the offsets on the host, if known
    users: Tensor | None = None  # (B,) int64, rows in the source of the batch
    negatives: Negatives | None = None  # sampled items, for a sampled likelihood

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def rows(self) -> Tensor:
        """Row of each event, computed once. -> (E,) int64"""
        if "_rows" not in self.__dict__:
            lengths = self.offsets.diff()
            users = torch.arange(len(self), device=lengths.device)
            self.__dict__["_rows"] = torch.repeat_interleave(users, lengths, output_size=len(self.items))
        rows: Tensor = self.__dict__["_rows"]
        return rows

    def events(self, rows: slice) -> slice:
        """Slice of the events of a slice of rows. Without `bounds`, this synchronises with the device."""
        bounds = self.offsets if self.bounds is None else self.bounds
        return slice(int(bounds[rows.start]), int(bounds[rows.stop]))

    def part(self, rows: slice) -> Batch:
        """The users of a slice, as a batch."""
        if rows == slice(0, len(self)):
            return self
        events, ends = self.events(rows), slice(rows.start, rows.stop + 1)
        offsets, bounds = self.offsets[ends], None if self.bounds is None else self.bounds[ends]
        return replace(
            self,
            items=self.items[events],
            values=self.values[events],
            offsets=offsets - offsets[0],
            bounds=None if bounds is None else bounds - bounds[0],
            users=None if self.users is None else self.users[rows],
        )

    def sum(self, events: Tensor) -> Tensor:
        """Sum a value per event (E,) by user. -> (B,)"""
        return events.new_zeros(len(self)).index_add_(0, self.rows, events)


class RowSource(Protocol):
    """Protocol of training data: rows (U, I), in memory or on disk, as ragged batches on a device."""

    def __len__(self) -> int: ...

    def batches_of(self, key: int, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Batches of one pass over all rows, in an order that depends on `key` only; starts at batch `start`."""
        ...

    def batches(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        """The given rows, in that order, in batches; the last one may be smaller."""
        ...


class DeviceRows:
    """Rows of a CSR matrix, copied to a device once, and ragged batches of them.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix
        (U, I). Columns are stored as int32; the row offsets are kept on the host, too.
    device : torch.device
        Device of the rows and of the batches.
    """

    def __init__(self, matrix: sparse.csr_matrix, device: torch.device):
        self.device, self.indptr = device, matrix.indptr.astype(np.int64)
        self.starts = torch.from_numpy(self.indptr).to(device)
        self.items = torch.from_numpy(matrix.indices.astype(np.int32)).to(device)
        self.values = torch.from_numpy(matrix.data.astype(np.float32)).to(device)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def all(self) -> Batch:
        """All rows as one batch."""
        users = torch.arange(len(self), device=self.starts.device)
        return Batch(self.items, self.values, self.starts, self.indptr, users)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        """The given rows, in that order, in batches; the last one may be smaller.

        The numbers of events of all batches are computed on the host before the first batch, so that no batch
        synchronises with the device.
        """
        on_host = order.cpu().numpy()
        bounds = np.concatenate([[0], np.cumsum(self.indptr[on_host + 1] - self.indptr[on_host])])
        offsets = torch.from_numpy(bounds).to(self.starts.device)
        order = order.to(self.starts.device)
        for start in range(0, len(order), batch_size):
            span = slice(start, start + batch_size + 1)
            yield self._gather(order[span][:batch_size], offsets[span] - offsets[start], bounds[span] - bounds[start])

    def batches_of(self, key: int, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """All rows once in batches, in the order of `key`, from 0 to 2^64 - 1; from the batch `start` on.

        The order is that of the 64-bit numbers which numpy's Philox draws by (key, 1).
        """
        order = torch.from_numpy(shuffle(len(self), key, 1))
        return self.batches(order[start * batch_size :], batch_size)

    def _gather(self, order: Tensor, offsets: Tensor, bounds: NDArray[np.int64]) -> Batch:
        total = int(bounds[-1])
        # event e of the batch is event e - offsets[b] + starts[b] of the matrix
        shift = torch.repeat_interleave(self.starts[order] - offsets[:-1], offsets.diff(), output_size=total)
        events = torch.arange(total, device=shift.device) + shift
        return Batch(self.items[events], self.values[events], offsets, bounds, order)
