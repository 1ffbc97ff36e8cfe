"""What the axes of a map in a CRS are called, which way they point, and how a unit of y compares with one of x."""

import math
from typing import NamedTuple

from rasteret_beam.kernels.geo.crs import crs_label, full_turn, horizontal_crs

ABBREVIATIONS = {"metre": "m", "meter": "m", "kilometre": "km", "foot": "ft", "US survey foot": "ftUS", "degree": "°"}
HIGHEST = 89.0
"""Degrees of latitude beyond which maps are not stretched further."""


class MapAxes(NamedTuple):
    """The axes of a map.

    Attributes
    ----------
    x, y : str
        Labels: what it is, its unit, and the CRS.
    west, south : bool
        Whether x grows to the west, and y to the south.
    degrees : bool
        Whether coordinates are longitude and latitude in degrees.
    """

    x: str
    y: str
    west: bool = False
    south: bool = False
    degrees: bool = False

    def aspect(self, y: float) -> float:
        """Length of a unit of y, at that y, over the length of a unit of x, both on the ground."""
        return 1 / math.cos(math.radians(min(abs(y), HIGHEST))) if self.degrees else 1.0


UNKNOWN = MapAxes("x (unknown CRS)", "y (unknown CRS)")


def map_axes(crs: str) -> MapAxes:
    """The axes of a map in a CRS."""
    axes = horizontal_crs(crs).axis_info
    ways = {axis.direction for axis in axes}
    west, south = "west" in ways and "east" not in ways, "south" in ways and not ways & {"north"} and len(ways) > 1
    turn = full_turn(crs)
    if turn is not None:
        names = ("longitude", "latitude")
    elif ways <= {"east", "west", "north", "south"} and axes:
        names = ("westing" if west else "easting", "southing" if south else "northing")
    else:
        names = ("x", "y")
    unit = str(axes[0].unit_name) if axes else ""
    facts = ", ".join(part for part in (ABBREVIATIONS.get(unit, unit), _shown(crs)) if part)
    return MapAxes(f"{names[0]} ({facts})", f"{names[1]} ({facts})", west, south, turn == 360.0)


def _shown(crs: str) -> str:
    return crs_label(crs).partition(" (")[0].strip("'")
