"""Counter-based random numbers: functions of a key and of the index of the user, in any batch and in any process.

So a run gives the same model however its batches are split, or over how many processes, and resumes exactly:
there is no generator state to save. Initial weights, too, are functions of a seed, a parameter's name and a row.
"""

from __future__ import annotations

import math
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from recvae.data.batches import Batch

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
MIXERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
UNIT = 2.0**-24  # scales an integer of 24 bits to [0, 1)
DRAWN_ROWS = 4096  # rows of a parameter that are drawn from one stream


def fold_in(*parts: int) -> int:
    """Fold integers, such as a seed, an epoch and a purpose, into one key of 64 bits.

    Returns
    -------
    int
        From 0 to 2^64 - 1.

    References
    ----------
    SplitMix64 (Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators"), fed the parts in turn.
    """
    key = 0
    for part in parts:
        key = (key ^ (part & WORD)) + GOLDEN & WORD
        for shift, mixer in zip((30, 27), MIXERS, strict=True):
            key = (key ^ key >> shift) * mixer & WORD
        key ^= key >> 31
    return key


class CounterRNG:
    """Random numbers for the users of a batch. Every call is a new draw; the same key gives the same sequence of draws.

    Parameters
    ----------
    key : int
        64 bits, from `fold_in` of the seed, the epoch and the pass.
    users : Tensor
        (B,) integers that identify users: their row numbers in the training matrix.
    """

    def __init__(self, key: int, users: Tensor):
        self._key, self._users, self._draws = key, users.long(), 0

    @classmethod
    def for_batch(cls, key: int, batch: Batch) -> CounterRNG:
        """For `batch.users`; if that is None, users are identified by their position in the batch."""
        users = batch.users
        return cls(key, torch.arange(len(batch), device=batch.offsets.device) if users is None else users)

    def of(self, rows: slice) -> CounterRNG:
        """The same sequence of draws, from the next one on, for some of the users."""
        part = CounterRNG(self._key, self._users[rows])
        part._draws = self._draws
        return part

    def next_draw(self) -> CounterRNG:
        """The next draw, to be made in pieces of the users; it is used up here."""
        draw = CounterRNG(self._key, self._users)
        draw._draws = self._draws
        self._draws += 1
        return draw

    def normal(self, width: int) -> Tensor:
        """Standard normal numbers (Box & Muller 1958). -> (B, width) float32"""
        pairs = torch.arange(-(-width // 2), device=self._users.device)
        bits = _mix(self._streams()[:, None] + pairs * _signed(GOLDEN))  # (B, pairs)
        radius = ((bits & 0xFFFFFF).float().add_(0.5).mul_(UNIT)).log_().mul_(-2).sqrt_()
        angle = (bits >> 32 & 0xFFFFFF).float().mul_(2 * math.pi * UNIT)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :width]

    def keep_mask(self, batch: Batch, rate: float) -> Tensor:
        """A mask of the events to keep if each is dropped with probability `rate`. -> (E,) of 0 and 1, float32"""
        bits = _mix((batch.items.long() * _signed(GOLDEN)).add_(self._streams()[batch.rows]))
        return ((bits & 0xFFFFFF).float().mul_(UNIT) >= rate).float()

    def _streams(self) -> Tensor:
        """The random key of each user for one draw. -> (B,)"""
        self._draws += 1
        return _mix(self._users * _signed(GOLDEN) + _signed(fold_in(self._key, self._draws)))


def _mix(x: Tensor) -> Tensor:
    """The SplitMix64 mix of 64-bit integers, in place; the sign bit is mixed like the others."""
    for shift, mixer in zip((30, 27), MIXERS, strict=True):
        x.bitwise_xor_((x >> shift).bitwise_and_((1 << 64 - shift) - 1)).mul_(_signed(mixer))
    return x.bitwise_xor_((x >> 31).bitwise_and_((1 << 33) - 1))


def _signed(word: int) -> int:
    """The same 64 bits as a signed integer, as torch.int64 stores them."""
    return int(np.uint64(word).astype(np.int64))


def standard_normals(generator: np.random.Generator, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Standard normal numbers from numpy: the same on any device, and the same if rows are drawn in blocks."""
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32)).to(device)


def initialize(network: nn.Module, seed: int, only_missing: bool = False) -> None:
    """Initialise with Xavier-uniform weights, biases from N(0, .001^2), and LayerNorm scales of 1.

    Parameters
    ----------
    network
        Its parameters are overwritten; the values of each depend only on the seed and its name.
    seed
        From 0 to 2^64 - 1.
    only_missing
        Skip parameters that are initialised already: those of the layers of recvae.nn are NaN before.

    References
    ----------
    Liang et al. 2018, as in the authors' code.
    """
    for name, parameter in network.named_parameters():
        if not only_missing or bool(parameter.detach().flatten()[:1].isnan().any()):
            initialize_rows(parameter, seed, name, tuple(parameter.shape))


@torch.no_grad()
def initialize_rows(rows: Tensor, seed: int, name: str, shape: tuple[int, ...], start: int = 0) -> None:
    """Initialise the rows from `start` on of the parameter with that name and full `shape`, as `initialize` does.

    The values of a row depend on the seed, the name and its index, not on the rank that holds it.
    """
    key = np.array([seed, crc32(name.encode())], dtype=np.uint64)
    bound = math.sqrt(6 / sum(shape))
    if len(shape) == 1 and not name.endswith("bias"):
        rows.fill_(1)
        return
    for block in range(start // DRAWN_ROWS, -(-(start + len(rows)) // DRAWN_ROWS)):
        first = block * DRAWN_ROWS
        random = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, block]))
        size = (min(DRAWN_ROWS, shape[0] - first), *shape[1:])
        drawn = random.standard_normal(size, np.float32) if len(shape) == 1 else random.random(size, np.float32)
        drawn = drawn * np.float32(0.001) if len(shape) == 1 else (2 * drawn - 1) * np.float32(bound)
        block_rows = slice(max(start, first), min(start + len(rows), first + DRAWN_ROWS))
        drawn = drawn[block_rows.start - first : block_rows.stop - first]
        rows[block_rows.start - start : block_rows.stop - start] = torch.from_numpy(drawn)
