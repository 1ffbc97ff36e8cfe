"""How deep inside a grid a point lies: its distance from the nearest edge."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rasteret_beam.kernels.geo.crs import Floats, metres_of_unit
from rasteret_beam.kernels.geo.grids import GridTable
from rasteret_beam.kernels.routing.layers import Hits


@dataclass(frozen=True, eq=False)
class GridDepth:
    """The sizes of grids, to compare the distances of points from their edges.

    Attributes
    ----------
    height, width : [g] float64
        Pixels.
    row_metres, col_metres : [g] float64
        Distance between the lines that bound a row, or a column, of pixels. In a geographic CRS a degree counts as
        its length on the equator.
    """

    height: Floats
    width: Floats
    row_metres: Floats
    col_metres: Floats

    @classmethod
    def of_grids(cls, grids: GridTable, grid_crs: Sequence[str]) -> "GridDepth":
        a, b, _, d, e, _ = grids.transform.T
        area = np.abs(a * e - b * d)
        metres = np.array([metres_of_unit(crs) for crs in grid_crs], dtype=np.float64)
        return cls(
            grids.height.astype(np.float64),
            grids.width.astype(np.float64),
            metres * area / np.hypot(a, d),
            metres * area / np.hypot(b, e),
        )

    def of(self, hits: Hits) -> Floats:
        """Metres from each hit to the nearest edge of its grid, [n], to the millimetre.

        So distances from an edge that two grids share are equal, however large their pixels are.
        """
        rows = np.minimum(hits.row, self.height[hits.grid] - hits.row) * self.row_metres[hits.grid]
        cols = np.minimum(hits.col, self.width[hits.grid] - hits.col) * self.col_metres[hits.grid]
        metres: Floats = np.minimum(rows, cols)
        return metres.round(3)
