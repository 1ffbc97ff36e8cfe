"""Columns of point geometries: what they declare about themselves, and their coordinates.

Encodings: WKB and WKT (ISO or extended, with or without an SRID), native GeoArrow points
(separated or interleaved; a MultiPoint of one point counts), and BigQuery's GEOGRAPHY, which
is WKT. What a column says of its CRS stands in GeoArrow's ``ARROW:extension:metadata`` (where
:mod:`rasteret_beam.kernels.tables.native_geometry` writes that of Parquet's types), in GeoParquet's ``geo``
schema key, or in the SRIDs of its values; a GEOGRAPHY of BigQuery is in longitude and latitude.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.crs import LONLAT, Floats, crs_text, same_crs
from rasteret_beam.kernels.geo.grids import Ints

WKB_EXTENSIONS = ("geoarrow.wkb", "ogc.wkb")
POINT_EXTENSIONS = ("geoarrow.point", "geoarrow.multipoint")
GEOMETRY_EXTENSIONS = (*WKB_EXTENSIONS, *POINT_EXTENSIONS)
GEOGRAPHY = "google:sqlType:geography"
"""What BigQuery's clients call its GEOGRAPHY columns, of type string, in Arrow."""

POINT_TYPE, MULTIPOINT_TYPE = 0, 4
HAS_Z, HAS_M, HAS_SRID = 0x80000000, 0x40000000, 0x20000000
"""Flags in the type code of extended WKB."""

ISO_DIMENSIONS = {1: 2, 1001: 3, 2001: 3, 3001: 4}
"""Ordinates of a point, by ISO WKB type code."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
EWKT = r"(?is)^\s*SRID *= *(?P<srid>\d{1,9}) *;(?P<wkt>.*)$"
"""PostGIS' text of a geometry that has an SRID."""

WKT_POINT = rf"^POINT ?\((?P<x>{_NUMBER}) (?P<y>{_NUMBER})\)$"


FirstValue = Callable[[str], bytes | str | None]
"""Looks up the first WKB or WKT, not null, of a column by its name."""


def extension_name(field: pa.Field) -> str:
    """GeoArrow's (or another) extension name of a column, or nothing."""
    if isinstance(field.type, pa.BaseExtensionType):
        return str(field.type.extension_name)
    return (field.metadata or {}).get(b"ARROW:extension:name", b"").decode()


def _extension_metadata(field: pa.Field) -> dict[str, Any]:
    raw = (field.metadata or {}).get(b"ARROW:extension:metadata", b"")
    if not raw and isinstance(field.type, pa.BaseExtensionType):
        raw = field.type.__arrow_ext_serialize__()
    return _json(raw, f"the GeoArrow metadata of column {field.name!r}") if raw else {}


def _geo(schema: pa.Schema) -> dict[str, Any]:
    geo = _json((schema.metadata or {}).get(b"geo", b"{}"), "the GeoParquet metadata (key geo) of the table")
    columns = geo.get("columns", {})
    if not isinstance(columns, dict) or not all(isinstance(column, dict) for column in columns.values()):
        raise InputError(
            "the GeoParquet metadata (key geo) of the table has no object 'columns' of objects; write the file anew"
        )
    return geo


def _json(raw: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise InputError(f"{what} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{what} is {raw[:40]!r}, not a JSON object")
    return found


def edges(schema: pa.Schema, geometry_column: str) -> str:
    """How a column says that its vertices are joined: ``planar`` (the default), or along the Earth (``spherical``)."""
    described = _geo(schema).get("columns", {}).get(geometry_column, {})
    field = schema.field(geometry_column)
    extended = _extension_metadata(field) if extension_name(field).startswith("geoarrow.") else {}
    return str(described.get("edges") or extended.get("edges") or "planar")


def declared_columns(schema: pa.Schema) -> list[str]:
    """Columns that say themselves that they hold geometries; GeoParquet's primary one alone, if named."""
    geo = _geo(schema)
    if geo.get("primary_column") in schema.names:
        return [geo["primary_column"]]
    described = [name for name in geo.get("columns", {}) if name in schema.names]
    known = ("geoarrow.", "ogc.wkb", GEOGRAPHY)
    extended = [field.name for field in schema if extension_name(field).startswith(known)]
    return list(dict.fromkeys([*described, *extended]))


def data_crs(schema: pa.Schema, geometry_column: str) -> str | None:
    """The CRS that a table's schema gives for a geometry column, or None.

    Raises
    ------
    InputError
        The Parquet type or GeoArrow's metadata contradicts GeoParquet's, or a CRS is unreadable.
    """
    field = schema.field(geometry_column)
    described = _geo(schema).get("columns", {}).get(geometry_column)
    if extension_name(field) == GEOGRAPHY:
        return LONLAT
    crs = _extension_metadata(field).get("crs") if extension_name(field) else None
    extended = crs_text(crs) if crs is not None else None
    if described is None:
        return extended
    if described.get("crs", LONLAT) is None:
        return extended
    found = crs_text(described.get("crs", LONLAT))  # GeoParquet: a missing crs means OGC:CRS84
    if extended is not None and not same_crs(found, extended):
        raise InputError(
            f"column {geometry_column!r} has CRS {extended} in its Parquet type or GeoArrow metadata, but {found} "
            "in the GeoParquet metadata of its table; mend one of them"
        )
    return found


def check_geometry_type(field: pa.Field, source: str) -> None:
    """Refuse a column whose type can hold no points."""
    name, kind = extension_name(field), _storage_type(field.type)
    what = f"column {field.name!r} of {source}"
    if is_text(kind) and (name == GEOGRAPHY or not name.startswith("geoarrow.")):
        return
    if name.startswith("geoarrow.") and name not in GEOMETRY_EXTENSIONS:
        raise InputError(f"{what} is {name}; only points can be sampled, as geoarrow.wkb or geoarrow.point")
    if not (_is_wkb(kind) or _is_point(kind) or (name == "geoarrow.multipoint" and _is_list_of_points(kind))):
        raise InputError(f"{what} is {field.type}; a geometry column holds WKB (binary), WKT or GeoArrow points")


def _storage_type(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_wkb(kind: pa.DataType) -> bool:
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in binary)


def _is_point(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return {"x", "y"} <= {field.name for field in kind}
    return pa.types.is_fixed_size_list(kind) and 2 <= kind.list_size <= 4 and pa.types.is_floating(kind.value_type)


def _is_list_of_points(kind: pa.DataType) -> bool:
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_point(_storage_type(kind.value_type))


def geometry_xy(
    column: pa.Array, first_row: int, name: str, crs: str | None = None, every_srid: bool = False
) -> tuple[pa.Array, pa.Array]:
    """Coordinates (x, y), float64, of a column of point geometries; further ordinates are left out.

    Parameters
    ----------
    column : Array
    first_row : int
        Row number of its first value, for errors.
    name : str
        The column's, for errors.
    crs : str, optional
        What the SRIDs of the values, where they have any, must agree with.
    every_srid : bool
        The CRS was taken from the SRIDs, so a value without one is an error.

    Returns
    -------
    x, y : Array
        Null where the geometry is null, NaN where the point is empty.

    Raises
    ------
    InputError
        The column's type is not a geometry; or a value is not WKB, not a point, or has an SRID
        that contradicts the CRS; names the row.
    """
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    if pa.types.is_list(storage.type) or pa.types.is_large_list(storage.type):
        return _multipoint_xy(storage, first_row, name)
    if pa.types.is_struct(storage.type) or pa.types.is_fixed_size_list(storage.type):
        return _native_xy(storage)
    srid = np.zeros(len(storage), dtype=np.int64)
    if is_text(storage.type):
        storage, srid = split_ewkt(storage)
        x, y = _wkt_points(storage, first_row, name)
    elif _is_wkb(storage.type):
        x, y, srid = _wkb_points(storage, first_row, name)
    else:
        raise InputError(f"column {name!r} is {storage.type}; a geometry column holds WKB, WKT or GeoArrow points")
    null = storage.is_null().to_numpy(zero_copy_only=False)
    if crs is not None:
        check_srids(srid, null, first_row, name, crs, every_srid)
    return pa.array(x, type=pa.float64(), mask=null), pa.array(y, type=pa.float64(), mask=null)


def _native_xy(points: pa.Array) -> tuple[pa.Array, pa.Array]:
    pick, axes = (pc.struct_field, ("x", "y")) if pa.types.is_struct(points.type) else (pc.list_element, (0, 1))
    x, y = (pc.cast(pick(points, axis), pa.float64()) for axis in axes)
    return x, y


def _multipoint_xy(column: pa.Array, first_row: int, name: str) -> tuple[pa.Array, pa.Array]:
    count = pc.list_value_length(column).fill_null(-1).to_numpy()
    many = np.flatnonzero(count > 1)
    if len(many):
        raise InputError(f"row {first_row + many[0]} of column {name!r} is a MultiPoint of {count[many[0]]} points")
    values = column.values.storage if isinstance(column.values, pa.ExtensionArray) else column.values
    first = column.offsets.to_numpy()[:-1].astype(np.int64)
    x, y = _native_xy(values.take(pa.array(first, mask=count != 1)))
    empty = pa.array(count == 0)
    return pc.if_else(empty, float("nan"), x), pc.if_else(empty, float("nan"), y)


def _wkb_points(column: pa.Array, first_row: int, name: str) -> tuple[Floats, Floats, Ints]:
    """x, y and SRID (0 where there is none) of WKB points; null and empty ones are NaN."""
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        column = pc.cast(column, pa.large_binary())
    return _alike_wkb_points(column) or _any_wkb_points(column, first_row, name)


def _alike_wkb_points(column: pa.Array) -> tuple[Floats, Floats, Ints] | None:
    """Points straight from the column's bytes, where all are little-endian and of one layout; else None."""
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    rows = int(np.count_nonzero(valid))
    _, offsets, data = column.buffers()
    width = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    if not rows or data is None:
        return None
    bounds = np.frombuffer(offsets, dtype=width)[column.offset : column.offset + len(column) + 1]
    start, stop, sizes = int(bounds[0]), int(bounds[-1]), np.diff(bounds)[valid]
    size = int(sizes[0])
    if size < 21 or np.any(sizes != size) or stop - start != rows * size:
        return None
    values = np.frombuffer(data, dtype=np.uint8, count=rows * size, offset=start).reshape(rows, size)
    if values[0, 0] != 1 or np.any(values[:, :5] != values[0, :5]):
        return None
    code = int.from_bytes(values[0, 1:5].tobytes(), "little")
    kind = code & ~(HAS_Z | HAS_M | HAS_SRID)
    at = 9 if code & HAS_SRID else 5
    if kind not in ISO_DIMENSIONS or size != at + 8 * (ISO_DIMENSIONS[kind] + bool(code & HAS_Z) + bool(code & HAS_M)):
        return None
    xy = np.full((len(column), 2), np.nan)
    xy[valid] = np.ascontiguousarray(values[:, at : at + 16]).view("<f8")
    srid = np.zeros(len(column), dtype=np.int64)
    if at == 9:
        srid[valid] = np.ascontiguousarray(values[:, 5:9]).view("<i4")[:, 0]
    return xy[:, 0], xy[:, 1], srid


def _wkt_points(text: pa.Array, first_row: int, name: str) -> tuple[Floats, Floats]:
    """Points of WKT: all at once where each is ``POINT(x y)``, else by way of Shapely."""
    found = pc.extract_regex(text, WKT_POINT)
    if found.null_count == text.null_count:
        x, y = (pc.cast(pc.struct_field(found, axis), pa.float64()).to_numpy(zero_copy_only=False) for axis in "xy")
        return x, y
    return _shapes_xy(decoded_wkt(text, first_row, name), first_row, name)


def split_ewkt(column: pa.Array) -> tuple[pa.Array, Ints]:
    """WKT, [n] of string, null where blank, and without the SRIDs of EWKT; and these, 0 where there is none."""
    text = pc.cast(column, pa.string()) if column.type != pa.string() else column
    blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(text), ""), False)
    if pc.any(blank).as_py():
        text = pc.if_else(blank, pa.scalar(None, pa.string()), text)
    found = pc.extract_regex(text, EWKT)
    if found.null_count == len(found):
        return text, np.zeros(len(text), dtype=np.int64)
    srid = pc.fill_null(pc.cast(pc.struct_field(found, "srid"), pa.int64()), 0).to_numpy()
    return pc.coalesce(pc.struct_field(found, "wkt"), text), srid


def decoded_wkt(text: pa.Array, first_row: int, name: str) -> NDArray[np.object_]:
    """Shapely geometries of WKT, [n]; None where it is null.

    Raises
    ------
    InputError
        A text is not WKT; names the row.
    """
    shapes: NDArray[np.object_] = shapely.from_wkt(text.to_numpy(zero_copy_only=False), on_invalid="ignore")
    _check_decoded(shapes, text, first_row, name, "WKT")
    return shapes


def decoded_wkb(column: pa.Array, first_row: int, name: str) -> NDArray[np.object_]:
    """Shapely geometries of WKB, [n]; None where it is null.

    Raises
    ------
    InputError
        A value is not WKB; names the row.
    """
    shapes: NDArray[np.object_] = shapely.from_wkb(column.to_numpy(zero_copy_only=False), on_invalid="ignore")
    _check_decoded(shapes, column, first_row, name, "WKB")
    return shapes


def _any_wkb_points(column: pa.Array, first_row: int, name: str) -> tuple[Floats, Floats, Ints]:
    """Points by way of Shapely."""
    found = decoded_wkb(column, first_row, name)
    srid = np.maximum(shapely.get_srid(found), 0).astype(np.int64)
    return *_shapes_xy(found, first_row, name), srid


def _check_decoded(found: NDArray[np.object_], column: pa.Array, first_row: int, name: str, encoding: str) -> None:
    broken = np.flatnonzero(shapely.is_missing(found) & column.is_valid().to_numpy(zero_copy_only=False))
    if len(broken):
        shown = column[int(broken[0])].as_py()[:40]
        raise InputError(f"row {first_row + broken[0]} of column {name!r} is not {encoding}: {shown!r}")


def _shapes_xy(found: NDArray[np.object_], first_row: int, name: str) -> tuple[Floats, Floats]:
    """Coordinates of points, NaN where one is missing or empty."""
    kind = shapely.get_type_id(found)
    single = (kind == MULTIPOINT_TYPE) & (shapely.get_num_geometries(found) == 1)
    points = found.copy()
    points[single] = shapely.get_geometry(found[single], 0)
    empty = (kind == MULTIPOINT_TYPE) & shapely.is_empty(found)
    points[shapely.is_empty(points)] = None  # GEOS has no coordinates for an empty point, not even NaN
    wrong = np.flatnonzero((kind > POINT_TYPE) & ~single & ~empty)
    if len(wrong):
        shown = shapely.to_wkt(found[wrong[0]], rounding_precision=3)[:80]
        raise InputError(
            f"row {first_row + wrong[0]} of column {name!r} is {shown}; only points (and MultiPoints of one) can be "
            "sampled. For points in other columns give x_column and y_column, or geometry_column."
        )
    return shapely.get_x(points), shapely.get_y(points)


def first_value(column: pa.Array) -> bytes | str | None:
    """The first value of a column of WKB or text that is not null; None where there is none."""
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    if not (_is_wkb(storage.type) or is_text(storage.type)):
        return None
    valid = np.flatnonzero(storage.is_valid().to_numpy(zero_copy_only=False))
    values = (storage[int(row)].as_py() for row in valid)
    return next((value for value in values if value.strip()), None)


def value_srid(value: bytes | str) -> int:
    """SRID of a geometry in WKB or WKT; 0 where it has none."""
    if isinstance(value, str):
        return int(split_ewkt(pa.array([value]))[1][0])
    found = shapely.from_wkb(value, on_invalid="ignore")
    return int(shapely.get_srid(found)) if found is not None else 0


def is_wkt_point(value: bytes | str) -> bool:
    """Whether a value is WKT of a point, or of a MultiPoint, as far as its first word tells."""
    if not isinstance(value, str):
        return False
    text = split_ewkt(pa.array([value]))[0][0].as_py()
    return text.lstrip().upper().startswith(("POINT", "MULTIPOINT"))


def srid_crs(srid: int) -> str | None:
    """The CRS that an SRID stands for, by its EPSG number; None where there is none."""
    try:
        return crs_text(f"EPSG:{srid}")
    except InputError:
        return None


def check_srids(
    srid: Ints, null: NDArray[np.bool_], first_row: int, name: str, crs: str, every: bool, what: str = "points"
) -> None:
    """Refuse a value, [n] of a column, whose SRID contradicts the CRS; with ``every``, also one that has none.

    Raises
    ------
    InputError
        Names the row and both.
    """
    for value in np.unique(srid[~null]).tolist():
        found = srid_crs(value) if value else None
        if (found is None and not (every and value == 0)) or (found is not None and same_crs(found, crs)):
            continue
        row = first_row + int(np.flatnonzero((srid == value) & ~null)[0])
        has = f"has SRID {value}" if value else "has no SRID"
        others = sorted({other for other in np.unique(srid[~null]).tolist() if other != value})
        along = f" (other rows have {listed(others)})" if others else ""
        raise InputError(
            f"row {row} of column {name!r} {has}, but the {what}' CRS is {crs}{along}; "
            f"give {what} of one CRS, and geometry_crs only where it agrees with theirs"
        )
