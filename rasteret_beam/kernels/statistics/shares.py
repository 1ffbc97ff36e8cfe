"""Shares of pixels that polygons cover, exactly, for many polygons at the same time.

The outline of a polygon is divided where it crosses pixel edges. A piece of it in one pixel adds the signed area
between itself and the pixel's right edge to this pixel, and its signed height to all pixels to the right of that, so
that the sum over the outline is the area of the polygon in each pixel: Green's theorem for each row of pixels.
Everything is in pixel coordinates, so grids may be rotated or have their first row in the south.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import shapely

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.chip_windows import PixelWindow
from rasteret_beam.kernels.statistics.segments import running_sums
from rasteret_beam.kernels.tables.polygon_geometry import Shapes
from rasteret_beam.model import Grid

NOISE = 1e-12
"""Share of a pixel, for a polygon at least a pixel high, that is rounding: the sum of thousands of terms up to 1."""


class _Edges(NamedTuple):
    """Edges of outlines in pixels of their windows, [n] each; ``sign`` 1 where they go round their polygon one way."""

    owner: Ints
    row: Floats
    col: Floats
    to_row: Floats
    to_col: Floats
    sign: Floats

    def take(self, at: Ints) -> "_Edges":
        ends = self.row[at], self.col[at], self.to_row[at], self.to_col[at]
        return _Edges(self.owner[at], *ends, self.sign[at])


class _Pieces(NamedTuple):
    """Pieces of edges in one pixel each, [n] each.

    Attributes
    ----------
    owner : int64
    row, col : int64
        The pixel. What lies to the left of a window is on the left edge of its first column; what lies to the right of
        it is in a column beyond the last.
    tall : float64
        Signed height.
    beside : float64
        Mean distance from the left edge of the pixel.
    """

    owner: Ints
    row: Ints
    col: Ints
    tall: Floats
    beside: Floats


def covered_shares(shapes: Shapes, grid: Grid, windows: Sequence[PixelWindow]) -> Floats:
    """The share of each pixel of some windows that a polygon covers.

    Parameters
    ----------
    shapes : [n] object
        Valid Shapely polygons and multipolygons in the CRS of the grid.
    windows : [n] sequence of PixelWindow
        One for each polygon, of any size and place: the polygon may reach beyond it.

    Returns
    -------
    [sum of sizes] float64
        0 to 1, one window after the other, row by row. Exactly 0 or 1 where a polygon covers none or all of a
        pixel, but for rounding.
    """
    box = np.array(windows, dtype=np.int64).reshape(-1, 4)
    height, width = box[:, 2], box[:, 3] + 1  # with the column beyond the last
    first = np.concatenate([[0], np.cumsum(height * width)])
    pieces = _by_pixel(_by_row(_edges(shapes, grid, box), height), box[:, 3])
    cell = first[pieces.owner] + pieces.row * width[pieces.owner] + pieces.col
    right = pieces.tall * pieces.beside
    sums = np.bincount(cell, pieces.tall - right, first[-1] + 1).astype(np.float64)
    sums += np.bincount(cell + 1, right, first[-1] + 1)
    return _summed(sums[:-1], height, width, _tiny(shapes, grid, box))


def _tiny(shapes: Shapes, grid: Grid, box: Ints) -> Floats:
    """The share of a pixel that counts as none, of each polygon: rounding goes with its height."""
    hulls = shapely.box(*shapely.bounds(shapes).T)
    rows, _ = _to_pixels(grid, hulls, np.repeat(box, shapely.get_num_coordinates(hulls), axis=0))
    rows = rows.reshape(len(shapes), -1)
    return NOISE * np.minimum(1.0, rows.max(axis=1) - rows.min(axis=1))


def _summed(sums: Floats, height: Ints, width: Ints, tiny: Floats) -> Floats:
    """The shares by cells with a column more: sums along each row."""
    widths = np.repeat(width, height)
    shares = np.abs(running_sums(sums, widths))
    shares[shares >= 1.0 - NOISE] = 1.0
    shares[shares <= np.repeat(tiny, height * width)] = 0.0
    kept = np.ones(len(shares), dtype=bool)
    kept[np.cumsum(widths) - 1] = False
    return shares[kept]


def pixel_areas(shapes: Shapes, grid: Grid, windows: Sequence[PixelWindow]) -> Floats:
    """The areas of polygons in pixels of a grid, [n]: the sums of their shares, were their windows large enough.

    Of the vertices that shares are of, so that those of slivers agree with them too; parameters are those of
    :func:`covered_shares`.
    """
    rings = _Rings.of(shapes, grid, np.array(windows, dtype=np.int64).reshape(-1, 4))
    return np.bincount(rings.owner, np.abs(rings.areas()) * rings.outward, len(shapes)).astype(np.float64)


class _Rings(NamedTuple):
    """Rings of polygons.

    Attributes
    ----------
    row, col : [v] float64
        Vertices, in pixels of the polygon's window.
    ring : [v] int64
        The ring of each vertex.
    owner : [r] int64
        The polygon of each ring.
    outward : [r] float64
        1 of the outlines of polygons, -1 of holes.
    """

    row: Floats
    col: Floats
    ring: Ints
    owner: Ints
    outward: Floats

    @classmethod
    def of(cls, shapes: Shapes, grid: Grid, box: Ints) -> "_Rings":
        parts, owner = shapely.get_parts(shapes, return_index=True)
        rings, part = shapely.get_rings(parts, return_index=True)
        outward = np.where(np.diff(part, prepend=-1) != 0, 1.0, -1.0)
        ring = np.repeat(np.arange(len(rings)), shapely.get_num_coordinates(rings))
        return cls(*_to_pixels(grid, rings, box[owner[part[ring]]]), ring, owner[part], outward)

    def edges(self) -> Ints:
        """Positions of vertices at which an edge begins."""
        return np.flatnonzero(self.ring[1:] == self.ring[:-1])

    def areas(self) -> Floats:
        """Signed areas [r]; far from the first vertex of each, those of small rings would be rounded away."""
        at = self.edges()
        start = np.searchsorted(self.ring, np.arange(len(self.owner)))[self.ring[at]]
        row, col = self.row, self.col
        twice = (col[at] - col[start]) * (row[at + 1] - row[start]) - (col[at + 1] - col[start]) * (
            row[at] - row[start]
        )
        return np.bincount(self.ring[at], twice, len(self.owner)) / 2


def _edges(shapes: Shapes, grid: Grid, box: Ints) -> _Edges:
    """All edges that are not along a row of pixels."""
    rings = _Rings.of(shapes, grid, box)
    at, row, col = rings.edges(), rings.row, rings.col
    turns = np.sign(rings.areas()) * rings.outward
    ring = rings.ring[at]
    edges = _Edges(rings.owner[ring], row[at], col[at], row[at + 1], col[at + 1], turns[ring])
    return edges.take(np.flatnonzero(edges.row != edges.to_row))


def _to_pixels(grid: Grid, shapes: Shapes, box: Ints) -> tuple[Floats, Floats]:
    """Rows and columns of all vertices [v]; those that are on a pixel's edge but for rounding are on it.

    They are counted from the corner of a window, ``box`` [v, 4], which is subtracted first: so little is rounded, and
    the same on all grids that have the pixels.
    """
    x, y = shapely.get_coordinates(shapes).T
    a, b, c, d, e, f = grid.transform
    scale = 1.0 / (a * e - b * d)
    east, north = x - (a * box[:, 1] + b * box[:, 0] + c), y - (d * box[:, 1] + e * box[:, 0] + f)
    row, col = (north * a - east * d) * scale, (east * e - north * b) * scale
    unit = np.finfo(np.float64).eps * 2
    apart_x, apart_y = unit * np.maximum(np.abs(x), abs(c)), unit * np.maximum(np.abs(y), abs(f))
    for place, slack in (
        (row, (apart_y * abs(a) + apart_x * abs(d)) * abs(scale)),
        (col, (apart_x * abs(e) + apart_y * abs(b)) * abs(scale)),
    ):
        near = np.rint(place)
        np.copyto(place, near, where=np.abs(place - near) <= slack)
    return row, col


def _by_row(edges: _Edges, height: Ints) -> _Edges:
    """Edges divided by row of pixels, without what lies above or below their window."""
    rows = height[edges.owner]
    first = np.clip(np.floor(np.minimum(edges.row, edges.to_row)), 0, rows).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(edges.row, edges.to_row)), 0, rows).astype(np.int64)
    at, number = _repeated(last - first)
    whole, top = edges.take(at), (first[at] + number).astype(np.float64)
    slope = (whole.to_col - whole.col) / (whole.to_row - whole.row)
    ends = []
    for row, col in ((whole.row, whole.col), (whole.to_row, whole.to_col)):
        cut = np.clip(row, top, top + 1)
        ends.append((cut, np.where(cut == row, col, whole.col + (cut - whole.row) * slope)))
    return _Edges(whole.owner, *ends[0], *ends[1], whole.sign)


def _by_pixel(edges: _Edges, width: Ints) -> _Pieces:
    """Edges of one row divided by column of pixels."""
    wide = width[edges.owner].astype(np.float64)
    low, high = np.minimum(edges.col, edges.to_col), np.maximum(edges.col, edges.to_col)
    first = np.clip(np.floor(low), -1, wide)  # columns -1 and ``wide`` are all that lies beyond
    last = np.maximum(np.clip(np.ceil(high), -1, wide + 1), first + 1)
    at, number = _repeated((last - first).astype(np.int64))
    low, high, wide, left = low[at], high[at], wide[at], first[at] + number
    begin = np.where(left < 0, low, np.maximum(low, left))
    end = np.where(left >= wide, high, np.minimum(high, left + 1))
    part = np.divide(end - begin, high - low, out=np.ones(len(at)), where=high > low)
    tall = edges.sign[at] * (edges.to_row - edges.row)[at] * part
    col = np.maximum(left, 0.0)
    beside = np.where((left < 0) | (left >= wide), 0.0, (begin + end) / 2 - left)
    row = np.floor(np.minimum(edges.row, edges.to_row))[at]
    return _Pieces(edges.owner[at], row.astype(np.int64), col.astype(np.int64), tall, beside)


def _repeated(counts: Ints) -> tuple[Ints, Ints]:
    """Each position so often as its count says, and the number of each repetition."""
    counts = np.maximum(counts, 0)
    at = np.repeat(np.arange(len(counts)), counts)
    return at, np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
