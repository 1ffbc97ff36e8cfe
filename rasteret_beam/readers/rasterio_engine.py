"""Tiles through rasterio: everything that GDAL reads."""

import itertools
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock, local

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError, without_secrets
from rasteret_beam.metrics import Tally
from rasteret_beam.model import AS_GIVEN, Access, Grid
from rasteret_beam.readers.access import gdal_settings
from rasteret_beam.readers.budget import CacheBudget
from rasteret_beam.readers.engine import Tile, TileWant
from rasteret_beam.readers.stopping import Stop
from rasteret_beam.readers.stores import is_url, split_url

GDAL_OPTIONS = {
    # Each tile is read once, so GDAL's own cache has only to hold what one read touches.
    "GDAL_CACHEMAX": CacheBudget().share,
    "GDAL_HTTP_MAX_RETRY": 5,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    # A server that stops answering is an error after a while, not a job that hangs for ever.
    "GDAL_HTTP_CONNECTTIMEOUT": 30,
    "GDAL_HTTP_LOW_SPEED_TIME": 60,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
    "VSI_CACHE": "FALSE",
    # Else a file that could not be opened stays so for the process, however well its server is again.
    "CPL_VSIL_CURL_NON_CACHED": ":".join(f"/vsi{name}/" for name in ("curl", "s3", "gs", "az", "adls", "oss")),
}
"""Set for our reads; a variable of that name in the environment wins."""

HEADER_BYTES = 64 << 10
"""Estimate of what GDAL keeps of an open file, beside 16 bytes a tile."""

READ_BYTES = 32 << 20
"""Decoded bytes asked for in one read of several bands."""

CONNECTION_TRIES = 6
FIRST_PAUSE = 0.25
"""Seconds before the second try; each further pause is twice as long."""

NO_CONNECTION = re.compile(
    r"CURL error: .*(connect|refused|reset|timed out|Empty reply|Recv failure|Send failure|transfer closed)"
)


def _hide_secrets(record: logging.LogRecord) -> bool:
    """GDAL's warnings name the URL that it asks for, with its signature."""
    record.msg, record.args = without_secrets(record.getMessage()), None
    return True


logging.getLogger("rasterio._env").addFilter(_hide_secrets)

_thread = local()


def limit_gdal_cache(max_bytes: int) -> None:
    """Bound GDAL's block cache, which is one for the process; it counts for threads that have not read yet."""
    GDAL_OPTIONS["GDAL_CACHEMAX"] = max_bytes


def enter_gdal() -> None:
    """Enter a GDAL environment for the rest of this thread, once: entering it for each tile costs 50 microseconds."""
    if not hasattr(_thread, "env"):
        options = {name: value for name, value in GDAL_OPTIONS.items() if name not in os.environ}
        _thread.env = rasterio.Env(**options)
        _thread.env.__enter__()


@contextmanager
def gdal_access(href: str, access: Access = AS_GIVEN) -> Iterator[None]:
    """GDAL's settings for a file whose bucket is read otherwise than GDAL itself takes from the environment."""
    enter_gdal()
    options = gdal_settings(split_url(href)[0], access) if is_url(href) else {}
    if not options:
        yield
        return
    with rasterio.Env(**options):
        yield


class DatasetPool:
    """Open rasterio datasets, bounded by number and bytes; a dataset is lent to one thread at a time."""

    def __init__(self, max_open: int = 256, max_bytes: int = CacheBudget().share):
        self.max_open = max_open
        self.max_bytes = max_bytes
        self._idle: OrderedDict[str, list[DatasetReader]] = OrderedDict()
        self._count = 0
        self._bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def borrow(self, href: str, tally: Tally) -> Iterator[DatasetReader]:
        """An open dataset of this file, for the calling thread alone."""
        dataset = self._take(href)
        if dataset is None:
            dataset = rasterio.open(href)
            tally.add(metrics.DATASETS_OPENED)
        else:
            tally.add(metrics.DATASET_CACHE_HITS)
        try:
            yield dataset
        except BaseException:
            # Its state is unknown after an error: a retry opens the file anew.
            dataset.close()
            raise
        self._give_back(href, dataset)

    def _take(self, href: str) -> DatasetReader | None:
        with self._lock:
            return self._remove(href) if href in self._idle else None

    def _remove(self, href: str) -> DatasetReader:
        datasets = self._idle[href]
        dataset = datasets.pop()
        if not datasets:
            del self._idle[href]
        self._count -= 1
        self._bytes -= _held_bytes(dataset)
        return dataset

    def _give_back(self, href: str, dataset: DatasetReader) -> None:
        evicted = []
        with self._lock:
            self._idle.setdefault(href, []).append(dataset)
            self._idle.move_to_end(href)
            self._count += 1
            self._bytes += _held_bytes(dataset)
            while self._count and (self._count > self.max_open or self._bytes > self.max_bytes):
                evicted.append(self._remove(next(iter(self._idle))))
        for oldest in evicted:
            oldest.close()

    def close(self) -> None:
        """Close what is open; the pool can be used again."""
        with self._lock:
            idle, self._idle, self._count, self._bytes = self._idle, OrderedDict(), 0, 0
        for datasets in idle.values():
            for dataset in datasets:
                dataset.close()


def _held_bytes(dataset: DatasetReader) -> int:
    height, width = dataset.block_shapes[0]
    blocks = -(-dataset.height // height) * -(-dataset.width // width)
    return HEADER_BYTES + 16 * blocks * dataset.count


class RasterioEngine:
    """The engine for every file; see :class:`rasteret_beam.readers.engine.TileEngine`."""

    def __init__(self, pool: DatasetPool | None = None):
        self.pool = DatasetPool() if pool is None else pool

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
        try:
            yield from zip(wants, self._read_patiently(wants, tally, stop or Stop()), strict=True)
        except (RasterioError, IndexError, ValueError, TileReadError) as error:
            if len(wants) == 1:
                reason = error.__cause__ or error  # rasterio's own text only points at GDAL's
                yield wants[0], wants[0].failed(reason)
                return
            # One of these bands cannot be read; the others may.
            for want in wants:
                if stop is not None:
                    stop.check()
                yield from self.read([want], tally, stop)

    def _read_patiently(self, wants: Sequence[TileWant], tally: Tally, stop: Stop) -> list[Tile]:
        """Again where no connection came about: GDAL asks again after an answer of 503, not without any."""
        for attempt in itertools.count(1):
            try:
                return self._read_together(wants, tally)
            except RasterioError as error:
                if attempt == CONNECTION_TRIES or not NO_CONNECTION.search(f"{error} {error.__cause__}"):
                    raise
            tally.add(metrics.READ_RETRIES)
            stop.wait(FIRST_PAUSE * 2 ** (attempt - 1))
        raise AssertionError

    def _read_together(self, wants: Sequence[TileWant], tally: Tally) -> list[Tile]:
        want = wants[0]
        height, width = want.shape
        row, col = want.tile_row * want.grid.tile_height, want.tile_col * want.grid.tile_width
        window = Window(col, row, width, height)  # type: ignore[call-arg]
        indexes = [each.asset.band_index for each in wants]
        with gdal_access(want.asset.href, want.asset.access), self.pool.borrow(want.asset.href, tally) as dataset:
            _check_unchanged(dataset, indexes, want.grid)
            tiles = dataset.read([index + 1 for index in indexes], window=window)
            tally.add(metrics.TILE_BYTES_READ, stored_bytes(dataset, indexes, window))
        tally.add(metrics.TILES_DECODED, len(wants))
        return list(tiles)

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
