"""Regions of longitude and latitude that preselect points without losing any."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.crs import LONLAT, Floats, reaches, transform

EDGE_POINTS = 65
MARGIN = 0.05
"""Share of its width by which a region is enlarged, much more than the sag of a chord between edge points."""

SLACK = 1e-6
"""Degrees by which the search in sorted longitudes is wider than a region; the region then decides."""


@dataclass(frozen=True)
class Region:
    """Points whose longitude is within ``half_width`` degrees of ``middle``, between two latitudes."""

    middle: float
    half_width: float
    south: float
    north: float

    def covers(self, lon: Floats, lat: Floats) -> NDArray[np.bool_]:
        """Whether each point, [n], may be in the region; longitudes may have any multiple of 360 degrees added."""
        with np.errstate(invalid="ignore"):  # infinite where PROJ failed; these points are in no region
            distance = np.abs((lon - self.middle + 180.0) % 360.0 - 180.0)
        return (distance <= self.half_width) & (lat >= self.south) & (lat <= self.north)


class ByLongitude:
    """Points sorted by longitude, so that each region of a batch searches only some of them.

    Parameters
    ----------
    lon, lat : [n] float64
        Points that are not finite are in no region.
    """

    def __init__(self, lon: Floats, lat: Floats):
        finite = np.flatnonzero(np.isfinite(lon) & np.isfinite(lat))
        turned = lon[finite] % 360.0
        order = np.argsort(turned)
        self._lon, self._lat = lon, lat
        self._point, self._turned = finite[order], turned[order]

    def covered(self, region: Region) -> NDArray[np.int64]:
        """Positions of the points in a region, in order."""
        first, last = region.middle - region.half_width - SLACK, region.middle + region.half_width + SLACK
        near = self._point
        if last - first < 360.0:
            first, last = first % 360.0, last % 360.0
            start, stop = np.searchsorted(self._turned, [first, last])
            near = near[start:stop] if first <= last else np.concatenate([near[start:], near[:stop]])
        return np.sort(near[region.covers(self._lon[near], self._lat[near])])


def box_boundary(box: Floats, count: int = EDGE_POINTS) -> tuple[Floats, Floats]:
    """Points along the four edges of a box (xmin, ymin, xmax, ymax), ``count`` per edge, in ring order."""
    xmin, ymin, xmax, ymax = box
    along_x, along_y = np.linspace(xmin, xmax, count), np.linspace(ymin, ymax, count)
    x = np.concatenate([along_x, np.full(count, xmax), along_x[::-1], np.full(count, xmin)])
    y = np.concatenate([np.full(count, ymin), along_y, np.full(count, ymax), along_y[::-1]])
    return x, y


def region_of_box(crs: str, box: Floats) -> Region | None:
    """The region of a box in ``crs``; None if no region is certain to contain it (then search everywhere).

    It is None on other celestial bodies and in engineering CRSs, which have no longitude and latitude on Earth.
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


def poles_in(crs: str, box: Floats, lonlat: str = LONLAT) -> list[float]:
    """Latitudes of the poles in a box of ``crs``; around a pole, edges do not bound the latitudes inside."""
    latitudes = np.array([90.0, -90.0])
    x, y = transform(lonlat, crs, np.zeros(2), latitudes)
    xmin, ymin, xmax, ymax = box
    return [float(pole) for pole in latitudes[(x >= xmin) & (x <= xmax) & (y >= ymin) & (y <= ymax)]]
