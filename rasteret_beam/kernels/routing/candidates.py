"""Candidates: the records of each point in the order of a matcher, the best one first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.layers import Hits
from rasteret_beam.kernels.routing.search import Search


@dataclass(frozen=True, eq=False)
class Candidates:
    """Records that may be taken of points for bands that are decided together, as columns [n].

    Rows are sorted by point, then by ``depth``.

    Attributes
    ----------
    bands : tuple of str
        Bands that the same records have, on the same grids.
    point, record : [n] int64
    hit : [n] int64
        Position, in the hits that were given, of the point on the grid on which the record has the bands.
    depth : [n] int64
        How many records are better; 0 is the best one.
    """

    bands: tuple[str, ...]
    point: Ints
    record: Ints
    hit: Ints
    depth: Ints


Searches = Sequence[tuple[tuple[str, ...], Search]]
"""Bands that are decided together, and the search among the records that have them."""


def found(searches: Searches, hits: Hits, points: int, times: Ints | None, most: int | None) -> Iterator[Candidates]:
    """The candidates of so many points, at most ``most`` of each; see :class:`.match.Matcher`."""
    at = np.zeros(points, dtype=np.int64) if times is None else times
    for bands, search in searches:
        hit, place = search.best_first(hits, points, at, most)
        point = hits.point[hit]
        depth = np.arange(len(point)) - np.searchsorted(point, point)
        yield Candidates(bands, point, search.line.record[place], hit, depth)
