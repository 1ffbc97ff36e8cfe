"""Windows of pixels put together from tiles, each decoded once while it is in the cache."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from threading import Lock
from typing import NamedTuple

import numpy as np

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.routing.chip_windows import PixelWindow
from rasteret_beam.kernels.sampling.validity import Mask, may_be_masked
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Asset, Grid
from rasteret_beam.readers.tiles.cache import BytesCache
from rasteret_beam.readers.tiles.dispatch import Engines
from rasteret_beam.readers.tiles.protocol import NO_MASK, Tile, TileName, TileRequest, owned, tile_name

LOCKS = 64

Part = tuple[slice, slice]
"""Rows and columns."""


class WindowReader:
    """Reads windows of bands by their tiles; one object serves all threads of a process.

    Parameters
    ----------
    engines : Engines, optional
    cache_bytes : int
        Decoded tiles kept for the windows beside.
    """

    def __init__(self, engines: Engines | None = None, cache_bytes: int = 128 << 20):
        self.engines = engines or Engines()
        self._cache: BytesCache[Tile] = BytesCache(cache_bytes)
        # A tile that two threads want is decoded by the first; the other one waits and finds it in the cache.
        self._locks = [Lock() for _ in range(LOCKS)]

    def read(self, assets: Sequence[Asset], grid: Grid, window: PixelWindow, counters: Counters) -> list[Tile]:
        """Raw values of some bands of one file in a window of their grid, [height, width] each, in the file's dtype.

        Raises
        ------
        TileReadError
            A tile cannot be read; names the record, the band, the file and the tile.
        """
        parts = list(tile_parts(grid, window))
        tiles = self._tiles(assets, grid, parts, counters)
        wholes = [np.empty(window.shape, dtype=tiles[_key(asset, parts[0])].dtype) for asset in assets]
        for asset, whole in zip(assets, wholes, strict=True):
            for part in parts:
                whole[part.in_window] = tiles[_key(asset, part)][part.in_tile]
        return wholes

    def _tiles(
        self, assets: Sequence[Asset], grid: Grid, parts: Sequence["TilePart"], counters: Counters, mask: bool = False
    ) -> dict[TileName, Tile]:
        """All tiles, or their masks, under a window: those that are not in the cache are read together."""
        locks = {hash((assets[0].href, part.tile_row, part.tile_col)) % LOCKS for part in parts}
        with ExitStack() as held:
            for number in sorted(locks):  # in one order everywhere, so that no two threads wait for each other
                held.enter_context(self._locks[number])
            return self._read_tiles(assets, grid, parts, counters, mask)

    def _read_tiles(
        self, assets: Sequence[Asset], grid: Grid, parts: Sequence["TilePart"], counters: Counters, mask: bool
    ) -> dict[TileName, Tile]:
        tiles: dict[TileName, Tile] = {}
        wants = []
        for asset in assets:
            for part in parts:
                found = self._cache.get(_key(asset, part, mask))
                if found is None:
                    wants.append(TileRequest(asset, grid, part.tile_row, part.tile_col, grid.tile_height, mask))
                else:
                    counters.add(metrics.TILE_CACHE_HITS)
                    tiles[_key(asset, part, mask)] = found
        for read in self.engines.plan(wants):
            for want, tile in read.engine.read(read.wants, counters):
                if isinstance(tile, TileReadError):
                    raise tile
                own = owned(tile)
                tiles[_key(want.asset, want, mask)] = own
                self._cache.put(_key(want.asset, want, mask), own, own.nbytes)
        return tiles

    def read_file_mask(self, asset: Asset, grid: Grid, window: PixelWindow, counters: Counters) -> Mask | None:
        """Where a file's own mask says that pixels are valid, [height, width]; None if it has none.

        Raises
        ------
        TileReadError
            The mask cannot be read.
        """
        if not may_be_masked(asset):
            return None
        parts = list(tile_parts(grid, window))
        tiles = self._tiles([asset], grid, parts, counters, mask=True)
        if any(tile is NO_MASK for tile in tiles.values()):
            return None
        left_in = np.empty(window.shape, dtype=bool)
        for part in parts:
            left_in[part.in_window] = tiles[_key(asset, part, True)][part.in_tile] != 0
        return left_in

    def close(self) -> None:
        """Close what is open."""
        self.engines.close()


def _key(asset: Asset, tile: "TilePart | TileRequest", mask: bool = False) -> TileName:
    return tile_name(asset, tile.tile_row, tile.tile_col, mask)


class TilePart(NamedTuple):
    """A tile, and what a window and the tile have in common: as part of the window, and of the tile."""

    tile_row: int
    tile_col: int
    in_window: Part
    in_tile: Part


def tile_parts(grid: Grid, window: PixelWindow) -> Iterator[TilePart]:
    """The tiles under a window, row by row."""
    high, wide = grid.tile_height, grid.tile_width
    bottom, right = window.row + window.height, window.col + window.width
    for tile_row in range(window.row // high, (bottom - 1) // high + 1):
        for tile_col in range(window.col // wide, (right - 1) // wide + 1):
            top, left = max(window.row, tile_row * high), max(window.col, tile_col * wide)
            below, beside = min(bottom, (tile_row + 1) * high), min(right, (tile_col + 1) * wide)
            yield TilePart(
                tile_row,
                tile_col,
                (slice(top - window.row, below - window.row), slice(left - window.col, beside - window.col)),
                (
                    slice(top - tile_row * high, below - tile_row * high),
                    slice(left - tile_col * wide, beside - tile_col * wide),
                ),
            )
