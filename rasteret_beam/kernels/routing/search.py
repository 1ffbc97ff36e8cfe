"""The search among records of the same bands: those in time at each point, ranked, and the best of them.

All is decided on arrays. The layers that a grid has lie sorted by datetime, so those around the time of a point are
found by bisection, and only as many are looked at as can be taken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.depth import GridDepth
from rasteret_beam.kernels.routing.layers import Hits
from rasteret_beam.kernels.routing.overlaps import Overlaps
from rasteret_beam.kernels.routing.time_line import InTime, Taken, TimeLine, ranges
from rasteret_beam.model import MatchRules

NEVER = np.iinfo(np.int64).max

MOST_CANDIDATES = 1 << 22
"""Records of all points that are compared at once, which bounds memory."""


@dataclass(frozen=True, eq=False)
class Search:
    """Of the records on a time line, those that are in time at points, and the best of them.

    Better is what is nearer in time, then of lower rank; without times, what is of lower rank.

    Attributes
    ----------
    line : TimeLine
    rules : MatchRules
        Which records are in time, and whether one is left of those of a moment.
    rank : [r] int64
        Of each record, all different.
    depth : GridDepth, optional
        Needed where one record is left of those of a moment.
    """

    line: TimeLine
    rules: MatchRules
    rank: Ints
    depth: GridDepth | None = None

    def taken(self, hits: Hits, points: int, times: Ints, most: int | None) -> Taken:
        """What is taken of the hits of so many points: at most ``most`` records of each.

        Places beyond the end of the line stand for all records on a grid.
        """
        return self._in_portions(hits, points, most, lambda rows: self._of_part(hits, rows, points, times, most))

    def best_first(self, hits: Hits, points: int, times: Ints, most: int | None) -> Taken:
        """The same, sorted by point and then the best first; no place stands for several records."""

        def of_part(rows: Ints) -> Taken:
            of_rows = hits.take(rows)
            if self.rules.overlap == "all":
                return self._back(rows, self._best(of_rows, self._near(of_rows, times, most), times, most))
            plain, rest = self._apart(of_rows, points)
            hit, place = self._near(of_rows.take(plain), times, most)
            other, other_place = self._overlaps.deepest(of_rows.take(rest), times, most)
            together = np.concatenate([plain[hit], rest[other]]), np.concatenate([place, other_place])
            return self._back(rows, self._best(of_rows, together, times, most))

        return self._in_portions(hits, points, most, of_part)

    def has_records(self, hits: Hits, points: int, times: Ints) -> NDArray[np.bool_]:
        """[points]: whether a record is in time at a point."""
        low, high = self._in_time.range(hits, times)
        found = np.zeros(points, dtype=bool)
        found[hits.point[low < high]] = True
        return found

    @staticmethod
    def _back(rows: Ints, taken: Taken) -> Taken:
        return rows[taken[0]], taken[1]

    def _in_portions(self, hits: Hits, points: int, most: int | None, of_part: Callable[[Ints], Taken]) -> Taken:
        """What is taken of hits whose points are compared at once, portion by portion, in the order of points."""
        several = self.rules.overlap == "first" or most is None
        each = self.line.longest if several else 2 * min(most or 1, self.line.longest)
        count = max(1, -(-len(hits.point) * each // MOST_CANDIDATES))
        if count == 1:
            return of_part(np.arange(len(hits.point)))
        part = hits.point * count // max(points, 1)
        order = np.argsort(part, kind="stable")
        portions = np.split(order, np.searchsorted(part[order], np.arange(1, count)))
        hit, place = (np.concatenate(columns) for columns in zip(*map(of_part, portions), strict=True))
        return hit, place

    def _of_part(self, hits: Hits, rows: Ints, points: int, times: Ints, most: int | None) -> Taken:
        """What is taken of the hits at some positions."""
        if self.rules.overlap == "all":
            return self._back(rows, self._without_overlap(hits.take(rows), points, times, most))
        of_part = hits.take(rows)
        plain, rest = self._apart(of_part, points)
        hit, place = self._without_overlap(of_part.take(plain), points, times, most)
        contested = of_part.take(rest)
        other, other_place = self._best(contested, self._overlaps.deepest(contested, times, most), times, most)
        return rows[np.concatenate([plain[hit], rest[other]])], np.concatenate([place, other_place])

    def _apart(self, hits: Hits, points: int) -> tuple[Ints, Ints]:
        """Positions of the hits with records whose points have no two of one moment, and of the others."""
        there = np.flatnonzero(np.diff(self.line.starts)[hits.grid])
        several = np.bincount(hits.point[there], minlength=points) > 1
        contested = several[hits.point[there]] | self._close[hits.grid[there]]
        return there[~contested], there[contested]

    def _without_overlap(self, hits: Hits, points: int, times: Ints, most: int | None) -> Taken:
        """What is taken where no two records of a point are of one moment, or all of them are to be had."""
        if most is None and self.rules.time_column is None:
            there = np.flatnonzero(np.diff(self.line.starts)[hits.grid])
            return there, len(self.line) + hits.grid[there]
        if most is None:
            return self._near(hits, times, most)
        if self.rules.time_column is None:  # the best, of points that lie on one grid
            return self._near(hits, times, 1)
        if most == 1:
            return self._nearest(hits, points, times)
        return self._best(hits, self._near(hits, times, most), times, most)

    def _near(self, hits: Hits, times: Ints, most: int | None) -> Taken:
        """Records of each hit, the best ``most`` among them, where no two are of one moment."""
        if most is None:
            return ranges(*self._in_time.range(hits, times))
        if self.rules.time_column is None:
            low = self.line.starts[hits.grid]
            counts = self.line.starts[hits.grid + 1] - low
            hit, at = ranges(low, low + np.minimum(counts, most))
            return hit, self._ranked[at]
        return self._around(hits, times, min(most, self.line.longest))

    @cached_property
    def _in_time(self) -> InTime:
        return InTime(self.line, self.rules)

    @cached_property
    def _overlaps(self) -> Overlaps:
        assert self.depth is not None
        return Overlaps(self._in_time, self.rank, self.depth)

    @cached_property
    def _close(self) -> NDArray[np.bool_]:
        """[g]: whether a grid has several records of one moment."""
        return self.line.has_close(self.rules.overlap_tolerance)

    @cached_property
    def _ranked(self) -> Ints:
        """Places on the line by grid, the best of each first."""
        grid = np.repeat(np.arange(len(self.line.starts) - 1), np.diff(self.line.starts))
        return np.lexsort((self.rank[self.line.record], grid))

    def _around(self, hits: Hits, times: Ints, count: int) -> Taken:
        """So many records on each side of the time of each hit, the nearest, as far as they are in time."""
        line, grid, at = self.line, hits.grid, times[hits.point]
        step, found = np.arange(count), []
        if self.rules.match != "after":
            before = line.first_after(grid, at)[:, None] - 1 - step
            hit, column = np.nonzero(before >= line.starts[grid][:, None])
            found.append((hit, line.back[before[hit, column]]))
        if self.rules.match != "before":
            exact = self.rules.match == "after"
            after = (line.first_not_before if exact else line.first_after)(grid, at)[:, None] + step
            hit, column = np.nonzero(after < line.starts[grid + 1][:, None])
            found.append((hit, after[hit, column]))
        hit, place = (np.concatenate(columns) for columns in zip(*found, strict=True))
        if self._in_time.tolerance is None:
            return hit, place
        near = np.abs(line.moment[place] - at[hit]) <= self._in_time.tolerance
        return hit[near], place[near]

    def _nearest(self, hits: Hits, points: int, times: Ints) -> Taken:
        """The best record of each point, without sorting."""
        hit, place = self._around(hits, times, 1)
        for cost in (np.abs(self.line.moment[place] - times[hits.point[hit]]), None):
            point = hits.point[hit]
            if len(point) < 2 or np.bincount(point, minlength=points).max() == 1:
                break
            cost = self.rank[self.line.record[place]] if cost is None else cost
            least = np.full(points, NEVER, dtype=np.int64)
            np.minimum.at(least, point, cost)
            best = cost == least[point]
            hit, place = hit[best], place[best]
        return hit, place

    def _best(self, hits: Hits, near: Taken, times: Ints, most: int | None) -> Taken:
        """Of candidates, those that are taken for each point, the best first."""
        hit, place = near
        point = hits.point[hit]
        rank = self.rank[self.line.record[place]]
        if self.rules.time_column is None:
            order = np.lexsort((rank, point))
        else:
            order = np.lexsort((rank, np.abs(self.line.moment[place] - times[point]), point))
        first = np.searchsorted(point[order], point[order])
        best = order[np.arange(len(order)) - first < (NEVER if most is None else most)]
        return hit[best], place[best]
