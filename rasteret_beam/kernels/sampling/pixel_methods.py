"""Pixel methods: how the value of a point comes from the pixels around it.

A method says what it needs of the points and how far it reaches; the sampler reads that, and knows no method by name.
A window of radius r has k = (2r + 1)^2 cells in row-major order; its rings are squares around the point's own pixel, so
a cell's ring is its Chebyshev distance in pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.validity import Mask, Pixels, Status, Statuses
from rasteret_beam.kernels.statistics.windows import Statistic
from rasteret_beam.model import Grid

WINDOW_ROWS = 8192
"""Points whose windows are searched at a time."""


@dataclass(frozen=True, eq=False)
class OwnPixels:
    """The pixels of one band that n points lie in.

    Attributes
    ----------
    grid : Grid
    values : [n]
        In the band's own dtype.
    there : [n] bool
        Whether the pixel's tile could be read.
    status : [n] uint8, optional
        The :class:`.validity.Status` of each pixel; there if the method needs it, or rows tell it.
    row_part, col_part : [n] float64, optional
        Where in its pixel a point lies, 0 to 1 from the upper left corner; there if the method needs it.
    """

    grid: Grid
    values: Pixels
    there: Mask
    status: Statuses | None = None
    row_part: Floats | None = None
    col_part: Floats | None = None


@dataclass(frozen=True, eq=False)
class Picked:
    """What a method gives for n points.

    Attributes
    ----------
    values : [n]
        Pixels in the band's own dtype, or numbers made of them.
    windows : list array, optional
        The windows that were searched, where they are returned.
    row_offset, col_offset : [n] int64, optional
        From the point's own pixel to that which gave the value, where they can differ.
    status : [n] uint8, optional
        The :class:`.validity.Status` of each sample, where it is asked for.
    null : [n] bool, optional
        Samples that are null, whatever their value; None if none is.
    candidate : [n] int64, optional
        How many better records of the point were left aside; None for the best.
    statistics : {name: Statistic}
        Of the pixels around the points, where they are asked for.
    """

    values: Pixels
    windows: pa.Array | None = None
    row_offset: Ints | None = None
    col_offset: Ints | None = None
    status: Statuses | None = None
    null: Mask | None = None
    candidate: Ints | None = None
    statistics: Mapping[str, Statistic] = field(default_factory=dict)

    def slice(self, start: int, stop: int) -> "Picked":
        """What is given for the points from ``start`` to before ``stop``."""
        windows = None if self.windows is None else self.windows.slice(start, stop - start)
        return _picked(self, slice(start, stop), windows)

    def take(self, rows: Ints) -> "Picked":
        """What is given for the points at some positions."""
        return _picked(self, rows, None if self.windows is None else self.windows.take(pa.array(rows)))

    @classmethod
    def joined(cls, parts: "Sequence[Picked]") -> "Picked":
        """What is given for all points of some parts."""
        if len(parts) == 1:
            return parts[0]

        def whole(name: str) -> Any:
            arrays = [getattr(each, name) for each in parts]
            return None if arrays[0] is None else np.concatenate(arrays)

        names = ("row_offset", "col_offset", "status", "null", "candidate")
        windows = None if parts[0].windows is None else pa.concat_arrays([each.windows for each in parts])
        of_names = {name: Statistic.joined([each.statistics[name] for each in parts]) for name in parts[0].statistics}
        return cls(whole("values"), windows, statistics=of_names, **{name: whole(name) for name in names})


def _picked(whole: Picked, rows: Ints | slice, windows: pa.Array | None) -> Picked:
    """What is given for some of the points, whose windows are given too."""
    return Picked(
        whole.values[rows],
        windows,
        None if whole.row_offset is None else whole.row_offset[rows],
        None if whole.col_offset is None else whole.col_offset[rows],
        None if whole.status is None else whole.status[rows],
        None if whole.null is None else whole.null[rows],
        None if whole.candidate is None else whole.candidate[rows],
        {name: each.take(rows) for name, each in whole.statistics.items()},
    )


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
    return pixel_distances(grid, window.row - row_part[:, None], window.col - col_part[:, None])


def pixel_distances(grid: Grid, above: Floats, left: Floats) -> Floats:
    """Distance, in units of the CRS, from points to the rectangles of pixels.

    Parameters
    ----------
    above, left : float64 arrays of one shape
        Rows and columns from the point to the upper left corner of the pixel.
    """
    a, b, _, d, e, _ = grid.transform
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


class Around(NamedTuple):
    """Windows around m points: pixels [m, k] in the band's own dtype, which are valid, and which lie in the raster."""

    pixels: Pixels
    valid: Mask
    inside: Mask

    def floats(self, only_valid: bool = False) -> Floats:
        """The pixels as float64, NaN outside the raster, and, with ``only_valid``, where they are not valid."""
        return np.where(self.valid if only_valid else self.inside, self.pixels.astype(np.float64), np.nan)


Cells = Callable[[Ints, Window], Around]
"""Reads the windows around some of the points."""


class PixelMethod(Protocol):
    """How values come from pixels.

    Attributes
    ----------
    radius : int
        Pixels that it reaches beyond the point's own, to each side.
    mends : bool
        Whether a sample can be valid though the point's own pixel is not.
    needs_validity, needs_position : bool
        What it needs of :class:`OwnPixels`.
    """

    @property
    def radius(self) -> int: ...

    @property
    def mends(self) -> bool: ...

    @property
    def needs_validity(self) -> bool: ...

    @property
    def needs_position(self) -> bool: ...

    def pick(self, own: OwnPixels, cells: Cells) -> Picked:
        """Values of the points; ``cells`` reads windows, for points that need them."""
        ...


@dataclass(frozen=True)
class OwnPixel:
    """The pixel that a point lies in, as it is."""

    radius: int = 0
    mends: bool = False
    needs_validity: bool = False
    needs_position: bool = False

    def pick(self, own: OwnPixels, cells: Cells) -> Picked:
        return Picked(own.values, status=own.status)


@dataclass(frozen=True)
class ClosestValid:
    """The closest valid pixel, where the point's own is not valid.

    Attributes
    ----------
    radius : int
    rule : "closest" or "ring"
        As of :func:`closest_valid`.
    windows : "off", "always" or "if_center_nodata"
        For which points the window is returned.
    only_valid : bool
        Whether cells of a window that are not valid are NaN, or have their numbers.
    """

    radius: int
    rule: str = "closest"
    windows: str = "off"
    only_valid: bool = False
    mends: bool = True
    needs_validity: bool = True
    needs_position: bool = True

    def pick(self, own: OwnPixels, cells: Cells) -> Picked:
        assert own.status is not None and own.row_part is not None and own.col_part is not None
        invalid, status = own.there & (own.status != Status.VALID), own.status.copy()
        wanted = np.flatnonzero(own.there if self.windows == "always" else invalid)
        window = Window.of_radius(self.radius)
        values, shown, returned = own.values.copy(), [], self.windows != "off"
        row_offset, col_offset = np.zeros((2, len(values)), dtype=np.int64)
        for points in np.split(wanted, range(WINDOW_ROWS, len(wanted), WINDOW_ROWS)):
            around = cells(points, window)
            missing = np.flatnonzero(invalid[points])
            at = points[missing]
            distance = distances(own.grid, window, own.row_part[at], own.col_part[at])
            cell = closest_valid(window, around.valid[missing], distance, self.rule)
            found = cell >= 0
            values[at[found]] = around.pixels[missing[found], cell[found]]
            status[at[found]] = Status.FILLED
            row_offset[at[found]], col_offset[at[found]] = window.row[cell[found]], window.col[cell[found]]
            if returned:
                shown.append(around.floats(self.only_valid).ravel())
        lists = window_lists(wanted, np.concatenate(shown), len(values), len(window.row)) if returned else None
        return Picked(values, lists, row_offset, col_offset, status)
