"""Sample a table of points in this process."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Unpack

import pyarrow as pa

from rasteret_beam.collection.eager.inputs import point_stream
from rasteret_beam.collection.eager.reader import SampleReader
from rasteret_beam.collection.eager.rounds import Rounds
from rasteret_beam.collection.eager.samplable import Samplable
from rasteret_beam.collection.filters.date_ranges import DateRange
from rasteret_beam.collection.index.band_facts import sample_types, warn_of_rounding
from rasteret_beam.collection.index.extra_columns import record_types
from rasteret_beam.collection.index.pixel_crs import pixel_crs
from rasteret_beam.collection.index.quality_checks import check_rules
from rasteret_beam.kernels.tables.point_columns import PointColumns, choose_columns, point_batch
from rasteret_beam.keywords import EagerSampleKeywords
from rasteret_beam.option_fields import options_from, takes_options
from rasteret_beam.options import SampleOptions
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.scales import check_scaled_bands
from rasteret_beam.schema import unsampled_schema


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
    return_unsampled: bool = False,
    bbox: Sequence[float] | None = None,
    date_range: DateRange | None = None,
    geometries: Any = None,
    cloud_cover_lt: float | None = None,
    ids: str | Iterable[str] | None = None,
    **keywords: Unpack[EagerSampleKeywords],
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
        CRS of the points; required unless the geometry column declares it.
    columns : sequence of str, optional
        Columns to keep. The default is all columns, except the geometry, and coordinate columns
        with the name of a sample column (``point_x``).
    <options>
    return_unsampled : bool
        Also return the points that have no row.
    bbox, date_range, geometries, cloud_cover_lt, ids
        As for :meth:`Collection.subset`, which is applied first.
    options : SampleOptions, optional
        All options as one value.

    Returns
    -------
    Table, or (Table, Table)
        Rows in the samples schema, in any order: one for each point, record and band (in a
        wide layout, for each point and record). Values are the stored numbers of the files, or, with
        ``unscale``, in physical units. With ``return_unsampled``, also a table of the other points, each with a
        ``reason``.

    Raises
    ------
    InputError
        A column, band, CRS or option cannot be used.
    TileReadError
        A raster file cannot be read.
    """
    options = options_from(keywords, SampleOptions)
    criteria = {"date_range": date_range, "geometries": geometries, "cloud_cover_lt": cloud_cover_lt}
    narrowed = collection.narrowed(bbox=bbox, ids=ids, **criteria)
    given = {"x_column": x_column, "y_column": y_column, "geometry_column": geometry_column}
    rounds = _rounds(narrowed, points, bands, options, geometry_crs=geometry_crs, columns=columns, **given)
    unsampled: list[pa.RecordBatch] | None = [] if return_unsampled else None
    samples = pa.Table.from_batches(rounds.rows(unsampled), schema=rounds.schema)
    if unsampled is None:
        return samples
    return samples, pa.Table.from_batches(unsampled, schema=unsampled_schema(rounds.kept))


@takes_options(SampleOptions, lambda option: option.facts.eager)
def sample_batches(
    collection: Samplable,
    points: Any,
    bands: Sequence[str],
    *,
    x_column: str | None = None,
    y_column: str | None = None,
    geometry_column: str | None = None,
    geometry_crs: Any = None,
    columns: Sequence[str] | None = None,
    bbox: Sequence[float] | None = None,
    date_range: DateRange | None = None,
    geometries: Any = None,
    cloud_cover_lt: float | None = None,
    ids: str | Iterable[str] | None = None,
    **keywords: Unpack[EagerSampleKeywords],
) -> pa.RecordBatchReader:
    """Sample raster values at points, batch by batch in bounded memory.

    The rows are those of :meth:`Collection.sample_points`. Points are read in rounds of about 4 million; a round starts
    when its first row is needed, and the first one when the first batch is read. DuckDB, Polars and Parquet writers
    accept the reader.

    Parameters
    ----------
    points, bands, x_column, y_column, geometry_column, geometry_crs, columns
        As for :meth:`Collection.sample_points`. A table stays in memory; a dataset or a reader is read round by round.
    <options>
    bbox, date_range, geometries, cloud_cover_lt, ids
        As for :meth:`Collection.subset`, which is applied first.
    options : SampleOptions, optional
        All options as one value.

    Returns
    -------
    RecordBatchReader
        It can be read once, by one consumer. ``close``, or the end of ``with``, ends threads and closes files.

        It leaves out points without a row, which :meth:`Collection.sample_points` and the transforms can return.

    Raises
    ------
    InputError
        A column, band, CRS or option cannot be used. While reading: a batch of points cannot be used.
    TileReadError
        While reading: a raster file cannot be read. Consumers outside Python show only the message.
    """
    options = options_from(keywords, SampleOptions)
    criteria = {"date_range": date_range, "geometries": geometries, "cloud_cover_lt": cloud_cover_lt}
    narrowed = collection.narrowed(bbox=bbox, ids=ids, **criteria)
    given = {"x_column": x_column, "y_column": y_column, "geometry_column": geometry_column}
    rounds = _rounds(narrowed, points, bands, options, geometry_crs=geometry_crs, columns=columns, **given)
    return SampleReader(rounds.schema, rounds.rows())


def _rounds(
    collection: Samplable, points: Any, bands: Sequence[str], options: SampleOptions, **of_columns: Any
) -> Rounds:
    """Check what can be checked before points are read, and prepare the rounds."""
    cache = CacheBudget(options.cache_bytes)
    wanted = collection.check_bands(bands)
    check_scaled_bands(options.scales, wanted)
    warn_of_rounding(collection, wanted, options)
    check_rules(collection, options)
    types = sample_types(collection, wanted, options)
    record_types(collection, wanted, options.extra_columns)
    index = collection.index(wanted, options.match_rules, cache.share, options.record_columns)
    stream = point_stream(points)
    chosen = choose_columns(
        stream.schema, first_value=stream.first_value, time_column=options.time_column, **of_columns
    )
    facts = types, index.records, pixel_crs(collection, options)
    job = SampleJob(index.routing, index.assets, collection.name, wanted, options, *facts)
    return Rounds(job, _point_batches(stream, chosen), chosen, cache)


def _point_batches(batches: Iterable[pa.RecordBatch], chosen: PointColumns) -> Iterator[pa.RecordBatch]:
    first_row = 0
    for batch in batches:
        yield point_batch(batch, first_row, chosen)
        first_row += len(batch)
