"""Longitude/latitude regions that narrow a search and never lose a point."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.crs import LONLAT, Floats, transform

EDGE_POINTS = 65
MARGIN = 0.05
"""Share of its own width by which a region is widened: far more than a chord's sag between edge points."""


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


def box_boundary(box: Floats, count: int = EDGE_POINTS) -> tuple[Floats, Floats]:
    """Points along the four edges of a box (xmin, ymin, xmax, ymax), ``count`` to an edge, in ring order."""
    xmin, ymin, xmax, ymax = box
    along_x, along_y = np.linspace(xmin, xmax, count), np.linspace(ymin, ymax, count)
    x = np.concatenate([along_x, np.full(count, xmax), along_x[::-1], np.full(count, xmin)])
    y = np.concatenate([np.full(count, ymin), along_y, np.full(count, ymax), along_y[::-1]])
    return x, y


def region_of_box(crs: str, box: Floats) -> Region | None:
    """The region of a box given in ``crs``; None where none can be vouched for (then search everywhere)."""
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
