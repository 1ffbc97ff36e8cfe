"""Shapes of windows: which pixels around a point its statistics are of."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import Floats, crs_label, full_turn, horizontal_crs
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.geo.ground import SLACK, ellipsoid_of, metres_of_length, within_geodesic
from rasteret_beam.kernels.sampling.blocks import Blocks
from rasteret_beam.kernels.sampling.gather import tile_order
from rasteret_beam.kernels.sampling.parts import Spots
from rasteret_beam.kernels.sampling.validity import Mask
from rasteret_beam.model import Grid, inverse_affine
from rasteret_beam.options import MAX_RADIUS, SampleOptions

PORTION_CELLS = 1 << 17
"""Cells whose distances are computed at a time."""

OF_DERIVED = 1.01
"""By how much distances in a CRS with a turned pole may differ from those on its ellipsoid."""


class Reach(NamedTuple):
    """How many pixels windows around n points reach: to both sides down, and [n] across."""

    down: int
    across: Ints

    @property
    def cells(self) -> Ints:
        """Pixels of the block of each point."""
        return (2 * self.down + 1) * (2 * self.across + 1)


class WindowShape(Protocol):
    """Which pixels around a point are cells of its window.

    Attributes
    ----------
    needs_position : bool
        Whether it matters where in its pixel a point lies.
    """

    @property
    def needs_position(self) -> bool: ...

    def check(self, grid: Grid) -> None:
        """Refuse a grid on which there is no such window."""
        ...

    def reach(self, spots: Spots) -> Reach:
        """How far windows reach."""
        ...

    def blocks(self, spots: Spots) -> Blocks:
        """Blocks that hold the windows; the pixels of them that matter are the cells."""
        ...

    def cells(self, blocks: Blocks) -> Mask | None:
        """Which pixels [k, n] of blocks are cells; None if all are."""
        ...


def window_shape(options: SampleOptions) -> WindowShape | None:
    """The shape that options ask for, if they ask for statistics."""
    if not options.statistics:
        return None
    if options.radius is not None:
        return Round(options.radius)
    assert options.window_pixels is not None
    return Square(options.window_pixels)


def check_grids(shape: WindowShape, grids: Iterable[Grid]) -> None:
    """Refuse grids if there are no such windows on any of them; otherwise points on others may still have theirs.

    Raises
    ------
    InputError
    """
    wrong = None
    for grid in grids:
        try:
            shape.check(grid)
        except InputError as error:
            wrong = wrong or error
        else:
            return
    if wrong is not None:
        raise wrong


def portions(shape: WindowShape, spots: Spots, most: int) -> list[Ints]:
    """Positions of points in portions, the blocks of each of which have at most so many pixels, or are of one point.

    Points of one tile are side by side, so that few portions need it; those of large and of small blocks are apart.
    """
    cells = shape.reach(spots).cells
    size = np.ceil(np.log2(cells)).astype(np.int64)
    order = tile_order(spots.grid, spots.row, spots.col)
    order = order[np.argsort(size[order], kind="stable")]
    found: list[Ints] = []
    for same in np.split(order, np.flatnonzero(np.diff(size[order])) + 1):
        step = max(1, most // int(cells[same].max(initial=1)))
        found += np.split(same, range(step, len(same), step))
    return found


@dataclass(frozen=True)
class Square:
    """So many pixels to each side of the one that the point lies in."""

    pixels: int
    needs_position: bool = False

    def check(self, grid: Grid) -> None:
        """There are squares on every grid."""

    def reach(self, spots: Spots) -> Reach:
        return Reach(self.pixels, np.full(len(spots.row), self.pixels))

    def blocks(self, spots: Spots) -> Blocks:
        side = 2 * self.pixels + 1
        return Blocks(side, side, spots.row - self.pixels, spots.col - self.pixels)

    def cells(self, blocks: Blocks) -> Mask | None:
        return None


@dataclass(frozen=True)
class Round:
    """Pixels whose centres lie within so many metres of the point on the ground."""

    metres: float
    needs_position: bool = True

    def check(self, grid: Grid) -> None:
        """Refuse a grid without a unit in metres, or whose pixels are too small for the radius everywhere.

        Raises
        ------
        InputError
        """
        if metres_of_length(grid.crs) is not None:
            self._check_reach(grid, max(self._in_plane(grid)))
            return
        rows = np.array([0, grid.height // 2, grid.height - 1])
        down, across = self._on_ellipsoid(grid, rows, np.zeros_like(rows))
        self._check_reach(grid, max(down, int(across.min())))

    def reach(self, spots: Spots) -> Reach:
        """How far windows reach.

        Raises
        ------
        InputError
            Further than windows may.
        """
        grid = spots.grid
        if metres_of_length(grid.crs) is not None:
            down, beside = self._in_plane(grid)
            across = np.full(len(spots.row), beside)
        else:
            down, across = self._on_ellipsoid(grid, spots.row, spots.col)
        self._check_reach(grid, max(down, int(across.max(initial=0))))
        return Reach(down, across)

    def blocks(self, spots: Spots) -> "Discs":
        assert spots.row_part is not None and spots.col_part is not None
        down, across = self.reach(spots)
        beside = int(across.max(initial=0))
        row, col = spots.row + spots.row_part, spots.col + spots.col_part
        size = 2 * down + 1, 2 * beside + 1
        return Discs(*size, spots.row - down, spots.col - beside, spots.grid, row, col, self.metres)

    def cells(self, blocks: Blocks) -> Mask | None:
        return blocks.used(np.arange(blocks.count))

    def _in_plane(self, grid: Grid) -> tuple[int, int]:
        """Rows and columns that a circle reaches where coordinates are lengths."""
        unit = metres_of_length(grid.crs)
        assert unit is not None
        radius = (self.metres + SLACK) / unit
        a, b, _, d, e, _ = inverse_affine(*grid.transform)
        return _pixels(radius * math.hypot(d, e)), _pixels(radius * math.hypot(a, b))

    def _on_ellipsoid(self, grid: Grid, row: Ints, col: Ints) -> tuple[int, Ints]:
        """Rows, and columns [n], that are enough around pixels [n]; more towards a pole, half a turn on it."""
        turn = full_turn(grid.crs)
        assert turn is not None
        _, _, _, d, e, _ = grid.transform
        _, y = grid.to_world(row + 0.5, col + 0.5)
        metres = (self.metres + SLACK) * (OF_DERIVED if horizontal_crs(grid.crs).is_derived else 1.0)
        angle = metres / ellipsoid_of(grid.crs).least_curvature_radius
        highest = (np.abs(y) + (abs(d) + abs(e)) / 2) * (math.tau / turn) + angle
        away = np.where(highest < math.pi / 2, angle / np.cos(np.minimum(highest, math.pi / 2)), math.pi)
        north, east = angle * turn / math.tau, np.minimum(away, math.pi) * turn / math.tau
        a, b, _, d, e, _ = inverse_affine(*grid.transform)
        down = abs(d) * float(east.max(initial=0)) + abs(e) * north
        across = np.floor(0.5 + abs(a) * east + abs(b) * north).astype(np.int64)
        return _pixels(down), across

    def _check_reach(self, grid: Grid, pixels: int) -> None:
        if pixels > MAX_RADIUS:
            raise InputError(
                f"radius is {self.metres:g} m, which is {pixels:,} pixels on a grid of {grid.width} x {grid.height} "
                f"pixels with transform {grid.transform} in CRS {crs_label(grid.crs)}; the most are {MAX_RADIUS}: use "
                "a smaller radius, or rasters with larger pixels"
            )


def _pixels(reach: float) -> int:
    """How many pixels beyond its own a point reaches, wherever in this it lies."""
    return math.floor(0.5 + reach)


@dataclass(frozen=True, eq=False)
class Discs(Blocks):
    """Blocks of which the pixels matter whose centres lie within a distance of the points.

    Attributes
    ----------
    grid : Grid
    row, col : [n] float64
        The points, in pixels.
    metres : float
    """

    grid: Grid
    row: Floats
    col: Floats
    metres: float

    def used(self, points: Ints) -> Mask:
        used = np.empty((self.cells, len(points)), dtype=bool)
        step = max(1, PORTION_CELLS // self.cells)
        within = self._within_in_plane if metres_of_length(self.grid.crs) is not None else self._within_geodesic
        for start in range(0, len(points), step):
            some = points[start : start + step]
            # From the points to the centres of the pixels.
            down = self.top[some] + 0.5 - self.row[some] + np.arange(self.height)[:, None]
            across = self.left[some] + 0.5 - self.col[some] + np.arange(self.width)[:, None]
            used[:, start : start + step] = within(some, down, across).reshape(self.cells, len(some))
        return used

    def _within_in_plane(self, points: Ints, down: Floats, across: Floats) -> Mask:
        """[height, width, m], by the rows [height, m] and columns [width, m] from the points."""
        unit = metres_of_length(self.grid.crs)
        assert unit is not None
        a, b, _, d, e, _ = self.grid.transform
        x = a * across[None] + b * down[:, None]
        y = d * across[None] + e * down[:, None]
        inside: Mask = x * x + y * y <= ((self.metres + SLACK) / unit) ** 2
        return inside

    def _within_geodesic(self, points: Ints, down: Floats, across: Floats) -> Mask:
        row, col = self.row[points], self.col[points]
        place = np.broadcast_arrays(row + down[:, None], col + across[None])
        at_row, at_col = (part.reshape(self.cells, len(points)) for part in place)
        x, y = self.grid.to_world(row, col)
        other_x, other_y = self.grid.to_world(at_row, at_col)
        half = (full_turn(self.grid.crs) or 0) / 2
        once = (other_x - x >= -half) & (other_x - x < half)  # around a pole, blocks reach half a turn to both sides
        return once & within_geodesic(self.grid.crs, x, y, other_x, other_y, self.metres)
