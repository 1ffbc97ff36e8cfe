"""Portions: the points of a group that are sampled together, and the rows that come of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.crs import Floats, epsg_code
from rasteret_beam.kernels.dead_letters import Failure, dead_letters, left_over
from rasteret_beam.kernels.grids import Ints
from rasteret_beam.kernels.neighbourhood import Neighbourhood
from rasteret_beam.kernels.routing import NO_DATETIME, RoutingIndex
from rasteret_beam.kernels.sampling import RecordFacts, merged, sample_rows, wide_rows
from rasteret_beam.model import Asset, Grid, TileKey
from rasteret_beam.schema import PIXEL, POINT_EPSG_KEY, POSITION

PORTION_ROWS = 131_072
"""Chunks of a group are sampled together up to so many points, which bounds memory."""

PORTION_VALUES = 1 << 20
"""Points times bands (or times the cells of a window) of a portion."""

NO_FALLBACK = Neighbourhood()

AssetLookup = Callable[[str, Sequence[str]], Sequence[Asset]]


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
    layout : str
        One of :data:`schema.LAYOUTS`.
    bands : sequence of str
        All that are wanted, in output order; needed by wide layouts.
    dead_letters : bool
        Give up tiles that cannot be read, with their points, instead of raising an error.
    """

    routing: RoutingIndex
    assets: AssetLookup
    collection: str
    around: Neighbourhood = NO_FALLBACK
    layout: str = "long"
    bands: Sequence[str] = ()
    dead_letters: bool = False


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
    """A portion after sampling.

    Attributes
    ----------
    portion : Portion
    values : {band: [n] float64}
    windows : {band: list array or None}
        Around the points, where they are returned.
    failures : list of Failure
        Tiles that could not be read; the values of their points are not there.
    """

    portion: Portion
    values: dict[str, Floats]
    windows: dict[str, pa.Array | None]
    failures: list[Failure] = field(default_factory=list)

    def rows(self, job: SampleJob) -> Iterator[pa.RecordBatch]:
        """Rows of the sample table: a batch for each band, or one for all of them in a wide layout."""
        chunk, facts = self.portion.chunk, self.portion.facts
        if job.layout != "long":
            yield wide_rows(chunk, job.bands, self.values, facts, job.layout)
            return
        for band, rows in sample_rows(chunk, self.values, facts, self.windows):
            yield rows.filter(pa.array(left_over(self.failures, band, len(chunk)))) if self.failures else rows

    def letters(self) -> pa.RecordBatch:
        """Rows of the dead-letter table."""
        return dead_letters(self.portion.chunk, self.failures)


def portions(job: SampleJob, key: TileKey, chunks: Iterable[pa.RecordBatch]) -> Iterator[Portion]:
    """The points of a group in portions of bounded size."""
    grid, bands = job.routing.grid_of(key)
    assets = job.assets(key.record_id, bands)
    most = min(PORTION_ROWS, PORTION_VALUES // (len(bands) * job.around.cells))
    for chunk in _portioned(chunks, max(1, most)):
        yield Portion(grid, assets, chunk, _facts(job, key.record_id, grid, chunk))


def portion_again(job: SampleJob, record_id: str, band: str, chunk: pa.RecordBatch) -> Portion:
    """The points of a dead letter as a portion.

    Raises
    ------
    InputError
        The collection no longer has the record or the band, or the points lack what nodata fallback needs.
    """
    grid = job.routing.grid_of_band(record_id, band)
    if grid is None:
        raise InputError(f"a dead letter is of record {record_id!r}, band {band}, which the collection does not have")
    if job.around.max_distance_pixels and POSITION[0] not in chunk.schema.names:
        raise InputError(
            f"max_distance_pixels is {job.around.max_distance_pixels}, but the dead letters come from a run with 0; "
            "try them again without it"
        )
    return Portion(grid, job.assets(record_id, [band]), chunk, _facts(job, record_id, grid, chunk))


def _facts(job: SampleJob, record_id: str, grid: Grid, chunk: pa.RecordBatch) -> RecordFacts:
    moment = int(job.routing.datetimes[job.routing.positions[record_id]])
    code = (chunk.schema.metadata or {}).get(POINT_EPSG_KEY)
    return RecordFacts(
        record_id,
        None if moment == NO_DATETIME else moment,
        job.collection,
        epsg_code(grid.crs),
        int(code) if code is not None else None,
    )


def pixels_of(chunk: pa.RecordBatch) -> tuple[Ints, Ints]:
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
