"""The eager face: sample a table of points in this process."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from rasteret_beam.collection.eager.inputs import point_stream
from rasteret_beam.collection.eager.samplable import Samplable
from rasteret_beam.collection.filters.date_ranges import DateRange
from rasteret_beam.collection.index.band_facts import warn_of_rounding
from rasteret_beam.kernels.routing.chunks import ChunkRules, route
from rasteret_beam.kernels.routing.no_hit import why_nothing_hit
from rasteret_beam.kernels.sampling.layouts import check_one_row_each
from rasteret_beam.kernels.tables.point_columns import PointColumns, choose_columns, point_batch
from rasteret_beam.kernels.tables.point_times import check_times
from rasteret_beam.metrics import Counters
from rasteret_beam.model import TileKey
from rasteret_beam.options import SampleOptions, takes_options
from rasteret_beam.readers.jobs.sampler import TileSampler
from rasteret_beam.readers.jobs.work_units import SampleJob
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.schema import kept_fields, unsampled_schema

log = logging.getLogger(__name__)


@takes_options(SampleOptions, lambda option: option.facts.eager)
def sample_points(
    collection: Samplable,
    points: Any,
    bands: Sequence[str],
    *,
    x_column: str | None = None,
    y_column: str | None = None,
    geometry_column: str | None = None,
    geometry_crs: Any = None,
    columns: Sequence[str] | None = None,
    options: SampleOptions,
    return_unsampled: bool = False,
    bbox: Sequence[float] | None = None,
    date_range: DateRange | None = None,
    geometries: Any = None,
    cloud_cover_lt: float | None = None,
    ids: str | Iterable[str] | None = None,
) -> pa.Table | tuple[pa.Table, pa.Table]:
    """Sample raster values at points.

    Parameters
    ----------
    points
        An Arrow table or dataset, anything with an Arrow C stream (Polars, DuckDB, SedonaDB), a
        pandas or GeoPandas frame, or Shapely points, WKB, GeoJSON or a list of those; see
        :func:`rasteret_beam.collection.eager.inputs.point_stream`. Row numbers become
        ``point_index``; all columns but the geometry pass through.
    bands : sequence of str
    x_column, y_column : str, optional
        Coordinate columns: longitude or easting, latitude or northing.
    geometry_column : str, optional
        Points as WKB or GeoArrow, in place of coordinate columns.
    geometry_crs
        CRS of the points; needed unless the geometry column carries its own.
    columns : sequence of str, optional
        Columns to keep; by default all, those of the coordinates too, but for the geometry and
        coordinates named as a sample column (``point_x``).
    <options>
    return_unsampled : bool
        Also return the points that gave no row.
    bbox, date_range, geometries, cloud_cover_lt, ids
        As for :meth:`Collection.subset`, which is applied first.
    options : SampleOptions, optional
        All options as one value.

    Returns
    -------
    Table, or (Table, Table)
        Rows in the samples schema, in no promised order: one for each point, record and
        band (in a wide layout, for each point and record); values are raw stored numbers.
        With ``return_unsampled``, a second table with the other points and a ``reason`` each.

    Raises
    ------
    InputError
        A column, band, CRS or option cannot be used.
    TileReadError
        A raster file cannot be read.
    """
    collection = collection.narrowed(
        bbox=bbox, date_range=date_range, geometries=geometries, cloud_cover_lt=cloud_cover_lt, ids=ids
    )
    cache = CacheBudget(options.cache_bytes)
    wanted = collection.check_bands(bands)
    warn_of_rounding(collection, wanted)
    index = collection.index(wanted, options.match_rules, cache.share)
    if options.layout != "long":
        check_one_row_each(index.routing)
    stream = point_stream(points)
    chosen = choose_columns(
        stream.schema,
        x_column=x_column,
        y_column=y_column,
        geometry_column=geometry_column,
        geometry_crs=geometry_crs,
        columns=columns,
        time_column=options.time_column,
        first_value=stream.first_value,
    )
    job = SampleJob(index.routing, index.assets, collection.name, wanted, options)
    with_position = job.method.needs_position
    groups: dict[TileKey, list[pa.RecordBatch]] = {}
    unsampled: list[pa.RecordBatch] = []
    sampled = 0
    first_batch = None
    for batch in _point_batches(stream, chosen):
        check_times(batch, options.time_column)
        first_batch = batch if first_batch is None else first_batch
        routed = route(index.routing, batch, None, ChunkRules(), with_position)
        for key, chunk in routed.chunks:
            groups.setdefault(key, []).append(chunk)
        unsampled.append(routed.unsampled)
        sampled += routed.sampled
    if first_batch is not None and not sampled:
        log.warning("%s", why_nothing_hit(index.routing, first_batch, chosen.crs))
    kept = kept_fields(chosen.schema)
    rows = list(_sampled(job, groups, TileSampler.of_budget(cache, options.prefix_reads)))
    samples = pa.Table.from_batches(rows, schema=options.schema(kept, wanted))
    if not return_unsampled:
        return samples
    return samples, pa.Table.from_batches(unsampled, schema=unsampled_schema(kept))


def _sampled(
    job: SampleJob, groups: dict[TileKey, list[pa.RecordBatch]], sampler: TileSampler
) -> Iterator[pa.RecordBatch]:
    """Rows of the groups in the order of their keys; groups are released as they are taken."""
    stream = sampler.stream(job, Counters())
    try:
        for key in sorted(groups):
            for sampled in stream.push(None, key, groups.pop(key)):
                yield sampled.rows
        for sampled in stream.drain():
            yield sampled.rows
    finally:
        stream.cancel()
        sampler.close()


def _point_batches(batches: Iterable[pa.RecordBatch], chosen: PointColumns) -> Iterator[pa.RecordBatch]:
    first_row = 0
    for batch in batches:
        yield point_batch(batch, first_row, chosen)
        first_row += len(batch)
