"""The layout of a collection: GeoParquet with one row per record, as Rasteret 0.4 reads and writes it.

Additional columns, which Rasteret ignores: ``grids`` (the distinct grids of a record with their full affine, which is
all that routing needs), ``{band}_extra``, and ``footprint_crs`` where footprints are not in CRS84.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime as Datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import shapely

from rasteret_beam.collection.parquet.checks import check_types
from rasteret_beam.errors import CollectionError
from rasteret_beam.kernels.geo.crs import crs_json, epsg_code
from rasteret_beam.kernels.geo.footprints import Footprint
from rasteret_beam.model import BandHeader, Grid
from rasteret_beam.schema import (
    BAND_EXTRA_TYPE,
    BAND_METADATA_TYPE,
    BBOX_TYPE,
    CHECKSUMS,
    COLLECTION_VERSION,
    EXTRA_SUFFIX,
    FOOTPRINT_CRS,
    GRID_TYPE,
    METADATA_SUFFIX,
)

SPAN = ("start_datetime", "end_datetime")
"""Columns with the first and last datetime of a record without a datetime, as in STAC."""

VERSION = b"rasteret_collection_version"
"""Key of the schema metadata."""

BandHeaders = Mapping[str, BandHeader]


def band_names(schema: pa.Schema) -> list[str]:
    """Bands of a collection: its assets with metadata, or all assets if none has metadata."""
    if "assets" not in schema.names:
        return []
    assets = schema.field("assets").type.names
    known = set(assets)
    described = [name.removesuffix(METADATA_SUFFIX) for name in schema.names if name.endswith(METADATA_SUFFIX)]
    return [band for band in described if band in known] or assets


def check_layout(schema: pa.Schema, source: str) -> None:
    """Refuse a table that is not a collection, or whose version of the layout is unknown.

    Raises
    ------
    CollectionError
    """
    version = (schema.metadata or {}).get(VERSION, COLLECTION_VERSION)
    if version != COLLECTION_VERSION:
        raise CollectionError(
            f"{source} is a collection in layout version {version.decode(errors='replace')!r}, but this release of "
            f"rasteret_beam reads version {COLLECTION_VERSION.decode()!r}. Update it, or build the collection again"
        )
    check_types(schema, source)


def check_storable(headers: Sequence[BandHeader]) -> None:
    """Refuse headers of one file that do not fit into the columns of a collection.

    Raises
    ------
    CollectionError
        A number exceeds its column's type, as in a file with a broken header.
    """
    try:
        pa.array([_metadata(header) for header in headers], type=BAND_METADATA_TYPE)
        pa.array([_extra(header) for header in headers], type=BAND_EXTRA_TYPE)
        pa.array(_grids({str(number): header for number, header in enumerate(headers)}), type=GRID_TYPE)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise CollectionError(f"a value of its header does not fit into a collection: {error}") from error


def with_headers(
    records: pa.Table,
    headers: Sequence[BandHeaders],
    bands: Sequence[str],
    footprints: Sequence[Footprint | None],
    other_footprints: bool | None = None,
) -> pa.Table:
    """Add the headers of the files to a record table.

    Parameters
    ----------
    records : Table
        id, datetime, assets, and any other columns. Missing values of ``geometry``, ``bbox``, ``crs`` and ``proj:epsg``
        are filled in.
    headers : sequence of {band: BandHeader}
        One for each row.
    bands : sequence of str
        The bands that get columns.
    footprints : sequence of Footprint or None
        One for each row; ``geometry`` and ``bbox`` are null without one.
    other_footprints : bool, optional
        Whether to add the column with the CRS of footprints; by default if one is not in CRS84.
    """
    shapes = pa.array([shape and shape.wkb for shape in footprints], type=pa.binary())
    records = _fill_column(records, "geometry", shapes)
    boxes = [shape and dict(zip(BBOX_TYPE.names, shape.box, strict=True)) for shape in footprints]
    records = _fill_column(records, "bbox", pa.array(boxes, type=BBOX_TYPE))
    own_crs = [shape and shape.crs for shape in footprints]
    if any(own_crs) if other_footprints is None else other_footprints:
        records = _set_column(records, FOOTPRINT_CRS, pa.array(own_crs, type=pa.string()))
    crs = [first_grid(row).crs if row else None for row in headers]
    records = _set_column(records, "proj:epsg", pa.array([code and epsg_code(code) for code in crs], type=pa.int32()))
    records = _set_column(records, "crs", pa.array(crs, type=pa.string()))
    for part in ("year", "month"):
        if part not in records.column_names:
            value = getattr(pc, part)(records["datetime"]).cast(pa.int32())
            records = records.append_column(part, value)
    if CHECKSUMS in records.column_names:  # they were computed before the change
        records = records.drop_columns([CHECKSUMS])
    records = _set_column(records, "grids", pa.array([_grids(row) for row in headers], type=pa.list_(GRID_TYPE)))
    columns = {}
    for band in bands:
        found = [row.get(band) for row in headers]
        metadata = pa.array([header and _metadata(header) for header in found], type=BAND_METADATA_TYPE)
        columns[band + METADATA_SUFFIX] = metadata
        columns[band + EXTRA_SUFFIX] = pa.array([header and _extra(header) for header in found], type=BAND_EXTRA_TYPE)
    return _set_columns(records, columns)


def first_grid(headers: BandHeaders) -> Grid:
    """The grid of a record's first band, which gives the record its CRS and footprint."""
    return next(iter(headers.values())).grid


def _set_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


def _set_columns(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """Replace many columns at once; replacing one by one would copy all others each time."""
    own = [(field, column) for field, column in zip(table.schema, table.columns, strict=True)]
    kept = [(field, column) for field, column in own if field.name not in columns]
    new = [(pa.field(name, column.type), column) for name, column in columns.items()]
    fields, arrays = zip(*kept, *new, strict=True)
    return pa.table(list(arrays), schema=pa.schema(fields, metadata=table.schema.metadata))


def _fill_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """A column with its nulls filled by these values; a column of another type is replaced."""
    if name not in table.column_names or table.schema.field(name).type != values.type:
        return _set_column(table, name, values)
    own = table[name].combine_chunks()
    if own.null_count:
        picked = [
            value if value is not None else values[number].as_py() for number, value in enumerate(own.to_pylist())
        ]
        table = _set_column(table, name, pa.array(picked, type=values.type))
    return table


def _grids(headers: BandHeaders) -> list[dict[str, Any]]:
    bands_on: dict[Grid, list[str]] = {}
    for band, header in headers.items():
        bands_on.setdefault(header.grid, []).append(band)
    return [
        {
            "bands": json.dumps(bands),
            "crs": grid.crs,
            "transform": grid.transform,
            "width": grid.width,
            "height": grid.height,
            "tile_width": grid.tile_width,
            "tile_height": grid.tile_height,
        }
        for grid, bands in bands_on.items()
    ]


def _metadata(header: BandHeader) -> dict[str, Any]:
    a, b, c, d, e, f = header.grid.transform
    return {
        "image_width": header.grid.width,
        "image_height": header.grid.height,
        "tile_width": header.grid.tile_width,
        "tile_height": header.grid.tile_height,
        "dtype": header.dtype,
        # Four numbers cannot represent a rotation; null prevents other readers from misreading it.
        "transform": (a, c, e, f) if b == d == 0 else None,
        "predictor": header.predictor,
        "compression": header.compression,
        "tile_offsets": header.tile_offsets if len(header.tile_offsets) else None,
        "tile_byte_counts": header.tile_byte_counts if len(header.tile_byte_counts) else None,
        "pixel_scale": header.pixel_scale or None,
        "tiepoint": header.tiepoint or None,
        "nodata": None if header.nodata is None else float(header.nodata),
        "samples_per_pixel": header.samples_per_pixel,
        "planar_configuration": header.planar_configuration,
        "photometric": header.photometric,
        "extra_samples": header.extra_samples or None,
    }


def _extra(header: BandHeader) -> dict[str, Any]:
    return {name: getattr(header, name) for name in BAND_EXTRA_TYPE.names}


def exact_nodata(nodata: float | None, digits: str | None) -> float | None:
    """The nodata value of a band: an int, parsed from digits, if a double cannot hold it exactly."""
    return nodata if digits is None else int(digits)


def time_span(records: pa.Table) -> tuple[Datetime | None, Datetime | None]:
    """First and last datetime of records; records without a datetime count with their time range."""
    ends = []
    for name in SPAN:
        moments = records["datetime"]
        if name in records.column_names and pa.types.is_timestamp(records.schema.field(name).type):
            moments = pc.coalesce(moments, records[name].cast(moments.type))
        ends.append(moments)
    return pc.min(ends[0]).as_py(), pc.max(ends[1]).as_py()


def _geometry_crs(records: pa.Table) -> dict[str, Any]:
    """GeoParquet's ``crs`` of the footprints: left out for CRS84, PROJJSON, or null for several."""
    if FOOTPRINT_CRS not in records.column_names:
        return {}
    there = records[FOOTPRINT_CRS].filter(pc.is_valid(records["geometry"]))
    known = pc.unique(there).to_pylist()
    if known in ([], [None]):
        return {}
    return {"crs": crs_json(known[0]) if len(known) == 1 else None}


def schema_metadata(records: pa.Table, name: str, data_source: str) -> dict[bytes, bytes]:
    """Parquet schema metadata of a collection: Rasteret's keys and GeoParquet's ``geo``."""
    first, last = time_span(records)
    kinds = shapely.get_type_id(shapely.from_wkb(records["geometry"].to_numpy()))
    names = {3: "Polygon", 6: "MultiPolygon"}
    covering = {side: ["bbox", side] for side in BBOX_TYPE.names}
    geometry: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted({names[kind] for kind in kinds if kind in names}),
        "covering": {"bbox": covering},
        **_geometry_crs(records),
    }
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    return {
        b"name": name.encode(),
        b"data_source": data_source.encode(),
        b"date_range": f"{first.isoformat()},{last.isoformat()}".encode() if first and last else b"",
        VERSION: COLLECTION_VERSION,
        b"geo": json.dumps(geo).encode(),
    }
