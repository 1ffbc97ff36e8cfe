"""Point tables: which columns hold the point, its CRS, and the batches that routing takes."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.crs import Floats, crs_text, is_degrees, same_crs
from rasteret_beam.kernels.tables.point_geometry import (
    FirstValue,
    check_geometry_type,
    data_crs,
    declared_columns,
    geometry_xy,
    is_text,
    is_wkt_point,
    srid_crs,
    value_srid,
)
from rasteret_beam.kernels.tables.point_times import check_time_type
from rasteret_beam.schema import RESERVED, points_schema

XY_NAMES = (("x", "y"), ("lon", "lat"), ("longitude", "latitude"), ("lng", "lat"))
GEOMETRY_NAMES = ("geometry", "geom", "wkb_geometry")
"""Names by which a binary column that says nothing of itself is taken for WKB."""

WKT_NAMES = ("wkt", "geometry", "geom", "the_geom")
"""Names by which a text column is taken for WKT, if its first value is."""

UNNAMED_INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls the levels of an index that has no name when it writes Arrow."""


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
    from_srid : bool
        The CRS is that of the first geometry's SRID, so each geometry must have it.
    index : str or None
        Column that gives ``point_index``, in place of the row number.
    """

    x: str | None
    y: str | None
    geometry: str | None
    kept: tuple[str, ...]
    schema: pa.Schema
    crs: str
    from_srid: bool = False
    index: str | None = None

    @property
    def needed(self) -> list[str]:
        """The input columns that have to be read."""
        own = [name for name in (self.x, self.y, self.geometry, self.index) if name is not None]
        return list(dict.fromkeys([*own, *self.kept]))


def choose_columns(
    schema: pa.Schema,
    *,
    x_column: str | None = None,
    y_column: str | None = None,
    geometry_column: str | None = None,
    geometry_crs: Any = None,
    columns: Sequence[str] | None = None,
    time_column: str | None = None,
    index_column: str | None = None,
    source: str = "the point table",
    first_value: FirstValue | None = None,
    folder_columns: Collection[str] = (),
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
        (GeoArrow, GeoParquet, BigQuery's GEOGRAPHY) is taken, even beside coordinate columns; else the one pair of
        columns named x/y, lon/lat, longitude/latitude or lng/lat, in any case; else the one
        binary column named as :data:`GEOMETRY_NAMES` are, or column of WKT named as :data:`WKT_NAMES`.
    geometry_crs
        CRS of the points, as pyproj reads it; needed unless the geometry column carries its own.
    columns : sequence of str, optional
        Columns to keep; by default all, those of the coordinates too, but for the geometry, the
        index of pandas that has no name, and coordinates and an index named as a sample column.
    time_column : str, optional
        The points' times, which pass through too; see :func:`rasteret_beam.kernels.tables.point_times.point_times`.
    index_column : str, optional
        Whole numbers that give ``point_index``, in place of the row number.
    source : str
        What an error calls the table.
    first_value : function of a column name, optional
        Looks up the first WKB or WKT of a column; None where all are null. Without it no text column is taken for WKT
        by its name, and no SRID for the CRS.
    folder_columns : collection of str
        Those that come from the names of folders: taken as coordinates only if named.

    Raises
    ------
    InputError
        A column is missing, ambiguous or of the wrong type, or the CRS is missing, unreadable
        or in conflict with the one in the data.
    """
    columns = (columns,) if isinstance(columns, str) else columns
    check_names(columns, x_column, y_column, geometry_column, time_column, index_column)
    names = schema.names
    there = set(names)
    for wanted in (x_column, y_column, geometry_column, time_column, index_column, *(columns or ())):
        if wanted is not None and wanted not in there:
            raise InputError(f"{source} has no column {wanted!r}; it has {listed(names)}")
    if (x_column is None) != (y_column is None):
        raise InputError("x_column and y_column go together; only one of them is given")
    if x_column is not None and geometry_column is not None:
        raise InputError("give either geometry_column or x_column and y_column, not both")
    if x_column is None and geometry_column is None:
        x_column, y_column, geometry_column = _inferred(without(schema, folder_columns), source, first_value)
    own = {x_column, y_column, geometry_column, index_column}
    # Coordinates pass through too, as in Rasteret, unless they already have the name of their sample column.
    dropped = {geometry_column} | (own & RESERVED)
    others = [name for name in names if name not in dropped and not UNNAMED_INDEX.fullmatch(name)]
    kept = with_time(columns if columns is not None else others, time_column, schema, source, RESERVED, "sample")
    check_single(names, [name for name in (*own, *kept) if name is not None], source)
    for name in (x_column, y_column):
        if name is not None and not is_number(schema.field(name).type):
            raise InputError(f"column {name!r} of {source} is {schema.field(name).type}; coordinates must be numbers")
    if index_column is not None and not pa.types.is_integer(schema.field(index_column).type):
        raise InputError(
            f"index_column {index_column!r} of {source} is {schema.field(index_column).type}; it has to hold integers"
        )
    if geometry_column is not None:
        check_geometry_type(schema.field(geometry_column), source)
    crs, from_srid = table_crs(schema, geometry_column, geometry_crs, source, first_value)
    fields = [schema.field(name).with_type(kept_type(schema.field(name).type)) for name in kept]
    output = points_schema(fields, crs)
    return PointColumns(x_column, y_column, geometry_column, kept, output, crs, from_srid, index_column)


def with_time(
    kept: Sequence[str], time_column: str | None, schema: pa.Schema, source: str, reserved: Collection[str], output: str
) -> tuple[str, ...]:
    """The columns to keep, with that of the times, which is checked.

    Raises
    ------
    InputError
        The column does not hold times, or has one of the ``reserved`` names of the ``output`` table.
    """
    if time_column is None:
        return tuple(kept)
    if time_column in reserved:
        raise InputError(
            f"time_column {time_column!r} of {source} has the name of a column of the {output} table; rename it"
        )
    for number in schema.get_all_field_indices(time_column):
        check_time_type(schema.field(number).type, time_column, source)
    return tuple(kept) if time_column in kept else (*kept, time_column)


def without(schema: pa.Schema, names: Collection[str]) -> pa.Schema:
    """A schema without some of its columns."""
    return pa.schema([field for field in schema if field.name not in names], metadata=schema.metadata)


def kept_type(kind: pa.DataType) -> pa.DataType:
    """The type that a column passes through with: its own, but for those that Arrow cannot yet take rows of.

    Views of strings and of bytes become strings and bytes (inside lists, structs, maps and
    dictionaries too), and run-end encoded columns become plain ones.
    """
    if pa.types.is_run_end_encoded(kind):
        return kept_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, kept_type(kind.value_type), kind.ordered)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(kept_type(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(kept_type(kind.value_type)))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(kept_type(kind.value_type)), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(kept_type(kind.value_type)))
    if pa.types.is_map(kind):
        key, item = (field.with_type(kept_type(field.type)) for field in (kind.key_field, kind.item_field))
        return pa.map_(key, item, kind.keys_sorted)
    return kind


def kept_column(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column in the type that :func:`kept_type` gives for its own."""
    if column.type == kind:
        return column
    if pa.types.is_run_end_encoded(column.type):
        return kept_column(pc.run_end_decode(column), kind)
    if pa.types.is_dictionary(column.type):
        dictionary = kept_column(column.dictionary, kind.value_type)
        return pa.DictionaryArray.from_arrays(column.indices, dictionary, ordered=kind.ordered)
    return pc.cast(column, kind)


def check_names(columns: Any, *single: Any) -> None:
    """Refuse anything but a list of column names, and anything but the name of a single column.

    Raises
    ------
    InputError
    """
    if columns is not None and (isinstance(columns, bytes) or not isinstance(columns, Iterable)):
        raise InputError(f"columns is {columns!r}; give a list of names of columns")
    for name in (*single, *(columns if columns is not None else ())):
        if name is not None and not isinstance(name, str):
            raise InputError(f"{name!r} is given as a column; give its name")
    if columns is not None and None in columns:
        raise InputError("columns hold None; give names of columns")


def check_single(names: list[str], needed: list[str], source: str) -> None:
    """Refuse a table that has more than one column of a needed name."""
    held = Counter(names)
    twice = sorted({name for name in needed if held[name] > 1})
    if twice:
        raise InputError(f"{source} has more than one column named {listed(twice)}; rename them")


def is_number(kind: pa.DataType) -> bool:
    return (
        pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _inferred(
    schema: pa.Schema, source: str, first_value: FirstValue | None
) -> tuple[str | None, str | None, str | None]:
    declared = declared_columns(schema)
    lower: dict[str, list[str]] = {}
    for name in schema.names:
        lower.setdefault(name.lower(), []).append(name)
    pairs = [(x, y) for a, b in XY_NAMES for x in lower.get(a, []) for y in lower.get(b, [])]
    named = [name for known in GEOMETRY_NAMES for name in lower.get(known, []) if _is_binary(schema, name)]
    if len(declared) == 1:
        return None, None, declared[0]
    if not declared and len(pairs) == 1:
        return pairs[0][0], pairs[0][1], None
    if not declared and not pairs and first_value is not None:
        texts = [name for known in WKT_NAMES for name in lower.get(known, []) if is_text(schema.field(name).type)]
        named += [name for name in texts if is_wkt_point(first_value(name) or "POINT")]
    if not declared and not pairs and len(named) == 1:
        return None, None, named[0]
    ambiguous = declared or pairs or named
    problem = "more than one column (pair) that could be the point" if ambiguous else "no column known as a point"
    raise InputError(
        f"{source} has {problem}; it has {listed(schema.names)}. Give x_column and y_column, or geometry_column."
    )


def coordinate_names(names: Sequence[str]) -> set[str]:
    """Those of a table's columns that have a name of :data:`XY_NAMES`, in any case."""
    known = {name for pair in XY_NAMES for name in pair}
    return {name for name in names if name.lower() in known}


def _is_binary(schema: pa.Schema, name: str) -> bool:
    kinds = [schema.field(number).type for number in schema.get_all_field_indices(name)]
    return all(pa.types.is_binary(k) or pa.types.is_large_binary(k) or pa.types.is_binary_view(k) for k in kinds)


def table_crs(
    schema: pa.Schema,
    geometry_column: str | None,
    geometry_crs: Any,
    source: str,
    first_value: FirstValue | None,
) -> tuple[str, bool]:
    """The CRS of a table of points or polygons, and whether it was found in the SRID of the first of them.

    Raises
    ------
    InputError
        It is missing, unreadable or in conflict with the one in the data.
    """
    given = crs_text(geometry_crs) if geometry_crs is not None else None
    found = data_crs(schema, geometry_column) if geometry_column is not None else None
    if given is not None and found is not None and not same_crs(given, found):
        raise InputError(
            f"geometry_crs is {given}, but column {geometry_column!r} of {source} says {found}; "
            "leave geometry_crs out to use the column's own"
        )
    if found or given:
        return found or given or "", False
    value = first_value(geometry_column) if geometry_column is not None and first_value is not None else None
    srid = value_srid(value) if value is not None else None
    crs = srid_crs(srid) if srid else None
    if crs is not None:
        return crs, True
    if geometry_column is None:
        what = "plain coordinate columns have no CRS"
    elif srid:
        what = f"geometry column {geometry_column!r} of {source} has SRID {srid}, which is not an EPSG code"
    else:
        what = f"geometry column {geometry_column!r} of {source} has no CRS"
    raise InputError(f"{what}; give it with geometry_crs (for longitude and latitude: 4326)")


def point_batch(batch: pa.RecordBatch, first_row: int, chosen: PointColumns) -> pa.RecordBatch:
    """A batch of input rows as a batch of points.

    Parameters
    ----------
    batch : RecordBatch
        With at least the columns ``chosen.needed``.
    first_row : int
        Row number of its first row, and its ``point_index`` unless a column gives that.

    Returns
    -------
    RecordBatch
        In ``chosen.schema``. Null coordinates are null, empty points NaN.

    Raises
    ------
    InputError
        A geometry is not a point, or an index is null or beyond 64 bits; names the row.
    """
    if chosen.geometry is not None:
        column = batch.column(chosen.geometry)
        x, y = geometry_xy(column, first_row, chosen.geometry, chosen.crs, chosen.from_srid)
    else:
        x, y = (pc.cast(batch.column(name), pa.float64(), safe=False) for name in (chosen.x, chosen.y))
    index = _index(batch, first_row, chosen.index)
    kept = [kept_column(batch.column(name), chosen.schema.field(name).type) for name in chosen.kept]
    return pa.RecordBatch.from_arrays([index, x, y, *kept], schema=chosen.schema)


def _index(batch: pa.RecordBatch, first_row: int, name: str | None) -> pa.Array:
    if name is None:
        return pa.array(np.arange(first_row, first_row + len(batch)), type=pa.int64())
    column = batch.column(name)
    if column.null_count:
        row = first_row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"row {row} of column {name!r} is null, and index_column needs a number in each row")
    try:
        return pc.cast(column, pa.int64())
    except pa.ArrowInvalid as error:
        raise InputError(f"column {name!r} does not fit into 64 bits with a sign: {error}") from error


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
