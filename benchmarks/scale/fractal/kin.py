"""Who is like whom among real users, or items: who may stand in another's place in a block of an expansion.

A block that shuffled all its users would give everybody the same activity in the sum over blocks, and no taste; one
that shuffled nobody would be a plain copy. So users are shuffled among their kin: small groups of like activity and
like taste.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = 8  # of a group, at most
TASTES = 4  # singular vectors that are looked at, after the first


@dataclass(frozen=True)
class Kin:
    """Groups of n things, and the places that each group has in every block.

    members : the things, group after group
    groups : the group of each member, ascending
    places : those of the groups, in the order of members; which group has which follows from the seed alone
    """

    members: NDArray[np.int64]
    groups: NDArray[np.int64]
    places: NDArray[np.int64]

    def shuffled(self, random: np.random.Generator) -> NDArray[np.int64]:
        """The place of each thing in a block: one of its group's. -> (n,)"""
        order = np.argsort(self.groups + random.random(len(self.groups)))
        return self._placed(self.members[order])

    def fixed(self) -> NDArray[np.int64]:
        """The same, unshuffled."""
        return self._placed(self.members)

    def chances_below(self, n: int) -> NDArray[np.float64]:
        """How probably each thing has one of the first n places. -> (n,)"""
        shares = np.bincount(self.groups, self.places < n) / np.bincount(self.groups)
        found = np.empty(len(self.members))
        found[self.members] = shares[self.groups]
        return found

    def _placed(self, things: NDArray[np.int64]) -> NDArray[np.int64]:
        found = np.empty_like(things)
        found[things] = self.places
        return found


def find_kin(counts: NDArray[np.int64], vectors: NDArray[np.float64], random: np.random.Generator) -> Kin:
    """Halve by the number of events, halve each half by a taste, and so on in turns, until groups are small.

    counts : events of each thing (n,)
    vectors : its singular vectors (n, K), that of the largest singular value first
    """
    n = len(counts)
    tastes = vectors[:, 1 : 1 + TASTES].T
    groups = np.zeros(n, dtype=np.int64)
    order = np.arange(n)
    for level in range(max(0, int(np.ceil(np.log2(n / SIZE))))):
        turn = level // 2 % max(1, len(tastes))
        by = tastes[turn] if level % 2 and len(tastes) else counts
        order = np.lexsort((by, groups))
        groups[order] = np.arange(n) * 2 ** (level + 1) // n
    order = np.argsort(groups, kind="stable")
    return Kin(order, groups[order], random.permutation(n))
