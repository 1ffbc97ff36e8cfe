"""Layers, which are the bands of a record on a grid; hits, which are points on a grid; and picks, which are both."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import GridTable, Ints

NO_DATETIME = np.iinfo(np.int64).min
"""The datetime of a record that has none."""


@dataclass(frozen=True, eq=False)
class Layers:
    """Which record has which bands on which grid: one row a (record, grid), as columns.

    Attributes
    ----------
    record, grid, bandset : [n] int64
        Positions in the index's records, grids and ``bandsets``.
    bandsets : list of tuple of str
        The wanted bands that a layer can have, in the order wanted.
    """

    record: Ints
    grid: Ints
    bandset: Ints
    bandsets: list[tuple[str, ...]]

    @classmethod
    def arranged(cls, record: Ints, grid: Ints, bandset: Ints, bandsets: list[tuple[str, ...]]) -> "Layers":
        """Layers sorted by grid, then by record."""
        order = np.lexsort((record, grid))
        return cls(record[order], grid[order], bandset[order], bandsets)

    def on_grid(self, number: int) -> list[tuple[int, int]]:
        """(record, bandset) of each layer on a grid; of arranged layers."""
        start, stop = np.searchsorted(self.grid, [number, number + 1])
        return list(zip(self.record[start:stop].tolist(), self.bandset[start:stop].tolist(), strict=True))


class BandGrids:
    """The grids of bands by record, found when a band is first asked for.

    Parameters
    ----------
    layers : Layers
    records : int
        How many there are.
    """

    def __init__(self, layers: Layers, records: int):
        self.layers, self._records = layers, records
        self._known: dict[str, Ints] = {}

    def of(self, band: str) -> Ints:
        """Number of the grid, [r], on which each record has a band; -1 where it lacks it."""
        if band not in self._known:
            has = np.array([band in bandset for bandset in self.layers.bandsets], dtype=bool)[self.layers.bandset]
            found = np.full(self._records, -1, dtype=np.int64)
            found[self.layers.record[has]] = self.layers.grid[has]
            self._known[band] = found
        return self._known[band]


@dataclass(frozen=True, eq=False)
class Hits:
    """Pairs of a point and a grid that contains it, with the position on it in pixels, as columns [n].

    ``row`` and ``col`` are fractional; their floor is the pixel.
    """

    point: Ints
    grid: Ints
    row: Floats
    col: Floats

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Hits":
        return Hits(self.point[rows], self.grid[rows], self.row[rows], self.col[rows])


@dataclass(frozen=True, eq=False)
class Pick:
    """Hits whose layers are taken.

    Attributes
    ----------
    hits : Hits
        Of n pairs of a point and a grid.
    group : [n] int64
        Hits of one group lie on one grid, and all of them have the layers of the group.
    layers : callable
        From a group to the (record, bandset) of its layers.
    """

    hits: Hits
    group: Ints
    layers: Callable[[int], Sequence[tuple[int, int]]]


BandGroups = list[tuple[tuple[str, ...], list[int]]]
"""Groups of bands, each with the numbers of the band sets that these have."""


def bands_together(layers: Layers) -> BandGroups:
    """Bands that the same records have on the same grids."""
    sets_of_band: dict[str, list[int]] = {}
    for number in np.unique(layers.bandset).tolist():
        for band in layers.bandsets[number]:
            sets_of_band.setdefault(band, []).append(number)
    order = list(dict.fromkeys(band for bandset in layers.bandsets for band in bandset))
    together: dict[tuple[int, ...], list[str]] = {}
    for band in order:
        if band in sets_of_band:
            together.setdefault(tuple(sets_of_band[band]), []).append(band)
    return [(tuple(bands), list(members)) for members, bands in together.items()]


def rows_of(layers: Layers, groups: BandGroups) -> list[Ints]:
    """The rows of the layers of each group."""
    return [np.flatnonzero(np.isin(layers.bandset, members)) for _, members in groups]


def only_bands(layers: Layers, bands: Collection[str]) -> Layers:
    """The layers of some bands alone, in the order in which layers have them."""
    left = [tuple(band for band in bandset if band in bands) for bandset in layers.bandsets]
    bandsets = list(dict.fromkeys(filter(None, left)))
    number = np.array([bandsets.index(each) if each else -1 for each in left], dtype=np.int64)[layers.bandset]
    has = number >= 0
    return Layers(layers.record[has], layers.grid[has], number[has], bandsets)


def tiles_of_coarsest(grids: GridTable, layers: Layers) -> tuple[Ints, Ints]:
    """Tiles of each grid, [g] down and [g] across, that the largest tile on any grid of its records covers."""
    a, b, _, d, e, _ = grids.transform.T
    counts = []
    for sizes in (
        np.hypot(b, e) * np.minimum(grids.tile_height, grids.height),
        np.hypot(a, d) * np.minimum(grids.tile_width, grids.width),
    ):
        largest = np.zeros(int(layers.record.max(initial=-1)) + 1)
        np.maximum.at(largest, layers.record, sizes[layers.grid])
        covered = sizes.copy()
        np.maximum.at(covered, layers.grid, largest[layers.record])
        counts.append(np.ceil(covered / sizes - 1e-6).astype(np.int64))
    return counts[0], counts[1]
