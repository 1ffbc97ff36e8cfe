"""Sampling one group of points: read the tiles they touch, a few ahead, and gather the values."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np
import pyarrow as pa

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.crs import Floats, epsg_code
from rasteret_beam.kernels.grids import Ints
from rasteret_beam.kernels.neighbourhood import Neighbourhood, Window, closest_valid, distances, is_valid, window_lists
from rasteret_beam.kernels.routing import NO_DATETIME, RoutingIndex
from rasteret_beam.kernels.sampling import RecordFacts, TilePoints, by_tile, gather, merged, sample_rows
from rasteret_beam.metrics import Tally
from rasteret_beam.model import Asset, Grid, TileKey
from rasteret_beam.readers.cache import BytesCache
from rasteret_beam.readers.engine import Tile, TileEngine
from rasteret_beam.schema import PIXEL, POINT_EPSG_KEY, POSITION

PORTION_ROWS = 131_072
"""Chunks of a group are sampled together up to so many points, which bounds memory."""

WINDOW_ROWS = 8192
"""Points whose windows are searched at a time."""

NO_FALLBACK = Neighbourhood()

READ_BYTES = 32 << 20
"""Decoded bytes asked for in one read of several bands."""

AssetLookup = Callable[[str, Sequence[str]], Sequence[Asset]]

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class TileRead:
    """One read: some bands of one file in one tile, and where their values go."""

    href: str
    assets: tuple[Asset, ...]
    points: TilePoints


class TileSampler:
    """Samples groups of points; one object serves all threads of a process.

    Parameters
    ----------
    engine : TileEngine
    threads : int
        Tiles decoded at the same time.
    cache_bytes : int
        Decoded tiles kept, for crowded tiles whose points come in several portions.
    """

    def __init__(self, engine: TileEngine, threads: int | None = None, cache_bytes: int = 64 << 20):
        self.engine = engine
        self.threads = threads or min(8, os.cpu_count() or 1)
        self._cache: BytesCache[Tile] = BytesCache(cache_bytes)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="tiles")

    def sample(
        self,
        index: RoutingIndex,
        assets: AssetLookup,
        collection: str,
        key: TileKey,
        chunks: Iterable[pa.RecordBatch],
        tally: Tally,
        around: Neighbourhood = NO_FALLBACK,
    ) -> Iterator[pa.RecordBatch]:
        """Rows of the sample table for the points of one group.

        Parameters
        ----------
        around : Neighbourhood
            Nodata fallback; with a radius, chunks need the columns :data:`schema.POSITION`.

        Yields
        ------
        RecordBatch
            One for each band and each portion of at most :data:`PORTION_ROWS` points (or one chunk).

        Raises
        ------
        TileReadError
            A tile cannot be read; names the record, the band, the file and the tile.
        """
        grid, bands = index.grid_of(key)
        found = {asset.band: asset for asset in assets(key.record_id, bands)}
        files = _reads_of(list(found.values()), grid)
        moment = int(index.datetimes[index.positions[key.record_id]])
        raster_crs = epsg_code(grid.crs)
        for chunk in _portions(chunks, max(1, PORTION_ROWS // around.cells)):
            code = (chunk.schema.metadata or {}).get(POINT_EPSG_KEY)
            facts = RecordFacts(
                key.record_id,
                None if moment == NO_DATETIME else moment,
                collection,
                raster_crs,
                int(code) if code is not None else None,
            )
            values = self._values(grid, files, bands, chunk, tally)
            for band in bands:
                windows = self._fall_back(grid, found[band], chunk, values[band], around, tally)
                tally.add(metrics.SAMPLES_OUT, len(chunk))
                yield sample_rows(chunk, band, values[band], facts, windows)

    def _values(
        self,
        grid: Grid,
        files: list[tuple[str, tuple[Asset, ...]]],
        bands: Sequence[str],
        chunk: pa.RecordBatch,
        tally: Tally,
    ) -> dict[str, Floats]:
        values = {band: np.empty(len(chunk)) for band in bands}
        row, col = _pixels(chunk)

        def read(work: TileRead) -> None:
            # Reads of one chunk write to places of their own, so threads need no lock.
            tiles = self._tiles(grid, work, tally)
            for asset, tile in zip(work.assets, tiles, strict=True):
                values[asset.band][work.points.point] = gather(tile, work.points.row, work.points.col)

        reads = (TileRead(href, assets, points) for points in by_tile(grid, row, col) for href, assets in files)
        self._run_ahead(read, reads)
        return values

    def _fall_back(
        self, grid: Grid, asset: Asset, chunk: pa.RecordBatch, values: Floats, around: Neighbourhood, tally: Tally
    ) -> pa.Array | None:
        """Put the closest valid value in place of each invalid one; gives the windows, if they are returned."""
        if not around.max_distance_pixels:
            return None
        invalid = ~is_valid(values, asset.nodata)
        wanted = np.arange(len(values)) if around.return_neighbourhood == "always" else np.flatnonzero(invalid)
        window = Window.of_radius(around.max_distance_pixels)
        row, col = _pixels(chunk)
        row_part, col_part = (chunk[name].to_numpy() for name in POSITION)
        shown = []
        for points in np.split(wanted, range(WINDOW_ROWS, len(wanted), WINDOW_ROWS)):
            cells = self._cells(grid, asset, window, row[points], col[points], tally)
            missing = np.flatnonzero(invalid[points])
            at = points[missing]
            distance = distances(grid, window, row_part[at], col_part[at])
            cell = closest_valid(window, is_valid(cells[missing], asset.nodata), distance, around.fallback)
            there = cell >= 0
            values[at[there]] = cells[missing[there], cell[there]]
            shown.append(cells.ravel())
        return window_lists(wanted, np.concatenate(shown), len(values), around.cells) if around.returned else None

    def _cells(self, grid: Grid, asset: Asset, window: Window, row: Ints, col: Ints, tally: Tally) -> Floats:
        """Values [m, k] of the windows around m pixels; NaN outside the raster."""
        cells = np.full((len(row), len(window.row)), np.nan)
        rows, cols = row[:, None] + window.row, col[:, None] + window.col
        inside = np.flatnonzero((rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width))

        def read(points: TilePoints) -> None:
            (tile,) = self._tiles(grid, TileRead(asset.href, (asset,), points), tally)
            cells.flat[inside[points.point]] = gather(tile, points.row, points.col)

        self._run_ahead(read, by_tile(grid, rows.flat[inside], cols.flat[inside]))
        return cells

    def _tiles(self, grid: Grid, work: TileRead, tally: Tally) -> list[Tile]:
        row, col = work.points.tile_row, work.points.tile_col
        found = {asset: self._cache.get((work.href, asset.band_index, row, col)) for asset in work.assets}
        missing = [asset for asset, tile in found.items() if tile is None]
        if len(missing) < len(found):
            tally.add(metrics.TILE_CACHE_HITS, len(found) - len(missing))
        if missing:
            indexes = [asset.band_index for asset in missing]
            try:
                tiles = self.engine.read_tiles(work.href, indexes, grid, row, col, tally)
            except TileReadError as error:
                names = ", ".join(asset.band for asset in missing)
                raise TileReadError(f"record {missing[0].record_id!r}, band(s) {names}: {error}") from error
            for asset, tile in zip(missing, tiles, strict=True):
                found[asset] = tile
                # A copy where several bands were read: a view would keep all of them in memory.
                own = tile.copy() if len(missing) > 1 else tile
                self._cache.put((work.href, asset.band_index, row, col), own, own.nbytes)
        return [tile for tile in found.values() if tile is not None]

    def _run_ahead(self, work: Callable[[Item], None], items: Iterable[Item]) -> None:
        """Do the work for all items in the pool, a bounded number at a time; the first error is raised."""
        pending: deque[Future[None]] = deque()
        try:
            for item in items:
                pending.append(self._pool.submit(work, item))
                if len(pending) > 2 * self.threads:
                    pending.popleft().result()
            while pending:
                pending.popleft().result()
        except BaseException:
            for future in pending:
                future.cancel()
            for future in pending:
                if not future.cancelled():
                    future.exception()
            raise

    def close(self) -> None:
        """End the threads and close what is open."""
        self._pool.shutdown(cancel_futures=True)
        self.engine.close()


def _reads_of(assets: Sequence[Asset], grid: Grid) -> list[tuple[str, tuple[Asset, ...]]]:
    """The assets by file, in sets whose tiles are at most :data:`READ_BYTES` decoded (at 8 bytes a pixel)."""
    most = max(1, READ_BYTES // (8 * grid.tile_width * grid.tile_height))
    reads = []
    for href, group in groupby(sorted(assets, key=lambda asset: asset.href), key=lambda asset: asset.href):
        members = tuple(group)
        reads += [(href, members[start : start + most]) for start in range(0, len(members), most)]
    return reads


def _pixels(chunk: pa.RecordBatch) -> tuple[Ints, Ints]:
    row, col = (chunk[name].to_numpy().astype(np.int64) for name in PIXEL)
    return row, col


def _portions(chunks: Iterable[pa.RecordBatch], most: int) -> Iterator[pa.RecordBatch]:
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for chunk in chunks:
        if waiting and (rows + len(chunk) > most or chunk.schema.metadata != waiting[0].schema.metadata):
            yield merged(waiting)
            waiting, rows = [], 0
        waiting.append(chunk)
        rows += len(chunk)
    if waiting:
        yield merged(waiting)
