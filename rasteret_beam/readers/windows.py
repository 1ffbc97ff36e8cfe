"""Windows of pixels put together from tiles, each decoded once while it is in the cache."""

from collections.abc import Callable

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
from rasteret_beam.readers.engine import Tile, TileWant
from rasteret_beam.readers.engines import Engines
from rasteret_beam.readers.masks import Mask
from rasteret_beam.readers.rasterio_engine import DatasetPool, enter_gdal

FILE_MASKS = (MaskFlags.per_dataset, MaskFlags.alpha)

TileFunction = Callable[[int, int], Tile]


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
        self._masked_files = DatasetPool()

    def read(self, asset: Asset, grid: Grid, window: PixelWindow, tally: Tally) -> Tile:
        """Raw values of a band in a window of its grid, [height, width], in the file's dtype.

        Raises
        ------
        TileReadError
            A tile cannot be read; names the record, the band, the file and the tile.
        """

        def tile(row: int, col: int) -> Tile:
            key = (asset.href, asset.band_index, row, col)
            found = self._cache.get(key)
            if found is not None:
                tally.add(metrics.TILE_CACHE_HITS)
                return found
            ((_, values),) = self._read_tile(TileWant(asset, grid, row, col, grid.tile_height), tally)
            if isinstance(values, TileReadError):
                raise values
            self._cache.put(key, values, values.nbytes)
            return values

        return assembled(grid, window, tile)

    def _read_tile(self, want: TileWant, tally: Tally) -> list[tuple[TileWant, Tile | TileReadError]]:
        return [found for read in self.engines.plan([want]) for found in read.engine.read(read.wants, tally)]

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
        self.engines.close()


def assembled(grid: Grid, window: PixelWindow, tile: TileFunction) -> Tile:
    """A window put together from the tiles under it, which ``tile(row, col)`` gives; always a copy."""
    high, wide = grid.tile_height, grid.tile_width
    bottom, right = window.row + window.height, window.col + window.width
    whole: Tile | None = None
    for tile_row in range(window.row // high, (bottom - 1) // high + 1):
        for tile_col in range(window.col // wide, (right - 1) // wide + 1):
            values = tile(tile_row, tile_col)
            if whole is None:
                whole = np.empty(window.shape, dtype=values.dtype)
            top, left = tile_row * high, tile_col * wide
            rows = slice(max(window.row, top), min(bottom, top + high))
            cols = slice(max(window.col, left), min(right, left + wide))
            part = values[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
            whole[
                rows.start - window.row : rows.stop - window.row, cols.start - window.col : cols.stop - window.col
            ] = part
    assert whole is not None
    return whole
