"""Records beside others: where a mosaic goes on beyond the grid of one of its records.

A record is beside another where their grids have the same CRS, pixel size and alignment, so that a pixel of one is a
whole number of rows and columns away from those of the other, and where both are of one moment. Grids are found by the
search trees of the index and records by bisection in time, both when a record is first asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import shapely

from rasteret_beam.kernels.geo.crs import Floats, same_crs
from rasteret_beam.kernels.geo.grids import GridTable, Ints
from rasteret_beam.kernels.routing.index import CrsGroup, RoutingIndex, turns_to
from rasteret_beam.kernels.routing.layers import NO_DATETIME, bands_together, rows_of
from rasteret_beam.kernels.routing.time_line import LONGEST, TimeLine, ranges
from rasteret_beam.kernels.sampling.validity import Mask

ALIGNED = 1e-6
"""Pixels by which corners of aligned grids differ, at most, from whole rows and columns."""

KEPT = 1024
"""Grids, and records, whose surroundings are kept for the next unit."""


class Neighbour(NamedTuple):
    """A record beside another.

    Attributes
    ----------
    record, grid : int
        Positions in the index.
    row, col : int
        Where its first pixel lies on the grid of the other record.
    height, width : int
        Pixels of its grid.
    """

    record: int
    grid: int
    row: int
    col: int
    height: int
    width: int

    def holds(self, row: Ints, col: Ints) -> Mask:
        """Whether it has pixels [m] of the other record's grid."""
        down, aside = row - self.row, col - self.col
        held: Mask = (down >= 0) & (down < self.height) & (aside >= 0) & (aside < self.width)
        return held


@dataclass(frozen=True, eq=False)
class AlignedGrids:
    """Grids that are aligned with another one, [n] each: numbers in the index, and where their first pixels lie on it.

    A grid is there once for each place that it has: one that goes around the earth is on both sides of itself.
    """

    number: Ints
    row: Ints
    col: Ints


class Beside:
    """The records beside those of an index; threads may use it at the same time.

    Parameters
    ----------
    index : RoutingIndex
        Its rules tell how far apart in time records of one moment are, at most.
    """

    def __init__(self, index: RoutingIndex):
        self._index = index

    def neighbours(self, record: int, band: str, reach: int) -> tuple[Neighbour, ...]:
        """The records with a band beside one that has it.

        Parameters
        ----------
        record : int
            Position in the index.
        reach : int
            Pixels around its grid that are wanted.

        Returns
        -------
        tuple of Neighbour
            Those nearest in time come first, then in the order of the collection.
        """
        wide = 1 << max(reach - 1, 0).bit_length()  # so that similar ones share what is found
        return self._known(self._lines[band], record, int(self._index.band_grids(band)[record]), wide)

    @cached_property
    def _known(self) -> Callable[[TimeLine, int, int, int], tuple[Neighbour, ...]]:
        return lru_cache(KEPT)(self._of_moment)

    def _of_moment(self, line: TimeLine, record: int, number: int, reach: int) -> tuple[Neighbour, ...]:
        """The records of a time line that are of the moment of a record, around the grid of this number."""
        aligned, moment = self._around(number, reach), int(self._index.datetimes[record])
        apart = 0 if moment == NO_DATETIME else min(self._index.rules.overlap_tolerance, LONGEST)
        times = np.full(len(aligned.number), moment)
        low = line.first_not_before(aligned.number, times - apart)
        at, place = ranges(low, line.first_after(aligned.number, times + apart))
        order = np.lexsort((at, line.record[place], np.abs(line.moment[place] - moment)))
        at, place, grids = at[order], place[order], self._index.grids
        number_of = aligned.number[at]
        sizes = grids.height[number_of], grids.width[number_of]
        columns = np.stack([line.record[place], number_of, aligned.row[at], aligned.col[at], *sizes], axis=1)
        return tuple(map(Neighbour._make, columns.tolist()))

    @cached_property
    def _lines(self) -> dict[str, TimeLine]:
        """Records by grid, then in time, for each band; bands of the same records share them."""
        layers = self._index.all_layers
        found: dict[str, TimeLine] = {}
        groups = bands_together(layers)
        for (bands, _), rows in zip(groups, rows_of(layers, groups), strict=True):
            of_bands = layers.record[rows], layers.grid[rows], self._index.datetimes, len(self._index.grids)
            found |= dict.fromkeys(bands, TimeLine.of_layers(*of_bands))
        return found

    @cached_property
    def _around(self) -> Callable[[int, int], AlignedGrids]:
        return lru_cache(KEPT)(self._aligned_around)

    def _aligned_around(self, number: int, reach: int) -> AlignedGrids:
        """The grids that have pixels around one, up to so many beyond its edges."""
        crs, own = self._index.grid_crs[number], self._index.grids.take(np.array([number]))
        groups = [group for group in self._index.groups if same_crs(group.crs, crs)]
        parts = [part for group in groups for part in _aligned_in_group(group, own, reach)]
        return AlignedGrids(*map(np.concatenate, zip(*parts, strict=True)))


def shares(neighbours: Sequence[Neighbour], row: Ints, col: Ints) -> Iterator[tuple[Neighbour, Ints]]:
    """Which pixels [m] each of the neighbours gives: positions of those that it is the first to hold.

    Parameters
    ----------
    row, col : [m] int64
        On the grid of the record that they are beside.
    """
    left = np.arange(len(row))
    for neighbour in neighbours:
        if not len(left):
            return
        held = neighbour.holds(row[left], col[left])
        if held.any():
            yield neighbour, left[held]
            left = left[~held]


def _aligned_in_group(group: CrsGroup, own: GridTable, reach: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Numbers, rows and columns of those of a group, for each turn around the earth that leads to some."""
    xmin, ymin, xmax, ymax = _surroundings(own, reach)
    for turn in turns_to(group, np.array([xmin, xmax])):
        near = _near_box(group, xmin + turn, ymin, xmax + turn, ymax)
        grids = group.grids.take(near)
        row, col, aligned = _offsets(own, grids, turn)
        height, width = int(own.height[0]), int(own.width[0])
        within = (row >= 0) & (col >= 0) & (row + grids.height <= height) & (col + grids.width <= width)
        reached = (row < height + reach) & (col < width + reach)
        reached &= (row + grids.height > -reach) & (col + grids.width > -reach)
        chosen = aligned & reached & ~within
        yield group.numbers[near[chosen]], row[chosen], col[chosen]


def _surroundings(own: GridTable, reach: int) -> Floats:
    """The box (xmin, ymin, xmax, ymax) of a grid, given as a table of one, and of so many pixels around it."""
    a, b, _, d, e, _ = np.abs(own.transform[0])
    margin = reach * np.array([a + b, d + e])
    box = own.boxes()[0]
    return np.concatenate([box[:2] - margin, box[2:] + margin])


def _near_box(group: CrsGroup, xmin: float, ymin: float, xmax: float, ymax: float) -> Ints:
    """Positions in a group of the grids whose boxes meet a box."""
    if group.tree is not None:
        return np.sort(group.tree.query(shapely.box(xmin, ymin, xmax, ymax))).astype(np.int64)
    left, bottom, right, top = group.boxes.T
    return np.flatnonzero((left <= xmax) & (right >= xmin) & (bottom <= ymax) & (top >= ymin))


def _offsets(own: GridTable, grids: GridTable, turn: float) -> tuple[Ints, Ints, Mask]:
    """Where the first pixels of grids [n] lie on another, row and column; and whether they are aligned, [n] each.

    Differences are taken before they are divided by the pixel size, as coordinates can have many more digits.

    Parameters
    ----------
    turn : float
        To be added to x of the other grid, so that it lies beside these.
    """
    a, b, c, d, e, f = own.transform[0]
    corner_col = np.stack([np.zeros(len(grids)), grids.width, np.zeros(len(grids)), grids.width])
    corner_row = np.stack([np.zeros(len(grids)), np.zeros(len(grids)), grids.height, grids.height])
    ga, gb, gc, gd, ge, gf = grids.transform.T
    x = (gc - c - turn) + ga * corner_col + gb * corner_row
    y = (gf - f) + gd * corner_col + ge * corner_row
    scale = 1 / (a * e - b * d)
    row, col = (a * y - d * x) * scale, (e * x - b * y) * scale
    first_row, first_col = np.round(row[0]), np.round(col[0])
    apart = np.maximum(np.abs(row - first_row - corner_row), np.abs(col - first_col - corner_col)).max(axis=0)
    return first_row.astype(np.int64), first_col.astype(np.int64), apart <= ALIGNED
