"""Sampling groups of points: read the tiles they touch and gather the values, several groups at the same time."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from rasteret_beam import metrics
from rasteret_beam.kernels.sampling.dead_letters import values_lost
from rasteret_beam.metrics import Counters
from rasteret_beam.model import TileKey
from rasteret_beam.readers.jobs.cancellation import CancelToken
from rasteret_beam.readers.jobs.ordered_pool import OrderedPool
from rasteret_beam.readers.jobs.pixel_reader import PixelReader, Spots
from rasteret_beam.readers.jobs.work_units import SampledUnit, SampleJob, WorkUnit, pixels_of, unit_again, work_units
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
        self._cancel = CancelToken()
        self._reader = PixelReader(source, job, counters, self._cancel)
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
        with self._cancel.ending():
            return context, SampledUnit(unit, *self._reader.picked(unit.assets, spots_of(self.job, unit)))


def spots_of(job: SampleJob, unit: WorkUnit) -> Spots:
    """Where the points of a unit lie on its grid."""
    row_part, col_part = (unit.chunk[name].to_numpy() if job.method.needs_position else None for name in POSITION)
    return Spots(unit.grid, *pixels_of(unit.chunk), row_part, col_part)
