"""Sampling groups of points: read the tiles they touch and gather the values, several groups at the same time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.dead_letters import Failure, everywhere, left_over, values_lost
from rasteret_beam.kernels.sampling.gather import PixelValues, by_tile
from rasteret_beam.kernels.sampling.pixel_methods import Around, OwnPixels, Picked, Window
from rasteret_beam.kernels.sampling.validity import may_be_masked
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Asset, Grid, TileKey
from rasteret_beam.readers.jobs.cancellation import CancelToken
from rasteret_beam.readers.jobs.ordered_pool import OrderedPool
from rasteret_beam.readers.jobs.work_units import SampledUnit, SampleJob, WorkUnit, pixels_of, unit_again, work_units
from rasteret_beam.readers.tiles.protocol import NO_MASK, Tile, TileRequest
from rasteret_beam.readers.tiles.source import CALLERS, TileSource
from rasteret_beam.schema import POSITION

UNITS_AHEAD = CALLERS
"""Units under way at the same time, so that the latency of reads does not set the pace."""

VALUES_AHEAD = 1 << 19
"""Points times bands under way at the same time."""

VALUE_BYTES = 256
"""Kept columns in memory that count as much as a value does: 128 MB of them may be under way."""


class Sampled(NamedTuple):
    """A batch that comes out of a stream: rows of the sample table, or dead letters (``failed``).

    ``context`` is what was pushed with the group.
    """

    context: Any
    rows: pa.RecordBatch
    failed: bool = False


class Sampler:
    """Groups of points in, rows of the sample table out, in the order of the groups.

    What is pushed with a group (its window and timestamp, say) comes back with each of its batches.
    It belongs to one thread.

    Parameters
    ----------
    source : TileSource
        Tiles, and threads for the groups; all samplers of a process share it.
    job : SampleJob
    counters : Counters
        Of tiles, bytes and rows.
    """

    def __init__(self, source: TileSource, job: SampleJob, counters: Counters):
        self.job = job
        self.counters = counters
        self._source = source
        self._cancel = CancelToken()
        self._pool: OrderedPool[tuple[Any, SampledUnit]] = OrderedPool(
            source.waiting, UNITS_AHEAD, VALUES_AHEAD, self._cancel
        )

    def push(self, context: Any, key: TileKey, chunks: Iterable[pa.RecordBatch]) -> Iterator[Sampled]:
        """Take a group; gives batches, of at most ``UNIT_ROWS`` rows, of this and earlier groups.

        Raises
        ------
        TileReadError
            A tile of this or an earlier group cannot be read.
        """
        for unit in work_units(self.job, key, chunks):
            yield from self._push(context, unit)

    def push_again(self, context: Any, record_id: str, band: str, chunk: pa.RecordBatch) -> Iterator[Sampled]:
        """Take the points of a dead letter; otherwise as :meth:`push`."""
        yield from self._push(context, unit_again(self.job, record_id, band, chunk))

    def _push(self, context: Any, unit: WorkUnit) -> Iterator[Sampled]:
        values = len(unit.chunk) * len(unit.assets) * self.job.cells
        cost = max(values, unit.held_bytes // VALUE_BYTES)
        yield from self._batches(self._pool.push(partial(self._sample, context, unit), cost))

    def drain(self) -> Iterator[Sampled]:
        """The batches of all groups that are still under way."""
        yield from self._batches(self._pool.drain())

    def cancel(self) -> None:
        """Leave what is under way undone; nothing runs afterwards."""
        self._pool.cancel()

    def _batches(self, sampled: Iterable[tuple[Any, SampledUnit]]) -> Iterator[Sampled]:
        for context, unit in sampled:
            for rows in unit.rows(self.job):
                self.counters.add(metrics.SAMPLES_OUT, len(rows))
                values = 1 if self.job.options.layout == "long" else len(unit.picked)
                self.counters.add(metrics.VALUES_SAMPLED, len(rows) * values)
                yield Sampled(context, rows)
            if unit.failures:
                letters = unit.letters(self.job)
                self.counters.add(metrics.DEAD_LETTERS, len(letters))
                self.counters.add(metrics.VALUES_DEAD_LETTERED, values_lost(letters))
                yield Sampled(context, letters, failed=True)

    def _sample(self, context: Any, unit: WorkUnit) -> tuple[Any, SampledUnit]:
        """Sample a unit, in a thread; a failure ends the whole stream."""
        method, chunk = self.job.method, unit.chunk
        with self._cancel.ending():
            found, failures = self._gather(
                unit.grid, unit.assets, *pixels_of(chunk), reach=method.radius, masks=self.job.needs_status
            )
            row_part, col_part = (chunk[name].to_numpy() if method.needs_position else None for name in POSITION)
            unit = replace(unit, assets=[self._with_units(unit, asset, failures) for asset in unit.assets])
            picked: dict[str, Picked] = {}
            for asset in unit.assets:
                pixels = found.pop(asset.band)
                own = OwnPixels(
                    unit.grid,
                    pixels.values(),
                    left_over(failures, asset.band, len(chunk)),
                    pixels.status(asset.nodata, asset.mask) if self.job.needs_status else None,
                    row_part,
                    col_part,
                )
                found_here = method.pick(own, partial(self._cells, unit, asset, failures))
                picked[asset.band] = self.job.finished(found_here, asset)
        return context, SampledUnit(unit, picked, failures)

    def _with_units(self, unit: WorkUnit, asset: Asset, failures: list[Failure]) -> Asset:
        """An asset with the scale and offset of its file's tags, where they are wanted and the collection has none."""
        if not self.job.needs_file(asset):
            return asset
        try:
            return self._source.with_units(asset, self.counters, self._cancel)
        except TileReadError as error:
            if self.job.options.on_error == "dead_letter":
                failures += everywhere(asset, by_tile(unit.grid, *pixels_of(unit.chunk)), error)
                return asset
            self._cancel.cancel(error)
            raise

    def _gather(
        self, grid: Grid, assets: Sequence[Asset], row: Ints, col: Ints, reach: int, masks: bool
    ) -> tuple[dict[str, PixelValues], list[Failure]]:
        """What is at pixels [n], by band; tiles are read ``reach`` rows further.

        Masks are read only if they matter, and only of files that have or may have one.
        """
        found = {asset.band: PixelValues(len(row)) for asset in assets}
        in_tile = {(points.tile_row, points.tile_col): points for points in by_tile(grid, row, col)}
        rows = {place: int(points.row.max()) + 1 + reach for place, points in in_tile.items()}
        failures: list[Failure] = []

        def on_tile(request: TileRequest, tile: Tile | TileReadError) -> None:
            points = in_tile[request.tile_row, request.tile_col]
            if tile is NO_MASK:
                return
            if not isinstance(tile, TileReadError):
                of_band = found[request.asset.band]
                (of_band.put_mask if request.mask else of_band.put)(tile, points)
            elif self.job.options.on_error == "dead_letter":
                failures.append(Failure(request.asset, request.tile_row, request.tile_col, tile, points.point))
            else:
                self._cancel.cancel(tile)  # so that the job's other reads are left undone
                raise tile

        masked = [asset for asset in assets if may_be_masked(asset)] if masks else []
        requests = chain(
            (TileRequest(asset, grid, *place, rows[place]) for asset in assets for place in in_tile),
            (TileRequest(asset, grid, *place, 0, mask=True) for asset in masked for place in in_tile),
        )
        self._source.each(requests, on_tile, self.counters, self._cancel)
        return found, failures

    def _cells(self, unit: WorkUnit, asset: Asset, failures: list[Failure], points: Ints, window: Window) -> Around:
        """The windows around m points of a unit."""
        grid = unit.grid
        row, col = pixels_of(unit.chunk)
        rows, cols = row[points][:, None] + window.row, col[points][:, None] + window.col
        in_raster = (rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width)
        inside = np.flatnonzero(in_raster)
        found, failed = self._gather(grid, [asset], rows.flat[inside], cols.flat[inside], reach=0, masks=True)
        pixels = found[asset.band].values()
        cells = np.zeros(in_raster.shape, dtype=pixels.dtype)
        valid = np.zeros(in_raster.shape, dtype=bool)
        cells.flat[inside] = pixels
        valid.flat[inside] = found[asset.band].valid(asset.nodata)
        # A tile beside that cannot be read leaves the points without a value whose window reaches into it.
        failures += [replace(each, points=points[inside[each.points] // len(window.row)]) for each in failed]
        return Around(cells, valid, in_raster)
