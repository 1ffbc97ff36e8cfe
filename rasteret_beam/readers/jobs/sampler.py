"""Sampling groups of points: read the tiles they touch and gather the values, several groups at the same time."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from rasteret_beam import metrics
from rasteret_beam.kernels.sampling.parts import Spots
from rasteret_beam.metrics import Counters
from rasteret_beam.model import ALL_BANDS, TileKey
from rasteret_beam.readers.jobs.cancellation import CancelToken
from rasteret_beam.readers.jobs.ordered_pool import OrderedPool
from rasteret_beam.readers.jobs.pixel_reader import PixelReader
from rasteret_beam.readers.jobs.place_units import PlaceUnit, is_of_place, place_again, place_units
from rasteret_beam.readers.jobs.place_walk import PlaceWalk
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.jobs.work_units import PointUnit, SampledUnit, WorkUnit, pixels_of, unit_again, work_units
from rasteret_beam.readers.tiles.source import CALLERS, TileSource
from rasteret_beam.schema import POSITION

SAMPLES, DEAD_LETTERS, UNSAMPLED = "samples", "dead_letters", "unsampled"

UNITS_AHEAD = CALLERS
"""Units under way at the same time, so that the latency of reads does not set the pace."""

VALUES_AHEAD = 1 << 19
"""Points times bands under way at the same time."""

VALUE_BYTES = 256
"""Kept columns in memory that count as much as a value does: 128 MB of them may be under way."""


class Sampled(NamedTuple):
    """A batch that comes out of a stream, of the kind :data:`SAMPLES`, :data:`DEAD_LETTERS` or :data:`UNSAMPLED`.

    ``context`` is what was pushed with the group.
    """

    context: Any
    rows: pa.RecordBatch
    kind: str = SAMPLES


class SampledPoints(Protocol):
    """A unit after sampling."""

    def rows(self, job: SampleJob) -> Iterator[pa.RecordBatch]:
        """Rows of the sample table."""
        ...

    def letters(self, job: SampleJob) -> pa.RecordBatch | None:
        """Rows of the dead-letter table, if there are some."""
        ...

    def unsampled(self, job: SampleJob) -> pa.RecordBatch | None:
        """Points that turned out to have no row, if there are some."""
        ...

    def counts(self, job: SampleJob, rows: int, letters: pa.RecordBatch | None) -> dict[str, int]:
        """What the counters take, with so many rows, and these dead letters."""
        ...


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
        self._pool: OrderedPool[tuple[Any, SampledPoints]] = OrderedPool(
            source.waiting, UNITS_AHEAD, VALUES_AHEAD, self._cancel
        )

    def push(self, context: Any, key: TileKey, chunks: Iterable[pa.RecordBatch]) -> Iterator[Sampled]:
        """Take a group; gives batches, of at most ``UNIT_ROWS`` rows, of this and earlier groups.

        Raises
        ------
        TileReadError
            A tile of this or an earlier group cannot be read.
        """
        units = place_units if key.bandset == ALL_BANDS else work_units
        for unit in units(self.job, key, chunks):
            yield from self._push(context, unit)

    def push_again(self, context: Any, record_id: str, band: str, chunk: pa.RecordBatch) -> Iterator[Sampled]:
        """Take the points of a dead letter; otherwise as :meth:`push`."""
        again = place_again if is_of_place(chunk) else unit_again
        yield from self._push(context, again(self.job, record_id, band, chunk))

    def _push(self, context: Any, unit: PointUnit) -> Iterator[Sampled]:
        cost = max(unit.values(self.job), unit.held_bytes // VALUE_BYTES)
        yield from self._batches(self._pool.push(partial(self._sample, context, unit), cost))

    def drain(self) -> Iterator[Sampled]:
        """The batches of all groups that are still under way."""
        yield from self._batches(self._pool.drain())

    def cancel(self) -> None:
        """Leave what is under way undone; nothing runs afterwards."""
        self._pool.cancel()

    def _batches(self, sampled: Iterable[tuple[Any, SampledPoints]]) -> Iterator[Sampled]:
        for context, unit in sampled:
            count = 0
            for rows in unit.rows(self.job):
                count += len(rows)
                yield Sampled(context, rows)
            self.counters.add(metrics.SAMPLES_OUT, count)
            letters, unsampled = unit.letters(self.job), unit.unsampled(self.job)
            for name, amount in unit.counts(self.job, count, letters).items():
                self.counters.add(name, amount)
            if letters is not None:
                self.counters.add(metrics.DEAD_LETTERS, len(letters))
                yield Sampled(context, letters, DEAD_LETTERS)
            if unsampled is not None:
                yield Sampled(context, unsampled, UNSAMPLED)

    def _sample(self, context: Any, unit: PointUnit) -> tuple[Any, SampledPoints]:
        """Sample a unit, in a thread; a failure ends the whole stream."""
        with self._cancel.ending():
            if isinstance(unit, PlaceUnit):
                return context, PlaceWalk(self._reader, unit).run()
            assert isinstance(unit, WorkUnit)
            read = self._reader.picked(unit.assets, spots_of(self.job, unit))
            return context, SampledUnit(replace(unit, assets=read.assets), read.picked, read.failures)


def spots_of(job: SampleJob, unit: WorkUnit) -> Spots:
    """Where the points of a unit lie on its grid."""
    row_part, col_part = (unit.chunk[name].to_numpy() if job.needs_position else None for name in POSITION)
    return Spots(unit.grid, *pixels_of(unit.chunk), row_part, col_part)
