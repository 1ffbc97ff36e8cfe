"""The tiles that points touch, and how many points each of them has, over batches of any number."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import GridTable, Ints
from rasteret_beam.kernels.routing.chunks import ChunkRules, chunks_of_pick
from rasteret_beam.kernels.routing.index import RoutingIndex
from rasteret_beam.kernels.routing.layers import Hits, Pick
from rasteret_beam.kernels.sampling.interpolation import reach
from rasteret_beam.model import TileKey

LayersOf = Callable[[int], Sequence[tuple[int, int]]]


class TileCounts:
    """Numbers of points of the tiles that have points; tiles are numbered over all grids."""

    def __init__(self) -> None:
        self._tiles = self._points = np.empty(0, dtype=np.int64)
        self._waiting: list[tuple[Ints, Ints]] = []

    def add(self, tiles: Ints) -> None:
        """Count points by the number [n] of their tile."""
        self._waiting.append(np.unique(tiles, return_counts=True))
        if sum(len(waiting) for waiting, _ in self._waiting) > len(self._tiles):
            self.total()

    def total(self) -> tuple[Ints, Ints]:
        """Sorted numbers [m] of the tiles, and their numbers [m] of points."""
        tiles, points = (
            np.concatenate(parts) for parts in zip((self._tiles, self._points), *self._waiting, strict=True)
        )
        self._tiles, at = np.unique(tiles, return_inverse=True)
        self._points = np.zeros(len(self._tiles), dtype=np.int64)
        np.add.at(self._points, at, points)
        self._waiting = []
        return self._tiles, self._points


def first_tiles(routing: RoutingIndex) -> Ints:
    """Number [g] of the first tile of each grid."""
    tiles = routing.grids.tiles_across() * routing.grids.tiles_down()
    return np.cumsum(tiles) - tiles


def tile_numbers(routing: RoutingIndex, first_tile: Ints, hits: Hits) -> Ints:
    """Number of the tile of each hit, over all grids."""
    grids = routing.grids
    row = hits.row.astype(np.int64) // grids.tile_height[hits.grid]
    col = hits.col.astype(np.int64) // grids.tile_width[hits.grid]
    return first_tile[hits.grid] + row * grids.tiles_across()[hits.grid] + col


Group = tuple[TileKey, tuple[str, ...], Any, Ints, Ints, Ints]
"""A key that points are grouped by, its bands and its grid; and the rows, columns and points of its tiles."""


class TouchedTiles:
    """The tiles of one of a matcher's picks over all batches; each group of hits has separate tiles.

    Parameters
    ----------
    routing : RoutingIndex
    first_tile : [g] int64
        Of :func:`first_tiles`.
    layers : callable
        From a group to the (record, bandset) of its layers.
    bandsets : sequence of tuple of str
    size : int
        Pixels on each side of the block that a point is interpolated of; 1 where it is not.
    """

    def __init__(
        self,
        routing: RoutingIndex,
        first_tile: Ints,
        layers: LayersOf,
        bandsets: Sequence[tuple[str, ...]],
        size: int = 1,
    ):
        self._routing, self._first_tile, self._layers, self._bandsets = routing, first_tile, layers, bandsets
        self._size = size
        self._tiles = int((routing.grids.tiles_across() * routing.grids.tiles_down()).sum())
        self._counts = TileCounts()
        self._reached: set[tuple[int, int]] = set()
        """Numbers of tiles that have points, and of tiles that these reach into."""

    def add(self, pick: Pick) -> None:
        tiles = tile_numbers(self._routing, self._first_tile, pick.hits)
        self._counts.add(pick.group * self._tiles + tiles)
        if self._size > 1:
            for at, beside in tiles_beside(self._routing.grids, pick.hits, self._size):
                own = pick.group[at] * self._tiles + tiles[at]
                pairs = np.unique(np.stack([own, own + beside]), axis=1)
                self._reached.update(zip(*pairs.tolist(), strict=True))

    def groups(self) -> Iterator[Group]:
        """The groups that sampling reads at once: the tiles with points, then those that these only reach into.

        Each tile is routed as one point, so it is cut in the same way. A tile that has points of another group is read
        there.
        """
        numbers, points = self._counts.total()
        yield from self._groups(numbers, numbers, points)
        beside: dict[int, int] = {}
        for own, reached in sorted(self._reached):
            beside.setdefault(reached, own)
        for number in numbers.tolist():
            beside.pop(number, None)
        alone, of = (np.array([*part], dtype=np.int64) for part in (beside.keys(), beside.values()))
        yield from self._groups(alone, of, np.zeros_like(alone))

    def _groups(self, numbers: Ints, of: Ints, points: Ints) -> Iterator[Group]:
        """Groups of tiles [m] that are read with others, of the same grids."""
        group, tiles = np.divmod(of, max(self._tiles, 1))
        grids = self._routing.grids
        grid = np.searchsorted(self._first_tile, tiles, side="right") - 1
        row, col = np.divmod(tiles - self._first_tile[grid], grids.tiles_across()[grid])
        top, left = row * grids.tile_height[grid], col * grids.tile_width[grid]
        point = np.arange(len(tiles))
        batch = pa.record_batch({"point_index": point})
        hits = Hits(point, grid, top.astype(np.float64), left.astype(np.float64))
        pick = Pick(hits, group, self._layers)
        row, col = np.divmod(numbers - of + tiles - self._first_tile[grid], grids.tiles_across()[grid])
        for key, chunk in chunks_of_pick(self._routing, batch, pick, ChunkRules(), with_position=False):
            at = chunk["point_index"].to_numpy()
            bands, named = self._bandsets[key.bandset], self._routing.grid(key.grid)
            yield key, bands, named, row[at], col[at], points[at]


def tiles_beside(grids: GridTable, hits: Hits, size: int) -> Iterator[tuple[Ints, Ints]]:
    """The tiles, beside those of the points, into which the blocks of an interpolation reach.

    Yields
    ------
    [m] int64
        Positions of hits.
    [m] int64
        How much higher the number of the tile is than that of the point's own.
    """
    grid = hits.grid
    down = _tiles_around(hits.row, size, grids.tile_height[grid], grids.height[grid])
    across = _tiles_around(hits.col, size, grids.tile_width[grid], grids.width[grid])
    each_way = (range(int(first.min(initial=0)), int(last.max(initial=0)) + 1) for first, last in (down, across))
    for row, col in product(*each_way):
        inside = (down[0] <= row) & (row <= down[1]) & (across[0] <= col) & (col <= across[1])
        at = np.flatnonzero(inside)
        if (row or col) and len(at):
            yield at, row * grids.tiles_across()[grid[at]] + col


def _tiles_around(position: Floats, size: int, tile: Ints, count: Ints) -> tuple[Ints, Ints]:
    """The first and the last tile [n], counted from the point's own, of the rows (or columns) of blocks."""
    pixel = position.astype(np.int64)
    before, after = reach(position - pixel, size)
    own = pixel // tile
    return np.maximum(pixel - before, 0) // tile - own, np.minimum(pixel + after, count - 1) // tile - own
