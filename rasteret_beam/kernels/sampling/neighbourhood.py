"""Nodata fallback: the closest valid pixel around a point, and the window that was searched.

A window of radius r has k = (2r + 1)^2 cells in row-major order; its rings are squares
around the base pixel, so a cell's ring is its Chebyshev distance in pixels.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.model import Grid

RETURNS = ("off", "always", "if_center_nodata")
FALLBACKS = ("closest", "ring")

MOST_PIXELS = 4096
"""The largest radius of a window: 67 million pixels for a point."""


@dataclass(frozen=True)
class Neighbourhood:
    """How far a valid pixel is looked for, and what is shown of it.

    Attributes
    ----------
    max_distance_pixels : int
        Radius of the window; 0 takes the base pixel as it is.
    return_neighbourhood : "off", "always" or "if_center_nodata"
        For which rows the window is given.
    fallback : "closest" or "ring"
        The closest valid pixel of the whole window, or, as Rasteret does, of the first ring
        that holds a valid one.

    Raises
    ------
    InputError
        A value is not one of these, or a window is to be returned without a radius.
    """

    max_distance_pixels: int = 0
    return_neighbourhood: str = "off"
    fallback: str = "closest"

    def __post_init__(self) -> None:
        radius = self.max_distance_pixels
        if isinstance(radius, bool) or not isinstance(radius, int) or radius < 0:
            raise InputError(f"max_distance_pixels is {radius!r}; it has to be a whole number, 0 or more")
        if radius > MOST_PIXELS:
            raise InputError(f"max_distance_pixels is {radius}; the most are {MOST_PIXELS}")
        if self.return_neighbourhood not in RETURNS:
            raise InputError(f"return_neighbourhood is {self.return_neighbourhood!r}; it can be one of {RETURNS}")
        if self.fallback not in FALLBACKS:
            raise InputError(f"fallback is {self.fallback!r}; it can be one of {FALLBACKS}")
        if self.returned and not radius:
            raise InputError(
                f"return_neighbourhood is {self.return_neighbourhood!r}, but max_distance_pixels is 0; "
                "give the radius of the window with max_distance_pixels"
            )

    @property
    def returned(self) -> bool:
        return self.return_neighbourhood != "off"

    @property
    def cells(self) -> int:
        """Cells of a window, k."""
        return (2 * self.max_distance_pixels + 1) ** 2


@dataclass(frozen=True, eq=False)
class Window:
    """Cells of a window, [k] each, row-major: offset from the base pixel, ring, and rank among equally close ones."""

    row: Ints
    col: Ints
    ring: Ints
    rank: Ints

    @classmethod
    def of_radius(cls, radius: int) -> "Window":
        along = np.arange(-radius, radius + 1)
        row, col = (part.ravel() for part in np.meshgrid(along, along, indexing="ij"))
        ring = np.maximum(np.abs(row), np.abs(col))
        side = np.select([row == -ring, row == ring, col == -ring], [0, 1, 2], default=3)
        rank = np.empty(len(row), dtype=np.int64)
        rank[np.lexsort((col, row, side, ring))] = np.arange(len(row))
        return cls(row, col, ring, rank)


def distances(grid: Grid, window: Window, row_part: Floats, col_part: Floats) -> Floats:
    """Distance [m, k], in units of the CRS, from points to the rectangles of the cells around them.

    Parameters
    ----------
    row_part, col_part : [m] float64
        Position of each point in its base pixel, 0 to 1 from the upper left corner.
    """
    a, b, _, d, e, _ = grid.transform
    above, left = window.row - row_part[:, None], window.col - col_part[:, None]
    if a * b + d * e == 0:
        down = np.maximum(0.0, np.maximum(above, -above - 1))
        across = np.maximum(0.0, np.maximum(left, -left - 1))
        return np.hypot(across * np.hypot(a, d), down * np.hypot(b, e))
    return _oblique_distances((a, b, d, e), above, left)


def _oblique_distances(linear: tuple[float, float, float, float], above: Floats, left: Floats) -> Floats:
    """Distance from the origin to parallelograms: 0 inside, else to the nearest of the four edges."""
    a, b, d, e = linear
    inside = (above <= 0) & (above + 1 >= 0) & (left <= 0) & (left + 1 >= 0)
    nearest = np.full(above.shape, np.inf)
    col_squared, row_squared, product = a * a + d * d, b * b + e * e, a * b + d * e
    for row in (above, above + 1):
        col = np.clip(-row * product / col_squared, left, left + 1)
        nearest = np.minimum(nearest, np.hypot(a * col + b * row, d * col + e * row))
    for col in (left, left + 1):
        row = np.clip(-col * product / row_squared, above, above + 1)
        nearest = np.minimum(nearest, np.hypot(a * col + b * row, d * col + e * row))
    return np.where(inside, 0.0, nearest)


def closest_valid(window: Window, valid: NDArray[np.bool_], distance: Floats, fallback: str) -> Ints:
    """Cell, [m], of the closest valid pixel of each window; -1 where none is valid.

    Parameters
    ----------
    valid : [m, k] bool
        Cells outside the raster are not valid.
    distance : [m, k] float64
    fallback : "closest" or "ring"

    Ties go to the smaller ring, then to its top row, bottom row, left column, right column.
    """
    if fallback == "ring":
        ring = np.where(valid, window.ring, window.ring.max() + 1)
        valid = valid & (window.ring == ring.min(axis=1)[:, None])
    by_rank = np.argsort(window.rank)
    masked = np.where(valid, distance, np.inf)[:, by_rank]
    cell = by_rank[np.argmin(masked, axis=1)]
    return np.where(valid.any(axis=1), cell, -1)


def window_lists(points: Ints, cells: Floats, rows: int, length: int) -> pa.Array:
    """Windows as a list<double> column of ``rows`` rows: those of ``points`` (ascending), null for the others.

    Parameters
    ----------
    points : [m] int64
    cells : [m * length] float64
    """
    given = np.zeros(rows, dtype=bool)
    given[points] = True
    offsets = np.concatenate([[0], np.cumsum(given) * length]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(cells), mask=pa.array(~given))
