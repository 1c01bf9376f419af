"""Random numbers of users: functions of a key and of who the user is, whatever batch or process the user comes in.

So a run gives the same model however its batches are cut or shared out, and goes on after a stop as if there was none.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from recvae.data.batches import Batch

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
MIXERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
UNIT = 2.0**-24  # what numbers of 24 bits are multiplied with


def key_of(*parts: int) -> int:
    """One number of 64 bits from several, such as a seed, an epoch and what is to be drawn.

    Returns
    -------
    int
        0 to 2^64 - 1.

    References
    ----------
    SplitMix64 (Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators"), fed with the parts.
    """
    key = 0
    for part in parts:
        key = (key ^ (part & WORD)) + GOLDEN & WORD
        for shift, mixer in zip((30, 27), MIXERS, strict=True):
            key = (key ^ key >> shift) * mixer & WORD
        key ^= key >> 31
    return key


class Noise:
    """Noise for the users of a batch. Each draw is another, and the same again from the same key in the same order.

    Parameters
    ----------
    key : int
        64 bits, of the seed, the epoch and the pass.
    users : Tensor
        (B,) integers that say who is who: rows of the training matrix.
    """

    def __init__(self, key: int, users: Tensor):
        self._key, self._users, self._draws = key, users.long(), 0

    @classmethod
    def of(cls, key: int, batch: Batch) -> Noise:
        """For the users that a batch names, or for those at its places where it names none."""
        users = batch.users
        return cls(key, torch.arange(len(batch), device=batch.offsets.device) if users is None else users)

    def normal(self, width: int) -> Tensor:
        """Standard normal numbers (Box & Muller 1958). -> (B, width) float32"""
        pairs = torch.arange(-(-width // 2), device=self._users.device)
        bits = _mixed(self._streams()[:, None] + pairs * _signed(GOLDEN))  # (B, pairs)
        radius = ((bits & 0xFFFFFF).float().add_(0.5).mul_(UNIT)).log_().mul_(-2).sqrt_()
        angle = (bits >> 32 & 0xFFFFFF).float().mul_(2 * math.pi * UNIT)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :width]

    def kept(self, batch: Batch, rate: float) -> Tensor:
        """Which events are kept where each is dropped with probability `rate`. -> (E,) of 0 and 1, float32"""
        bits = _mixed((batch.items.long() * _signed(GOLDEN)).add_(self._streams()[batch.rows]))
        return ((bits & 0xFFFFFF).float().mul_(UNIT) >= rate).float()

    def _streams(self) -> Tensor:
        """A number for each user, from which all of one draw are made. -> (B,)"""
        self._draws += 1
        return _mixed(self._users * _signed(GOLDEN) + _signed(key_of(self._key, self._draws)))


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's mixing of 64-bit numbers, in their place; their sign is a bit like any other."""
    for shift, mixer in zip((30, 27), MIXERS, strict=True):
        x.bitwise_xor_((x >> shift).bitwise_and_((1 << 64 - shift) - 1)).mul_(_signed(mixer))
    return x.bitwise_xor_((x >> 31).bitwise_and_((1 << 33) - 1))


def _signed(word: int) -> int:
    """The same 64 bits as a torch tensor has them."""
    return int(np.uint64(word).astype(np.int64))
