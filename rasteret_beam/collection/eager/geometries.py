"""Read geometries that are not in a table: Shapely, WKB bytes, GeoJSON, Arrow arrays, and lists of those."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.crs import LONLAT, Floats, crs_text
from rasteret_beam.kernels.tables.geometry_objects import geojson_parts, is_box
from rasteret_beam.kernels.tables.point_geometry import check_geometry_type, data_crs, extension_name, geometry_xy

GEOMETRY_INPUTS = "Shapely geometries, WKB bytes, GeoJSON, or a list of those"


@dataclass(frozen=True, eq=False)
class Geometries:
    """Geometries read from an input.

    Attributes
    ----------
    shapes : [n] object
        Shapely geometries or None.
    crs : str or None
        CRS that the input declares.
    properties : [n] list of dict
        Properties of GeoJSON features, with ``id`` if a feature has one; otherwise empty.
    """

    shapes: NDArray[np.object_]
    crs: str | None
    properties: list[dict[str, Any]] = field(default_factory=list)


def read_geometries(given: Any, what: str) -> Geometries:
    """Read one geometry, or a list, a NumPy array or a Series of geometries.

    Parameters
    ----------
    given
        Shapely geometry, WKB (bytes), GeoJSON (dict, text or an object with
        ``__geo_interface__``), an Arrow array of WKB or GeoArrow points, a GeoSeries or
        GeoDataFrame, or a list of the first three; None is a null.
    what : str
        Name of the geometries in errors.

    Raises
    ------
    InputError
        The input has another type; the error names it, and its position in a list.
    """
    if isinstance(given, pa.Array | pa.ChunkedArray):
        return _of_arrow(pa.field("geometry", given.type), given, what)
    if hasattr(given, "__arrow_c_array__"):
        named = pa.Field._import_from_c_capsule(given.__arrow_c_array__()[0])
        return _of_arrow(named, pa.array(given), what)
    if hasattr(given, "active_geometry_name"):  # a GeoDataFrame, whose GeoJSON would lack its CRS
        given = given.geometry
    if _is_one(given):
        return _of_list([given], what)
    if isinstance(given, list | tuple | np.ndarray) and np.ndim(given if isinstance(given, np.ndarray) else 0) <= 1:
        return _of_list(list(given), what)
    if _is_series(given):
        crs = getattr(given, "crs", None)
        found = _of_list(list(given.astype(object).where(given.notna(), None)), what)
        return Geometries(found.shapes, crs_text(crs) if crs is not None else found.crs, found.properties)
    raise InputError(f"{what} are a {type(given).__name__}; give {GEOMETRY_INPUTS}")


def _is_one(given: Any) -> bool:
    if isinstance(given, str):
        return given.lstrip().startswith("{")
    return isinstance(given, shapely.Geometry | bytes | bytearray | memoryview | Mapping) or (
        hasattr(given, "__geo_interface__") and not _is_series(given)
    )


def _is_series(given: Any) -> bool:
    """Whether an object is a Series of pandas or GeoPandas; neither needs to be installed."""
    return any(kind.__name__ == "Series" and kind.__module__.startswith("pandas") for kind in type(given).__mro__)


def _of_arrow(named: pa.Field, column: pa.Array | pa.ChunkedArray, what: str) -> Geometries:
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    schema = pa.schema([named.with_name("geometry")])
    crs = data_crs(schema, "geometry") if extension_name(named) else None
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    if any(check(storage.type) for check in kinds):
        return Geometries(_of_list(storage.to_pylist(), what).shapes, crs)
    check_geometry_type(schema.field(0), what)
    x, y = (part.to_numpy(zero_copy_only=False) for part in geometry_xy(column, 0, "geometry"))
    shapes = np.array(shapely.points(x, y), dtype=object)
    shapes[storage.is_null().to_numpy(zero_copy_only=False)] = None
    return Geometries(shapes, crs)


def _of_list(given: list[Any], what: str) -> Geometries:
    expanded = [part for number, value in enumerate(given) for part in _parts(value, number, what)]
    values = np.fromiter((value for value, _, _ in expanded), dtype=object, count=len(expanded))
    shapes = values.copy()
    shapes[~shapely.is_geometry(values)] = None
    wkb = np.array([isinstance(value, bytes) for value in values], dtype=bool)
    geojson = np.array([isinstance(value, str) for value in values], dtype=bool)
    shapes[wkb] = shapely.from_wkb(values[wkb], on_invalid="ignore")
    shapes[geojson] = shapely.from_geojson(values[geojson], on_invalid="ignore")
    broken = np.flatnonzero((wkb | geojson) & shapely.is_missing(shapes))
    if len(broken):
        kind = "WKB" if wkb[broken[0]] else "GeoJSON"
        raise InputError(f"number {broken[0]} of {what} is not valid {kind}: {values[broken[0]][:80]!r}")
    stated = sorted({crs for _, _, crs in expanded if crs is not None})
    if len(stated) > 1:
        raise InputError(f"{what} are in more than one CRS: {listed(stated)}")
    silent = [number for number, (value, _, crs) in enumerate(expanded) if crs is None and value is not None]
    if stated and silent:
        raise InputError(
            f"some of {what} are in {stated[0]}, but number {silent[0]} says no CRS; give one kind of them"
        )
    crs = stated[0] if stated else None
    if given and not expanded:  # empty FeatureCollections
        crs = LONLAT
    properties = [properties for _, properties, _ in expanded]
    return Geometries(shapes, crs, properties if any(properties) else [])


Part = tuple[Any, dict[str, Any], str | None]
"""A geometry (Shapely, WKB or GeoJSON text), its properties, and its CRS if it declares one."""


def _parts(value: Any, number: int, what: str) -> Iterator[Part]:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise InputError(f"number {number} of {what} is not GeoJSON: {error}") from error
    if isinstance(value, bytearray | memoryview):
        value = bytes(value)
    if value is None or isinstance(value, shapely.Geometry | bytes):
        yield value, {}, None
        return
    if not isinstance(value, Mapping) and hasattr(value, "__geo_interface__"):
        value = value.__geo_interface__
    if not isinstance(value, Mapping):
        raise InputError(f"number {number} of {what} is a {type(value).__name__}; give {GEOMETRY_INPUTS}")
    for geometry, properties, crs in geojson_parts(value, f"number {number} of {what}"):
        yield (json.dumps(geometry) if geometry is not None else None), properties, crs or LONLAT


def boxes_of(geometries: Any) -> tuple[Floats, str | None]:
    """Boxes [n, 4] (west, south, east, north) of geometries, and the CRS that these declare.

    Parameters
    ----------
    geometries
        Any input of :func:`read_geometries`, a box (west, south, east, north), or a list of boxes.

    Raises
    ------
    InputError
        They cannot be read, or none of them has a box.
    """
    if is_box(geometries):
        return np.array([geometries], dtype=np.float64), None
    if isinstance(geometries, list | tuple) and geometries and all(is_box(one) for one in geometries):
        return np.array(geometries, dtype=np.float64), None
    found = read_geometries(geometries, "geometries")
    if not len(found.shapes):
        raise InputError("geometries is an empty list; leave it out to keep all records")
    boxes = shapely.bounds(found.shapes)
    usable = ~np.isnan(boxes).any(axis=1)
    if not usable.any():
        raise InputError("geometries are all null or empty; leave them out to keep all records")
    return boxes[usable], found.crs
