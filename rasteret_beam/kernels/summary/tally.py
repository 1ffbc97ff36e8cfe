"""Sums by whole-number keys, whose number is bounded: where there are too many, neighbouring keys become one.

A level of detail leaves out one more bit of the keys. A tally has the finest level at which its keys are not more than
its limit. That depends on what is counted alone, so the order of adding and merging makes no difference.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]

KEY_BITS = 63


def level_of(ordered: Ints, limit: int, least: int = 0) -> int:
    """The finest level, from ``least`` on, at which sorted keys become at most ``limit`` different ones."""
    apart = (ordered[1:] ^ ordered[:-1]).view(np.uint64)
    low, high = least - 1, KEY_BITS
    while high - low > 1:
        middle = (low + high) // 2
        if np.count_nonzero(apart >> np.uint64(middle)) < limit:
            high = middle
        else:
            low = middle
    return high


def summed(ordered: Ints, sums: Floats) -> tuple[Ints, Floats]:
    """The different ones of sorted keys [n], n > 0, and the sums [k, m] of each."""
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    if len(starts) == len(ordered):
        return ordered, sums
    return ordered[starts], np.add.reduceat(sums, starts, axis=0)


@dataclass
class Tally:
    """Sums [k, m] by keys [k], which are sorted.

    Attributes
    ----------
    width : int
        m: how many numbers are added up for each key.
    limit : int
        Keys at most.
    level : int
        Of detail; 0 is the finest.
    """

    width: int
    limit: int = 4096
    level: int = 0
    keys: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    sums: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.sums = np.empty((0, self.width))

    def add(self, keys: Ints, sums: Floats, level: int) -> None:
        """Add sums [n, m] by keys [n] of the level of the tally or of a finer one, sorted; a key may be repeated."""
        if not len(keys):
            return
        keys, sums = summed(keys >> (self.level - level), sums)
        at = np.searchsorted(self.keys, keys)
        known = at < len(self.keys)
        known[known] = self.keys[at[known]] == keys[known]
        self.sums[at[known]] += sums[known]
        new = ~known
        if new.any():
            self.keys = np.insert(self.keys, at[new], keys[new])
            self.sums = np.insert(self.sums, at[new], sums[new], axis=0)
            self.keep_to(self.limit)

    def merge(self, other: "Tally") -> None:
        """Add another tally."""
        self.coarsen(other.level)
        self.add(other.keys, other.sums, other.level)

    def keep_to(self, limit: int) -> None:
        """Lower the limit, if need be the level of detail."""
        self.limit = min(self.limit, limit)
        if len(self.keys) > self.limit:
            self.coarsen(self.level + level_of(self.keys, self.limit))

    def coarsen(self, level: int) -> None:
        """Go on to a level, unless it is reached."""
        if level > self.level:
            if len(self.keys):
                self.keys, self.sums = summed(self.keys >> (level - self.level), self.sums)
            self.level = level
