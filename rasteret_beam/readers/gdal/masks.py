"""Masks of windows: the pixels that a polygon covers."""

from threading import Lock

import numpy as np
import rasterio.windows
from affine import Affine
from rasterio.features import geometry_mask
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

from rasteret_beam.kernels.routing.chip_windows import PixelWindow, whole_window
from rasteret_beam.kernels.sampling.validity import Mask
from rasteret_beam.model import Grid
from rasteret_beam.readers.gdal.rasters import enter_gdal

# While it rasterises, rasterio changes the warning filters of the process, which is not safe in several threads.
_rasterising = Lock()


STRIP_PIXELS = 1 << 22
"""That are rasterised at once."""


def window_transform(grid: Grid, window: PixelWindow) -> Affine:
    """Affine of a window of a grid, computed as in rasterio."""
    whole = Window(window.col, window.row, window.width, window.height)  # type: ignore[call-arg]
    return rasterio.windows.transform(whole, Affine(*grid.transform))


def polygon_mask(shape: BaseGeometry, grid: Grid, window: PixelWindow, all_touched: bool = False) -> Mask:
    """Pixels of a window that a polygon covers, [height, width]; True is covered.

    Parameters
    ----------
    shape : Shapely geometry
        In the CRS of the grid.
    all_touched : bool
        Whether all pixels that the polygon touches are covered, or only those whose centre is in it.
    """
    enter_gdal()  # otherwise rasterio makes an environment for every call
    affine = window_transform(grid, window)
    with _rasterising:
        return geometry_mask([shape], window.shape, affine, all_touched=all_touched, invert=True)


def pixels_beyond(shape: BaseGeometry, grid: Grid, window: PixelWindow, all_touched: bool = False) -> int:
    """How many pixels a polygon covers beyond its window, which ends at the raster's edges, were the raster larger.

    Parameters
    ----------
    shape, all_touched
        As of :func:`polygon_mask`.
    window : PixelWindow
        The whole window of the polygon on the grid.
    """
    whole = whole_window(grid, shape)
    if whole == window:
        return 0
    rows = max(1, STRIP_PIXELS // whole.width)
    found = 0
    for row in range(whole.row, whole.row + whole.height, rows):
        strip = whole._replace(row=row, height=min(rows, whole.row + whole.height - row))
        covered = polygon_mask(shape, grid, strip, all_touched)
        top, left = max(window.row - row, 0), window.col - whole.col
        covered[top : max(window.row + window.height - row, 0), left : left + window.width] = False
        found += int(np.count_nonzero(covered))
    return found
