"""Layers, which are the bands of a record on a grid; hits, which are points on a grid; and picks, which are both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints

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
