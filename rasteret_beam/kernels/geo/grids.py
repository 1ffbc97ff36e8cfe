"""Many grids as columns, with vectorised affine transforms and pixel positions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.model import Grid, inverse_affine, tiles_along

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GridTable:
    """``n`` grids of one CRS as columns.

    Attributes
    ----------
    transform, inverse : [n, 6] float64
        Affines ``(a, b, c, d, e, f)`` from pixel to CRS units, and back.
    width, height, tile_width, tile_height : [n] int64
        Pixels.
    """

    transform: Floats
    inverse: Floats
    width: Ints
    height: Ints
    tile_width: Ints
    tile_height: Ints

    @classmethod
    def from_columns(cls, transform: Floats, sizes: Ints) -> "GridTable":
        """From affines [n, 6] and sizes [n, 4]: width, height, tile width, tile height."""
        width, height, tile_width, tile_height = (np.ascontiguousarray(column) for column in sizes.T)
        return cls(transform, np.stack(inverse_affine(*transform.T), axis=1), width, height, tile_width, tile_height)

    @classmethod
    def from_grids(cls, grids: Sequence[Grid]) -> "GridTable":
        """From grids; their CRSs are ignored."""
        transform = np.array([grid.transform for grid in grids], dtype=np.float64).reshape(-1, 6)
        sizes = [(grid.width, grid.height, grid.tile_width, grid.tile_height) for grid in grids]
        return cls.from_columns(transform, np.array(sizes, dtype=np.int64).reshape(-1, 4))

    def __len__(self) -> int:
        return len(self.width)

    def grid(self, number: int, crs: str) -> Grid:
        """The grid of a row, which is in this CRS."""
        a, b, c, d, e, f = self.transform[number].tolist()
        sizes = (self.width, self.height, self.tile_width, self.tile_height)
        return Grid(crs, (a, b, c, d, e, f), *(int(column[number]) for column in sizes))

    def take(self, rows: Ints) -> "GridTable":
        """The grids at these row numbers, in this order."""
        return GridTable(
            self.transform[rows],
            self.inverse[rows],
            self.width[rows],
            self.height[rows],
            self.tile_width[rows],
            self.tile_height[rows],
        )

    def tiles_across(self) -> Ints:
        return tiles_along(self.width, self.tile_width)

    def tiles_down(self) -> Ints:
        return tiles_along(self.height, self.tile_height)

    def boxes(self) -> Floats:
        """Boxes [n, 4] in the CRS (xmin, ymin, xmax, ymax), enlarged by a pixel for rounding."""
        cols = np.stack([np.full(len(self), -1), self.width + 1, np.full(len(self), -1), self.width + 1], axis=1)
        rows = np.stack([np.full(len(self), -1), np.full(len(self), -1), self.height + 1, self.height + 1], axis=1)
        a, b, c, d, e, f = (column[:, None] for column in self.transform.T)
        x, y = a * cols + b * rows + c, d * cols + e * rows + f
        return np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1)


def pixel_positions(grids: GridTable, grid: Ints, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Fractional (row, col) of points on their grids.

    Parameters
    ----------
    grids : GridTable
    grid : [n] int64
        Row of ``grids`` for each point.
    x, y : [n] float64
        In the CRS of the grids.

    Returns
    -------
    row, col : [n] float64
        Their floor is the pixel: half open, so the upper and left edge belong to it.
    """
    inverse = grids.inverse[grid]
    col = inverse[:, 0] * x + inverse[:, 1] * y + inverse[:, 2]
    row = inverse[:, 3] * x + inverse[:, 4] * y + inverse[:, 5]
    rotated = np.flatnonzero((inverse[:, 1] != 0) | (inverse[:, 3] != 0))
    for number in np.unique(grid[rotated]):
        # The matrix product rounds as rasterio's does, which decides on which side of an
        # oblique pixel edge a point on it falls.
        at = rotated[grid[rotated] == number]
        matrix = np.append(grids.inverse[number], [0.0, 0.0, 1.0]).reshape(3, 3)
        col[at], row[at] = matrix.dot(np.stack([x[at], y[at], np.ones(len(at))]))[:2]
    return row, col


def inside(grids: GridTable, grid: Ints, row: Floats, col: Floats) -> NDArray[np.bool_]:
    """Whether pixel positions lie on their grids; False for NaN and infinity."""
    return (row >= 0) & (col >= 0) & (row < grids.height[grid]) & (col < grids.width[grid])
