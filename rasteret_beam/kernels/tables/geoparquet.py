"""GeoParquet 1.1: the columns and the metadata that make a Parquet file one.

Sources: GeoParquet 1.1.0, "Metadata" and "Bounding box covering"; GeoArrow 0.2, extension type ``geoarrow.wkb``.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_beam.columns import GEOMETRY
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import Floats, projjson
from rasteret_beam.kernels.geo.wkb import point_wkb, shapes_of
from rasteret_beam.kernels.tables.point_crs import crs_of_points
from rasteret_beam.schema import (
    BBOX,
    BBOX_TYPE,
    EXTENSION_KEY,
    EXTENSION_SETTINGS_KEY,
    WKB,
    geometry_field,
    geometry_taken,
)

GEO_KEY = b"geo"
VERSION = "1.1.0"

GEOMETRIES = ("point", "pixel")

NO_PIXELS = (
    'geometry is "pixel", but the samples have no outlines of pixels; these are made while sampling: give '
    'geometry="pixel" to SamplePoints too'
)


def check_geometry(geometry: str | None, sampled: str | None = None) -> None:
    """Refuse a geometry that samples do not have and cannot get; ``sampled`` is that which they were asked for.

    Raises
    ------
    InputError
    """
    if geometry is not None and geometry not in GEOMETRIES:
        raise InputError(f"geometry is {geometry!r}; it can be one of {GEOMETRIES}, or None")
    if geometry == "pixel" and sampled not in (None, "pixel"):
        raise InputError(NO_PIXELS)
    if geometry == "point" and sampled == "pixel":
        raise InputError(
            'geometry is "point", but SamplePoints makes the outlines of pixels (geometry="pixel"); leave one of the '
            "two out"
        )


def has_geometry(schema: pa.Schema) -> bool:
    """Whether rows have a column of geometries."""
    return GEOMETRY in schema.names and is_geometry(schema.field(GEOMETRY))


def is_geometry(column: pa.Field) -> bool:
    """Whether a column holds geometries as WKB, and its field tells so."""
    return _extension(column) is not None


def _extension(geometry: pa.Field) -> dict[str, Any] | None:
    """Settings of a column of WKB; None for another column."""
    kind, found = geometry.type, geometry.metadata or {}
    if isinstance(kind, pa.BaseExtensionType):  # where a package has registered the type
        return json.loads(kind.__arrow_ext_serialize__() or b"{}") if kind.extension_name == WKB else None
    if found.get(EXTENSION_KEY) != WKB.encode():
        return None
    return dict(json.loads(found.get(EXTENSION_SETTINGS_KEY) or b"{}"))


def geo_batches(batches: Sequence[pa.RecordBatch], geometry: str | None = None) -> list[pa.RecordBatch]:
    """Batches of rows with the columns of a GeoParquet file, if they have a geometry: with their boxes.

    Parameters
    ----------
    geometry : str, optional
        "point": samples without a geometry get that of their point. "pixel": samples must have a geometry.

    Raises
    ------
    InputError
        A column has the name of one that is added, or samples lack what the geometry is made of.
    """
    with_geometry = [_with_geometry(batch, geometry) for batch in batches]
    return [_with_boxes(batch) if has_geometry(batch.schema) else batch for batch in with_geometry]


def _with_geometry(batch: pa.RecordBatch, geometry: str | None) -> pa.RecordBatch:
    if geometry is None or has_geometry(batch.schema):
        return batch
    if GEOMETRY in batch.schema.names:
        raise InputError(geometry_taken(f"geometry is {geometry!r}, which adds", GEOMETRY))
    if geometry != "point":
        if len(batch):
            raise InputError(NO_PIXELS)
        return _appended(batch, geometry_field(None), pa.nulls(0, pa.binary()))
    missing = [name for name in ("point_x", "point_y", "point_crs") if name not in batch.schema.names]
    if missing:
        raise InputError(f"geometry is 'point', but the rows have no column {missing[0]!r}; give it samples")
    x, y = (batch[name].to_numpy(zero_copy_only=False) for name in ("point_x", "point_y"))
    code = batch["point_crs"][0].as_py() if len(batch) else None
    column = geometry_field(projjson(crs_of_points(batch.schema, code)))
    return _appended(batch, column, point_wkb(x, y))


def _with_boxes(batch: pa.RecordBatch) -> pa.RecordBatch:
    if BBOX in batch.schema.names:
        raise InputError(geometry_taken("GeoParquet files have the boxes of geometries in", BBOX))
    boxes, _ = shapes_of(storage_of(batch[GEOMETRY]))
    missing = np.isnan(boxes).any(axis=1)
    sides = [pa.array(np.ascontiguousarray(boxes[:, side]), mask=missing) for side in range(4)]
    mask = pa.array(missing) if missing.any() else None
    return _appended(batch, pa.field(BBOX, BBOX_TYPE), pa.StructArray.from_arrays(sides, BBOX_TYPE.names, mask=mask))


def storage_of(geometry: pa.Array) -> pa.Array:
    """A column of WKB as binary values, also where a package has registered its type."""
    return geometry.storage if isinstance(geometry, pa.ExtensionArray) else geometry


def _appended(batch: pa.RecordBatch, column: pa.Field, values: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([*batch.columns, values], schema=batch.schema.append(column))


@dataclass
class GeoSummary:
    """What the metadata of a GeoParquet file tell, gathered while rows are written.

    Attributes
    ----------
    types : set of str
    box : [4] float64
        xmin, ymin, xmax, ymax; NaN before there is a geometry.
    crs : PROJJSON object, or None
    """

    types: set[str] = field(default_factory=set)
    box: Floats = field(default_factory=lambda: np.full(4, np.nan))
    crs: dict[str, Any] | None = None

    @classmethod
    def of(cls, schema: pa.Schema) -> "GeoSummary | None":
        """For rows of :func:`geo_batches`; None for rows without geometries and their boxes."""
        if not has_geometry(schema) or BBOX not in schema.names:
            return None
        return cls(crs=(_extension(schema.field(GEOMETRY)) or {}).get("crs"))

    def add(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Take rows of :func:`geo_batches`."""
        for batch in batches:
            boxes, types = shapes_of(storage_of(batch[GEOMETRY]))
            self.crs = self.crs or (_extension(batch.schema.field(GEOMETRY)) or {}).get("crs")
            self.types |= types
            if len(boxes):
                low, high = boxes[:, :2], boxes[:, 2:]
                found = np.concatenate([np.fmin.reduce(low), np.fmax.reduce(high)])
                self.box[:2], self.box[2:] = np.fmin(self.box[:2], found[:2]), np.fmax(self.box[2:], found[2:])

    def metadata(self) -> dict[bytes, bytes]:
        """Metadata of the file."""
        column: dict[str, Any] = {"encoding": "WKB", "geometry_types": sorted(self.types), "crs": self.crs}
        if np.isfinite(self.box).all():
            column["bbox"] = self.box.tolist()
        column["covering"] = {"bbox": {side: [BBOX, side] for side in BBOX_TYPE.names}}
        geo = {"version": VERSION, "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
        return {GEO_KEY: json.dumps(geo).encode()}
