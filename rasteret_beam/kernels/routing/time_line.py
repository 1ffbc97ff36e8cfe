"""The layers of some bands, by grid and in time: which come before, and which after, a moment."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.layers import NO_DATETIME, Hits
from rasteret_beam.model import MatchRules

LONGEST = 1 << 61
"""Microseconds; a longer tolerance is as good as this one."""

Taken = tuple[Ints, Ints]
"""Positions of hits, and the place on a time line that each of them has."""


@dataclass(frozen=True, eq=False)
class TimeLine:
    """Layers by grid, then datetime, then collection order, as columns; a place is a position in them.

    Attributes
    ----------
    record, moment : [n] int64
        Records, and their datetimes.
    starts : [g + 1] int64
        First place of each grid; those of a grid end where those of the next one begin.
    back : [n] int64
        The place that comes next on the way back in time: its steps go to earlier moments, and through records of one
        moment in collection order.
    """

    record: Ints
    moment: Ints
    starts: Ints
    back: Ints
    _moments: Ints
    _keys: Ints

    @classmethod
    def of_layers(cls, record: Ints, grid: Ints, datetimes: Ints, grid_count: int) -> "TimeLine":
        """From layers in any order, given by their records and grids."""
        order = np.lexsort((record, datetimes[record], grid))
        record, grid = record[order], grid[order]
        moments, number = np.unique(datetimes[record], return_inverse=True)
        keys = grid * (len(moments) + 1) + number
        first, last = np.searchsorted(keys, keys, "left"), np.searchsorted(keys, keys, "right") - 1
        starts = np.searchsorted(grid, np.arange(grid_count + 1))
        return cls(record, datetimes[record], starts, first + last - np.arange(len(record)), moments, keys)

    def __len__(self) -> int:
        return len(self.record)

    @property
    def longest(self) -> int:
        """The most layers of a grid."""
        return int(np.diff(self.starts).max(initial=0))

    def first_not_before(self, grid: Ints, times: Ints) -> Ints:
        """First place on a grid, [n], at or after a time; past those of the grid where there is none."""
        return self._place(grid, np.searchsorted(self._moments, times, "left"))

    def first_after(self, grid: Ints, times: Ints) -> Ints:
        """First place on a grid, [n], after a time; past those of the grid where there is none."""
        return self._place(grid, np.searchsorted(self._moments, times, "right"))

    def _place(self, grid: Ints, number: Ints) -> Ints:
        return np.searchsorted(self._keys, grid * (len(self._moments) + 1) + number)

    def on_grid(self, number: int) -> Ints:
        """The records on a grid."""
        return self.record[self.starts[number] : self.starts[number + 1]]

    def has_close(self, apart: int) -> NDArray[np.bool_]:
        """[g]: whether a grid has two records at most so many microseconds apart."""
        grid = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        found = np.zeros(len(self.starts) - 1, dtype=bool)
        found[grid[1:][one_moment(grid, self.moment, apart)]] = True
        return found


@dataclass(frozen=True, eq=False)
class InTime:
    """Which records on a time line are in time at points."""

    line: TimeLine
    rules: MatchRules

    @cached_property
    def tolerance(self) -> int | None:
        return None if self.rules.tolerance is None else min(self.rules.tolerance, LONGEST)

    def range(self, hits: Hits, times: Ints) -> tuple[Ints, Ints]:
        """First and last place (excluded), [n] each, of the records in time of each hit."""
        grid, at = hits.grid, times[hits.point]
        low, high = self.line.starts[grid], self.line.starts[grid + 1]
        if self.tolerance is not None:
            low = self.line.first_not_before(grid, at - self.tolerance)
            high = self.line.first_after(grid, at + self.tolerance)
        if self.rules.match == "before":
            high = self.line.first_after(grid, at)
        elif self.rules.match == "after":
            low = self.line.first_not_before(grid, at)
        return low, high

    def suits(self, difference: Ints) -> NDArray[np.bool_]:
        """Whether records are in time, [n], given how much later than the points they are."""
        suits = np.full(len(difference), True)
        if self.tolerance is not None:
            suits &= np.abs(difference) <= self.tolerance
        if self.rules.match == "before":
            suits &= difference <= 0
        elif self.rules.match == "after":
            suits &= difference >= 0
        return suits


def one_moment(group: Ints, moment: Ints, apart: int) -> NDArray[np.bool_]:
    """[n - 1]: whether a row is of the group and of the moment of the row before it, of rows sorted by both.

    Rows without a datetime are of no other's moment.
    """
    same = (group[1:] == group[:-1]) & (moment[:-1] != NO_DATETIME)
    return same & (np.diff(moment) <= apart)


def ranges(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """Each position of [n] ranges with each number in its range."""
    counts = np.maximum(high - low, 0)
    at = np.repeat(np.arange(len(low)), counts)
    return at, np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts - low, counts)


def firsts(group: Ints) -> NDArray[np.bool_]:
    """Whether a row is the first of its group, of rows sorted by group."""
    return np.concatenate([[True], group[1:] != group[:-1]])[: len(group)]
