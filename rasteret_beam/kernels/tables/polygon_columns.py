"""Polygon tables: which column holds the polygon, its CRS, and the batches that routing takes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.tables.point_columns import (
    UNNAMED_INDEX,
    check_names,
    check_single,
    kept_column,
    kept_type,
    table_crs,
    with_time,
    without,
)
from rasteret_beam.kernels.tables.point_geometry import FirstValue, check_srids, decoded_wkt, is_text, split_ewkt
from rasteret_beam.kernels.tables.polygon_geometry import Shapes, choose_geometry_column, decode_column
from rasteret_beam.schema import CHIP_RESERVED, polygons_schema


@dataclass(frozen=True)
class PolygonColumns:
    """How polygons are read from a table.

    Attributes
    ----------
    geometry : str
        Column of WKB, GeoArrow polygons or WKT.
    kept : tuple of str
        Columns that pass through.
    schema : pyarrow.Schema
        Of every batch that comes out; its metadata holds the CRS.
    crs : str
    from_srid : bool
        The CRS is that of the first geometry's SRID, so each geometry must have it.
    """

    geometry: str
    kept: tuple[str, ...]
    schema: pa.Schema
    crs: str
    from_srid: bool = False

    @property
    def needed(self) -> list[str]:
        """The input columns that have to be read."""
        return list(dict.fromkeys([self.geometry, *self.kept]))


def choose_polygon_columns(
    schema: pa.Schema,
    *,
    geometry_column: str | None = None,
    geometry_crs: Any = None,
    columns: Sequence[str] | None = None,
    time_column: str | None = None,
    source: str = "the polygon table",
    first_value: FirstValue | None = None,
    folder_columns: Collection[str] = (),
) -> PolygonColumns:
    """Decide which column holds the polygon, what its CRS is, and what passes through.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the input.
    geometry_column : str, optional
        By default the one column that is declared as a geometry (GeoArrow, GeoParquet), or is
        named geometry, geom or wkb_geometry.
    geometry_crs
        CRS of the polygons, as pyproj reads it; needed unless the column carries its own.
    columns : sequence of str, optional
        Columns to keep; by default all others but the index of pandas that has no name.
    time_column : str, optional
        The polygons' times, which pass through too; see :func:`rasteret_beam.kernels.tables.point_times.point_times`.
    source : str
        What an error calls the table.
    first_value : function of a column name, optional
        Looks up the first WKB or WKT of a column, whose SRID counts where there is no other CRS.
    folder_columns : collection of str
        Those that come from the names of folders: taken as geometries only if named.

    Raises
    ------
    InputError
        A column is missing, ambiguous or of the wrong type, or the CRS is missing, unreadable
        or in conflict with the one in the data.
    """
    columns = (columns,) if isinstance(columns, str) else columns
    check_names(columns, geometry_column, time_column)
    names = schema.names
    there = set(names)
    for wanted in (time_column, *(columns or ())):
        if wanted is not None and wanted not in there:
            raise InputError(f"{source} has no column {wanted!r}; it has {listed(names)}")
    geometry = choose_geometry_column(
        schema if geometry_column is not None else without(schema, folder_columns), geometry_column, source
    )
    others = [name for name in names if name != geometry and not UNNAMED_INDEX.fullmatch(name)]
    kept = with_time(columns if columns is not None else others, time_column, schema, source, CHIP_RESERVED, "chip")
    check_single(names, list(dict.fromkeys([geometry, *kept])), source)
    check_polygon_type(schema.field(geometry), source)
    crs, from_srid = table_crs(schema, geometry, geometry_crs, source, first_value)
    fields = [schema.field(name).with_type(kept_type(schema.field(name).type)) for name in kept]
    return PolygonColumns(geometry, kept, polygons_schema(fields, crs, geometry), crs, from_srid)


def check_polygon_type(field: pa.Field, source: str) -> None:
    """Refuse a column whose type can hold no polygons."""
    if is_text(field.type):
        return
    try:
        decode_column(pa.array([], type=field.type), field.name)
    except (InputError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(
            f"column {field.name!r} of {source} is {field.type}; polygons are WKB (binary), GeoArrow polygons or WKT"
        ) from None


def polygon_batch(batch: pa.RecordBatch, first_row: int, chosen: PolygonColumns) -> pa.RecordBatch:
    """A batch of input rows as a batch of polygons.

    Parameters
    ----------
    batch : RecordBatch
        With at least the columns ``chosen.needed``.
    first_row : int
        ``geometry_id`` of its first row.

    Returns
    -------
    RecordBatch
        In ``chosen.schema``: geometries as WKB, as they are; whether they are polygons is not looked at.

    Raises
    ------
    InputError
        The SRID of a geometry contradicts the CRS, or WKT cannot be read; names the row.
    """
    wkb, shapes = _as_wkb(batch.column(chosen.geometry), first_row, chosen.geometry)
    srid = np.maximum(shapely.get_srid(shapes), 0).astype(np.int64)
    missing = shapely.is_missing(shapes)
    check_srids(srid, missing, first_row, chosen.geometry, chosen.crs, chosen.from_srid, "polygons")
    index = pa.array(np.arange(first_row, first_row + len(batch)), type=pa.int64())
    kept = [kept_column(batch.column(name), chosen.schema.field(name).type) for name in chosen.kept]
    return pa.RecordBatch.from_arrays([index, wkb, *kept], schema=chosen.schema)


def _as_wkb(column: pa.Array, first_row: int, name: str) -> tuple[pa.Array, Shapes]:
    """A column of geometries as WKB, and decoded; None where it is null or cannot be read."""
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    if is_text(storage.type):
        text, srid = split_ewkt(storage)
        shapes = decoded_wkt(text, first_row, name)
        return pa.array(shapely.to_wkb(shapes), type=pa.binary()), shapely.set_srid(shapes, srid)
    if pa.types.is_nested(storage.type):
        shapes = decode_column(storage, name)
    else:
        wkb = pc.cast(storage, pa.binary())
        return wkb, shapely.from_wkb(wkb.to_numpy(zero_copy_only=False), on_invalid="ignore")
    return pa.array(shapely.to_wkb(shapes), type=pa.binary()), shapes
