"""Portions of polygons that are read together, of bounded size, and the pixels of their zones."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import shapely

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.chip_chunks import cut_window, shapes_in
from rasteret_beam.kernels.routing.chip_windows import Overlap
from rasteret_beam.kernels.routing.index import RoutingIndex
from rasteret_beam.kernels.statistics.lattices import Lattice, aligned, each_alone, numbers_of
from rasteret_beam.kernels.statistics.moments import Choice
from rasteret_beam.kernels.statistics.zone_pixels import ZoneWindow
from rasteret_beam.model import Grid
from rasteret_beam.readers.jobs.zone_coverage import whole_weights, zone_pixels
from rasteret_beam.readers.jobs.zone_reader import PlacedPixels

PORTION_PIXELS = 1 << 21
"""Pixels of the polygons of a portion, about 40 bytes each."""

WINDOW_PIXELS = 1 << 19
"""Pixels of the windows in which a large polygon is read; several are under way at the same time."""

PORTION_CELLS = 1 << 23
"""Cells of their windows; a polygon of more than half as many is read window by window."""

PORTION_ROWS = 1 << 17
"""Rows that a portion gives, for each band."""


@dataclass(eq=False)
class ZoneLattice:
    """A lattice, and the polygons of a portion on it.

    Attributes
    ----------
    lattice : Lattice
    zones : [n] int64
        Numbers of the polygons, ascending.
    windows : sequence of ZoneWindow
        Of each, its whole window; ``zone`` is the position in ``zones``.
    coverage : str
    own : [n] float64
        Pixels in the window, or the sum of their shares, as far as they have been found.
    """

    lattice: Lattice
    zones: Ints
    windows: Sequence[ZoneWindow]
    coverage: str
    own: Floats = field(init=False)
    _placed: PlacedPixels | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.own = np.zeros(len(self.zones))

    @property
    def is_large(self) -> bool:
        """Whether it is a polygon that is read window by window."""
        return len(self.windows) == 1 and _cells(self.windows[0]) > PORTION_CELLS // 2

    def parts(self) -> Iterator[PlacedPixels]:
        """The pixels of the zones, all together or, of a large polygon, window by window."""
        if self._placed is not None:
            yield self._placed
            return
        self.own = np.zeros(len(self.zones))
        for windows in self._windows():
            placed = PlacedPixels(zone_pixels(self.lattice.grid, windows, len(self.zones), self.coverage))
            self.own += placed.pixels.weights()
            self._placed = None if self.is_large else placed
            yield placed

    def _windows(self) -> Iterator[Sequence[ZoneWindow]]:
        if not self.is_large:
            yield self.windows
            return
        ((zone, window, shape),) = self.windows
        grid = self.lattice.grid
        cut = cut_window(window, grid.tile_height, grid.tile_width, WINDOW_PIXELS)
        for part, seen in zip(cut, shapes_in(shape, grid, cut), strict=True):
            if seen is not None:
                yield [ZoneWindow(zone, part, seen)]

    @cached_property
    def weight(self) -> Floats:
        """Pixels of each polygon, [n], or the sum of their shares, with those beyond the raster; after all parts."""
        return whole_weights(self.lattice.grid, self.windows, self.own, self.coverage)


@dataclass(frozen=True, eq=False)
class Portion:
    """Polygons that are read together.

    Attributes
    ----------
    choices : sequence of Choice
        By polygon.
    lattices : sequence of ZoneLattice
    """

    choices: Sequence[Choice]
    lattices: Sequence[ZoneLattice]

    @cached_property
    def lattice_of(self) -> dict[int, int]:
        """The position of the lattice of each grid."""
        return {number: at for at, each in enumerate(self.lattices) for number in each.lattice.places}


def portions(
    choices: Iterable[Choice], overlaps: Sequence[Overlap], routing: RoutingIndex, coverage: str, merge: bool
) -> Iterator[Portion]:
    """Choices in portions: neighbouring polygons together, all choices of a polygon in one portion.

    Parameters
    ----------
    merge : bool
        Grids that are aligned share a lattice.
    """
    by_zone: dict[int, list[Choice]] = {}
    for choice in choices:
        by_zone.setdefault(choice.zone, []).append(choice)
    hits = {zone: sorted({hit for choice in own for hit in choice.hits}) for zone, own in by_zone.items()}
    sizes = _sizes(overlaps, routing)
    held: list[int] = []
    pixels = cells = rows = 0
    for zone in sorted(by_zone, key=lambda zone: _place(overlaps[hits[zone][0]], routing)):
        of_hits = sum if merge else max  # where it shares a lattice, a polygon has the pixels of all of its grids
        own = of_hits(sizes[hit] for hit in hits[zone])
        box = of_hits(_cells(ZoneWindow(0, *overlaps[hit][2:])) for hit in hits[zone])
        lines = sum(len(choice.ranked) for choice in by_zone[zone])
        full = pixels + own > PORTION_PIXELS or cells + box > PORTION_CELLS or rows + lines > PORTION_ROWS
        if held and full:
            yield _portion(held, by_zone, hits, overlaps, routing, coverage, merge)
            held, pixels, cells, rows = [], 0, 0, 0
        held.append(zone)
        pixels, cells, rows = pixels + own, cells + box, rows + lines
    if held:
        yield _portion(held, by_zone, hits, overlaps, routing, coverage, merge)


def _portion(
    zones: Sequence[int],
    by_zone: dict[int, list[Choice]],
    hits: dict[int, list[int]],
    overlaps: Sequence[Overlap],
    routing: RoutingIndex,
    coverage: str,
    merge: bool,
) -> Portion:
    zones = sorted(zones)
    found = [overlaps[hit] for zone in zones for hit in hits[zone]]
    grids: dict[int, Grid] = {number: routing.grid(number) for number in numbers_of(found)}
    lattices = []
    for lattice in aligned(grids) if merge else each_alone(grids):
        on: dict[int, list[Overlap]] = {}
        for zone in zones:
            there = [overlaps[hit] for hit in hits[zone] if overlaps[hit].grid in lattice.places]
            if there:
                on[zone] = there
        windows = [lattice.window(at, there) for at, there in enumerate(on.values())]
        lattices.append(ZoneLattice(lattice, np.array(list(on), dtype=np.int64), windows, coverage))
    return Portion([choice for zone in zones for choice in by_zone[zone]], lattices)


def _sizes(overlaps: Sequence[Overlap], routing: RoutingIndex) -> list[int]:
    """About how many pixels each overlap has."""
    shapes = np.empty(len(overlaps), dtype=object)
    shapes[:] = [overlap.shape for overlap in overlaps]
    a, b, _, d, e, _ = routing.grids.transform[[overlap.grid for overlap in overlaps]].T
    areas = shapely.area(shapes) / np.abs(a * e - b * d)
    edges = [2 * (overlap.window.height + overlap.window.width) for overlap in overlaps]
    cells = [overlap.window.height * overlap.window.width for overlap in overlaps]
    return np.minimum(areas + edges, cells).astype(np.int64).tolist()


def _cells(each: ZoneWindow) -> int:
    return each.window.height * each.window.width


def _place(overlap: Overlap, routing: RoutingIndex) -> tuple[int, int, int, int]:
    """Grid and tile in which a polygon starts, and its number."""
    high, wide = int(routing.grids.tile_height[overlap.grid]), int(routing.grids.tile_width[overlap.grid])
    return overlap.grid, overlap.window.row // high, overlap.window.col // wide, overlap.geometry
