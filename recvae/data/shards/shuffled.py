"""Shards in a random order for training: each user once in a pass, in bounded memory, the same again for the same key.

The shards are shuffled, and read a window of several at a time; the users of a window are shuffled. So users who lie in
one shard come in one window, and where a window holds all shards the order is that of a shuffle of all users.
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
    """Users in the order in which they are trained on, as a batch has them, in memory."""

    users: NDArray[np.int64]  # their rows in the shards
    bounds: NDArray[np.int64]  # (users + 1,), where their events begin
    items: NDArray[np.int32]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.users)

    def part(self, start: int, stop: int) -> Window:
        """The users from `start` on, before `stop`, over the same memory."""
        events = slice(self.bounds[start], self.bounds[stop])
        bounds = self.bounds[start : stop + 1] - self.bounds[start]
        return Window(self.users[start:stop], bounds, self.items[events], self.values[events])

    def batch(self, device: torch.device) -> Batch:
        """The same on a device."""
        users, offsets, items, values = (
            torch.from_numpy(array).to(device) for array in (self.users, self.bounds, self.items, self.values)
        )
        return Batch(items, values, offsets, self.bounds, users)


class ShuffledRows:
    """The rows (U, I) of shards as `DeviceRows` gives those of a matrix: ragged batches on a device.

    Parameters
    ----------
    window_bytes : int
        How many bytes of events a window has, at 8 bytes an event; no shard is cut. Two windows are in memory at a
        time: that which is trained on, and the next, which a thread reads meanwhile.
    scale : float
        What values are multiplied with, after they were read as `shards.values` says.

    Notes
    -----
    Keys are integers from 0 to 2^64 - 1. The order of the shards is that of the 64-bit numbers which numpy's
    Philox draws by (key, 0), and the order of the users in window w, from 0, that of those by (key, w + 1): so it
    depends on the key, the shards and `window_bytes`, and on nothing else.
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
        """The rows of all users in the order of a pass, a window at a time; no shard is read for it."""
        check_integer("key", key, 0, KEYS - 1)
        return (self._users(key, number, chosen)[0] for number, chosen in enumerate(self._windows(key)))

    def batches_of(self, key: int, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """A pass in the order of `key`: batches of `batch_size` users, across the borders of windows, the last fewer.

        Parameters
        ----------
        start : int
            How many batches to leave out at the beginning; windows that are left out whole are not read.

        Raises
        ------
        InvalidDataError
            Where a shard is not as it was written.
        """
        check_integer("key", key, 0, KEYS - 1)
        check_integer("batch_size", batch_size, 1)
        held: list[Window] = []  # users of windows before, fewer than a batch
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
            # copied, so that the window can go
            held = [_joined([window.part(last, len(window))])] if last < len(window) else []
        if held:
            yield _joined(held).batch(self.device)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        """These rows, in that order, in batches, the last one smaller. Quick where neighbours come together."""
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
        """The shards of each window, in their order."""
        order = shuffle(len(self.shards.shard_files), key, 0)
        sizes = BYTES_OF_AN_EVENT * np.array([piece.events for piece in self.shards.shard_files])[order]
        return np.split(order, cut(sizes, len(order), self._window_bytes)[1:-1])

    def _users(self, key: int, number: int, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of the users of a window of such shards, in order; and their positions before they were shuffled."""
        rows = np.concatenate([np.arange(*self.shards.bounds[shard : shard + 2]) for shard in chosen])
        order = shuffle(len(rows), key, number + 1)
        return rows[order], order

    def _read_ahead(self, key: int, left_out: int) -> Iterator[Window]:
        """The windows of a pass without its first users; a thread reads the next one meanwhile."""
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
        """Put the events of each shard where the order has them. What is read is as much as is kept."""
        users, order = self._users(key, number, chosen)
        lengths = np.concatenate([self.shards.lengths(int(shard)) for shard in chosen])
        bounds = np.concatenate([[0], np.cumsum(lengths[order])])
        starts = np.empty_like(order)
        starts[order] = bounds[:-1]  # of each user as the shards have them
        items, values = np.empty(bounds[-1], np.int32), np.empty(bounds[-1], np.float32)
        user = 0
        for shard in chosen:  # of the shards, one at a time is in memory, next to the window
            rows = self.shards.stored(int(shard))
            targets = starts[user : user + len(rows)]
            events = np.arange(len(rows.items)) + np.repeat(targets - rows.indptr[:-1], rows.lengths)
            items[events] = rows.items
            values[events] = as_read(rows.data, self.shards.values) * self._scale
            user += len(rows)
        return Window(users, bounds, items, values)


def _joined(parts: list[Window]) -> Window:
    """Users of several, one after the other, as copies."""
    bounds = np.cumsum(np.concatenate([[0], *(np.diff(part.bounds) for part in parts)]))
    users, items, values = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("users", "items", "values")
    )
    return Window(users, bounds, items, values)
