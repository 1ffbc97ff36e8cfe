"""Records on several grids by moment, for points that all of these grids hold.

Where grids overlap, records of one moment compete at a point. Which ones do is the same for all points on the same
grids, so it is found once for them; and of many moments only those near the time of a point are looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.layers import Hits
from rasteret_beam.kernels.routing.time_line import TimeLine, firsts, one_moment, ranges


@dataclass(frozen=True, eq=False)
class Moments:
    """The records on some grids, as rows of one moment after the other.

    Attributes
    ----------
    place, slot : [n] int64
        Of each row, its place on the time line, and which of the grids it is on.
    moment, number : [n] int64
        Its datetime, and the number of its moment.
    starts : [m + 1] int64
        First row of each moment; those of the last one end at the last of these.
    """

    place: Ints
    slot: Ints
    moment: Ints
    number: Ints
    starts: Ints

    @classmethod
    def of_grids(cls, line: TimeLine, grids: Ints, apart: int) -> "Moments":
        """The records of a time line on some grids in order of time; those so far apart at most are of one moment."""
        slot, place = ranges(line.starts[grids], line.starts[grids + 1])
        order = np.lexsort((line.record[place], line.moment[place]))
        place, moment = place[order], line.moment[place[order]]
        begins = np.concatenate([[True], ~one_moment(np.zeros_like(moment), moment, apart)])[: len(moment)]
        starts = np.append(np.flatnonzero(begins), len(moment))
        return cls(place, slot[order], moment, np.cumsum(begins) - 1, starts)

    def ranked(self, rank: Ints) -> "Moments":
        """The same with the best moment first, given the rank of each row."""
        best = np.minimum.reduceat(rank, self.starts[:-1]) if len(rank) else rank
        order = np.argsort(best)
        _, rows = ranges(self.starts[order], self.starts[order + 1])
        sizes = np.diff(self.starts)[order]
        number = np.repeat(np.arange(len(order)), sizes)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        return Moments(self.place[rows], self.slot[rows], self.moment[rows], number, starts)

    def first(self, most: int) -> int:
        """How many rows the first so many moments have."""
        return int(self.starts[min(most, len(self.starts) - 1)])

    def around(self, times: Ints, most: int) -> tuple[Ints, Ints]:
        """First and last row (excluded), [p] each, of the moments around times: so many on each side, beside those at
        the time itself.

        What is taken of each moment lies nearer than what is taken of the next one on the same side.
        """
        if not len(self.number):
            none = np.zeros(len(times), dtype=np.int64)
            return none, none
        after = np.searchsorted(self.moment, times, "right")
        last = len(self.number) - 1
        low = self.number[np.maximum(after - 1, 0)] - most
        high = self.number[np.minimum(after, last)] + most + 1
        return self.starts[np.maximum(low, 0)], self.starts[np.minimum(high, len(self.starts) - 1)]


def by_grids(hits: Hits) -> Sequence[tuple[Ints, Ints]]:
    """Grids [s] that hold the same points, and the positions [p, s] of the hits of these points on them."""
    order = np.lexsort((hits.grid, hits.point))
    starts = np.flatnonzero(firsts(hits.point[order]))
    counts = np.diff(np.append(starts, len(order)))
    found: list[tuple[Ints, Ints]] = []
    for count in np.unique(counts).tolist():
        at = order[starts[counts == count][:, None] + np.arange(count)]
        grids, number = np.unique(hits.grid[at], axis=0, return_inverse=True)
        number = number.reshape(-1)
        stops = np.cumsum(np.bincount(number))
        found += zip(grids, np.split(at[np.argsort(number, kind="stable")], stops[:-1]), strict=True)
    return found
