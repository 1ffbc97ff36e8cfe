"""Well-known binary (WKB) of points and pixels, made and measured without an object for each.

Source of the format: OGC Simple Features 1.2.1, 8.2, in little-endian byte order.
"""

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.crs import Floats, full_turn, reaches, transform
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.model import Grid

POINT = np.dtype([("order", "u1"), ("type", "<u4"), ("xy", "<f8", 2)])
RING = np.dtype([("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("xy", "<f8", (5, 2))])
"""A point, and a polygon of one ring with four corners."""

POINT_TYPE, POLYGON_TYPE = 1, 3

NAMES = ("Point", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon", "GeometryCollection")
"""Geometry types as GeoParquet names them, from type 1."""

CORNERS = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)])
"""Rows and columns from a pixel's upper left corner: counterclockwise where rows go south."""


def point_wkb(x: Floats, y: Floats) -> pa.BinaryArray:
    """Points [n]; null where a coordinate is not finite."""
    points = np.empty(len(x), dtype=POINT)
    points["order"], points["type"] = 1, POINT_TYPE
    points["xy"][:, 0], points["xy"][:, 1] = x, y
    return _binary(points, np.isfinite(x) & np.isfinite(y))


def pixel_wkb(grid: Grid, row: Ints, col: Ints, crs: str) -> pa.BinaryArray:
    """The outlines of pixels [n] as polygons, counterclockwise.

    Parameters
    ----------
    row, col : [n] int
        On the grid.
    crs : str
        Of the polygons. Their corners are transformed; a polygon across the antimeridian goes on beyond 180 degrees. It
        is null where PROJ cannot reach a corner.
    """
    if not reaches(grid.crs, crs):
        return pa.nulls(len(row), pa.binary())
    a, b, _, d, e, _ = grid.transform
    corners = CORNERS if a * e - b * d < 0 else CORNERS[::-1]
    at = np.stack([np.add.outer(row, corners[:, 0]), np.add.outer(col, corners[:, 1])]).astype(np.float64)
    x, y = transform(grid.crs, crs, *(part.ravel() for part in grid.to_world(*at)))
    pixels = np.empty(len(row), dtype=RING)
    pixels["order"], pixels["type"], pixels["rings"], pixels["points"] = 1, POLYGON_TYPE, 1, len(CORNERS)
    pixels["xy"][:, :, 0] = _together(x.reshape(-1, len(CORNERS)), grid.crs, crs)
    pixels["xy"][:, :, 1] = y.reshape(-1, len(CORNERS))
    return _binary(pixels, np.isfinite(pixels["xy"]).all(axis=(1, 2)))


def _together(x: Floats, source: str, target: str) -> Floats:
    """Longitudes [n, corners] of transformed corners, less than half a turn from the first corner."""
    turn = full_turn(target)
    if turn is None or full_turn(source) is not None:
        return x
    with np.errstate(invalid="ignore"):
        return x - turn * np.round((x - x[:, :1]) / turn)


def _binary(records: NDArray[np.void], valid: NDArray[np.bool_]) -> pa.BinaryArray:
    """Records of one size as binary values."""
    if len(records) * records.dtype.itemsize > np.iinfo(np.int32).max:
        raise OverflowError(f"{len(records)} geometries exceed the size of a batch")
    offsets = np.arange(len(records) + 1, dtype=np.int32) * records.dtype.itemsize
    mask = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffers = [mask, pa.py_buffer(offsets), pa.py_buffer(records.view(np.uint8).ravel())]
    return pa.Array.from_buffers(pa.binary(), len(records), buffers)


def shapes_of(wkb: pa.Array) -> tuple[Floats, set[str]]:
    """Boxes [n, 4] (xmin, ymin, xmax, ymax; NaN where null or empty), and the types as GeoParquet names them.

    Parameters
    ----------
    wkb : binary array [n]
    """
    boxes = np.full((len(wkb), 4), np.nan)
    there = np.flatnonzero(wkb.is_valid().to_numpy(zero_copy_only=False))
    found = wkb.take(pa.array(there)) if len(there) < len(wkb) else wkb
    if not len(there):
        return boxes, set()
    coordinates = _coordinates(found)
    if coordinates is not None:
        boxes[there] = np.concatenate([coordinates.min(axis=1), coordinates.max(axis=1)], axis=1)
        return boxes, {"Point" if coordinates.shape[1] == 1 else "Polygon"}
    shapes = shapely.from_wkb(found.to_numpy(zero_copy_only=False))
    boxes[there] = shapely.bounds(shapes)
    types = np.unique(np.stack([shapely.get_type_id(shapes), shapely.has_z(shapes)]), axis=1)
    return boxes, {_name(int(kind), bool(has_z)) for kind, has_z in types.T}


def _name(kind: int, has_z: bool) -> str:
    # Shapely numbers points 0, lines 1 and rings 2, and then goes on as WKB does from polygons on.
    name = NAMES[kind if kind < 2 else kind - 1]
    return f"{name} Z" if has_z else name


def _coordinates(wkb: pa.Array) -> Floats | None:
    """[n, vertices, 2] if all geometries are points, or all outlines of pixels; else None."""
    _, offsets, data = wkb.buffers()
    starts = np.frombuffer(offsets, np.int32 if wkb.type == pa.binary() else np.int64)
    starts = starts[wkb.offset : wkb.offset + len(wkb) + 1]
    for kind in (POINT, RING):
        if starts[-1] - starts[0] == kind.itemsize * len(wkb) and (np.diff(starts) == kind.itemsize).all():
            records = np.frombuffer(data, kind, len(wkb), int(starts[0]))
            return _of_records(records)
    return None


def _of_records(records: NDArray[np.void]) -> Floats | None:
    is_point = records.dtype == POINT
    same = (records["order"] == 1) & (records["type"] == (POINT_TYPE if is_point else POLYGON_TYPE))
    if not is_point:
        same &= (records["rings"] == 1) & (records["points"] == len(CORNERS))
    xy = records["xy"].reshape(len(records), -1, 2)
    return xy if same.all() and np.isfinite(xy).all() else None
