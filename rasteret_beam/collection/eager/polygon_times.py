"""Polygons of an eager call with their times: a column of their table, or times given beside them."""

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_beam.collection.eager.inputs import polygon_stream
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.tables.point_times import point_times
from rasteret_beam.kernels.tables.polygon_geometry import Polygons, read_polygons

TIMES = "times"
"""What the column of times is called that are not in a table."""


def polygons_in_time(
    geometries: Any, *, geometry_crs: Any, geometry_column: str | None, time_column: str | None, times: Any
) -> tuple[Polygons, Ints | None]:
    """Polygons as of :func:`.polygon_geometry.read_polygons`, and the time of each, as of :func:`.point_times`.

    Parameters
    ----------
    time_column : str, optional
        Of a table, or a property of GeoJSON features.
    times : optional
        Times of the geometries in their order, or one for all, in place of the column.

    Raises
    ------
    InputError
        A geometry or a time cannot be used, there is no such column, or there are not as many times as geometries.
    """
    if times is not None:
        polygons = read_polygons(geometries, geometry_crs=geometry_crs, geometry_column=geometry_column)
        return polygons, _times_of(_as_array(times, len(polygons)), TIMES)
    if time_column is None:
        return read_polygons(geometries, geometry_crs=geometry_crs, geometry_column=geometry_column), None
    stream, is_table = polygon_stream(geometries, geometry_crs)
    if time_column not in stream.schema.names:
        if not is_table:
            raise InputError(
                f"time_column is {time_column!r}, but the geometries are not a table that has it; give their times "
                "with times="
            )
        raise InputError(
            f"the polygons have no column {time_column!r}, which time_column names; they have "
            f"{listed(stream.schema.names)}"
        )
    table = pa.Table.from_batches(list(stream), schema=stream.schema)
    polygons = read_polygons(table, geometry_crs=geometry_crs, geometry_column=geometry_column)
    return polygons, _times_of(table[time_column].combine_chunks(), time_column)


def _times_of(values: pa.Array, name: str) -> Ints:
    numbers = pa.array(np.arange(len(values)), pa.int64())
    batch = pa.RecordBatch.from_arrays([numbers, values], names=["geometry_id", name])
    try:
        return point_times(batch, name)
    except InputError as error:
        if name != TIMES:
            raise
        raise InputError(
            str(error)
            .replace(f"time_column {TIMES!r} of the point table", TIMES)
            .replace(f"time_column {TIMES!r}", TIMES)
        ) from None


def _as_array(times: Any, count: int) -> pa.Array:
    """Times as an array [count]; one is that of all."""
    if isinstance(times, str | date | np.datetime64) or (isinstance(times, np.ndarray) and times.ndim == 0):
        one = times.astype("datetime64[us]") if isinstance(times, np.datetime64) else times
        return pa.array([one.item() if isinstance(one, np.generic | np.ndarray) else one] * count)
    if isinstance(times, list | tuple):
        times = [_plain(time) for time in times]
    try:
        values = pa.chunked_array(times) if hasattr(times, "__arrow_c_stream__") else pa.array(times)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, ValueError) as error:
        raise InputError(f"times are a {type(times).__name__}, which cannot be read as times: {error}") from error
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if len(values) != count:
        raise InputError(f"there are {len(values)} times, but {count} geometries; give a time for each, or one for all")
    return values


def _plain(time: Any) -> Any:
    """A time of a list as Arrow takes it: NaT is null."""
    if time is None or time != time:
        return None
    return time.astype("datetime64[us]").item() if isinstance(time, np.datetime64) else time
