"""The tiles that points touch, and how many points each of them has, over batches of any number."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_beam.collection.eager.reached_tiles import Reached
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.chunks import ChunkRules, chunks_of_pick
from rasteret_beam.kernels.routing.index import RoutingIndex
from rasteret_beam.kernels.routing.layers import Hits, Pick
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
    """

    def __init__(self, routing: RoutingIndex, first_tile: Ints, layers: LayersOf, bandsets: Sequence[tuple[str, ...]]):
        self._routing, self._first_tile, self._layers, self._bandsets = routing, first_tile, layers, bandsets
        self._tiles = int((routing.grids.tiles_across() * routing.grids.tiles_down()).sum())
        self._counts = TileCounts()
        self._reached: set[tuple[int, int]] = set()
        """Numbers of tiles that have points, and of tiles that these reach into."""

    def add(self, pick: Pick) -> None:
        """Add the tiles of the points."""
        self._counts.add(pick.group * self._tiles + tile_numbers(self._routing, self._first_tile, pick.hits))

    def reach(self, pick: Pick, blocks: Reached) -> None:
        """Add the tiles into which blocks around hits of a pick reach."""
        hits, first = pick.hits.take(blocks.hit), pick.group[blocks.hit] * self._tiles
        own = first + tile_numbers(self._routing, self._first_tile, hits)
        pairs = np.unique(np.stack([own, first + self._first_tile[hits.grid] + blocks.tile]), axis=1)
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
