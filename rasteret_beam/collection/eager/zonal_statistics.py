"""``zonal_statistics``: statistics of the pixels in polygons as a table."""

import logging
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from rasteret_beam.collection.eager.inputs import polygon_batches
from rasteret_beam.collection.eager.quality_bands import QualityBands
from rasteret_beam.collection.eager.samplable import Samplable
from rasteret_beam.collection.eager.zonal_groups import read_zonal_group
from rasteret_beam.collection.eager.zonal_job import ZonalJob
from rasteret_beam.collection.index.extra_columns import record_types
from rasteret_beam.kernels.routing.chip_chunks import batch_crs
from rasteret_beam.kernels.routing.matching import check_times
from rasteret_beam.kernels.routing.no_hit import EXCHANGED, hits_exchanged
from rasteret_beam.kernels.tables.polygon_geometry import check_polygons
from rasteret_beam.keywords import EagerZonalKeywords
from rasteret_beam.option_fields import options_from, takes_options
from rasteret_beam.readers.jobs.zone_reader import ZoneReader
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.readers.tiles.source import TileSource
from rasteret_beam.scales import check_scaled_bands
from rasteret_beam.zonal_options import ZonalOptions

log = logging.getLogger(__name__)


@takes_options(ZonalOptions, lambda option: option.facts.eager)
def zonal_statistics(
    collection: Samplable,
    polygons: Any,
    bands: Sequence[str],
    *,
    geometry_column: str | None = None,
    geometry_crs: Any = None,
    columns: Sequence[str] | None = None,
    **keywords: Unpack[EagerZonalKeywords],
) -> pa.Table:
    """Statistics of the pixels in polygons, on each record that they overlap.

    Parameters
    ----------
    polygons
        An Arrow table or dataset, anything with an Arrow C stream (Polars, DuckDB, SedonaDB), a pandas or GeoPandas
        frame; or boxes (xmin, ymin, xmax, ymax), Shapely polygons and multipolygons, WKB, GeoJSON, or a list of those.
        Row numbers become ``geometry_id``; all columns but the geometry pass through.
    bands : sequence of str
    geometry_column : str, optional
        Column of a table; by default the one that is declared or named as a geometry.
    geometry_crs
        CRS of the polygons. It is required for a table that does not declare one. The default for other geometries is
        longitude and latitude (CRS84). The edges of a polygon are straight in this CRS; points are added to them where
        they bend in the CRS of a raster.
    columns : sequence of str, optional
        Columns to keep. The default is all columns except the geometry.
    <options>
    options : ZonalOptions, optional
        All options as one value.

    Returns
    -------
    Table
        In :func:`rasteret_beam.schema.zonal_schema`: a row for each polygon, record (or moment) and band; by polygon,
        then by record in collection order (or by moment), then by band. Statistics are of the valid pixels:
        neither NaN nor nodata, valid by the mask or alpha band of the file, and passing every rule of ``quality``. A
        polygon without a valid pixel has a count, variety and valid_fraction of 0, and null for the others.

        With ``coverage="fraction"``, pixels count by the share of them that the polygon covers: the count is the sum
        of the shares, and mean, std, sum, median, percentiles and majority are weighted by them. ``valid_fraction`` is
        the valid part of the polygon's pixels; those beyond the record's raster count as not valid.

        With ``merge="datetime"``, a row is of all records of one moment, and ``records`` is their number. Where their
        grids are aligned to a millionth of a pixel, the first record in the collection that has a valid pixel gives
        it; where they are not, the pixels of each record count.

    Raises
    ------
    InputError
        A geometry, column, band, CRS or option cannot be used, or median or percentiles are wanted of a polygon with
        more than ``max_exact_values`` pixels.
    TileReadError
        A raster file cannot be read.
    """
    options = options_from(keywords, ZonalOptions)
    wanted = collection.check_bands(bands)
    check_scaled_bands(options.scales, wanted)
    record_types(collection, wanted, options.extra_columns)
    cache_budget = CacheBudget(options.cache_bytes)
    index = collection.index(wanted, options.match_rules, cache_budget.share, options.record_columns)
    chosen, batches = polygon_batches(
        polygons,
        geometry_column=geometry_column,
        geometry_crs=geometry_crs,
        columns=columns,
        time_column=options.time_column,
    )
    quality = cache(lambda rules: QualityBands(collection, rules, index.routing, cache_budget.share))
    job = ZonalJob(index, collection.name, wanted, options, quality)
    if options.quality:
        quality(options.quality)  # refuses what cannot be used before polygons are read
    schema = job.schema(chosen)
    reader = ZoneReader(TileSource.of_budget(cache_budget))
    try:
        table = pa.Table.from_batches(_rows(reader, job, batches), schema=schema)
    finally:
        reader.close()
    return table.take(pc.sort_indices(table["geometry_id"]))


def _rows(reader: ZoneReader, job: ZonalJob, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    first: pa.RecordBatch | None = None
    matched = False
    for batch in batches:
        first = batch if first is None else first
        crs, column = batch_crs(batch.schema, None)
        wkb = batch["geometry"].to_numpy(zero_copy_only=False)
        shapes = shapely.from_wkb(wkb, on_invalid="ignore")
        check_polygons(shapes, crs, column, batch["geometry_id"].to_numpy())
        check_times(job.index.routing.matcher, batch, job.options.time_column)
        for rows, _ in read_zonal_group(reader, job, [batch]):
            matched = matched or rows["datetime"].null_count < len(rows) or rows["record_id"].null_count < len(rows)
            yield rows
    if first is not None and not matched and len(first):
        log.warning("%s", _why_none(job, first))


def _why_none(job: ZonalJob, polygons: pa.RecordBatch) -> str:
    """Why no polygon has a row."""
    crs, _ = batch_crs(polygons.schema, None)
    shapes = shapely.from_wkb(polygons["geometry"].to_numpy(zero_copy_only=False))
    bounds = ", ".join(f"{side:g}" for side in shapely.total_bounds(shapes))
    x, y = shapely.get_coordinates(shapes[np.flatnonzero(~shapely.is_missing(shapes))]).T
    hint = f"; they do {EXCHANGED}" if hits_exchanged(job.index.routing, x, y, crs) else ""
    return f"none of the polygons overlaps a record{_in_time(job)}: their bounds are ({bounds}) in {crs}{hint}"


def _in_time(job: ZonalJob) -> str:
    return " that is in time" if job.index.routing.matcher.time_column is not None else ""
