"""Sample a table of points of any length in rounds, so that memory is bounded.

A round reads up to :data:`ROUND_POINTS` points, or :data:`ROUND_BYTES`, routes them, and samples them tile by tile. The
points of the next round are read when its first row is needed. Rounds share cached tiles and open files.
"""

import logging
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa

from rasteret_beam.kernels.geo.crs import epsg_code, projjson
from rasteret_beam.kernels.routing.chunks import ChunkRules, Chunks, route
from rasteret_beam.kernels.routing.matching import check_times
from rasteret_beam.kernels.routing.no_hit import why_nothing_hit
from rasteret_beam.kernels.sampling.rows import merged
from rasteret_beam.kernels.tables.point_columns import PointColumns
from rasteret_beam.kernels.tables.point_crs import exact_crs
from rasteret_beam.metrics import Counters
from rasteret_beam.model import TileKey
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.jobs.sampler import SAMPLES, Sampled, Sampler
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.readers.tiles.source import TileSource
from rasteret_beam.schema import kept_fields

log = logging.getLogger(__name__)

ROUND_POINTS = 4 << 20

ROUND_BYTES = 512 << 20
"""Size of the routed points of a round, with their kept columns."""

ROUTE_POINTS = 1 << 20
"""Points that are routed at once: those of a tile share a chunk, which is not copied for each record."""

CHUNKS = ChunkRules(max_bytes=8 << 20)
"""Larger than in a pipeline, as no shuffle carries the chunks; each has the size of a work unit."""

Groups = dict[TileKey, list[pa.RecordBatch]]


@dataclass(eq=False)
class Rounds:
    """Samples a table of points.

    Attributes
    ----------
    job : SampleJob
    points : iterable of RecordBatch
        In the schema of ``chosen``; read once, as rows are needed.
    chosen : PointColumns
    cache : CacheBudget
    """

    job: SampleJob
    points: Iterable[pa.RecordBatch]
    chosen: PointColumns
    cache: CacheBudget
    _first: pa.RecordBatch | None = field(default=None, init=False)
    _sampled: int = field(default=0, init=False)

    @property
    def kept(self) -> list[pa.Field]:
        """The columns of the points that pass through."""
        return kept_fields(self.chosen.schema)

    @property
    def schema(self) -> pa.Schema:
        """The schema of the rows, with the CRS of the points where its EPSG code is not all of it."""
        job = self.job
        crs = self.chosen.crs if job.options.geometry == "point" else job.pixel_crs
        schema = job.options.schema(self.kept, job.bands, job.types, job.records.types, projjson(crs))
        return schema.with_metadata(exact_crs(epsg_code(self.chosen.crs), self.chosen.crs) or None)

    def rows(self, unsampled: list[pa.RecordBatch] | None = None) -> Generator[pa.RecordBatch]:
        """Batches of sample rows; closing the generator ends its threads and closes its files.

        Parameters
        ----------
        unsampled : list of RecordBatch, optional
            The points without a row are appended to it.

        Raises
        ------
        InputError
            A batch of points cannot be used.
        TileReadError
            A raster file cannot be read.
        """
        points = iter(self.points)
        source = TileSource.of_budget(self.cache, self.job.options.prefix_reads)
        try:
            while (found := self._next_round(points)) is not None:
                groups, left = found
                yield from self._rows_of(groups, source, left)
                if unsampled is not None:
                    unsampled += left
                if self.job.options.join == "left":
                    yield from chain.from_iterable(map(self.job.missing, left))
            if self._first is not None and not self._sampled:
                log.warning("%s", why_nothing_hit(self.job.routing, self._first, self.chosen.crs))
        finally:
            source.close()

    def _next_round(self, points: Iterator[pa.RecordBatch]) -> tuple[Groups, list[pa.RecordBatch]] | None:
        """The routed points of a round by key, and those without a sample; None at the end of the points."""
        groups: Groups = {}
        left: list[pa.RecordBatch] = []
        count = held = 0
        for batch in _together(points):
            self._first = batch if self._first is None else self._first
            check_times(self.job.routing.matcher, batch, self.job.options.time_column)
            routed = route(self.job.routing, batch, None, CHUNKS, self.job.needs_position)
            held += _add(routed.chunks, groups) + routed.unsampled.nbytes
            self._sampled += routed.sampled
            left.append(routed.unsampled)
            count += len(batch)
            if count >= ROUND_POINTS or held >= ROUND_BYTES:
                break
        return (groups, left) if count else None

    def _rows_of(self, groups: Groups, source: TileSource, left: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows of the groups in the order of their keys; each group is released when its sampling starts.

        Points that turn out to have no row are appended to ``left``.
        """
        sampler = Sampler(source, self.job, Counters())
        try:
            for sampled in _sampled(sampler, groups):
                if sampled.kind == SAMPLES:
                    yield sampled.rows
                else:
                    left.append(sampled.rows)
        finally:
            sampler.cancel()


def _sampled(sampler: Sampler, groups: Groups) -> Iterator[Sampled]:
    for key in sorted(groups):
        yield from sampler.push(None, key, groups.pop(key))
    yield from sampler.drain()


def _together(points: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Merge batches of points into larger batches of at most a round."""
    waiting: list[pa.RecordBatch] = []
    rows = held = 0
    for batch in points:
        waiting.append(batch)
        rows += len(batch)
        held += batch.nbytes
        if rows >= min(ROUTE_POINTS, ROUND_POINTS) or held >= ROUND_BYTES:
            yield merged(waiting)
            waiting, rows, held = [], 0, 0
    if waiting:
        yield merged(waiting)


def _add(chunks: Chunks, groups: Groups) -> int:
    """Add chunks to their groups; returns their bytes."""
    held, before = 0, None
    for key, chunk in chunks:
        groups.setdefault(key, []).append(chunk)
        held += 0 if chunk is before else chunk.nbytes  # several records may share a chunk
        before = chunk
    return held
