"""Rows of the sample table, made of the parts of a unit: a row for each band, or for all bands of a point."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.parts import Pairs, Part
from rasteret_beam.kernels.sampling.pixel_methods import Picked
from rasteret_beam.kernels.sampling.rows import RowFacts, SampleRows
from rasteret_beam.kernels.tables.distinct import distinct_rows
from rasteret_beam.model import Grid
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.jobs.work_units import facts_of

WHY_NONE = ("no_record", "out_of_tolerance", "invalid")
"""Why a point has no row of a band; keys of ``schema.UNSAMPLED_REASONS``."""


def long_rows(job: SampleJob, chunk: pa.RecordBatch, parts: Sequence[Part], start: int) -> Iterator[pa.RecordBatch]:
    """A row for each point and band of the parts, in batches of one record and band.

    Parameters
    ----------
    chunk : RecordBatch
        The points from ``start`` on, with their kept columns.
    parts : sequence of Part
        Of these points.
    """
    for part in parts:
        if not len(part.points):
            continue
        points = part.spots.on(_taken(chunk, part.points - start))
        rows = _rows(job, points, _facts(job, part, chunk), part.picked, part.spots.grid)
        for asset in part.assets:
            yield rows.of_asset(asset).table(job.options)


def wide_rows(job: SampleJob, chunk: pa.RecordBatch, parts: Sequence[Part], start: int) -> Iterator[pa.RecordBatch]:
    """A row for each point, or for each point and record, in batches that have the same record for each band.

    A point has one row where it has one record for each band: its record is that of the first band that has one.
    """
    parts = [part for part in parts if len(part.points)]
    if not parts:
        return
    point, source, place = _placed(job, parts)
    first, number = distinct_rows(source.T)
    order, stops = np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))
    for pattern, rows in zip(source[first].tolist(), np.split(order, stops[:-1]), strict=True):
        of_band = {band: parts[part] for band, part in zip(job.bands, pattern, strict=True) if part >= 0}
        picked = {
            band: of_band[band].picked[band].take(place[rows, column])
            for column, band in enumerate(job.bands)
            if band in of_band
        }
        points, grid = _taken(chunk, point[rows] - start), None
        if job.options.geometry == "pixel":
            points, grid = _on_first(job, points, of_band, place[rows])
        ids = {band: job.routing.record_ids[part.record] for band, part in of_band.items()}
        facts = replace(_facts(job, next(iter(of_band.values())), chunk), record_ids=ids)
        yield _rows(job, points, facts, picked, grid).table(job.options)


def _on_first(
    job: SampleJob, points: pa.RecordBatch, of_band: Mapping[str, Part], place: Ints
) -> tuple[pa.RecordBatch, Grid]:
    """The points with their pixels on the grid of the first band that they have, and this grid.

    ``place`` [n, bands] is that in the part of each band.
    """
    band, part = next(iter(of_band.items()))
    spots = part.spots.take(place[:, job.bands.index(band)])
    return spots.on(points), spots.grid


def _placed(job: SampleJob, parts: Sequence[Part]) -> tuple[Ints, Ints, Ints]:
    """Of each row its point [n], and for each band the part that it is in, or -1, and the place in it, [n, bands]."""
    column = {band: number for number, band in enumerate(job.bands)}
    point = np.concatenate([part.points for part in parts])
    record = np.repeat([part.record for part in parts], [len(part.points) for part in parts])
    row = point if job.routing.matcher.one_record else point * len(job.routing.record_ids) + record
    found, first, of_row = np.unique(row, return_index=True, return_inverse=True)
    source = np.full((len(found), len(job.bands)), -1, dtype=np.int64)
    place = np.zeros_like(source)
    end = 0
    for number, part in enumerate(parts):
        rows, end = of_row[end : end + len(part.points)], end + len(part.points)
        for band in part.picked:
            source[rows, column[band]] = number
            place[rows, column[band]] = np.arange(len(rows))
    return point[first], source, place


def missing_pairs(
    job: SampleJob, chunk: pa.RecordBatch, pairs: Pairs, why: np.ndarray, start: int, whole: bool = False
) -> Iterator[pa.RecordBatch]:
    """A row for each band of which a point has none, of the points that have one of another band; ``whole``: of all."""
    stop = start + len(chunk)
    none = (pairs.rows[start:stop] == 0) & ~pairs.lost[start:stop]
    if not whole:
        none &= ~pairs.without_row[start:stop, None]
    for column, band in enumerate(pairs.bands):
        at = np.flatnonzero(none[:, column])
        if len(at):
            reason = np.array(WHY_NONE, dtype=object)[why[start + at, column]]
            yield job.missing_pairs(_taken(chunk, at), reason, band)


def _rows(
    job: SampleJob, chunk: pa.RecordBatch, facts: RowFacts, picked: Mapping[str, Picked], grid: Grid | None = None
) -> SampleRows:
    shared = job.types, job.options.time_column, job.constants
    return SampleRows(chunk, facts, job.bands, picked, *shared, grid=grid)


def _facts(job: SampleJob, part: Part, chunk: pa.RecordBatch) -> RowFacts:
    return facts_of(job, job.routing.record_ids[part.record], part.spots.grid, chunk)


def _taken(chunk: pa.RecordBatch, rows: Ints) -> pa.RecordBatch:
    return chunk if len(rows) == len(chunk) else chunk.take(pa.array(rows))
