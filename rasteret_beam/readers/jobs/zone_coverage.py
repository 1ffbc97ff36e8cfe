"""Which pixels polygons cover: by their centre, by touch, or by the exact share of each."""

from collections.abc import Iterator, Sequence

import numpy as np

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.statistics.shares import covered_shares, pixel_areas
from rasteret_beam.kernels.statistics.zone_pixels import ZonePixels, ZoneWindow
from rasteret_beam.kernels.tables.polygon_geometry import Shapes
from rasteret_beam.model import Grid
from rasteret_beam.readers.gdal.masks import pixels_beyond, polygon_mask

TOGETHER_CELLS = 1 << 20
"""Cells of the windows whose shares are found together."""

ROUNDING = 1e-9
"""Part of a polygon's area by which the sum of its shares may differ from it."""


def zone_pixels(grid: Grid, windows: Sequence[ZoneWindow], zones: int, coverage: str) -> ZonePixels:
    """The pixels of so many zones in some windows, at most one of each zone.

    Parameters
    ----------
    windows : sequence of ZoneWindow
        By zone.
    coverage : "centre", "all_touched" or "fraction"
    """
    if coverage == "fraction":
        return _with_shares(grid, windows, zones)
    parts = []
    for zone, window, shape in windows:
        row, col = np.nonzero(polygon_mask(shape, grid, window, coverage == "all_touched"))
        parts.append((zone, row + window.row, col + window.col))
    return ZonePixels.of_parts(parts, zones)


def _with_shares(grid: Grid, windows: Sequence[ZoneWindow], zones: int) -> ZonePixels:
    found: list[tuple[Ints, Ints, Floats]] = []
    counts = np.zeros(zones, dtype=np.int64)
    for together in _portions(windows):
        box = np.array([each.window for each in together], dtype=np.int64)
        shares = covered_shares(_objects(together), grid, [each.window for each in together])
        at = np.flatnonzero(shares)
        sizes = box[:, 2] * box[:, 3]
        own = np.repeat(np.arange(len(together)), sizes)[at]
        row, col = np.divmod(at - (np.cumsum(sizes) - sizes)[own], box[own, 3])
        found.append((row + box[own, 0], col + box[own, 1], shares[at]))
        counts[[each.zone for each in together]] = np.bincount(own, minlength=len(together))
    if not found:
        none = np.empty(0, dtype=np.int64)
        return ZonePixels(none, none, counts, np.empty(0))
    row, col, shares = (np.concatenate(part) for part in zip(*found, strict=True))
    return ZonePixels(row, col, counts, shares)


def _portions(windows: Sequence[ZoneWindow]) -> Iterator[list[ZoneWindow]]:
    held: list[ZoneWindow] = []
    cells = 0
    for each in windows:
        own = each.window.height * each.window.width
        if held and cells + own > TOGETHER_CELLS:
            yield held
            held, cells = [], 0
        held.append(each)
        cells += own
    if held:
        yield held


def _objects(windows: Sequence[ZoneWindow]) -> Shapes:
    shapes = np.empty(len(windows), dtype=object)
    shapes[:] = [each.shape for each in windows]
    return shapes


def whole_weights(grid: Grid, windows: Sequence[ZoneWindow], own: Floats, coverage: str) -> Floats:
    """The pixels, or the sum of their shares, [n], that polygons would cover were the raster larger.

    Parameters
    ----------
    windows : [n] sequence of ZoneWindow
        The whole window of each polygon on the grid.
    own : [n] float64
        What they cover in their windows.
    """
    if coverage == "fraction":
        areas = pixel_areas(_objects(windows), grid, [each.window for each in windows])
        return np.where(areas - own > ROUNDING * areas, areas, own)
    beyond = [pixels_beyond(each.shape, grid, each.window, coverage == "all_touched") for each in windows]
    return own + np.array(beyond, dtype=np.float64)
