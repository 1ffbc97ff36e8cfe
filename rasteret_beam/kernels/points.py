"""Point tables: which columns hold the point, its CRS, and the batches that routing takes.

Geometry encodings read here: WKB (binary or large binary, with or without an SRID), and the
native GeoArrow points (struct of x and y, or fixed-size list). See the GeoArrow and
GeoParquet specifications for ``ARROW:extension:metadata`` and the ``geo`` schema key.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.crs import LONLAT, Floats, crs_text, is_degrees, same_crs
from rasteret_beam.schema import points_schema

XY_NAMES = (("x", "y"), ("lon", "lat"), ("longitude", "latitude"), ("lng", "lat"))
GEOMETRY_EXTENSIONS = ("geoarrow.wkb", "ogc.wkb", "geoarrow.point")
POINT_TYPE = 0


@dataclass(frozen=True)
class PointColumns:
    """How points are read from a table: the chosen columns, and the promised output schema.

    Attributes
    ----------
    x, y : str or None
        Coordinate columns; None where ``geometry`` is given.
    geometry : str or None
        Geometry column; None where ``x`` and ``y`` are given.
    kept : tuple of str
        Columns that pass through.
    schema : pyarrow.Schema
        Of every batch that comes out; its metadata holds the CRS.
    crs : str
    """

    x: str | None
    y: str | None
    geometry: str | None
    kept: tuple[str, ...]
    schema: pa.Schema
    crs: str

    @property
    def needed(self) -> list[str]:
        """The input columns that have to be read."""
        own = [name for name in (self.x, self.y, self.geometry) if name is not None]
        return list(dict.fromkeys([*own, *self.kept]))


def choose_columns(
    schema: pa.Schema,
    *,
    x_column: str | None = None,
    y_column: str | None = None,
    geometry_column: str | None = None,
    geometry_crs: Any = None,
    columns: Sequence[str] | None = None,
    source: str = "the point table",
) -> PointColumns:
    """Decide which columns hold the point, what its CRS is, and what passes through.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the input.
    x_column, y_column : str, optional
        Coordinate columns, given together.
    geometry_column : str, optional
        Point geometries. Without any of the three, a geometry column that says so itself
        is taken, else the one pair of columns named x/y, lon/lat, longitude/latitude or lng/lat.
    geometry_crs
        CRS of the points, as pyproj reads it; needed unless the geometry column carries its own.
    columns : sequence of str, optional
        Columns to keep; by default all but the point's own.
    source : str
        What an error calls the table.

    Raises
    ------
    InputError
        A column is missing, ambiguous or of the wrong type, or the CRS is missing, unreadable
        or in conflict with the one in the data.
    """
    names = schema.names
    for wanted in (x_column, y_column, geometry_column, *(columns or ())):
        if wanted is not None and wanted not in names:
            raise InputError(f"{source} has no column {wanted!r}; it has {listed(names)}")
    if (x_column is None) != (y_column is None):
        raise InputError("x_column and y_column go together; only one of them is given")
    if x_column is not None and geometry_column is not None:
        raise InputError("give either geometry_column or x_column and y_column, not both")
    if x_column is None and geometry_column is None:
        x_column, y_column, geometry_column = _inferred(schema, source)
    own = {x_column, y_column, geometry_column}
    for name in (x_column, y_column):
        if name is not None and not is_number(schema.field(name).type):
            raise InputError(f"column {name!r} of {source} is {schema.field(name).type}; coordinates must be numbers")
    crs = _points_crs(schema, geometry_column, geometry_crs, source)
    kept = tuple(columns if columns is not None else (name for name in names if name not in own))
    fields = [schema.field(name) for name in kept]
    return PointColumns(x_column, y_column, geometry_column, kept, points_schema(fields, crs), crs)


def is_number(kind: pa.DataType) -> bool:
    return (
        pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _inferred(schema: pa.Schema, source: str) -> tuple[str | None, str | None, str | None]:
    declared = [*_geo_columns(schema), *(field.name for field in schema if _extension(field) in GEOMETRY_EXTENSIONS)]
    declared = list(dict.fromkeys(name for name in declared if name in schema.names))
    lower: dict[str, list[str]] = {}
    for name in schema.names:
        lower.setdefault(name.lower(), []).append(name)
    pairs = [(lower[x], lower[y]) for x, y in XY_NAMES if x in lower and y in lower]
    if len(declared) == 1:
        return None, None, declared[0]
    if not declared and len(pairs) == 1 and len(pairs[0][0]) == len(pairs[0][1]) == 1:
        return pairs[0][0][0], pairs[0][1][0], None
    problem = (
        "more than one column (pair) that could be the point" if declared or pairs else "no column known as a point"
    )
    raise InputError(
        f"{source} has {problem}; it has {listed(schema.names)}. Give x_column and y_column, or geometry_column."
    )


def _geo_columns(schema: pa.Schema) -> dict[str, Any]:
    """GeoParquet's description of its geometry columns, the primary one first and alone if named."""
    geo = json.loads((schema.metadata or {}).get(b"geo", b"{}"))
    described = geo.get("columns", {})
    primary = geo.get("primary_column")
    return {primary: described.get(primary, {})} if primary in schema.names else described


def _extension(field: pa.Field) -> str:
    if isinstance(field.type, pa.BaseExtensionType):
        return str(field.type.extension_name)
    return (field.metadata or {}).get(b"ARROW:extension:name", b"").decode()


def _extension_metadata(field: pa.Field) -> dict[str, Any]:
    if isinstance(field.type, pa.BaseExtensionType):
        raw = field.type.__arrow_ext_serialize__()
    else:
        raw = (field.metadata or {}).get(b"ARROW:extension:metadata", b"")
    return json.loads(raw) if raw else {}


def data_crs(schema: pa.Schema, geometry_column: str) -> str | None:
    """The CRS that the data itself gives for a geometry column, or None."""
    field = schema.field(geometry_column)
    crs = _extension_metadata(field).get("crs")
    if crs is not None:
        return crs_text(crs)
    described = json.loads((schema.metadata or {}).get(b"geo", b"{}")).get("columns", {}).get(geometry_column)
    if described is None:
        return None
    if "crs" not in described:
        return LONLAT  # GeoParquet: a missing crs means OGC:CRS84
    return None if described["crs"] is None else crs_text(described["crs"])


def _points_crs(schema: pa.Schema, geometry_column: str | None, geometry_crs: Any, source: str) -> str:
    given = crs_text(geometry_crs) if geometry_crs is not None else None
    found = data_crs(schema, geometry_column) if geometry_column is not None else None
    if given is None and found is None:
        what = (
            f"geometry column {geometry_column!r} of {source} has"
            if geometry_column
            else "plain coordinate columns have"
        )
        raise InputError(f"{what} no CRS; give it with geometry_crs (for longitude and latitude: 4326)")
    if given is not None and found is not None and not same_crs(given, found):
        raise InputError(
            f"geometry_crs is {given}, but column {geometry_column!r} of {source} says {found}; "
            "leave geometry_crs out to use the column's own"
        )
    crs = found or given
    assert crs is not None
    return crs


def point_batch(batch: pa.RecordBatch, first_row: int, chosen: PointColumns) -> pa.RecordBatch:
    """A batch of input rows as a batch of points.

    Parameters
    ----------
    batch : RecordBatch
        With at least the columns ``chosen.needed``.
    first_row : int
        ``point_index`` of its first row.

    Returns
    -------
    RecordBatch
        In ``chosen.schema``. Null coordinates are null, empty points NaN.
    """
    if chosen.geometry is not None:
        x, y = geometry_xy(batch.column(chosen.geometry), first_row, chosen.geometry)
    else:
        x, y = (pc.cast(batch.column(name), pa.float64()) for name in (chosen.x, chosen.y))
    index = pa.array(np.arange(first_row, first_row + len(batch)), type=pa.int64())
    kept = [batch.column(name) for name in chosen.kept]
    return pa.RecordBatch.from_arrays([index, x, y, *kept], schema=chosen.schema)


def geometry_xy(column: pa.Array, first_row: int, name: str) -> tuple[pa.Array, pa.Array]:
    """Coordinates (x, y), float64, of a column of point geometries.

    Raises
    ------
    InputError
        The column's type is no geometry, or a row is not a point; names the row.
    """
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    if pa.types.is_struct(storage.type):
        x, y = (pc.cast(pc.struct_field(storage, axis), pa.float64()) for axis in ("x", "y"))
        return x, y
    if pa.types.is_fixed_size_list(storage.type):
        x, y = (pc.cast(pc.list_element(storage, axis), pa.float64()) for axis in (0, 1))
        return x, y
    if not (pa.types.is_binary(storage.type) or pa.types.is_large_binary(storage.type)):
        raise InputError(f"column {name!r} is {storage.type}; a geometry column holds WKB or GeoArrow points")
    try:
        points = shapely.from_wkb(storage.to_numpy(zero_copy_only=False))
    except shapely.errors.ShapelyError as error:
        raise InputError(f"column {name!r} has a value that is not WKB: {error}") from error
    kind = shapely.get_type_id(points)
    wrong = np.flatnonzero((kind != POINT_TYPE) & (kind >= 0))
    if len(wrong):
        shown = shapely.to_wkt(points[wrong[0]], rounding_precision=3)[:80]
        raise InputError(f"row {first_row + wrong[0]} of column {name!r} is {shown}; only points can be sampled")
    there = np.flatnonzero(~shapely.is_empty(points) & (kind >= 0))
    xy = np.full((2, len(points)), np.nan)
    xy[:, there] = shapely.get_coordinates(points[there]).T
    x, y = (pa.array(axis, type=pa.float64(), mask=kind < 0) for axis in xy)
    return x, y


def coordinates(points: pa.RecordBatch, crs: str) -> tuple[Floats, Floats, NDArray[np.object_]]:
    """Coordinates of a batch of points, and why some of them cannot be sampled.

    Returns
    -------
    x, y : [n] float64
        NaN where a reason is given.
    reason : [n] object
        None, or a key of ``schema.UNSAMPLED_REASONS``.
    """
    x, y = (np.array(points[name].to_numpy(zero_copy_only=False), dtype=np.float64) for name in ("point_x", "point_y"))
    reason = np.full(len(points), None, dtype=object)
    if is_degrees(crs):
        reason[(np.abs(y) > 90) | (np.abs(x) > 360)] = "out_of_range"
    reason[~(np.isfinite(x) & np.isfinite(y))] = "not_finite"
    for name in ("point_x", "point_y"):
        if points[name].null_count:
            reason[points[name].is_null().to_numpy(zero_copy_only=False)] = "null"
    unusable = reason != np.array(None)
    x[unusable] = y[unusable] = np.nan
    return x, y, reason
