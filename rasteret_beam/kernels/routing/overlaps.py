"""Records of one moment: which of those that overlap at a point is taken."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.depth import GridDepth
from rasteret_beam.kernels.routing.layers import Hits
from rasteret_beam.kernels.routing.moments import Moments, by_grids
from rasteret_beam.kernels.routing.time_line import InTime, Taken, firsts, one_moment, ranges

MANY_RECORDS = 32
"""Of a point on a grid: where there are more, only those that can be taken are compared."""

FEW_POINTS = 8
"""Points on the same grids: where there are fewer, it takes longer to find out what their grids have in common."""

KEPT_SETS = 256
"""Sets of grids whose moments are kept for the next batch."""


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Takes of the records of each moment the one whose grid holds the point deepest inside.

    Attributes
    ----------
    in_time : InTime
        Which records are in question.
    rank : [r] int64
        Of each record.
    depth : GridDepth
    """

    in_time: InTime
    rank: Ints
    depth: GridDepth

    def deepest(self, hits: Hits, times: Ints, most: int | None) -> Taken:
        """What is left of the records in time where of those of one moment that is taken whose grid holds the point
        deepest inside; of points with many records, the best ``most`` are among them."""
        depth = self.depth.of(hits)
        low, high = self.in_time.range(hits, times)
        if most is not None and int(np.maximum(high - low, 0).sum()) > MANY_RECORDS * len(hits.point):
            sets = by_grids(hits)
            if len(sets) * FEW_POINTS <= sum(len(at) for _, at in sets):
                parts = [self._deepest_on(hits, depth, grids, at, times, most) for grids, at in sets]
                hit, place = (np.concatenate(columns) for columns in zip(*parts, strict=True))
                return hit, place
        hit, place = ranges(low, high)
        point, moment, record = hits.point[hit], self.in_time.line.moment[place], self.in_time.line.record[place]
        order = np.lexsort((record, moment, point))
        same = one_moment(point[order], moment[order], self.in_time.rules.overlap_tolerance)
        number = np.empty(len(order), dtype=np.int64)
        number[order] = np.cumsum(np.concatenate([[True], ~same])[: len(order)])
        return self._deepest_of(depth, hit, place, number)

    def _deepest_on(self, hits: Hits, depth: Floats, grids: Ints, at: Ints, times: Ints, most: int) -> Taken:
        """The same of points that the same grids hold; ``at`` [p, s] are their hits."""
        moments = self._moments(grids.tobytes())
        time = times[hits.point[at[:, 0]]]
        if self.in_time.rules.time_column is None:
            low, high = np.zeros(len(at), dtype=np.int64), np.full(len(at), moments.first(most))
        else:
            low, high = moments.around(time, most)
        point, row = ranges(low, high)
        if self.in_time.rules.time_column is not None:
            in_time = self.in_time.suits(moments.moment[row] - time[point])
            point, row = point[in_time], row[in_time]
        number = point * len(moments.starts) + moments.number[row]
        return self._deepest_of(depth, at[point, moments.slot[row]], moments.place[row], number)

    @cached_property
    def _moments(self) -> Callable[[bytes], Moments]:
        return lru_cache(KEPT_SETS)(self._moments_on)

    def _moments_on(self, grids: bytes) -> Moments:
        rules, line = self.in_time.rules, self.in_time.line
        moments = Moments.of_grids(line, np.frombuffer(grids, dtype=np.int64), rules.overlap_tolerance)
        return moments if rules.time_column is not None else moments.ranked(self.rank[line.record[moments.place]])

    def _deepest_of(self, depth: Floats, hit: Ints, place: Ints, number: Ints) -> Taken:
        """Of the records of each moment that whose grid holds the point deepest inside; ``depth`` is that of hits."""
        order = np.lexsort((self.in_time.line.record[place], -depth[hit], number))
        chosen = order[firsts(number[order])]
        return hit[chosen], place[chosen]
