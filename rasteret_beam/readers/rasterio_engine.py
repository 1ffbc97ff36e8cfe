"""Tiles through rasterio: everything that GDAL reads."""

from collections.abc import Iterator, Sequence

from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.metrics import Tally
from rasteret_beam.model import Grid
from rasteret_beam.readers.datasets import RasterPool
from rasteret_beam.readers.engine import Tile, TileWant
from rasteret_beam.readers.ranges import RangeError, state_of
from rasteret_beam.readers.stopping import Stop

READ_BYTES = 32 << 20
"""Decoded bytes asked for in one read of several bands."""


class RasterioEngine:
    """The engine for every file; see :class:`rasteret_beam.readers.engine.TileEngine`."""

    def __init__(self, pool: RasterPool | None = None):
        self.pool = RasterPool(alone=True) if pool is None else pool

    def plan(self, wants: Sequence[TileWant]) -> list[list[TileWant]]:
        """Bands of one file in one tile, which GDAL decodes once if they lie interleaved."""
        at_place: dict[tuple[str, int, int], list[TileWant]] = {}
        for want in wants:
            at_place.setdefault((want.asset.href, want.tile_row, want.tile_col), []).append(want)
        sets = []
        for bands in at_place.values():
            most = max(1, READ_BYTES // (8 * bands[0].grid.tile_width * bands[0].grid.tile_height))
            sets += [bands[start : start + most] for start in range(0, len(bands), most)]
        return sets

    def read(
        self, wants: Sequence[TileWant], tally: Tally, stop: Stop | None = None
    ) -> Iterator[tuple[TileWant, Tile | TileReadError]]:
        reason: BaseException
        try:
            yield from zip(wants, self._read_together(wants, tally, stop), strict=True)
            return
        except RangeError as error:
            reason, of_all = error, error.of_file
        except (RasterioError, IndexError, ValueError, TileReadError) as error:
            reason, of_all = error.__cause__ or error, False  # rasterio's own text only points at GDAL's
        if of_all or len(wants) == 1:
            yield from ((want, want.failed(reason)) for want in wants)
            return
        # One of these bands cannot be read; the others may.
        for want in wants:
            if stop is not None:
                stop.check()
            yield from self.read([want], tally, stop)

    def _read_together(self, wants: Sequence[TileWant], tally: Tally, stop: Stop | None) -> list[Tile]:
        want = wants[0]
        height, width = want.shape
        row, col = want.tile_row * want.grid.tile_height, want.tile_col * want.grid.tile_width
        window = Window(col, row, width, height)  # type: ignore[call-arg]
        indexes = [each.asset.band_index for each in wants]

        def read(dataset: DatasetReader) -> list[Tile]:
            _check_unchanged(dataset, indexes, want.grid)
            tiles = list(dataset.read([index + 1 for index in indexes], window=window))
            tally.add(metrics.TILE_BYTES_READ, stored_bytes(dataset, indexes, window))
            return tiles

        tiles = self.pool.read(state_of(want.asset), read, tally, stop)
        tally.add(metrics.TILES_DECODED, len(wants))
        return tiles

    def close(self) -> None:
        self.pool.close()


def _check_unchanged(dataset: DatasetReader, band_indexes: Sequence[int], grid: Grid) -> None:
    found = f"{dataset.width} x {dataset.height} pixels in {dataset.count} band(s)"
    if (dataset.width, dataset.height) != (grid.width, grid.height) or max(band_indexes) >= dataset.count:
        raise TileReadError(
            f"the file is {found}, but the collection has it as {grid.width} x {grid.height} with band index "
            f"{max(band_indexes)}: the file was changed after the collection was built; build it again"
        )


def stored_bytes(dataset: DatasetReader, band_indexes: Sequence[int], window: Window) -> int:
    """Compressed bytes of the TIFF blocks under a window; 0 for formats and tiles that have none.

    GDAL tells the size of a block in the item ``BLOCK_SIZE_<col>_<row>`` of the TIFF domain;
    bands interleaved by pixel share their blocks.
    """
    if dataset.driver != "GTiff":
        return 0
    shared = dataset.interleaving is not None and dataset.interleaving.name == "pixel"
    total = 0
    for index in band_indexes[:1] if shared else band_indexes:
        height, width = dataset.block_shapes[index]
        for row in range(int(window.row_off) // height, -(-int(window.row_off + window.height) // height)):
            for col in range(int(window.col_off) // width, -(-int(window.col_off + window.width) // width)):
                total += int(dataset.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=index + 1) or 0)
    return total
