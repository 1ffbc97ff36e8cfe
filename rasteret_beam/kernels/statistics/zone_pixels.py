"""The pixels of zones as columns, one zone after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from shapely.geometry.base import BaseGeometry

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.chip_windows import PixelWindow
from rasteret_beam.kernels.sampling.gather import TilePoints, Wanted
from rasteret_beam.kernels.sampling.validity import Mask


class ZoneWindow(NamedTuple):
    """A window of a grid under a polygon, given in the grid's CRS; ``zone`` is the polygon's number."""

    zone: int
    window: PixelWindow
    shape: BaseGeometry


@dataclass(frozen=True, eq=False)
class ZonePixels:
    """The pixels that polygons have on a grid.

    Attributes
    ----------
    row, col : [p] int64
        Zone by zone.
    counts : [z] int64
        Pixels of each zone.
    shares : [p] float64 or None
        Of each pixel, the part that the polygon covers; None where pixels count whole.
    """

    row: Ints
    col: Ints
    counts: Ints
    shares: Floats | None = None

    @classmethod
    def of_parts(cls, parts: Sequence[tuple[int, Ints, Ints]], zones: int) -> "ZonePixels":
        """From rows and columns of zones, in ascending order of the zones."""
        counts = np.zeros(zones, dtype=np.int64)
        counts[[zone for zone, _, _ in parts]] = [len(row) for _, row, _ in parts]
        none = [np.empty(0, dtype=np.int64)]
        row, col = (np.concatenate([part[at] for part in parts] or none) for at in (1, 2))
        return cls(row, col, counts)

    def __len__(self) -> int:
        return len(self.row)

    def take(self, zones: Ints) -> "ZonePixels":
        """The pixels of some zones, given in ascending order."""
        if len(zones) == len(self.counts):
            return self
        chosen = np.zeros(len(self.counts), dtype=bool)
        chosen[zones] = True
        at = np.flatnonzero(np.repeat(chosen, self.counts))
        shares = None if self.shares is None else self.shares[at]
        return ZonePixels(self.row[at], self.col[at], self.counts[zones], shares)

    def zones_of(self, at: Ints) -> Ints:
        """The distinct zones of pixels at some positions."""
        return np.unique(np.searchsorted(np.cumsum(self.counts), at, "right"))

    def count(self, chosen: Mask) -> Ints:
        """How many of the chosen [p] pixels each zone has."""
        some = np.flatnonzero(self.counts)
        found = np.zeros_like(self.counts)
        if len(some):
            starts = (np.cumsum(self.counts) - self.counts)[some]
            found[some] = np.add.reduceat(chosen, starts, dtype=np.int64)
        return found

    def weights(self) -> Floats:
        """The sum of the shares of each zone, [z]; the number of its pixels where these count whole."""
        if self.shares is None:
            return self.counts.astype(np.float64)
        zone = np.repeat(np.arange(len(self.counts)), self.counts)
        return np.bincount(zone, self.shares, len(self.counts)).astype(np.float64)


def wanted_of(wanted: Wanted, chosen: Mask) -> Wanted:
    """Of pixels to gather, the chosen [size]; tiles that have none of them are left out."""
    if chosen.all():
        return wanted
    in_tile = {}
    for place, points in _tiles(wanted):
        at = chosen[points.point]
        if at.any():
            in_tile[place] = replace(points, point=points.point[at], row=points.row[at], col=points.col[at])
    return Wanted(wanted.size, in_tile)


def _tiles(wanted: Wanted) -> Iterator[tuple[tuple[int, int], TilePoints]]:
    for place, points in wanted.in_tile.items():
        assert isinstance(points, TilePoints)
        yield place, points
