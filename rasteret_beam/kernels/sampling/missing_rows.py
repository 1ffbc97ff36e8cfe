"""Rows of points that have no sample, for ``join="left"``."""

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from rasteret_beam.columns import BANDS_AFTER, band_columns
from rasteret_beam.kernels.geo.crs import projjson
from rasteret_beam.kernels.sampling.rows import RowFacts, SampleRows
from rasteret_beam.kernels.sampling.value_types import ValueTypes
from rasteret_beam.kernels.tables.point_crs import crs_of_points, with_crs
from rasteret_beam.options import SampleOptions
from rasteret_beam.schema import kept_fields

BATCH_ROWS = 131_072
"""Points of a batch of rows."""


def missing_rows(
    points: pa.RecordBatch,
    reason: pa.StringArray | Sequence[str],
    bands: Sequence[str],
    options: SampleOptions,
    types: ValueTypes,
    *,
    collection: str,
    point_crs: int | None,
    record_types: Mapping[str, pa.DataType] | None = None,
    pixel_crs: str | None = None,
) -> pa.RecordBatch:
    """Rows of the sample table for points without a sample; values and the columns of a record and pixel are null.

    With ``layout="values"`` the lists are there, and hold nulls.

    Parameters
    ----------
    points : RecordBatch
        Of n points with their kept columns, or a chunk of them.
    reason : string array or sequence [n]
        Why each has no sample; column ``status``.
    bands : sequence of str
        In the long layout those that get rows: n for each, one band after the other. In a wide layout all that are
        wanted, in output order, for n rows.
    options : SampleOptions
    types : ValueTypes
        Of the bands.
    collection : str
        Its name.
    point_crs : int or None
        EPSG code of the points.
    record_types : mapping of str to DataType, optional
        Types of the columns of the collection that ``extra_columns`` name.
    pixel_crs : str, optional
        CRS of outlines of pixels, with ``geometry="pixel"``.
    """
    geometry_crs = crs_of_points(points.schema, point_crs) if options.geometry == "point" else pixel_crs
    schema = options.schema(kept_fields(points.schema), bands, types, record_types, projjson(geometry_crs))
    reasons = pa.array(reason, type=pa.string())
    facts = RowFacts(None, None, collection, None, point_crs, geometry_crs=geometry_crs)
    rows = SampleRows(points, facts, bands, {}, types, reasons=reasons)
    schema = with_crs(schema, points.schema, point_crs)
    if options.layout != "long":
        return _table(rows, options, schema)
    return pa.concat_batches([_table(rows.of_band(band), options, schema) for band in bands])


def _table(rows: SampleRows, options: SampleOptions, schema: pa.Schema) -> pa.RecordBatch:
    arrays: list[pa.Array] = []
    for column in options.columns:
        field = schema.field(len(arrays))
        arrays.append(column.make(rows) if column.of_points else rows.constant(None, field.type))
        if options.layout == "columns" and column.name == BANDS_AFTER:
            names = [name for name, _, _ in band_columns(rows.bands, options.statistics)]
            arrays += [rows.constant(None, schema.field(len(arrays) + place).type) for place in range(len(names))]
    arrays += [rows.of_points(each.name) for each in kept_fields(rows.chunk.schema)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def rows_of_unsampled(
    unsampled: pa.RecordBatch,
    bands: Sequence[str],
    options: SampleOptions,
    types: ValueTypes,
    collection: str,
    record_types: Mapping[str, pa.DataType] | None = None,
    pixel_crs: str | None = None,
) -> Iterator[pa.RecordBatch]:
    """Rows of a batch of the unsampled table, in batches of one band each, or of all in a wide layout."""
    alone = options.layout == "long"
    for start in range(0, len(unsampled), BATCH_ROWS):
        part = unsampled.slice(start, BATCH_ROWS)
        for some in [[band] for band in bands] if alone else [bands]:
            yield missing_rows(
                part.drop_columns(["point_crs", "reason"]),
                part["reason"],
                some,
                options,
                types,
                collection=collection,
                point_crs=part["point_crs"][0].as_py(),
                record_types=record_types,
                pixel_crs=pixel_crs,
            )
