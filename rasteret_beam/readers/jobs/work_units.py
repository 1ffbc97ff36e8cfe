"""Work units: the points of a group that are sampled together, and the rows that come of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from rasteret_beam import metrics
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import epsg_code
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.chunks import split_kept, with_kept
from rasteret_beam.kernels.routing.layers import NO_DATETIME
from rasteret_beam.kernels.sampling.dead_letters import Failure, dead_letters, left_over, values_lost, with_value_type
from rasteret_beam.kernels.sampling.pixel_methods import Picked
from rasteret_beam.kernels.sampling.rows import RowFacts, SampleRows, merged
from rasteret_beam.model import Asset, Grid, TileKey
from rasteret_beam.options import SampleOptions
from rasteret_beam.readers.jobs.sample_job import SampleJob, point_epsg
from rasteret_beam.readers.jobs.spill import Spilled
from rasteret_beam.schema import ONE_RECORD_KEY, PIXEL, POSITION

UNIT_ROWS = 131_072
"""Chunks of a group are sampled together up to so many points, which bounds memory."""

UNIT_VALUES = 1 << 20
"""Points times bands (or times the cells of a window) of a unit."""

KEPT_BYTES = 64 << 20
"""Kept columns that a unit holds in memory; those of spilled chunks stay on disk until rows are made."""

ROWS_BYTES = 16 << 20
"""Kept columns of a batch of rows, beyond those of a single chunk."""

BY_POSITION = ("max_distance_pixels", "resampling", "radius")
"""Options for which it matters where in its pixel a point lies."""

Kept: TypeAlias = pa.RecordBatch | Spilled
"""Kept columns of a chunk, or where they lie."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PointUnit(ABC):
    """Points of one group that are sampled together.

    Attributes
    ----------
    chunk : RecordBatch
        Without the kept columns.
    kept : sequence of Kept
        The kept columns, chunk after chunk; empty where there are none.
    """

    chunk: pa.RecordBatch
    kept: Sequence[Kept] = ()

    @property
    def held_bytes(self) -> int:
        """What the kept columns take up in memory while the unit is under way."""
        return sum(map(_held, self.kept))

    @abstractmethod
    def values(self, job: SampleJob) -> int:
        """Pixels that may be read for the points."""

    def chunks(self, most_bytes: int) -> Iterator[pa.RecordBatch]:
        """The points with their kept columns, as chunks of at most so many bytes of these, or as they came."""
        if not self.kept:
            yield self.chunk
            return
        start = 0
        for kept in _joined(self.kept, most_bytes):
            yield with_kept(self.chunk.slice(start, len(kept)), kept)
            start += len(kept)

    def whole(self) -> pa.RecordBatch:
        """All points with their kept columns."""
        return merged(list(self.chunks(ROWS_BYTES)))


@dataclass(frozen=True, eq=False, kw_only=True)
class WorkUnit(PointUnit):
    """Points that are sampled of one record.

    Attributes
    ----------
    grid : Grid
    assets : sequence of Asset
        One for each band of the grid, in output order.
    facts : RowFacts
    """

    grid: Grid
    assets: Sequence[Asset]
    facts: RowFacts

    def values(self, job: SampleJob) -> int:
        return len(self.chunk) * len(self.assets) * job.cells + job.window_values(len(self.chunk))


@dataclass(frozen=True, eq=False)
class SampledUnit:
    """A unit after sampling.

    Attributes
    ----------
    unit : WorkUnit
    picked : {band: Picked}
    failures : list of Failure
        Tiles that could not be read; the values of their points are not there.
    """

    unit: WorkUnit
    picked: dict[str, Picked]
    failures: list[Failure] = field(default_factory=list)

    def rows(self, job: SampleJob) -> Iterator[pa.RecordBatch]:
        """Rows of the sample table: a batch for each band, or one for all of them in a wide layout.

        Where kept columns are large there are several, of :data:`ROWS_BYTES` each.
        """
        start = 0
        for chunk in self.unit.chunks(ROWS_BYTES):
            yield from self._rows(job, chunk, start)
            start += len(chunk)

    def _rows(self, job: SampleJob, chunk: pa.RecordBatch, start: int) -> Iterator[pa.RecordBatch]:
        """Rows of the points from ``start`` on, which a chunk holds."""
        stop = start + len(chunk)
        picked = {band: of_band.slice(start, stop) for band, of_band in self.picked.items()}
        shared = job.types, job.options.time_column, job.constants
        rows = SampleRows(chunk, self.unit.facts, job.bands, picked, *shared, grid=self.unit.grid)
        if job.options.layout != "long":
            yield rows.table(job.options)
            return
        for asset in self.unit.assets:
            of_band = rows.of_asset(asset).table(job.options)
            there = left_over(self.failures, asset.band, len(self.unit.chunk)) if self.failures else None
            yield of_band if there is None else of_band.filter(pa.array(there[start:stop]))

    def unsampled(self, job: SampleJob) -> None:
        """All points have rows, or are in dead letters."""

    def counts(self, job: SampleJob, rows: int, letters: pa.RecordBatch | None) -> dict[str, int]:
        """What the counters of values take."""
        values = 1 if job.options.layout == "long" else len(self.picked)
        lost = values_lost(letters) if letters is not None else 0
        return {metrics.VALUES_SAMPLED: rows * values, metrics.VALUES_DEAD_LETTERED: lost}

    def letters(self, job: SampleJob) -> pa.RecordBatch | None:
        """Rows of the dead-letter table, if there are some."""
        return letters_of(job, self.unit, self.failures)


def letters_of(job: SampleJob, unit: PointUnit, failures: Sequence[Failure]) -> pa.RecordBatch | None:
    """Dead letters of a unit, if there are some."""
    if not failures:
        return None
    points = unit.whole()
    if job.options.value_type == "raw":
        points = with_value_type(points, next(iter(job.types.values())))
    if job.routing.matcher.one_record:
        points = points.replace_schema_metadata((points.schema.metadata or {}) | {ONE_RECORD_KEY: b""})
    return dead_letters(points, failures)


def work_units(job: SampleJob, key: TileKey, chunks: Iterable[pa.RecordBatch]) -> Iterator[WorkUnit]:
    """The points of a group in units of bounded size."""
    grid, bands = job.routing.grid_of(key)
    assets = job.assets(key.record_id, bands)
    most = min(UNIT_ROWS, UNIT_VALUES // (len(bands) * job.cells))
    for chunk, kept in cut(chunks, max(1, most)):
        facts = facts_of(job, key.record_id, grid, chunk)
        yield WorkUnit(grid=grid, assets=assets, chunk=chunk, facts=facts, kept=kept)


def unit_again(job: SampleJob, record_id: str, band: str, chunk: pa.RecordBatch) -> WorkUnit:
    """The points of a dead letter as a unit.

    Raises
    ------
    InputError
        The collection no longer has the record or the band, or the points lack their positions in pixels, which the
        method needs.
    """
    grid = check_letter(job, record_id, band)
    if job.needs_position and POSITION[0] not in chunk.schema.names:
        name = next(name for name in BY_POSITION if getattr(job.options, name) != getattr(SampleOptions(), name))
        raise InputError(
            f"{name} is {getattr(job.options, name)!r}, but the dead letters come from a run with "
            f"{getattr(SampleOptions(), name)!r}; try them again without it"
        )
    points, kept = split_kept(chunk)
    facts, assets = facts_of(job, record_id, grid, points), job.assets(record_id, [band])
    return WorkUnit(grid=grid, assets=assets, chunk=points, facts=facts, kept=[] if kept is None else [kept])


def check_letter(job: SampleJob, record_id: str, band: str) -> Grid:
    """The grid of a dead letter's band.

    Raises
    ------
    InputError
        The collection no longer has the record or the band.
    """
    grid = job.routing.grid_of_band(record_id, band)
    if grid is None:
        raise InputError(f"a dead letter is of record {record_id!r}, band {band}, which the collection does not have")
    return grid


def facts_of(job: SampleJob, record_id: str, grid: Grid, chunk: pa.RecordBatch) -> RowFacts:
    """What all rows of some points and a record have in common."""
    moment = int(job.routing.datetimes[job.routing.positions[record_id]])
    return RowFacts(
        record_id,
        None if moment == NO_DATETIME else moment,
        job.collection,
        epsg_code(grid.crs),
        point_epsg(chunk),
        job.records.of(record_id),
        geometry_crs=job.geometry_crs(chunk.schema),
    )


def pixels_of(chunk: pa.RecordBatch) -> tuple[Ints, Ints]:
    row, col = (chunk[name].to_numpy().astype(np.int64) for name in PIXEL)
    return row, col


def cut(chunks: Iterable[pa.RecordBatch], most: int) -> Iterator[tuple[pa.RecordBatch, list[Kept]]]:
    """The points of the chunks of a group, up to so many together, and their kept columns."""
    waiting: list[pa.RecordBatch] = []
    of_waiting: list[Kept] = []
    rows = held = 0
    for chunk in chunks:
        points, kept = _apart(chunk)
        full = rows + len(points) > most or held >= KEPT_BYTES
        if waiting and (full or points.schema.metadata != waiting[0].schema.metadata):
            yield merged(waiting), of_waiting
            waiting, of_waiting, rows, held = [], [], 0, 0
        waiting.append(points)
        rows += len(points)
        if kept is not None:
            of_waiting.append(kept)
            held += _held(kept)
    if waiting:
        yield merged(waiting), of_waiting


def _apart(chunk: pa.RecordBatch) -> tuple[pa.RecordBatch, Kept | None]:
    """The points of a chunk, which may be spilled, and its kept columns or where they lie."""
    spilled = Spilled.of(chunk)
    if spilled is None:
        return split_kept(chunk)
    return spilled.points(), spilled if spilled.kept_bytes else None


def _held(kept: Kept) -> int:
    return 0 if isinstance(kept, Spilled) else int(kept.nbytes)


def _joined(kept: Iterable[Kept], most_bytes: int) -> Iterator[pa.RecordBatch]:
    """Kept columns in batches of at most so many bytes, or as they came."""
    waiting: list[pa.RecordBatch] = []
    size = 0
    for each in kept:
        loaded = each.kept() if isinstance(each, Spilled) else each
        if waiting and size + loaded.nbytes > most_bytes:
            yield merged(waiting)
            waiting, size = [], 0
        waiting.append(loaded)
        size += loaded.nbytes
    if waiting:
        yield merged(waiting)
