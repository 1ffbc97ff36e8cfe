"""Longitude/latitude regions that narrow a search and never lose a point."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.crs import LONLAT, Floats, reaches, transform

EDGE_POINTS = 65
MARGIN = 0.05
"""Share of its own width by which a region is widened: far more than a chord's sag between edge points."""

SLACK = 1e-6
"""Degrees by which the search among sorted longitudes is wider than a region, which then decides."""


@dataclass(frozen=True)
class Region:
    """Points whose longitude is within ``half_width`` degrees of ``middle``, between two latitudes."""

    middle: float
    half_width: float
    south: float
    north: float

    def covers(self, lon: Floats, lat: Floats) -> NDArray[np.bool_]:
        """Whether each point, [n], may lie in the region. Longitudes in any turn of the circle."""
        with np.errstate(invalid="ignore"):  # infinite where PROJ had no answer; such a point is nowhere
            distance = np.abs((lon - self.middle + 180.0) % 360.0 - 180.0)
        return (distance <= self.half_width) & (lat >= self.south) & (lat <= self.north)


class ByLongitude:
    """Points sorted by longitude, so that the many regions of a batch need not each look at all of them.

    Parameters
    ----------
    lon, lat : [n] float64
        Points that are not finite lie in no region.
    """

    def __init__(self, lon: Floats, lat: Floats):
        finite = np.flatnonzero(np.isfinite(lon) & np.isfinite(lat))
        turned = lon[finite] % 360.0
        order = np.argsort(turned)
        self._lon, self._lat = lon, lat
        self._point, self._turned = finite[order], turned[order]

    def covered(self, region: Region) -> NDArray[np.int64]:
        """Positions of the points that a region covers, in order."""
        first, last = region.middle - region.half_width - SLACK, region.middle + region.half_width + SLACK
        near = self._point
        if last - first < 360.0:
            first, last = first % 360.0, last % 360.0
            start, stop = np.searchsorted(self._turned, [first, last])
            near = near[start:stop] if first <= last else np.concatenate([near[start:], near[:stop]])
        return np.sort(near[region.covers(self._lon[near], self._lat[near])])


def box_boundary(box: Floats, count: int = EDGE_POINTS) -> tuple[Floats, Floats]:
    """Points along the four edges of a box (xmin, ymin, xmax, ymax), ``count`` to an edge, in ring order."""
    xmin, ymin, xmax, ymax = box
    along_x, along_y = np.linspace(xmin, xmax, count), np.linspace(ymin, ymax, count)
    x = np.concatenate([along_x, np.full(count, xmax), along_x[::-1], np.full(count, xmin)])
    y = np.concatenate([np.full(count, ymin), along_y, np.full(count, ymax), along_y[::-1]])
    return x, y


def region_of_box(crs: str, box: Floats) -> Region | None:
    """The region of a box given in ``crs``; None where none is sure to hold it (then search everywhere).

    So it is on other celestial bodies and in engineering CRSs, which have no longitude and latitude of the Earth.
    """
    if not reaches(crs, LONLAT):
        return None
    lon, lat = transform(crs, LONLAT, *box_boundary(box))
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()) or poles_in(crs, box):
        return None
    start = lon[0]
    turned = np.cumsum(np.concatenate([[0.0], (np.diff(lon) + 180.0) % 360.0 - 180.0]))
    half_width = (turned.max() - turned.min()) / 2
    middle = start + (turned.max() + turned.min()) / 2
    reach = half_width * (1 + MARGIN) + 0.01
    rise = (lat.max() - lat.min()) * MARGIN + 0.01
    return Region(float(middle), float(min(reach, 180.0)), float(lat.min() - rise), float(lat.max() + rise))


def poles_in(crs: str, box: Floats) -> list[float]:
    """Latitudes of the poles in a box of ``crs``: around them, edges say nothing about the latitudes inside."""
    latitudes = np.array([90.0, -90.0])
    x, y = transform(LONLAT, crs, np.zeros(2), latitudes)
    xmin, ymin, xmax, ymax = box
    return [float(pole) for pole in latitudes[(x >= xmin) & (x <= xmax) & (y >= ymin) & (y <= ymax)]]
