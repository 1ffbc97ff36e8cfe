"""Windows of pixels put together from tiles, each decoded once while it is in the cache."""

from collections.abc import Iterator, Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.chips import PixelWindow
from rasteret_beam.metrics import Tally
from rasteret_beam.model import Asset, Grid
from rasteret_beam.readers.cache import BytesCache
from rasteret_beam.readers.engine import Tile, TileEngine
from rasteret_beam.readers.masks import Mask
from rasteret_beam.readers.rasterio_engine import DatasetPool, enter_gdal

FILE_MASKS = (MaskFlags.per_dataset, MaskFlags.alpha)

LOCKS = 64

Part = tuple[slice, slice]
"""Rows and columns."""


class WindowReader:
    """Reads windows of bands by their tiles; one object serves all threads of a process.

    Parameters
    ----------
    engine : TileEngine
    cache_bytes : int
        Decoded tiles kept for the windows beside.
    """

    def __init__(self, engine: TileEngine, cache_bytes: int = 128 << 20):
        self.engine = engine
        self._cache: BytesCache[Tile] = BytesCache(cache_bytes)
        self._masked_files = DatasetPool()
        # A tile that two threads want is decoded by the first; the other one waits and finds it in the cache.
        self._locks = [Lock() for _ in range(LOCKS)]

    def read(self, assets: Sequence[Asset], grid: Grid, window: PixelWindow, tally: Tally) -> list[Tile]:
        """Raw values of some bands of one file in a window of their grid, [height, width] each, in the file's dtype.

        Raises
        ------
        TileReadError
            A tile cannot be read; names the record, the bands, the file and the tile.
        """
        wholes: list[Tile] = []
        for part in tile_parts(grid, window):
            tiles = self._tiles(assets, grid, part.tile_row, part.tile_col, tally)
            wholes = wholes or [np.empty(window.shape, dtype=values.dtype) for values in tiles]
            for whole, values in zip(wholes, tiles, strict=True):
                whole[part.in_window] = values[part.in_tile]
        return wholes

    def _tiles(self, assets: Sequence[Asset], grid: Grid, row: int, col: int, tally: Tally) -> list[Tile]:
        href = assets[0].href
        with self._locks[hash((href, row, col)) % LOCKS]:
            found: dict[int, Tile | None] = {
                asset.band_index: self._cache.get((href, asset.band_index, row, col)) for asset in assets
            }
            missing = [index for index, tile in found.items() if tile is None]
            if len(missing) < len(found):
                tally.add(metrics.TILE_CACHE_HITS, len(found) - len(missing))
            if missing:
                try:
                    tiles = self.engine.read_tiles(href, missing, grid, row, col, tally)
                except TileReadError as error:
                    names = [asset.band for asset in assets if asset.band_index in missing]
                    bands = f"band {names[0]}" if len(names) == 1 else f"bands {', '.join(names)}"
                    raise TileReadError(f"record {assets[0].record_id!r}, {bands}: {error}") from error
                for index, tile in zip(missing, tiles, strict=True):
                    # A copy where several bands were read: a view would keep all of them in memory.
                    own = tile.copy() if len(missing) > 1 else tile
                    found[index] = own
                    self._cache.put((href, index, row, col), own, own.nbytes)
        return [values for asset in assets if (values := found[asset.band_index]) is not None]

    def read_file_mask(self, asset: Asset, grid: Grid, window: PixelWindow, tally: Tally) -> Mask | None:
        """Where a file's mask band or alpha band says that pixels are valid, [height, width]; None if it has neither.

        Raises
        ------
        TileReadError
            The mask cannot be read.
        """
        enter_gdal()
        pixels = Window(window.col, window.row, window.width, window.height)  # type: ignore[call-arg]
        try:
            with self._masked_files.borrow(asset.href, tally) as dataset:
                flags = dataset.mask_flag_enums[asset.band_index]
                if not any(flag in flags for flag in FILE_MASKS):
                    return None
                found: NDArray[np.uint8] = dataset.read_masks(asset.band_index + 1, window=pixels)
        except (RasterioError, IndexError, ValueError) as error:
            raise TileReadError(
                f"record {asset.record_id!r}, band {asset.band}: mask of {asset.href}: {error}"
            ) from error
        return found != 0

    def close(self) -> None:
        """Close what is open."""
        self._masked_files.close()
        self.engine.close()


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
