"""Polygons as users hold them: boxes, Shapely, WKB, GeoJSON and Arrow columns, checked one by one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape as from_geojson
from shapely.geometry.base import BaseGeometry

from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.crs import LONLAT, crs_text, full_turn, same_crs
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.tables.geometry_objects import are_numbers, geojson_crs, geojson_parts
from rasteret_beam.kernels.tables.point_geometry import data_crs, declared_columns, decoded_wkb

POLYGON, MULTIPOLYGON = 3, 6
USUAL_NAMES = ("geometry", "geom", "wkb_geometry")
WKT_NAMES = ("wkt", "the_geom")
"""Further names, in any case, where there is none of the usual ones."""

Shapes = NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Polygons:
    """Valid, non-empty polygons and multipolygons of one CRS, without Z.

    Attributes
    ----------
    shapes : [n] object
        Shapely geometries.
    crs : str
    column : str or None
        The table's column they come from.
    rows : [n] int64, optional
        Their row numbers in the whole input; without it, they are counted from 0.
    """

    shapes: Shapes
    crs: str
    column: str | None = None
    rows: Ints | None = None

    def __len__(self) -> int:
        return len(self.shapes)

    def label(self, number: int) -> str:
        """What an error calls one of them, by its position here."""
        return geometry_label(number if self.rows is None else int(self.rows[number]), self.column)

    def take(self, numbers: Ints) -> "Polygons":
        """Those at these positions."""
        rows = numbers if self.rows is None else self.rows[numbers]
        return Polygons(self.shapes[numbers], self.crs, self.column, rows)


def geometry_label(number: int, column: str | None) -> str:
    return f"geometry {number}" if column is None else f"row {number} of column {column!r}"


def read_polygons(geometries: Any, *, geometry_crs: Any = None, geometry_column: str | None = None) -> Polygons:
    """Polygons from any of the inputs that ``get_numpy`` takes.

    Parameters
    ----------
    geometries
        A box (xmin, ymin, xmax, ymax), a Shapely polygon or multipolygon, WKB bytes, a GeoJSON
        geometry, Feature or FeatureCollection, a list of those; or an Arrow array, table or
        object with an Arrow C stream whose geometry column holds WKB or GeoArrow polygons.
        In degrees, a box with xmin > xmax crosses the antimeridian.
    geometry_crs
        Their CRS. Without it, tables need to have a CRS, and the other inputs are in
        longitude and latitude (CRS84) unless EWKB or Shapely objects carry an SRID.
    geometry_column : str, optional
        Of a table; by default its one column that is declared as a geometry, or is named
        geometry, geom or wkb_geometry.

    Raises
    ------
    InputError
        A geometry is null, empty, no polygon or invalid (named, with the reason), there is
        none at all, or the CRS is missing, unreadable or in conflict with the data's own.
    """
    given = crs_text(geometry_crs) if geometry_crs is not None else None
    if _is_arrow(geometries):
        column, found, name = _arrow_column(geometries, geometry_column)
        if name is not None and found is None and given is None:
            raise InputError(
                f"geometry column {name!r} has no CRS; give it with geometry_crs (for longitude and latitude: 4326)"
            )
        shapes = decode_column(column, name or "geometries")
    else:
        if geometry_column is not None:
            raise InputError(
                f"geometry_column is {geometry_column!r}, but the geometries are not a table; leave it out"
            )
        name, found = None, geojson_crs(geometries)
        box_crs = given or found or LONLAT
        shapes = _object_array([_shape(item, number, box_crs) for number, item in enumerate(_items(geometries))])
    crs = _one_crs(given, found, _srid(shapes))
    if not len(shapes):
        raise InputError("there are no geometries: the list or table is empty")
    return check_polygons(shapes, crs, name)


def check_polygons(shapes: Shapes, crs: str, column: str | None = None, rows: Ints | None = None) -> Polygons:
    """The shapes as polygons, if each of them is one; ``rows`` [n] are their numbers in the whole input.

    Raises
    ------
    InputError
        Names the first geometry that is null, no polygon, empty, not finite or invalid, with the reason.
    """
    bad = np.flatnonzero(unusable_reasons(shapes) != np.array(None))
    if len(bad):
        number = int(bad[0])
        label = geometry_label(number if rows is None else int(rows[number]), column)
        raise InputError(f"{label} {why_unusable(shapes[number])}")
    return Polygons(shapely.force_2d(shapes), crs, column, rows)


def unusable_reasons(shapes: Shapes) -> NDArray[np.object_]:
    """Why each geometry cannot be used as a polygon, [n]: a key of ``schema.UNMATCHED_REASONS``, or None."""
    reason = np.full(len(shapes), None, dtype=object)
    kind = shapely.get_type_id(shapes)
    polygonal = (kind == POLYGON) | (kind == MULTIPOLYGON)
    reason[polygonal & ~shapely.is_valid(shapes)] = "invalid"
    reason[shapely.is_empty(shapes)] = "empty"
    reason[~polygonal] = "not_polygon"
    reason[shapely.is_missing(shapes)] = "null"
    return reason


def why_unusable(shape: BaseGeometry | None) -> str:
    """Why a geometry cannot be used as a polygon, and the way out."""
    if shape is None:
        return "is null; leave it out"
    if shapely.get_type_id(shape) not in (POLYGON, MULTIPOLYGON):
        text = shapely.to_wkt(shape, rounding_precision=3)
        return f"is {text[:77] + '...' if len(text) > 80 else text}; only polygons and multipolygons can be read"
    if shape.is_empty:
        return "is empty; leave it out"
    reason = shapely.is_valid_reason(shape)
    return (
        f"is not a valid polygon: {reason}; it is not repaired silently, mend it (shapely.make_valid) or leave it out"
    )


def _is_arrow(value: Any) -> bool:
    return isinstance(value, pa.Array | pa.ChunkedArray) or any(
        hasattr(value, name) for name in ("__arrow_c_stream__", "__arrow_c_array__")
    )


def _arrow_column(source: Any, wanted: str | None) -> tuple[pa.Array, str | None, str | None]:
    """The geometries as one array, the CRS they carry, and the column's name where there is a table."""
    if hasattr(source, "to_arrow") and hasattr(source, "geom_type"):
        # GeoPandas: a frame's own Arrow stream is that of pandas, which cannot say geometries.
        frame = source.to_frame("geometry") if hasattr(source, "to_frame") else source
        source = pa.table(frame.to_arrow(geometry_encoding="WKB"))
    if isinstance(source, pa.RecordBatch):
        source = pa.Table.from_batches([source])
    if not isinstance(source, pa.Table | pa.Array | pa.ChunkedArray):
        source = _imported(source)
    if not isinstance(source, pa.Table):
        array = source.combine_chunks() if isinstance(source, pa.ChunkedArray) else source
        return array, data_crs(pa.schema([pa.field("geometries", array.type)]), "geometries"), None
    name = choose_geometry_column(source.schema, wanted)
    column = source[name].combine_chunks()
    return column, data_crs(source.schema, name), name


def _imported(source: Any) -> pa.Table | pa.Array | pa.ChunkedArray:
    if not hasattr(source, "__arrow_c_stream__"):
        return pa.array(source)
    try:
        return pa.RecordBatchReader.from_stream(source).read_all()
    except pa.ArrowInvalid:
        return pa.chunked_array(source)  # a stream of arrays, not of batches


def choose_geometry_column(schema: pa.Schema, wanted: str | None = None, source: str = "the polygon table") -> str:
    """The column that holds the polygons: the wanted one, the one declared as a geometry, or one with a usual name.

    Raises
    ------
    InputError
        The wanted column is missing, or none or several could be meant; lists the columns.
    """
    if wanted is not None:
        if wanted not in schema.names:
            raise InputError(f"{source} has no column {wanted!r}; it has {listed(schema.names)}")
        return wanted
    names = schema.names
    declared = declared_columns(schema)
    found = (
        declared
        or [name for name in USUAL_NAMES if name in names]
        or [name for name in names if name.lower() in (*USUAL_NAMES, *WKT_NAMES)]
    )
    if len(found) != 1:
        problem = "more than one column that could be the geometry" if found else "no column known as a geometry"
        raise InputError(f"{source} has {problem}; it has {listed(schema.names)}. Give geometry_column.")
    return found[0]


def decode_column(column: pa.Array, name: str) -> Shapes:
    """Shapely geometries, [n], of an Arrow array of WKB or of GeoArrow polygons; None where it is null.

    Raises
    ------
    InputError
        The array's type is not a geometry, or a value is not WKB.
    """
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    if pa.types.is_binary(storage.type) or pa.types.is_large_binary(storage.type) or storage.type == pa.binary_view():
        return decoded_wkb(storage, 0, name)
    depth, inner = 0, storage.type
    while pa.types.is_list(inner) or pa.types.is_large_list(inner):
        depth, inner = depth + 1, inner.value_type
    if depth not in (2, 3) or not (pa.types.is_struct(inner) or pa.types.is_fixed_size_list(inner)):
        raise InputError(f"column {name!r} is {storage.type}; a geometry column holds WKB or GeoArrow polygons")
    return _native_polygons(storage, depth)


def _native_polygons(storage: pa.Array, depth: int) -> Shapes:
    """GeoArrow's nested lists: rings of vertices for polygons, one list more for multipolygons."""
    valid = storage.is_valid().to_numpy(zero_copy_only=False)
    values, offsets = pc.drop_null(storage), []
    for _ in range(depth):
        counts = pc.list_value_length(values).to_numpy().astype(np.int64)
        offsets.append(np.concatenate([[0], np.cumsum(counts)]))
        values = pc.list_flatten(values)
    if pa.types.is_struct(values.type):
        axes = [pc.struct_field(values, axis) for axis in ("x", "y")]
    else:
        axes = [pc.list_element(values, axis) for axis in (0, 1)]
    xy = np.stack([pc.cast(axis, pa.float64()).to_numpy(zero_copy_only=False) for axis in axes], axis=1)
    kind = shapely.GeometryType.POLYGON if depth == 2 else shapely.GeometryType.MULTIPOLYGON
    shapes = np.full(len(storage), None, dtype=object)
    shapes[valid] = shapely.from_ragged_array(kind, np.ascontiguousarray(xy), tuple(reversed(offsets)))
    return shapes


def _items(geometries: Any) -> Iterator[Any]:
    """Single geometries of an input other than a table, with GeoJSON collections taken apart."""
    if are_numbers(geometries) or isinstance(geometries, BaseGeometry | bytes | bytearray | memoryview | str | None):
        yield geometries
    elif isinstance(geometries, Mapping):
        if geometries.get("type") == "FeatureCollection":
            for feature in geometries.get("features") or ():
                yield from _items(feature)
        else:
            yield geometries
    elif hasattr(geometries, "__geo_interface__"):
        yield from _items(geometries.__geo_interface__)
    elif isinstance(geometries, Iterable):
        for item in geometries:
            yield from _items(item)
    else:
        yield geometries


def _shape(item: Any, number: int, crs: str) -> BaseGeometry | None:
    label = geometry_label(number, None)
    if item is None or isinstance(item, BaseGeometry):
        return item
    if are_numbers(item):
        return _box(item, label, crs)
    if isinstance(item, bytes | bytearray | memoryview):
        try:
            return shapely.from_wkb(bytes(item))
        except shapely.errors.ShapelyError as error:
            raise InputError(f"{label} is not WKB: {error}") from error
    if isinstance(item, Mapping):
        ((geometry, _, _),) = geojson_parts(item, label)
        try:
            return None if geometry is None else from_geojson(geometry)
        except (shapely.errors.ShapelyError, AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{label} is not a GeoJSON geometry or feature: {error}") from error
    raise InputError(
        f"{label} is a {type(item).__name__}; give a box (xmin, ymin, xmax, ymax), a Shapely polygon, WKB bytes, "
        "GeoJSON, a list of those, or an Arrow table with a geometry column"
    )


def _box(sides: Sequence[Any], label: str, crs: str) -> BaseGeometry:
    if len(sides) != 4:
        raise InputError(f"{label} has {len(sides)} number(s); a box is (xmin, ymin, xmax, ymax)")
    xmin, ymin, xmax, ymax = (float(side) for side in sides)
    turn = full_turn(crs)
    if turn is not None and xmin > xmax:
        xmax += turn
    if not (np.isfinite([xmin, ymin, xmax, ymax]).all() and xmin < xmax and ymin < ymax):
        shown = ", ".join(f"{float(side):g}" for side in sides)
        raise InputError(
            f"{label} is the box ({shown}); a box is (xmin, ymin, xmax, ymax) with xmin < xmax, ymin < ymax"
        )
    return shapely.box(xmin, ymin, xmax, ymax)


def _srid(shapes: Shapes) -> str | None:
    """The CRS that SRIDs say (EWKB, or set on Shapely objects), or None where there are none."""
    srids = [int(code) for code in np.unique(shapely.get_srid(shapes)) if code > 0]
    if len(srids) > 1:
        raise InputError(f"the geometries have several SRIDs: {listed(srids)}; give those of one CRS at a time")
    return crs_text(srids[0]) if srids else None


def _one_crs(given: str | None, found: str | None, srid: str | None) -> str:
    for own, what in ((found, "the data say"), (srid, "the SRID of the geometries says")):
        if given is not None and own is not None and not same_crs(given, own):
            raise InputError(f"geometry_crs is {given}, but {what} {own}; leave geometry_crs out to use the data's own")
    if found is not None and srid is not None and not same_crs(found, srid):
        raise InputError(f"the data say {found}, but the SRID of the geometries says {srid}; mend one of them")
    return found or srid or given or LONLAT


def _object_array(items: Sequence[Any]) -> Shapes:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array
