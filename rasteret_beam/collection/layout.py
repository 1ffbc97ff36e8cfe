"""The layout of a collection: one row a record, GeoParquet, as Rasteret 0.4 reads and writes it.

Columns of ours that Rasteret ignores: ``grids`` (the distinct grids of a record with their
full affine, which is all that routing needs) and ``{band}_extra``.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import shapely

from rasteret_beam.collection.checks import check_types
from rasteret_beam.errors import CollectionError
from rasteret_beam.kernels.crs import epsg_code
from rasteret_beam.kernels.footprints import footprint
from rasteret_beam.model import BandHeader, Grid
from rasteret_beam.schema import (
    BAND_EXTRA_TYPE,
    BAND_METADATA_TYPE,
    BBOX_TYPE,
    COLLECTION_VERSION,
    EXTRA_SUFFIX,
    GRID_TYPE,
    METADATA_SUFFIX,
)

VERSION = b"rasteret_collection_version"
"""Key of the schema metadata."""

BandHeaders = Mapping[str, BandHeader]


def band_names(schema: pa.Schema) -> list[str]:
    """Bands of a collection: those of its assets that have metadata, else all of its assets."""
    if "assets" not in schema.names:
        return []
    assets = schema.field("assets").type.names
    known = set(assets)
    described = [name.removesuffix(METADATA_SUFFIX) for name in schema.names if name.endswith(METADATA_SUFFIX)]
    return [band for band in described if band in known] or assets


def check_layout(schema: pa.Schema, source: str) -> None:
    """Refuse a table that is not a collection, or is one in a version of the layout that is not known.

    Raises
    ------
    CollectionError
    """
    version = (schema.metadata or {}).get(VERSION, COLLECTION_VERSION)
    if version != COLLECTION_VERSION:
        raise CollectionError(
            f"{source} is a collection in version {version.decode(errors='replace')!r} of the layout; this release of "
            f"rasteret_beam reads version {COLLECTION_VERSION.decode()!r}. Update it, or build the collection again"
        )
    check_types(schema, source)


def with_headers(records: pa.Table, headers: Sequence[BandHeaders], bands: Sequence[str]) -> pa.Table:
    """Add to a record table what was read from the headers of its files.

    Parameters
    ----------
    records : Table
        id, datetime, assets, and any other columns. ``geometry``, ``bbox``, ``crs`` and
        ``proj:epsg`` are filled in where it has none.
    headers : sequence of {band: BandHeader}
        One for each row.
    bands : sequence of str
        The bands that get columns.
    """
    footprints = [footprint(first_grid(row)) if row else None for row in headers]
    if "geometry" not in records.column_names:
        shapes = [shape and shapely.to_wkb(shape[0]) for shape in footprints]
        records = records.append_column("geometry", pa.array(shapes, type=pa.binary()))
    if "bbox" not in records.column_names:
        boxes = [shape and dict(zip(BBOX_TYPE.names, shape[1], strict=True)) for shape in footprints]
        records = records.append_column("bbox", pa.array(boxes, type=BBOX_TYPE))
    crs = [first_grid(row).crs if row else None for row in headers]
    records = _set_column(records, "proj:epsg", pa.array([code and epsg_code(code) for code in crs], type=pa.int32()))
    records = _set_column(records, "crs", pa.array(crs, type=pa.string()))
    for part in ("year", "month"):
        if part not in records.column_names:
            value = getattr(pc, part)(records["datetime"]).cast(pa.int32())
            records = records.append_column(part, value)
    records = _set_column(records, "grids", pa.array([_grids(row) for row in headers], type=pa.list_(GRID_TYPE)))
    for band in bands:
        found = [row.get(band) for row in headers]
        metadata = pa.array([header and _metadata(header) for header in found], type=BAND_METADATA_TYPE)
        extra = pa.array([header and _extra(header) for header in found], type=BAND_EXTRA_TYPE)
        records = _set_column(records, band + METADATA_SUFFIX, metadata)
        records = _set_column(records, band + EXTRA_SUFFIX, extra)
    return records


def first_grid(headers: BandHeaders) -> Grid:
    """The grid of a record's first band, which gives the record its CRS and footprint."""
    return next(iter(headers.values())).grid


def _set_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


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
        # Four numbers cannot say a rotation; none at all keeps others from reading it wrongly.
        "transform": (a, c, e, f) if b == d == 0 else None,
        "predictor": header.predictor,
        "compression": header.compression,
        "tile_offsets": header.tile_offsets or None,
        "tile_byte_counts": header.tile_byte_counts or None,
        "pixel_scale": header.pixel_scale or None,
        "tiepoint": header.tiepoint or None,
        "nodata": header.nodata,
        "samples_per_pixel": header.samples_per_pixel,
        "planar_configuration": header.planar_configuration,
        "photometric": header.photometric,
        "extra_samples": header.extra_samples or None,
    }


def _extra(header: BandHeader) -> dict[str, Any]:
    return {name: getattr(header, name) for name in BAND_EXTRA_TYPE.names}


def schema_metadata(records: pa.Table, name: str, data_source: str) -> dict[bytes, bytes]:
    """Parquet schema metadata of a collection: Rasteret's keys and GeoParquet's ``geo``."""
    span = pc.min_max(records["datetime"])
    first, last = span["min"].as_py(), span["max"].as_py()
    kinds = shapely.get_type_id(shapely.from_wkb(records["geometry"].to_numpy()))
    names = {3: "Polygon", 6: "MultiPolygon"}
    covering = {side: ["bbox", side] for side in BBOX_TYPE.names}
    geometry = {
        "encoding": "WKB",
        "geometry_types": sorted({names[kind] for kind in kinds if kind in names}),
        "covering": {"bbox": covering},
    }
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    return {
        b"name": name.encode(),
        b"data_source": data_source.encode(),
        b"date_range": f"{first.isoformat()},{last.isoformat()}".encode() if first else b"",
        VERSION: COLLECTION_VERSION,
        b"geo": json.dumps(geo).encode(),
    }
