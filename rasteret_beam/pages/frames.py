"""The part of the world that a map shows: longitudes and latitudes, or other plane coordinates, to a drawing."""

from dataclasses import dataclass

import numpy as np

from rasteret_beam.pages.colours import Floats

FLATTEST, STEEPEST = 0.42, 0.8
"""Height of a map by its width."""

MARGIN = 0.05
SMALLEST = 1e-3
"""Extent of a map of one point, in degrees or by the size of coordinates."""


@dataclass(frozen=True)
class Frame:
    """A box of coordinates and the drawing that shows it.

    Attributes
    ----------
    west, south, east, north : float
        Longitudes may go on beyond 180 where the map crosses the antimeridian.
    width, height : float
        Of the drawing.
    geographic : bool
        The coordinates are longitudes and latitudes in degrees.
    """

    west: float
    south: float
    east: float
    north: float
    width: float
    height: float
    geographic: bool = True

    def lon(self, lon: Floats) -> Floats:
        """Longitudes in the turn that the map shows."""
        if not self.geographic:
            return lon
        middle = (self.west + self.east) / 2
        return middle + (lon - middle + 180.0) % 360.0 - 180.0

    def x(self, lon: Floats) -> Floats:
        """From the left, of longitudes as :meth:`lon` gives them."""
        return (lon - self.west) / (self.east - self.west) * self.width

    def y(self, lat: Floats) -> Floats:
        """From the top."""
        return (self.north - lat) / (self.north - self.south) * self.height


def frame_of(boxes: Floats, width: float, geographic: bool = True) -> Frame:
    """The frame around boxes [n, 4] of west, south, east, north; the world if there is none.

    A box with west beyond east crosses the antimeridian.
    """
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    if not len(boxes):
        boxes = np.array([[-180.0, -90.0, 180.0, 90.0]])
    south, north = float(boxes[:, 1].min()), float(boxes[:, 3].max())
    west, east = _arc(boxes[:, 0], boxes[:, 2]) if geographic else (float(boxes[:, 0].min()), float(boxes[:, 2].max()))
    return _shaped(west, south, east, north, width, geographic)


def _arc(west: Floats, east: Floats) -> tuple[float, float]:
    """The smallest arc of longitudes that contains all of some arcs, from west to east."""
    length = np.where(east >= west, np.minimum(east - west, 360.0), (east - west) % 360.0)
    start = west % 360.0
    order = np.argsort(start, kind="stable")
    start, end = start[order], (start + length)[order]
    reach = np.maximum.accumulate(end)
    reach = np.maximum(reach, reach[-1] - 360.0)  # the last arcs may reach over the first
    gaps = np.append(start[1:], start[0] + 360.0) - reach
    widest = int(np.argmax(gaps))
    if gaps[widest] <= 1.0:
        return -180.0, 180.0
    first = float(start[(widest + 1) % len(start)])
    last = float(reach[widest])
    first = first - 360.0 if first >= 180.0 else first
    return first, first + (last - first) % 360.0


def _shaped(west: float, south: float, east: float, north: float, width: float, geographic: bool) -> Frame:
    """With a margin, and not too flat or too steep."""
    least = SMALLEST if geographic else max(SMALLEST * max(abs(west), abs(east), abs(south), abs(north)), 1.0)
    shrink = max(float(np.cos(np.radians((south + north) / 2))), 0.15) if geographic else 1.0
    across, up = max(east - west, least) * shrink, max(north - south, least)
    across, up = across * (1 + 2 * MARGIN), up * (1 + 2 * MARGIN)
    if geographic and (east - west) * (1 + 2 * MARGIN) >= 360.0:
        across = 360.0 * shrink
        middle = (west + east) / 2 if east - west < 360.0 else 0.0
    else:
        middle = (west + east) / 2
    up, across = max(up, FLATTEST * across), max(across, up / STEEPEST)
    if geographic:
        across, up = min(across, 360.0 * shrink), min(up, 180.0)
    height = width * min(max(up / across, FLATTEST), STEEPEST)
    half = up / 2
    centre = (south + north) / 2
    centre = min(max(centre, half - 90.0), 90.0 - half) if geographic else centre
    wide = across / shrink / 2
    return Frame(middle - wide, centre - half, middle + wide, centre + half, width, round(height, 1), geographic)
