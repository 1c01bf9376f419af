"""Shuffled passes over shards for training, in bounded memory; the order is reproducible from a key.

The order of the shards is shuffled; they are read in windows of several shards, and the users of each window are
shuffled. So users of one shard are in the same window; if a window holds all shards, all users are shuffled.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recvae.data.batches import Batch, shuffle
from recvae.data.rows import as_read
from recvae.data.shards.cells import cut
from recvae.data.shards.read import Shards
from recvae.utils.checks import check_integer
from recvae.utils.memory import require_memory

WINDOW_BYTES = 1 << 28
BYTES_OF_AN_EVENT = 8  # int32 and float32
KEYS = 1 << 64


@dataclass(frozen=True)
class Window:
    """A window of users in training order, as arrays of a batch on the host."""

    users: NDArray[np.int64]  # rows in the shards
    bounds: NDArray[np.int64]  # (users + 1,) offsets of their events
    items: NDArray[np.int32]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.users)

    def part(self, start: int, stop: int) -> Window:
        """The users [start, stop), sharing memory."""
        events = slice(self.bounds[start], self.bounds[stop])
        bounds = self.bounds[start : stop + 1] - self.bounds[start]
        return Window(self.users[start:stop], bounds, self.items[events], self.values[events])

    def batch(self, device: torch.device) -> Batch:
        """Copy the users to a device, as one batch."""
        users, offsets, items, values = (
            torch.from_numpy(array).to(device) for array in (self.users, self.bounds, self.items, self.values)
        )
        return Batch(items, values, offsets, self.bounds, users)


class ShuffledRows:
    """Rows (U, I) of shards as ragged batches on a device, with the interface of `DeviceRows`.

    Parameters
    ----------
    window_bytes : int
        Bytes of events in a window, at 8 bytes per event; shards are not split. Two windows are in memory at a time:
        the current one, and the next, which a thread reads ahead.
    scale : float
        Factor of the values, after the transform `shards.values`.

    Notes
    -----
    Keys are integers from 0 to 2^64 - 1. Shards are sorted by 64-bit draws of numpy's Philox with key
    (key, 0), the users of window w = 0, 1, ... by those with key (key, w + 1): the order depends only on the key, the
    shards and `window_bytes`.
    """

    def __init__(
        self,
        shards: Shards,
        device: torch.device | str = "cpu",
        *,
        window_bytes: int = WINDOW_BYTES,
        scale: float = 1.0,
    ):
        self._window_bytes = check_integer("window_bytes", window_bytes, 1)
        self.shards, self.device, self._scale = shards, torch.device(device), np.float32(scale)

    def __len__(self) -> int:
        return self.shards.n_users

    def order(self, key: int) -> Iterator[NDArray[np.int64]]:
        """Rows of all users in the order of a pass, one array per window; reads no shard."""
        check_integer("key", key, 0, KEYS - 1)
        return (self._users(key, number, chosen)[0] for number, chosen in enumerate(self._windows(key)))

    def batches_of(self, key: int, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Batches of a pass in the order of `key`: `batch_size` users each, across windows; the last may be smaller.

        Parameters
        ----------
        start : int
            Number of batches to skip at the beginning; windows that are skipped entirely are not read.

        Raises
        ------
        InvalidDataError
            If the content of a shard has changed.
        """
        check_integer("key", key, 0, KEYS - 1)
        check_integer("batch_size", batch_size, 1)
        held: list[Window] = []  # remaining users of previous windows, fewer than a batch
        for window in self._read_ahead(key, start * batch_size):
            missing = batch_size - sum(map(len, held))
            if len(window) < missing:
                held.append(window)
                continue
            first = missing if held else 0
            if held:
                yield _joined([*held, window.part(0, first)]).batch(self.device)
            last = first + (len(window) - first) // batch_size * batch_size
            for start in range(first, last, batch_size):
                yield window.part(start, start + batch_size).batch(self.device)
            # a copy, so that the memory of the window can be freed
            held = [_joined([window.part(last, len(window))])] if last < len(window) else []
        if held:
            yield _joined(held).batch(self.device)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        """Batches of the given rows, in that order; the last may be smaller. Fast if a batch has rows of few shards."""
        users = order.cpu().numpy().astype(np.int64)
        for start in range(0, len(users), batch_size):
            some = users[start : start + batch_size]
            rows = self.shards.stored_rows(some)
            values = as_read(rows.data, self.shards.values) * self._scale
            yield Window(some, rows.indptr, rows.items, values).batch(self.device)

    def all(self) -> Batch:
        """All rows as one batch. Raises NotEnoughMemoryError."""
        require_memory(4 * BYTES_OF_AN_EVENT * self.shards.n_events, "all rows of the shards at once", "batches")
        return next(self.batches(torch.arange(len(self)), len(self)))

    def _windows(self, key: int) -> list[NDArray[np.int64]]:
        """Indices of the shards of each window, in order."""
        order = shuffle(len(self.shards.shard_files), key, 0)
        sizes = BYTES_OF_AN_EVENT * np.array([piece.events for piece in self.shards.shard_files])[order]
        return np.split(order, cut(sizes, len(order), self._window_bytes)[1:-1])

    def _users(self, key: int, number: int, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the users of a window with these shards, in training order; and the permutation that was applied."""
        rows = np.concatenate([np.arange(*self.shards.bounds[shard : shard + 2]) for shard in chosen])
        order = shuffle(len(rows), key, number + 1)
        return rows[order], order

    def _read_ahead(self, key: int, left_out: int) -> Iterator[Window]:
        """Windows of a pass after skipping its first `left_out` users; a thread reads the next window ahead."""
        windows = list(enumerate(self._windows(key)))
        while windows and left_out >= (n_users := sum(self.shards.shard_files[shard].rows for shard in windows[0][1])):
            left_out -= n_users
            windows.pop(0)
        if not windows:
            return
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._read, key, *windows[0])
            for following in [*windows[1:], None]:
                window = coming.result()
                if following is not None:
                    coming = reader.submit(self._read, key, *following)
                yield window.part(left_out, len(window))
                left_out = 0

    def _read(self, key: int, number: int, chosen: NDArray[np.int64]) -> Window:
        """Read a window: copy the events of each shard to their positions in the training order."""
        users, order = self._users(key, number, chosen)
        lengths = np.concatenate([self.shards.lengths(int(shard)) for shard in chosen])
        bounds = np.concatenate([[0], np.cumsum(lengths[order])])
        starts = np.empty_like(order)
        starts[order] = bounds[:-1]  # offset of each user, in the order of the shards
        items, values = np.empty(bounds[-1], np.int32), np.empty(bounds[-1], np.float32)
        user = 0
        for shard in chosen:  # one shard at a time is in memory, in addition to the window
            rows = self.shards.stored(int(shard))
            targets = starts[user : user + len(rows)]
            events = np.arange(len(rows.items)) + np.repeat(targets - rows.indptr[:-1], rows.lengths)
            items[events] = rows.items
            values[events] = as_read(rows.data, self.shards.values) * self._scale
            user += len(rows)
        return Window(users, bounds, items, values)


def _joined(parts: list[Window]) -> Window:
    """Concatenate the users of several windows, as a copy."""
    bounds = np.cumsum(np.concatenate([[0], *(np.diff(part.bounds) for part in parts)]))
    users, items, values = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("users", "items", "values")
    )
    return Window(users, bounds, items, values)
