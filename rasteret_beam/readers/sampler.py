"""Sampling groups of points: read the tiles they touch and gather the values, several groups at the same time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.crs import Floats, epsg_code
from rasteret_beam.kernels.grids import Ints
from rasteret_beam.kernels.neighbourhood import Neighbourhood, Window, closest_valid, distances, is_valid, window_lists
from rasteret_beam.kernels.routing import NO_DATETIME, RoutingIndex
from rasteret_beam.kernels.sampling import RecordFacts, by_tile, gather, merged, sample_rows
from rasteret_beam.metrics import Tally
from rasteret_beam.model import Asset, Grid, TileKey
from rasteret_beam.readers.ahead import Ahead
from rasteret_beam.readers.engine import Tile, TileWant
from rasteret_beam.readers.stopping import Stop, Stopped
from rasteret_beam.readers.tiles import TileSource
from rasteret_beam.schema import PIXEL, POINT_EPSG_KEY, POSITION

PORTION_ROWS = 131_072
"""Chunks of a group are sampled together up to so many points, which bounds memory."""

PORTION_VALUES = 1 << 20
"""Points times bands (or times the cells of a window) of a portion."""

PORTIONS_AHEAD = 32
"""Portions under way at the same time, so that the latency of reads does not set the pace."""

VALUES_AHEAD = 2 << 20
"""Points times bands under way at the same time."""

WINDOW_ROWS = 8192
"""Points whose windows are searched at a time."""

NO_FALLBACK = Neighbourhood()

AssetLookup = Callable[[str, Sequence[str]], Sequence[Asset]]

TakeTile = Callable[[TileWant, Tile], None]

Read = Callable[[Iterable[TileWant], TakeTile], None]
"""Hands over every wanted tile."""


@dataclass(frozen=True, eq=False)
class SampleJob:
    """What groups of points are sampled from, and how.

    Attributes
    ----------
    routing : RoutingIndex
    assets : callable
        From a record's id and bands to their assets.
    collection : str
        Its name.
    around : Neighbourhood
        Nodata fallback; with a radius, chunks need the columns :data:`schema.POSITION`.
    """

    routing: RoutingIndex
    assets: AssetLookup
    collection: str
    around: Neighbourhood = NO_FALLBACK


@dataclass(frozen=True, eq=False)
class Portion:
    """Points of one group that are sampled together.

    Attributes
    ----------
    grid : Grid
    assets : sequence of Asset
        One for each band of the grid, in output order.
    chunk : RecordBatch
    facts : RecordFacts
    """

    grid: Grid
    assets: Sequence[Asset]
    chunk: pa.RecordBatch
    facts: RecordFacts


@dataclass(frozen=True, eq=False)
class SampledPortion:
    """A portion with its values, by band: [n] float64, and the windows around them where they are returned."""

    portion: Portion
    values: dict[str, Floats]
    windows: dict[str, pa.Array | None]

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Rows of the sample table, a batch for each band."""
        for band, values in self.values.items():
            yield sample_rows(self.portion.chunk, band, values, self.portion.facts, self.windows[band])


class TileSampler:
    """Samples groups of points; one object serves all threads of a process.

    Parameters
    ----------
    source : TileSource, optional
    """

    def __init__(self, source: TileSource | None = None):
        self.source = source or TileSource()
        self._pool = ThreadPoolExecutor(PORTIONS_AHEAD, thread_name_prefix="portions")

    def stream(self, job: SampleJob, tally: Tally) -> "SampleStream":
        """A stream of groups, several of which are sampled at the same time."""
        return SampleStream(self, job, tally)

    def close(self) -> None:
        """End the threads and close what is open."""
        self._pool.shutdown(cancel_futures=True)
        self.source.close()

    def sample(self, portion: Portion, around: Neighbourhood, tally: Tally, stop: Stop | None = None) -> SampledPortion:
        """Values of the points of a portion.

        Raises
        ------
        TileReadError
            A tile cannot be read; names the record, the band, the file and the tile. It ends the job of ``stop``.
        Stopped
            That job has been cancelled.
        """
        stop = stop or Stop()

        def read(wants: Iterable[TileWant], take: TakeTile) -> None:
            self.source.each(wants, partial(_take_or_stop, take, stop), tally, stop)

        try:
            values = self._values(portion, around.max_distance_pixels, read)
            windows = {
                asset.band: self._fall_back(portion, asset, values[asset.band], around, read)
                for asset in portion.assets
            }
        except Stopped as stopped:
            # What is stopped by a failure elsewhere may be asked for its result first: the failure is what matters.
            raise stop.error or stopped from None
        except BaseException as error:
            stop.now(error)
            raise
        return SampledPortion(portion, values, windows)

    def _values(self, portion: Portion, radius: int, read: Read) -> dict[str, Floats]:
        values = {asset.band: np.empty(len(portion.chunk)) for asset in portion.assets}
        self._gather(portion.grid, portion.assets, *_pixels(portion.chunk), values, radius, read)
        return values

    def _gather(
        self,
        grid: Grid,
        assets: Sequence[Asset],
        row: Ints,
        col: Ints,
        values: dict[str, Floats],
        radius: int,
        read: Read,
    ) -> None:
        """Put the values at pixels into ``values``, [n] for each band; tiles are read ``radius`` rows further."""
        in_tile = {(points.tile_row, points.tile_col): points for points in by_tile(grid, row, col)}
        rows = {place: int(points.row.max()) + 1 + radius for place, points in in_tile.items()}

        def take(want: TileWant, tile: Tile) -> None:
            # Each tile's values have places of their own, so threads need no lock.
            points = in_tile[want.tile_row, want.tile_col]
            values[want.asset.band][points.point] = gather(tile, points.row, points.col)

        wants = (TileWant(asset, grid, *place, rows[place]) for asset in assets for place in in_tile)
        read(wants, take)

    def _fall_back(
        self, portion: Portion, asset: Asset, values: Floats, around: Neighbourhood, read: Read
    ) -> pa.Array | None:
        """Put the closest valid value in place of each invalid one; gives the windows, if they are returned."""
        if not around.max_distance_pixels:
            return None
        invalid = ~is_valid(values, asset.nodata)
        wanted = np.arange(len(values)) if around.return_neighbourhood == "always" else np.flatnonzero(invalid)
        window = Window.of_radius(around.max_distance_pixels)
        row, col = _pixels(portion.chunk)
        row_part, col_part = (portion.chunk[name].to_numpy() for name in POSITION)
        shown = []
        for points in np.split(wanted, range(WINDOW_ROWS, len(wanted), WINDOW_ROWS)):
            cells = self._cells(portion.grid, asset, window, row[points], col[points], read)
            missing = np.flatnonzero(invalid[points])
            at = points[missing]
            distance = distances(portion.grid, window, row_part[at], col_part[at])
            cell = closest_valid(window, is_valid(cells[missing], asset.nodata), distance, around.fallback)
            there = cell >= 0
            values[at[there]] = cells[missing[there], cell[there]]
            shown.append(cells.ravel())
        return window_lists(wanted, np.concatenate(shown), len(values), around.cells) if around.returned else None

    def _cells(self, grid: Grid, asset: Asset, window: Window, row: Ints, col: Ints, read: Read) -> Floats:
        """Values [m, k] of the windows around m pixels; NaN outside the raster."""
        cells = np.full((len(row), len(window.row)), np.nan)
        rows, cols = row[:, None] + window.row, col[:, None] + window.col
        inside = np.flatnonzero((rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width))
        found = {asset.band: np.empty(len(inside))}
        self._gather(grid, [asset], rows.flat[inside], cols.flat[inside], found, 0, read)
        cells.flat[inside] = found[asset.band]
        return cells


class SampleStream:
    """Groups of points in, rows of the sample table out, in the order of the groups.

    What is pushed with a group (its window and timestamp, say) comes back with each of its batches.
    It belongs to one thread.
    """

    def __init__(self, sampler: TileSampler, job: SampleJob, tally: Tally):
        self.sampler = sampler
        self.job = job
        self.tally = tally
        self._stop = Stop()
        self._ahead: Ahead[tuple[Any, SampledPortion]] = Ahead(sampler._pool, PORTIONS_AHEAD, VALUES_AHEAD, self._stop)

    def push(
        self, context: Any, key: TileKey, chunks: Iterable[pa.RecordBatch]
    ) -> Iterator[tuple[Any, pa.RecordBatch]]:
        """Take a group; gives batches, of at most :data:`PORTION_ROWS` rows, of this and earlier groups.

        Raises
        ------
        TileReadError
            A tile of this or an earlier group cannot be read.
        """
        for portion in portions(self.job, key, chunks):
            cost = len(portion.chunk) * len(portion.assets) * self.job.around.cells
            yield from self._rows(self._ahead.push(partial(self._sample, context, portion), cost))

    def drain(self) -> Iterator[tuple[Any, pa.RecordBatch]]:
        """The batches of all groups that are still under way."""
        yield from self._rows(self._ahead.drain())

    def cancel(self) -> None:
        """Leave what is under way undone; nothing runs afterwards."""
        self._ahead.cancel()

    def _sample(self, context: Any, portion: Portion) -> tuple[Any, SampledPortion]:
        return context, self.sampler.sample(portion, self.job.around, self.tally, self._stop)

    def _rows(self, sampled: Iterable[tuple[Any, SampledPortion]]) -> Iterator[tuple[Any, pa.RecordBatch]]:
        for context, portion in sampled:
            for rows in portion.rows():
                self.tally.add(metrics.SAMPLES_OUT, len(rows))
                yield context, rows


def portions(job: SampleJob, key: TileKey, chunks: Iterable[pa.RecordBatch]) -> Iterator[Portion]:
    """The points of a group in portions of bounded size."""
    grid, bands = job.routing.grid_of(key)
    assets = job.assets(key.record_id, bands)
    moment = int(job.routing.datetimes[job.routing.positions[key.record_id]])
    raster_crs = epsg_code(grid.crs)
    most = min(PORTION_ROWS, PORTION_VALUES // (len(bands) * job.around.cells))
    for chunk in _portioned(chunks, max(1, most)):
        code = (chunk.schema.metadata or {}).get(POINT_EPSG_KEY)
        facts = RecordFacts(
            key.record_id,
            None if moment == NO_DATETIME else moment,
            job.collection,
            raster_crs,
            int(code) if code is not None else None,
        )
        yield Portion(grid, assets, chunk, facts)


def _take_or_stop(take: TakeTile, stop: Stop, want: TileWant, tile: Tile | TileReadError) -> None:
    """Hand a tile on; one that cannot be read ends the job, so that its other reads are left undone."""
    if isinstance(tile, TileReadError):
        stop.now(tile)
        raise tile
    take(want, tile)


def _pixels(chunk: pa.RecordBatch) -> tuple[Ints, Ints]:
    row, col = (chunk[name].to_numpy().astype(np.int64) for name in PIXEL)
    return row, col


def _portioned(chunks: Iterable[pa.RecordBatch], most: int) -> Iterator[pa.RecordBatch]:
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
