"""Turn inputs of points and polygons into streams of Arrow record batches with one schema."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import shapely

from rasteret_beam.collection.eager.geometries import read_geometries
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.crs import LONLAT
from rasteret_beam.kernels.tables.geometry_objects import is_box
from rasteret_beam.kernels.tables.native_geometry import native_crs, with_native_geometries
from rasteret_beam.kernels.tables.point_geometry import data_crs, first_value, value_srid
from rasteret_beam.kernels.tables.polygon_columns import PolygonColumns, choose_polygon_columns, polygon_batch
from rasteret_beam.kernels.tables.polygon_geometry import read_polygons
from rasteret_beam.schema import POLYGON_CRS_KEY

BATCH_ROWS = 131_072
"""Maximum number of rows of a batch."""

POINT_INPUTS = (
    "an Arrow table or dataset, anything with an Arrow C stream (Polars, DuckDB, SedonaDB), a pandas or GeoPandas "
    "frame, or Shapely points, WKB bytes, GeoJSON, or a list of those; collect a lazy frame first"
)


class PointStream:
    """Batches of a point table, of at most :data:`BATCH_ROWS` rows, read once and on demand.

    Attributes
    ----------
    schema : pyarrow.Schema
        The schema of every batch, with the metadata of the table.
    """

    def __init__(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]):
        self.schema = schema
        self._batches = iter(batches)
        self._drawn: list[pa.RecordBatch] = []

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in chain(self._drawn, self._batches):
            for start in range(0, len(batch), BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS)
        self._drawn.clear()

    def first_value(self, column: str) -> bytes | str | None:
        """The first WKB or WKT of a column that is not null; reads batches as needed."""
        for batch in self._drawn:
            value = first_value(batch.column(column))
            if value is not None:
                return value
        for batch in self._batches:
            self._drawn.append(batch)
            value = first_value(batch.column(column))
            if value is not None:
                return value
        return None


POLYGON_INPUTS = (
    "an Arrow table or dataset, anything with an Arrow C stream (Polars, DuckDB, SedonaDB), a pandas or GeoPandas "
    "frame, or boxes (xmin, ymin, xmax, ymax), Shapely polygons, WKB bytes, GeoJSON, or a list of those; collect a "
    "lazy frame first"
)


def polygon_stream(polygons: Any, geometry_crs: Any = None) -> tuple[PointStream, bool]:
    """An input of polygons as a stream of batches, and whether it is a table.

    Parameters
    ----------
    polygons
        Any input of :func:`point_stream`; also a box (xmin, ymin, xmax, ymax) or a list of boxes, and an Arrow array of
        WKB or GeoArrow polygons.
    geometry_crs : optional
        CRS of boxes; boxes in degrees may cross the antimeridian.

    Raises
    ------
    InputError
        The input has another type; the error names it.
    """
    if isinstance(polygons, pa.Array | pa.ChunkedArray):
        return table_stream(pa.table({"geometry": polygons}), "polygons", POLYGON_INPUTS), False
    boxes = [polygons] if is_box(polygons) else polygons
    if isinstance(boxes, list | tuple | np.ndarray) and len(boxes) and all(is_box(box) for box in boxes):
        polygons = list(read_polygons(boxes, geometry_crs=geometry_crs).shapes)
    is_table = isinstance(polygons, pa.Table) or is_frame(polygons) or not _are_geometries(polygons)
    return table_stream(polygons, "polygons", POLYGON_INPUTS), is_table


def polygon_batches(
    polygons: Any,
    *,
    geometry_column: str | None = None,
    geometry_crs: Any = None,
    columns: Sequence[str] | None = None,
    time_column: str | None = None,
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """An input of polygons as batches in :func:`rasteret_beam.schema.polygons_schema`, and their schema.

    Parameters
    ----------
    polygons
        As of :func:`polygon_stream`.
    geometry_column, geometry_crs, columns, time_column
        As of :func:`rasteret_beam.kernels.tables.polygon_columns.choose_polygon_columns`.

    Raises
    ------
    InputError
        The input, a column or the CRS cannot be used.
    """
    stream, is_table = polygon_stream(polygons, geometry_crs)
    if not is_table and geometry_column is not None:
        raise InputError(f"geometry_column is {geometry_column!r}, but the polygons are not a table; leave it out")
    chosen = choose_polygon_columns(
        stream.schema,
        geometry_column=geometry_column,
        geometry_crs=default_polygon_crs(stream, is_table, geometry_crs),
        columns=columns,
        time_column=time_column,
        first_value=stream.first_value,
    )
    if not is_table:  # errors name geometries by their number alone
        chosen = replace(chosen, schema=chosen.schema.with_metadata({POLYGON_CRS_KEY: chosen.crs}))
    return chosen.schema, _polygon_rows(stream, chosen)


def _polygon_rows(stream: PointStream, chosen: PolygonColumns) -> Iterator[pa.RecordBatch]:
    first_row = 0
    for batch in stream:
        yield polygon_batch(batch, first_row, chosen)
        first_row += len(batch)


def default_polygon_crs(stream: PointStream, is_table: bool, geometry_crs: Any) -> Any:
    """The CRS that is given, or longitude and latitude for geometries that are not a table and have none."""
    if is_table or geometry_crs is not None or data_crs(stream.schema, "geometry") is not None:
        return geometry_crs
    first = stream.first_value("geometry")
    return None if first is not None and value_srid(first) else LONLAT


def point_stream(points: Any) -> PointStream:
    """An input of points as a stream of batches.

    Parameters
    ----------
    points
        Arrow Table, RecordBatch, RecordBatchReader or Dataset; anything with an Arrow C stream
        (Polars, DuckDB, SedonaDB, ...); a pandas or GeoPandas DataFrame, whose geometries
        become WKB and whose active geometry column and CRS are declared in the schema; or
        Shapely points, WKB bytes, GeoJSON (dict, text), or a list, an array or a Series of
        those, which become column ``geometry``. Properties of GeoJSON features become further
        columns. GeoJSON is in OGC:CRS84.

    Raises
    ------
    InputError
        The input has another type; the error names it.
    """
    return table_stream(points, "points", POINT_INPUTS)


def table_stream(points: Any, what: str, accepted: str) -> PointStream:
    """As :func:`point_stream`; ``what`` names the rows in errors, and ``accepted`` the accepted types."""
    if isinstance(points, pa.RecordBatchReader):
        return PointStream(points.schema, points)
    if isinstance(points, pa.RecordBatch):
        points = pa.Table.from_batches([points])
    if isinstance(points, ds.Dataset):
        return PointStream(_dataset_schema(points), points.to_batches(batch_size=BATCH_ROWS))
    if is_frame(points):
        points = _frame_table(points)
    elif not isinstance(points, pa.Table) and _are_geometries(points):
        points = _geometry_table(points, what)
    if isinstance(points, pa.Table):
        return PointStream(points.schema, points.to_batches(max_chunksize=BATCH_ROWS))
    if not hasattr(points, "__arrow_c_stream__"):
        raise InputError(f"{what} are {_described(points)}; give {accepted}")
    try:
        reader = pa.RecordBatchReader.from_stream(points)
    except (pa.ArrowInvalid, TypeError) as error:
        raise InputError(f"{what} are {_described(points)} whose Arrow stream is not a table: {error}") from error
    return PointStream(reader.schema, reader)


def _dataset_schema(dataset: ds.Dataset) -> pa.Schema:
    """The schema of a dataset with the geometry types of its Parquet files, which must agree."""
    files = (part for part in dataset.get_fragments() if isinstance(part, ds.ParquetFileFragment))
    first = next(files, None)
    crs = native_crs(first.metadata, first.path) if first is not None else {}
    if first is None or not crs:
        return dataset.schema
    for other in files:
        found = native_crs(other.metadata, other.path)
        if found != crs:
            raise InputError(
                f"the geometries of {other.path} are in {found}, but those of {first.path} in {crs}; give one dataset "
                "per CRS"
            )
    return with_native_geometries(dataset.schema, first.metadata, first.path)


def _described(points: Any) -> str:
    if isinstance(points, list | tuple) and points:
        return f"a {type(points).__name__} of {listed(sorted({type(point).__name__ for point in points}))}"
    return f"a {type(points).__name__}"


def _are_geometries(points: Any) -> bool:
    if isinstance(points, list | tuple | np.ndarray):
        kinds = (shapely.Geometry, bytes, bytearray, memoryview, dict, type(None))
        return np.ndim(points if isinstance(points, np.ndarray) else 0) <= 1 and all(
            isinstance(point, kinds) or hasattr(point, "__geo_interface__") or _is_json(point) for point in points
        )
    if isinstance(points, dict):
        return isinstance(points.get("type"), str)
    if isinstance(points, shapely.Geometry | bytes | bytearray | memoryview | pa.Array | pa.ChunkedArray):
        return True
    if _is_json(points) or hasattr(points, "__geo_interface__"):
        return True
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(points, pandas.Series):
        return True
    return hasattr(points, "__arrow_c_array__") and not hasattr(points, "__arrow_c_stream__")


def _is_json(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("{")


def _geometry_table(points: Any, what: str) -> pa.Table:
    """A table of geometries as WKB with their SRIDs, and the properties of features."""
    found = read_geometries(points, f"the {what}")
    wkb = shapely.to_wkb(found.shapes, include_srid=found.crs is None)
    columns = {"geometry": pa.array(wkb, type=pa.binary())}
    fields = [_wkb_field("geometry", found.crs)]
    for name in dict.fromkeys(name for row in found.properties for name in row):
        if name == "geometry":
            raise InputError("a GeoJSON feature has a property named geometry; rename it")
        try:
            columns[name] = pa.array([row.get(name) for row in found.properties])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            what = "beyond 64 bits" if isinstance(error, OverflowError) else "of several types"
            raise InputError(
                f"property {name!r} of the GeoJSON features has values {what}: {error}; write them as text"
            ) from error
        fields.append(pa.field(name, columns[name].type))
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields))


def _wkb_field(name: str, crs: Any) -> pa.Field:
    metadata = {"crs": crs} if crs is not None else {}
    return pa.field(
        name,
        pa.binary(),
        metadata={"ARROW:extension:name": "geoarrow.wkb", "ARROW:extension:metadata": json.dumps(metadata)},
    )


def is_frame(points: Any) -> bool:
    """Whether an object is a pandas or GeoPandas DataFrame; neither needs to be installed."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(points, pandas.DataFrame)


def _frame_table(frame: Any) -> pa.Table:
    """A pandas or GeoPandas frame as a table: geometries as WKB with their CRS, and the active one as primary."""
    if not frame.columns.is_unique:
        raise InputError(f"the frame has several columns of one name; it has {listed(frame.columns)}")
    shapes = [name for name in frame.columns if _holds_geometries(frame[name])]
    try:
        table = pa.Table.from_pandas(sys.modules["pandas"].DataFrame(frame.drop(columns=shapes)))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"the frame cannot be turned into an Arrow table: {'; '.join(map(str, error.args))}"
        ) from error
    for name in shapes:
        crs = getattr(frame[name].array, "crs", None)
        values = np.array(frame[name], dtype=object)
        values[sys.modules["pandas"].isna(values)] = None
        wrong = np.flatnonzero(~shapely.is_geometry(values) & ~shapely.is_missing(values))
        if len(wrong):
            shown = repr(values[wrong[0]])[:80]
            raise InputError(
                f"row {wrong[0]} of column {name!r} is {shown}, but other rows are geometries; drop or convert it"
            )
        wkb = shapely.to_wkb(values, include_srid=crs is None)
        named = _wkb_field(str(name), crs.to_json_dict() if crs is not None else None)
        table = table.add_column(frame.columns.get_loc(name), named, pa.array(wkb, type=pa.binary()))
    active = getattr(frame, "active_geometry_name", None)
    if active is not None:
        geo = {"primary_column": active, "columns": {active: {"encoding": "WKB", "crs": None}}}
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"geo": json.dumps(geo)})
    return table


def _holds_geometries(column: Any) -> bool:
    if str(column.dtype) == "geometry":
        return True
    if str(column.dtype) != "object":
        return False
    values = column.dropna()
    return len(values) > 0 and isinstance(values.iloc[0], shapely.Geometry)
