"""Lattices: grids whose pixels are those of one larger grid, so that overlaps of records count once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from rasteret_beam.kernels.geo.crs import same_crs
from rasteret_beam.kernels.routing.chip_windows import Overlap, PixelWindow
from rasteret_beam.kernels.statistics.zone_pixels import ZoneWindow
from rasteret_beam.model import Grid

ALIGNED_PIXELS = 1e-6
"""How far apart pixels of two grids may be that count as the same."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """A grid that holds some grids of the index, whose pixels are its own.

    Attributes
    ----------
    grid : Grid
    places : mapping of int to (row, col)
        By the number of each grid, where its first pixel lies.
    """

    grid: Grid
    places: Mapping[int, tuple[int, int]]

    def window(self, zone: int, overlaps: Sequence[Overlap]) -> ZoneWindow:
        """The window of a polygon, given by its overlaps with the grids."""
        if len(overlaps) == 1 and len(self.places) == 1:
            return ZoneWindow(zone, overlaps[0].window, overlaps[0].shape)
        boxes = []
        for _, number, window, _ in overlaps:
            row, col = self.places[number]
            boxes.append((window.row + row, window.col + col))
        ends = [
            (top + each.window.height, left + each.window.width)
            for (top, left), each in zip(boxes, overlaps, strict=True)
        ]
        (top, left), (bottom, right) = map(min, zip(*boxes, strict=True)), map(max, zip(*ends, strict=True))
        # On grids around the globe, a polygon may be on several at longitudes a turn apart.
        distinct = {each.shape.wkb: each.shape for each in overlaps}
        shape = shapely.union_all(list(distinct.values())) if len(distinct) > 1 else overlaps[0].shape
        return ZoneWindow(zone, PixelWindow(top, left, bottom - top, right - left), shape)


def each_alone(grids: Mapping[int, Grid]) -> list[Lattice]:
    """A lattice for each grid, given by its number."""
    return [Lattice(grid, {number: (0, 0)}) for number, grid in grids.items()]


def aligned(grids: Mapping[int, Grid]) -> list[Lattice]:
    """The lattices of grids, given by their number: those that are aligned share one."""
    groups: list[tuple[Grid, dict[int, tuple[int, int]]]] = []
    for number, grid in grids.items():
        for reference, places in groups:
            found = offset(reference, grid)
            if found is not None:
                places[number] = found
                break
        else:
            groups.append((grid, {number: (0, 0)}))
    return [_around(reference, places, grids) for reference, places in groups]


def offset(reference: Grid, grid: Grid) -> tuple[int, int] | None:
    """Row and column of a grid's first pixel on another one, or None where they are not aligned."""
    if reference.crs != grid.crs and not same_crs(reference.crs, grid.crs):
        return None
    size = np.array([0, grid.height]), np.array([0, grid.width])
    row, col = reference.to_pixel(*grid.to_world(*size))
    first = round(float(row[0])), round(float(col[0]))
    apart = [np.abs(row - size[0] - first[0]).max(), np.abs(col - size[1] - first[1]).max()]
    corner = reference.to_pixel(*grid.to_world(grid.height, 0))
    apart += [abs(corner[0] - grid.height - first[0]), abs(corner[1] - first[1])]
    return first if max(apart) <= ALIGNED_PIXELS else None


def _around(reference: Grid, places: Mapping[int, tuple[int, int]], grids: Mapping[int, Grid]) -> Lattice:
    if len(places) == 1:
        return Lattice(reference, places)
    top, left = (min(place[axis] for place in places.values()) for axis in (0, 1))
    height = max(row + grids[number].height for number, (row, _) in places.items()) - top
    width = max(col + grids[number].width for number, (_, col) in places.items()) - left
    a, b, _, d, e, _ = reference.transform
    c, f = reference.to_world(top, left)
    grid = Grid(reference.crs, (a, b, c, d, e, f), width, height, reference.tile_width, reference.tile_height)
    return Lattice(grid, {number: (row - top, col - left) for number, (row, col) in places.items()})


def numbers_of(overlaps: Iterable[Overlap]) -> list[int]:
    """The grids of overlaps, each once, in order."""
    return sorted({overlap.grid for overlap in overlaps})
