"""Units of places: points whose records are chosen where they are sampled, and the samples that come of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_beam import metrics
from rasteret_beam.kernels.routing.chunks import split_kept
from rasteret_beam.kernels.sampling.dead_letters import Failure
from rasteret_beam.kernels.sampling.parts import Pairs, Part
from rasteret_beam.kernels.sampling.rows import unsampled_rows
from rasteret_beam.model import TileKey
from rasteret_beam.readers.jobs.place_rows import long_rows, missing_pairs, wide_rows
from rasteret_beam.readers.jobs.sample_job import SampleJob, chunk_crs, point_epsg
from rasteret_beam.readers.jobs.work_units import (
    ROWS_BYTES,
    UNIT_ROWS,
    UNIT_VALUES,
    PointUnit,
    check_letter,
    cut,
    letters_of,
)
from rasteret_beam.schema import ONE_RECORD_KEY, POINT_CRS_KEY


@dataclass(frozen=True, eq=False, kw_only=True)
class PlaceUnit(PointUnit):
    """Points of one place.

    Attributes
    ----------
    record_id : str
        The record that they are sampled of; empty where records are chosen.
    bands : sequence of str
        Those that are wanted.
    again : bool
        The points are those of dead letters, which an earlier run has accounted for.
    """

    record_id: str
    bands: Sequence[str]
    again: bool = False

    @property
    def has_missing_rows(self) -> bool:
        """Whether pairs without a row can have one of ``join="left"``; of dead letters, others may have been given."""
        return not self.again or ONE_RECORD_KEY in (self.chunk.schema.metadata or {})

    def values(self, job: SampleJob) -> int:
        of_values = len(self.chunk) * _values_each(job, self.record_id, self.bands)
        return of_values + job.window_values(len(self.chunk))


@dataclass(frozen=True, eq=False)
class SampledPlace:
    """A unit after sampling.

    Attributes
    ----------
    unit : PlaceUnit
    pairs : Pairs
    parts : list of Part
    why_none : [points, bands] uint8
        Of pairs without a row the position of the reason in :data:`.place_rows.WHY_NONE`.
    failures : list of Failure
        Tiles that could not be read, each for a wanted band.
    """

    unit: PlaceUnit
    pairs: Pairs
    why_none: NDArray[np.uint8]
    parts: list[Part] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def rows(self, job: SampleJob) -> Iterator[pa.RecordBatch]:
        """Rows of the sample table, in batches of one record (or of the same records for each band)."""
        start = 0
        assemble = long_rows if job.options.layout == "long" else wide_rows
        for chunk in self.unit.chunks(ROWS_BYTES):
            stop = start + len(chunk)
            yield from assemble(job, chunk, [part.within(start, stop) for part in self.parts], start)
            if job.options.join == "left" and job.options.layout == "long" and self.unit.has_missing_rows:
                yield from missing_pairs(job, chunk, self.pairs, self.why_none, start, whole=self.unit.again)
            start = stop

    def unsampled(self, job: SampleJob) -> pa.RecordBatch | None:
        """The points whose every row was dropped, if there are some."""
        nothing = self.pairs.without_row
        if self.unit.again or not nothing.any():
            return None
        reason = np.where(nothing, np.array("invalid", dtype=object), np.array(None))
        points = self.unit.whole()
        return unsampled_rows(points, reason, point_epsg(points), chunk_crs(points.schema))[0]

    def letters(self, job: SampleJob) -> pa.RecordBatch | None:
        """Rows of the dead-letter table, if there are some."""
        return letters_of(job, self.unit, self.failures)

    def counts(self, job: SampleJob, rows: int, letters: pa.RecordBatch | None) -> dict[str, int]:
        """What the counters of values, which are pairs here, and of points take."""
        sampled, lost, left_out = self.pairs.counts()
        depths = [of.candidate for part in self.parts for of in part.picked.values() if of.candidate is not None]
        found = {
            metrics.VALUES_SAMPLED: sampled,
            metrics.VALUES_DEAD_LETTERED: lost,
            metrics.VALUES_LEFT_OUT: left_out,
            metrics.CANDIDATES_WALKED: sum(int((depth > 0).sum()) for depth in depths),
        }
        if job.routing.places == "point" and not self.unit.again:
            none = int(self.pairs.without_row.sum())
            found |= {
                metrics.POINTS_SAMPLED: len(self.unit.chunk) - none,
                metrics.POINTS_UNSAMPLED: none,
                metrics.unsampled("invalid"): none,
            }
        return found


def place_units(job: SampleJob, key: TileKey, chunks: Iterable[pa.RecordBatch]) -> Iterator[PlaceUnit]:
    """The points of a group in units of bounded size."""
    most = min(UNIT_ROWS, UNIT_VALUES // _values_each(job, key.record_id, job.bands))
    for chunk, kept in cut(chunks, max(1, most)):
        yield PlaceUnit(record_id=key.record_id, bands=job.bands, chunk=chunk, kept=kept)


def _values_each(job: SampleJob, record_id: str, bands: Sequence[str]) -> int:
    """Pixels that may be read for a point."""
    return len(bands) * job.cells * (1 if record_id else job.most_records)


def is_of_place(chunk: pa.RecordBatch) -> bool:
    """Whether a chunk is of a place, and not of a record and a grid."""
    return POINT_CRS_KEY in (chunk.schema.metadata or {})


def place_again(job: SampleJob, record_id: str, band: str, chunk: pa.RecordBatch) -> PlaceUnit:
    """The points of a dead letter as a unit.

    Raises
    ------
    InputError
        The collection no longer has the record or the band.
    """
    check_letter(job, record_id, band)
    points, kept = split_kept(chunk)
    return PlaceUnit(record_id=record_id, bands=[band], chunk=points, kept=[] if kept is None else [kept], again=True)
