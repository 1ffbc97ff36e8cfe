"""Arrow schemas: points, samples, polygons, chips, zones, those left over, and the collection on disk."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from rasteret_beam.columns import BANDS_AFTER, RECORD, VALUE, VALUES, band_columns, columns_of
from rasteret_beam.errors import InputError, listed
from rasteret_beam.statistics import statistic_type

FLOAT64 = pa.float64()

POINT_FIELDS = (
    pa.field("point_index", pa.int64(), nullable=False),
    pa.field("point_x", pa.float64()),
    pa.field("point_y", pa.float64()),
)
"""First columns of every batch of points; the kept input columns follow."""

POINT_CRS_KEY = b"rasteret_beam.point_crs"
"""Schema metadata key of a point batch: its CRS as text that pyproj reads."""

POINT_EPSG_KEY = b"rasteret_beam.point_epsg"
"""Schema metadata key of a chunk: the EPSG code of the points' CRS, where it has one."""

SAME_AS_KEY = b"rasteret_beam.same_as"
"""Schema metadata key of a chunk: kept columns that equal a coordinate and so do not travel beside it, as JSON
[[place among the kept columns, name, coordinate column], ...]."""

TIME_KEY = b"rasteret_beam.time"
"""Schema metadata key of a chunk in windows: the time of its points in the stream, microseconds since 1970."""

VERSION_KEY = b"rasteret_beam.version"
"""Schema metadata key of a chunk: digest of the collection's version that it was routed by, where there are several."""

VALUE_TYPE_KEY = b"rasteret_beam.value_type"
"""Schema metadata key of the points of a dead letter: NumPy's name of the type of the run's values, if it was "raw"."""

ONE_RECORD_KEY = b"rasteret_beam.one_record"
"""Schema metadata key of the points of a dead letter: each has no other record of the band in its run."""

SPILLED_KEY = b"rasteret_beam.spilled"
"""Schema metadata key of a batch that stands for a chunk on disk: where it lies."""

PIXEL = ("__pixel_row", "__pixel_col")
POSITION = ("__pixel_row_part", "__pixel_col_part")
"""First columns of a chunk: the pixel on the grid, and (for nodata fallback) where in it the point lies."""

TIME = "__time"
"""Column of a chunk of points that are grouped by place and matched in time: int64, microseconds since 1970."""

SAMPLE_FIELDS = tuple(column.field for column in columns_of("long"))
"""Columns of the sample table in the long layout; see :data:`rasteret_beam.columns.COLUMNS` for all."""

RESERVED = frozenset(column.name for column in columns_of("long", neighbourhood=True)) | {
    "reason",
    *PIXEL,
    *POSITION,
    TIME,
}
"""Names that a kept input column must not have."""

DEAD_LETTER_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string()),
        pa.field("band", pa.string()),
        pa.field("tile_row", pa.int32()),
        pa.field("tile_col", pa.int32()),
        pa.field("href", pa.string()),
        pa.field("error", pa.string()),
        pa.field("message", pa.string()),
        pa.field("attempts", pa.int32()),
        pa.field("point_indexes", pa.list_(pa.int64())),
        pa.field("points", pa.binary()),
    ]
)
"""A tile of a band that could not be read, and its points: row numbers, and (``points``) all of them as an Arrow IPC
stream, from which the tile can be tried again."""

UNSAMPLED_REASONS = {
    "null": "a coordinate or the geometry is null",
    "not_finite": "a coordinate is NaN or infinite, or the point is empty",
    "out_of_range": "the latitude is beyond 90 degrees or the longitude beyond 360",
    "no_time": "the point has no time (null), and records are matched in time",
    "no_record": "no record that has a requested band contains the point",
    "out_of_tolerance": "records contain the point, but none is near enough in time, or on the side asked for",
    "invalid": "all samples of the point are invalid, and these are dropped",
}

POLYGON_FIELDS = (
    pa.field("geometry_id", pa.int64(), nullable=False),
    pa.field("geometry", pa.binary()),
)
"""First columns of every batch of polygons (WKB); the kept input columns follow."""

POLYGON_CRS_KEY = b"rasteret_beam.polygon_crs"
"""Schema metadata key of a polygon batch: its CRS as text that pyproj reads."""

POLYGON_COLUMN_KEY = b"rasteret_beam.polygon_column"
"""Schema metadata key of a polygon batch: what the input calls the geometry column, for errors."""

CHIP_WINDOW = ("__window_row", "__window_col", "__window_height", "__window_width", "__windows")
CHIP_SHAPE = "__shape"
"""First columns of a chunk of chips: the window, how many the chip was cut into, the polygon in the grid's CRS."""

CHIP_FIELDS = (
    pa.field("geometry_id", pa.int64()),
    pa.field("record_id", pa.string()),
    pa.field("datetime", pa.timestamp("us")),
    pa.field("collection", pa.string()),
    pa.field("band", pa.string()),
    pa.field("window_row", pa.int32()),
    pa.field("window_col", pa.int32()),
    pa.field("windows", pa.int32()),
    pa.field("transform", pa.list_(pa.float64())),
    pa.field("crs", pa.string()),
    pa.field("shape", pa.list_(pa.int32())),
    pa.field("dtype", pa.string()),
    pa.field("fill", pa.float64()),
    pa.field("array", pa.large_binary()),
    pa.field("mask", pa.large_binary()),
)

CHIP_DEAD_LETTER_SCHEMA = pa.schema(
    [
        *list(DEAD_LETTER_SCHEMA)[:-2],
        pa.field("geometry_ids", pa.list_(pa.int64())),
        pa.field("polygons", pa.binary()),
    ]
)
"""A tile of a band that could not be read, and the windows of chips that it leaves without pixels: the number of the
polygon of each, and (``polygons``) polygons and windows as an Arrow IPC stream, from which they can be tried again."""

ZONAL_DEAD_LETTER_SCHEMA = pa.schema([*list(CHIP_DEAD_LETTER_SCHEMA)[:-1], pa.field("zones", pa.binary())])
"""A tile of a band that could not be read, and the rows of zonal statistics that lack it: the number of the polygon of
each, and (``zones``) polygons and records as an Arrow IPC stream, from which they can be tried again. A row that lacks
several tiles is in the dead letter of the first."""

ZONE_RECORDS = "__records"
"""Column of the chunk of a dead letter of zonal statistics: ids of the records of each row, list<string>."""

ZONAL_SETTINGS_KEY = b"rasteret_beam.zones"
"""Schema metadata key of the chunk of a dead letter of zonal statistics: how its rows are made, as JSON."""

CHIP_SETTINGS_KEY = b"rasteret_beam.chips"
"""Schema metadata key of the chunk of a dead letter: how its chips are read, and the grid of its windows, as JSON."""

CHIP_RESERVED = frozenset(field.name for field in (*CHIP_FIELDS, *POLYGON_FIELDS)) | {
    "reason",
    "message",
    CHIP_SHAPE,
    *CHIP_WINDOW,
    ZONE_RECORDS,
}
"""Names that a kept column of a polygon table must not have."""

UNMATCHED_REASONS = {
    "null": "the geometry is null",
    "broken": "the geometry is not WKB that can be read",
    "not_polygon": "the geometry is not a polygon or multipolygon",
    "empty": "the polygon is empty",
    "invalid": "the polygon is not valid",
    "no_projection": "the polygon cannot be brought to the CRS of a record",
    "no_time": "the polygon has no time (null), and records are matched in time",
    "no_record": "no record that has a requested band overlaps the polygon",
    "out_of_tolerance": "records overlap the polygon, but none is near enough in time, or on the side asked for",
}

BBOX_TYPE = pa.struct([(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])

ASSET_TYPE = pa.struct([("href", pa.string()), ("band_index", pa.int32())])

BAND_METADATA_TYPE = pa.struct(
    [
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
        ("tile_width", pa.int32()),
        ("tile_height", pa.int32()),
        ("dtype", pa.string()),
        ("transform", pa.list_(pa.float64())),
        ("predictor", pa.int32()),
        ("compression", pa.int32()),
        ("tile_offsets", pa.list_(pa.int64())),
        ("tile_byte_counts", pa.list_(pa.int64())),
        ("pixel_scale", pa.list_(pa.float64())),
        ("tiepoint", pa.list_(pa.float64())),
        ("nodata", pa.float64()),
        ("samples_per_pixel", pa.int32()),
        ("planar_configuration", pa.int32()),
        ("photometric", pa.int32()),
        ("extra_samples", pa.list_(pa.int32())),
    ]
)
"""``{band}_metadata``, as Rasteret 0.4 reads and writes it."""

GRID_TYPE = pa.struct(
    [
        ("bands", pa.string()),
        ("crs", pa.string()),
        ("transform", pa.list_(pa.float64())),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("tile_width", pa.int32()),
        ("tile_height", pa.int32()),
    ]
)
"""An element of our ``grids`` column: a grid with its full affine, and the bands on it (a JSON list)."""

BAND_EXTRA_TYPE = pa.struct(
    [
        ("scale", pa.float64()),
        ("offset", pa.float64()),
        ("mask", pa.string()),
        ("nodata_integer", pa.string()),
        ("byte_order", pa.string()),
        ("bits_per_sample", pa.int32()),
        ("fill_order", pa.int32()),
        ("lerc_compression", pa.int32()),
        ("file_size", pa.int64()),
        ("etag", pa.string()),
        ("header_digest", pa.string()),
        ("fallback_reason", pa.string()),
    ]
)
"""Our ``{band}_extra``: facts that Rasteret's struct has no place for."""

CHECKSUMS = "checksums"
"""Our column of checksums: struct of ``record`` and of ``bands``, a struct with one for each band; all int32."""

FOOTPRINT_CRS = "footprint_crs"
"""Our column with the CRS of ``geometry`` and ``bbox`` where that is not OGC:CRS84: text, null for CRS84. A collection
has it only if it has other footprints."""

METADATA_SUFFIX = "_metadata"
EXTRA_SUFFIX = "_extra"
COLLECTION_VERSION = b"1"


def points_schema(kept: Iterable[pa.Field], crs: str | None) -> pa.Schema:
    """Schema of a batch of points: :data:`POINT_FIELDS`, then the kept columns.

    Raises
    ------
    InputError
        A kept column has a name of the samples schema.
    """
    kept = list(kept)
    _check_kept(kept, RESERVED, "point", "sample")
    return pa.schema([*POINT_FIELDS, *kept], metadata={POINT_CRS_KEY: crs} if crs else None)


def _check_kept(kept: Sequence[pa.Field], reserved: frozenset[str], table: str, output: str) -> None:
    names = [field.name for field in kept]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(f"the {table} table has more than one column named {listed(twice)}; rename or drop one")
    taken = [name for name in names if name in reserved]
    if taken:
        raise InputError(
            f"the {table} table has column(s) named {listed(taken)}, which the {output} table needs for itself; "
            "rename them, or choose the columns to keep with columns=[...]"
        )


def polygons_schema(kept: Iterable[pa.Field], crs: str, column: str = "geometry") -> pa.Schema:
    """Schema of a batch of polygons: :data:`POLYGON_FIELDS`, then the kept columns.

    Raises
    ------
    InputError
        A kept column has a name of the chips schema.
    """
    kept = list(kept)
    _check_kept(kept, CHIP_RESERVED, "polygon", "output")
    return pa.schema([*POLYGON_FIELDS, *kept], metadata={POLYGON_CRS_KEY: crs, POLYGON_COLUMN_KEY: column})


def kept_polygon_fields(polygons: pa.Schema) -> list[pa.Field]:
    """The columns of a batch of polygons, or of a chunk of chips, that pass through to the chips."""
    return [field for field in polygons if field.name not in CHIP_RESERVED]


def chips_schema(kept: Sequence[pa.Field] = ()) -> pa.Schema:
    """Schema of the chip table; ``kept`` are the columns of the polygon table that pass through.

    ===========================  =================================================================
    column                       what it holds
    ===========================  =================================================================
    geometry_id                  row number of the polygon in the whole input
    record_id, datetime          of the record; its datetime in UTC
    collection, band             names
    window_row, window_col       first pixel of the window, on the record's grid
    windows                      into how many windows the chip was cut: 1 where it is whole
    transform                    affine (a, b, c, d, e, f) of the window: x = a*col + b*row + c
    crs                          of the record, as authority code or WKT
    shape                        rows and columns of the window
    dtype                        numpy name of the pixels' type
    fill                         value of the pixels that are not valid
    array                        pixels, row by row, little-endian
    mask                         a byte for each pixel: 1 is valid, 0 is not
    ===========================  =================================================================
    """
    return pa.schema([*CHIP_FIELDS, *kept])


ZONAL_FIELDS = (
    *CHIP_FIELDS[:5],
    pa.field("raster_crs", pa.int32()),
)
"""First columns of the table of zonal statistics; the statistics, columns of records and kept columns follow."""

MERGED_RECORDS = pa.field("records", pa.int64())
"""Column of the table of zonal statistics whose rows are of all records of one moment: how many these are."""


def zonal_schema(
    statistics: Sequence[str],
    kept: Sequence[pa.Field] = (),
    extra_columns: Sequence[str] = (),
    record_types: Mapping[str, pa.DataType] | None = None,
    *,
    shares: bool = False,
    merged: bool = False,
) -> pa.Schema:
    """Schema of the table of zonal statistics.

    ===========================  =================================================================
    column                       what it holds
    ===========================  =================================================================
    geometry_id                  row number of the polygon in the whole input
    record_id, datetime          of the record; its datetime in UTC
    collection, band             names
    raster_crs                   EPSG code of the record's CRS; null where it has none
    records                      with ``merged``: how many records the row is of
    the statistics               of the polygon's pixels, in the order that they are asked for
    record:NAME                  columns of the collection
    the kept columns             of the polygon table
    ===========================  =================================================================

    Parameters
    ----------
    statistics : sequence of str
        Names, as of :mod:`rasteret_beam.statistics`.
    kept : sequence of Field
        The columns of the polygon table that pass through.
    extra_columns : sequence of str
        Columns of the collection, each as ``record:NAME``.
    record_types : mapping of str to DataType, optional
        Their types, by NAME.
    shares : bool
        Pixels count by the share of them that a polygon covers.
    merged : bool
        A row is of all records of one moment: ``record_id`` is null, ``datetime`` that of the earliest, and
        ``raster_crs`` null where they differ.

    Raises
    ------
    InputError
        A column that is added has the name of a kept one, or the type of a column of the collection is not given.
    """
    known = {RECORD + name: kind for name, kind in (record_types or {}).items()}
    fields = [*ZONAL_FIELDS, *([MERGED_RECORDS] if merged else [])]
    fields += [pa.field(name, statistic_type(name, shares=shares)) for name in statistics]
    for name in extra_columns:
        _check_has_type(name, known, "Collection.zonal_schema(kept, options)")
        fields.append(pa.field(name, known[name]))
    taken = sorted({field.name for field in fields} & {field.name for field in kept})
    if taken:
        raise InputError(
            f"the table of statistics has column(s) {listed(taken)}, but the polygon table has columns of these names; "
            "rename them, or choose the polygon columns to keep with columns=[...]"
        )
    return pa.schema([*fields, *kept])


def unmatched_schema(kept: Sequence[pa.Field] = ()) -> pa.Schema:
    """Schema of the table of polygons without a record: the polygon, the reason and its wording, the kept columns."""
    return pa.schema([*POLYGON_FIELDS, pa.field("reason", pa.string()), pa.field("message", pa.string()), *kept])


def kept_fields(points: pa.Schema) -> list[pa.Field]:
    """The columns of a batch of points, or of a chunk, that pass through to the samples."""
    own = {field.name for field in POINT_FIELDS} | {*PIXEL, *POSITION, TIME}
    kept = [field for field in points if field.name not in own]
    for place, name, _ in same_columns(points):
        kept.insert(place, pa.field(name, pa.float64()))
    return kept


def same_columns(chunk: pa.Schema) -> list[tuple[int, str, str]]:
    """The kept columns that a chunk leaves out, by place: (place, name, coordinate column that they equal)."""
    found = (chunk.metadata or {}).get(SAME_AS_KEY)
    return [(place, name, source) for place, name, source in json.loads(found)] if found else []


SAMPLE_SCHEMA = "Collection.sample_schema(bands, kept, options=...)"


def samples_schema(
    kept: Sequence[pa.Field] = (),
    neighbourhood: bool = False,
    layout: str = "long",
    bands: Sequence[str] = (),
    extra_columns: Sequence[str] = (),
    value_types: pa.DataType | Mapping[str, pa.DataType] = FLOAT64,
    record_types: Mapping[str, pa.DataType] | None = None,
    statistics: Sequence[str] = (),
) -> pa.Schema:
    """Schema of the sample table.

    Parameters
    ----------
    kept : sequence of Field
        The input columns that pass through.
    neighbourhood : bool
        With the windows around the points.
    layout : str
        One of :data:`rasteret_beam.columns.LAYOUTS`.
    bands : sequence of str
        In output order; needed where they are columns, and for the size of lists.
    extra_columns : sequence of str
        Names of optional columns of :data:`rasteret_beam.columns.COLUMNS`, or as of
        :func:`rasteret_beam.columns.extra_column`.
    value_types : DataType, or mapping of band to DataType
        Types of the values. Only ``layout="columns"`` has columns of several types.
    record_types : mapping of str to DataType, optional
        Types of the columns of the collection that ``extra_columns`` name.
    statistics : sequence of str
        Names of the statistics of windows around the points.

    Raises
    ------
    InputError
        A column that the layout or an option adds has the name of another column, or the type of a column of the
        collection is not given.
    """
    fields: list[pa.Field] = []
    added: list[str] = []
    types = value_types if isinstance(value_types, Mapping) else dict.fromkeys(bands or ("",), value_types)
    known = {VALUE: _common(types), VALUES: value_lists(types, len(bands))}
    known |= {RECORD + name: kind for name, kind in (record_types or {}).items()}
    known |= {name: statistic_lists(name, len(bands)) for name in statistics} if layout == "values" else {}
    for column in columns_of(layout, neighbourhood, extra_columns, statistics):
        _check_has_type(column.name, known)
        fields.append(column.field.with_type(known.get(column.name, column.field.type)))
        if column.name not in RESERVED:
            added.append(column.name)
        if layout == "columns" and column.name == BANDS_AFTER:
            of_bands = list(band_columns(bands, statistics))
            fields += [pa.field(name, types[band] if of is None else statistic_type(of)) for name, band, of in of_bands]
            added += [name for name, _, _ in of_bands]
    taken = [name for name in added if name in RESERVED | {field.name for field in kept} or added.count(name) > 1]
    if taken:
        by_statistics = bool({*taken} & {*statistics})
        what = "statistics" if by_statistics else "extra_columns" if layout == "long" else f"layout={layout!r}"
        way_out = "leave them out" if layout == "long" or by_statistics else "use another layout"
        raise InputError(
            f"{what} adds column(s) {listed(dict.fromkeys(taken))}, but the sample table has columns of these names; "
            f"{way_out}, or choose the point columns to keep with columns=[...]"
        )
    return pa.schema([*fields, *kept])


def _check_has_type(name: str, known: Mapping[str, pa.DataType], maker: str = SAMPLE_SCHEMA) -> None:
    if name.startswith(RECORD) and name not in known:
        raise InputError(
            f"extra_columns have {name!r}, whose type is that of the collection's column; {maker} gives the schema"
        )


def value_lists(types: Mapping[str, pa.DataType], bands: int) -> pa.DataType:
    """Type of the lists of values of so many bands, whose types are equal; 0 for any number."""
    return pa.list_(_common(types), bands or -1)


def statistic_lists(name: str, bands: int) -> pa.DataType:
    """Type of the lists of a statistic of so many bands; 0 for any number."""
    return pa.list_(statistic_type(name), bands or -1)


def _common(types: Mapping[str, pa.DataType]) -> pa.DataType:
    return next(iter(types.values()), FLOAT64)


def unsampled_schema(kept: Sequence[pa.Field] = ()) -> pa.Schema:
    """Schema of the table of points without a sample: the point, the reason, the kept columns."""
    point = [*SAMPLE_FIELDS[:4], pa.field("reason", pa.string())]
    return pa.schema([*point, *kept])


def check_point_batch(schema: pa.Schema) -> None:
    """Refuse a batch that does not start with :data:`POINT_FIELDS`."""
    _check_first(schema, POINT_FIELDS, "points", "ReadPoints")


def check_polygon_batch(schema: pa.Schema) -> None:
    """Refuse a batch that does not start with :data:`POLYGON_FIELDS`."""
    _check_first(schema, POLYGON_FIELDS, "polygons", "ReadPolygons")


def _check_first(schema: pa.Schema, fields: Sequence[pa.Field], what: str, maker: str) -> None:
    for number, field in enumerate(fields):
        if number >= len(schema) or schema.field(number).name != field.name or schema.field(number).type != field.type:
            raise InputError(
                f"column {number} of a batch of {what} must be {field.name} ({field.type}); the batch has "
                f"{listed(f'{f.name} ({f.type})' for f in schema)}. {maker} makes such batches."
            )
