"""Why none of the points or polygons lies in the collection, in words for the user."""

import numpy as np
import pyarrow as pa
import shapely

from rasteret_beam.kernels.geo.crs import LONLAT, Floats, crs_label, is_degrees, reaches, transform
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.index import RoutingIndex, locate
from rasteret_beam.kernels.routing.layers import NO_DATETIME
from rasteret_beam.kernels.tables.point_columns import coordinates
from rasteret_beam.kernels.tables.point_times import NO_TIME, point_times

LOOKED_AT = 10_000

EXCHANGED = "with x and y exchanged: x has to be the longitude (or easting), y the latitude (or northing)"
"""What to say where swapping coordinates helps."""


def why_nothing_hit(index: RoutingIndex, points: pa.RecordBatch, crs: str, what: str = "points") -> str:
    """One sentence or two on a batch of points that no record contains; hints at swapped coordinates."""
    points = points.slice(0, LOOKED_AT)
    x, y, _ = coordinates(points, crs)
    column = index.matcher.time_column
    if column is not None and len(index.to_sample(locate(index, crs, x, y)).point):
        return _why_none_in_time(index, point_times(points, column), column, what)
    raw_x, raw_y = (points[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in ("point_x", "point_y"))
    if hits_exchanged(index, raw_x, raw_y, crs):
        return f"none of the {what} lies in the collection, but they do {EXCHANGED}"
    if is_degrees(crs) and np.any(np.abs(raw_x) > 360) and np.any(np.abs(raw_y) > 90):
        return (
            f"none of the {what} lies in the collection: coordinates such as ({raw_x[0]:g}, {raw_y[0]:g}) are not "
            f"degrees, but geometry_crs is {crs}; give the CRS they are in"
        )
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        return f"none of the {what} has usable coordinates"
    return (
        f"none of the {what} lies in the collection: they span {_span(x[finite], y[finite])} in "
        f"{crs_label(crs)}, {_where(index, crs)}"
    )


def _why_none_in_time(index: RoutingIndex, times: Ints, column: str, what: str) -> str:
    """The same of points that lie in the collection, but whose times no record suits."""
    given, there = times[times != NO_TIME], index.datetimes[index.datetimes != NO_DATETIME]
    if not len(given):
        return f"none of the {what} has a time: time_column {column!r} is null in each"
    if not len(there):
        return f"none of the {what} has a record in time: no record of the collection has a datetime"
    return (
        f"none of the {what} has a record in time: their times go from {_moment(given.min())} to "
        f"{_moment(given.max())}, the datetimes of the records from {_moment(there.min())} to {_moment(there.max())}; "
        "use a larger tolerance or another match"
    )


def _moment(microseconds: np.int64) -> str:
    return str(np.datetime64(int(microseconds), "us").astype("datetime64[s]"))


def hits_exchanged(index: RoutingIndex, x: Floats, y: Floats, crs: str) -> bool:
    """Whether points [n] given in ``crs`` would meet the grid of a record if x and y were exchanged."""
    return len(index.to_sample(locate(index, crs, y, x)).point) > 0


def why_no_polygon_hit(index: RoutingIndex, polygons: pa.RecordBatch, crs: str) -> str:
    """The same of a batch of polygons (geometries as WKB), by the corners of their boxes."""
    shapes = shapely.from_wkb(
        polygons["geometry"].slice(0, LOOKED_AT).to_numpy(zero_copy_only=False), on_invalid="ignore"
    )
    bounds = shapely.bounds(shapes)
    columns = {"point_x": bounds[:, [0, 2]].ravel(), "point_y": bounds[:, [1, 3]].ravel()}
    for name in ("geometry_id", index.matcher.time_column):
        if name is not None:
            columns[name] = polygons[name].take(np.repeat(np.arange(len(shapes)), 2))
    return why_nothing_hit(index, pa.RecordBatch.from_pydict(columns), crs, "polygons")


def _span(x: np.ndarray, y: np.ndarray) -> str:
    return f"x {x.min():g} to {x.max():g}, y {y.min():g} to {y.max():g}"


def _where(index: RoutingIndex, crs: str) -> str:
    if not index.groups:
        return "and no record of the collection has the bands asked for"
    target, unit = (LONLAT, "degrees") if reaches(crs, LONLAT) else (crs, "it")
    corners = [np.empty((2, 0))]
    for group in index.groups:
        if not reaches(group.crs, target):
            continue
        lon, lat = transform(group.crs, target, group.boxes[:, [0, 2]].ravel(), group.boxes[:, [1, 3]].ravel())
        corners.append(np.stack([lon, lat]))
    lon, lat = np.concatenate(corners, axis=1)
    finite = np.isfinite(lon) & np.isfinite(lat)
    return f"the records about {_span(lon[finite], lat[finite])} in {unit}" if finite.any() else "the records elsewhere"
