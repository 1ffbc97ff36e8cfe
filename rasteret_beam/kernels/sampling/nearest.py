"""Pixels of one grid under the pixel centres of another, as nearest resampling takes them."""

from dataclasses import dataclass

import numpy as np

from rasteret_beam.kernels.geo.crs import reaches, same_crs, transform
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.chip_windows import PixelWindow
from rasteret_beam.kernels.sampling.validity import Mask
from rasteret_beam.model import Grid


@dataclass(frozen=True, eq=False)
class UnderCentres:
    """Pixels of a grid under some pixels of a window of another.

    Attributes
    ----------
    place : [n] int64
        Position in the window, row by row.
    row, col : [n] int64
        Pixel of the grid that holds the centre.
    """

    place: Ints
    row: Ints
    col: Ints


def under_centres(grid: Grid, window: PixelWindow, wanted: Mask, other: Grid) -> UnderCentres:
    """The pixels of ``other`` that hold the centres of the wanted pixels of a window; without those it does not hold.

    Parameters
    ----------
    grid : Grid
        Of the window.
    wanted : [height, width] bool
    other : Grid
        In any CRS; see :func:`pixels_under`.
    """
    place = np.flatnonzero(wanted)
    row, col = np.divmod(place, window.width)
    held, row, col = pixels_under(grid, row + window.row, col + window.col, other)
    return UnderCentres(place[held], row[held], col[held])


def pixels_under(grid: Grid, row: Ints, col: Ints, other: Grid) -> tuple[Mask, Ints, Ints]:
    """Which centres of pixels [n] of a grid another holds, [n], and the pixels of that, [n] each; 0 where it does not.

    Parameters
    ----------
    other : Grid
        In any CRS: by the affine in that of ``grid``, else by PROJ. The pixel is the floor, half open.
    """
    at_row, at_col = row.astype(np.float64), col.astype(np.float64)
    if (grid.crs, grid.transform) != (other.crs, other.transform):
        x, y = grid.to_world(row + 0.5, col + 0.5)
        if not same_crs(grid.crs, other.crs):
            if not reaches(grid.crs, other.crs):
                return np.zeros(len(row), dtype=bool), np.zeros_like(row), np.zeros_like(col)
            x, y = transform(grid.crs, other.crs, x, y)
        at_row, at_col = (np.floor(part) for part in other.to_pixel(x, y))
    held = (at_row >= 0) & (at_col >= 0) & (at_row < other.height) & (at_col < other.width)
    whole_row, whole_col = (np.where(held, part, 0).astype(np.int64) for part in (at_row, at_col))
    return held, whole_row, whole_col
