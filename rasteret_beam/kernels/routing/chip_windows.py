"""Chips: which records polygons overlap, and the window of pixels that each of them crops."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import LONLAT, Floats, full_turn, reaches, same_crs, transform
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.geo.regions import Region
from rasteret_beam.kernels.routing.index import CrsGroup, RoutingIndex, reachable_groups
from rasteret_beam.kernels.tables.polygon_geometry import Polygons, Shapes
from rasteret_beam.model import Grid

SAG_PIXELS = 0.01
"""How far, in pixels, a straight edge may lie from the true curve of a reprojected one."""

MOST_PIECES = 4096
"""That an edge is divided into."""

QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)

INTERIORS_MEET = "T********"


class PixelWindow(NamedTuple):
    """A window of a grid: its first row and column, and its size, in pixels."""

    row: int
    col: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True, eq=False)
class ChipLayer:
    """A polygon on one grid of one record.

    Attributes
    ----------
    geometry : int
        Position of the polygon.
    record : int
        Position of the record in the routing index.
    bands : tuple of str
        Those that the record has on this grid.
    grid : Grid
    window : PixelWindow
        The smallest that holds the polygon, cut at the raster's edges.
    shape : Shapely geometry
        In the CRS of the grid.
    """

    geometry: int
    record: int
    bands: tuple[str, ...]
    grid: Grid
    window: PixelWindow
    shape: BaseGeometry


class Overlap(NamedTuple):
    """A polygon on a grid: their positions, the smallest window that holds it, and the polygon in the grid's CRS."""

    geometry: int
    grid: int
    window: PixelWindow
    shape: BaseGeometry


def chip_overlaps(index: RoutingIndex, polygons: Polygons) -> Iterator[Overlap]:
    """Every distinct grid of the collection that each polygon overlaps.

    Raises
    ------
    InputError
        As :func:`chip_layers`.
    """
    for group in reachable_groups(index, polygons.crs, "polygons"):
        near = polygons_near(group, polygons)
        shapes = _in_crs_of(group, polygons, near)
        for place, member, window, shape in _windows(group, shapes, polygons, near):
            yield Overlap(int(near[place]), int(group.numbers[member]), window, shape)


def chip_layers(index: RoutingIndex, polygons: Polygons) -> list[ChipLayer]:
    """Every grid of every record that each polygon overlaps; by geometry, then in collection order.

    Parameters
    ----------
    index : RoutingIndex
        Made with ``match="all"``.

    Raises
    ------
    InputError
        A polygon cannot be brought to a record's CRS, or lies on two edges of a grid that goes
        around the globe.
    """
    found = []
    values: dict[int, Grid] = {}
    for number, grid, window, shape in chip_overlaps(index, polygons):
        if grid not in values:
            values[grid] = index.grid(grid)
        for record, bandset in index.layers.on_grid(grid):
            bands = index.layers.bandsets[bandset]
            found.append(ChipLayer(number, record, bands, values[grid], window, shape))
    return sorted(found, key=lambda layer: (layer.geometry, layer.record))


def polygons_near(group: CrsGroup, polygons: Polygons) -> Ints:
    """Positions of the polygons that may overlap a grid of the group; never misses one."""
    everything = np.arange(len(polygons), dtype=np.int64)
    if group.region is None or same_crs(polygons.crs, group.crs) or not reaches(polygons.crs, LONLAT):
        return everything
    xy, owner = shapely.get_coordinates(shapely.segmentize(polygons.shapes, _step(polygons)), return_index=True)
    lon, lat = transform(polygons.crs, LONLAT, xy[:, 0], xy[:, 1])
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    turned = (lon - lon[starts][owner] + 180.0) % 360.0 - 180.0
    west, east = (most.reduceat(turned, starts) for most in (np.minimum, np.maximum))
    south, north = (most.reduceat(lat, starts) for most in (np.minimum, np.maximum))
    half_width, rise = (east - west) / 2, (north - south) * 0.05 + 0.01
    away = np.abs((lon[starts] + (west + east) / 2 - group.region.middle + 180.0) % 360.0 - 180.0)
    meets = (away <= half_width * 1.05 + 0.01 + group.region.half_width) & _latitudes_meet(
        group.region, south - rise, north + rise
    )
    # Around a pole, and where PROJ has no answer, the vertices' longitudes say nothing.
    return everything[meets | ~np.isfinite(half_width) | ~np.isfinite(rise) | (half_width > 90.0)]


def _latitudes_meet(region: Region, south: Floats, north: Floats) -> np.ndarray:
    return (north >= region.south) & (south <= region.north)


def _step(polygons: Polygons) -> Floats:
    """Longest edge, by polygon, so that its box in another CRS is known well enough to narrow a search."""
    bounds = shapely.bounds(polygons.shapes)
    return np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1]) / 8


def _in_crs_of(group: CrsGroup, polygons: Polygons, near: Ints) -> Shapes:
    pixel = np.abs(group.grids.transform[:, [0, 1, 3, 4]])
    smallest = float(np.hypot(pixel[:, :2], pixel[:, 2:]).min(initial=np.inf))
    _refuse_poles(polygons, near, group.crs)
    shapes = reprojected(polygons.shapes[near], polygons.crs, group.crs, SAG_PIXELS * smallest)
    lost = np.flatnonzero(~np.isfinite(shapely.bounds(shapes)).all(axis=1))
    if len(lost):
        raise InputError(
            f"{polygons.label(int(near[lost[0]]))} reaches to where {group.crs} has no coordinates for "
            f"{polygons.crs}; cut it to the bounds of the collection"
        )
    return shapes


def _refuse_poles(polygons: Polygons, near: Ints, target: str) -> None:
    """A polygon around a pole has no outline in longitude and latitude."""
    turn = full_turn(target)
    if turn is None or full_turn(polygons.crs) is not None:
        return
    quarter = turn / 4  # the poles of the target itself, which may be on another body
    poles = shapely.points(*transform(target, polygons.crs, np.array([0.0, 0.0]), np.array([quarter, -quarter])))
    for pole in poles[np.isfinite(shapely.get_coordinates(poles)).all(axis=1)]:
        around = np.flatnonzero(shapely.intersects(polygons.shapes[near], pole))
        if len(around):
            raise InputError(
                f"{polygons.label(int(near[around[0]]))} holds a pole, and the collection's rasters are in {target}, "
                "where it has no outline; cut it along a meridian and give the pieces in longitude and latitude"
            )


def reprojected(shapes: Shapes, source: str, target: str, tolerance: float) -> Shapes:
    """Polygons in another CRS, edges divided so that they follow their true curve.

    Parameters
    ----------
    shapes : [n] object
    source, target : str
    tolerance : float
        Largest distance of an edge from the curve, in units of ``target``. A polygon whose
        edges are all straight enough keeps its vertices and gets no others.

    Returns
    -------
    [n] object
        Coordinates are infinite where PROJ has no answer. Longitudes of one polygon are in one
        turn of the circle, so that it stays whole across the antimeridian.
    """
    if same_crs(source, target) or not len(shapes):
        return shapes
    longest = _longest_edges(shapes, source, target, tolerance)
    bent = np.isfinite(longest)
    shapes = shapes.copy()
    shapes[bent] = shapely.segmentize(shapes[bent], longest[bent])
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    moved = np.stack(transform(source, target, *xy.T), axis=1)
    turn = full_turn(target)
    if turn is not None:
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        distance = np.where(_jumps(shapes, source, target, turn)[owner], moved[:, 0] - moved[first, 0][owner], 0.0)
        moved[:, 0] -= turn * np.round(distance / turn)
    return shapely.set_coordinates(shapes, moved)


def _jumps(shapes: Shapes, source: str, target: str, turn: float) -> NDArray[np.bool_]:
    """Whether an edge of each polygon crosses the longitude where ``target`` starts anew."""
    a, b, owner = _edges(shapes)
    lon = np.stack([transform(source, target, *(a + share * (b - a)).T)[0] for share in QUARTERS], axis=1)
    with np.errstate(invalid="ignore"):
        steps = np.diff(lon, axis=1)
        crossing = np.any(np.abs(steps) > turn / 2, axis=1)
    return np.bincount(owner[crossing], minlength=len(shapes)) > 0


def _edges(shapes: Shapes) -> tuple[Floats, Floats, Ints]:
    """First and last vertex of every edge, [n, 2] each, and the polygon it belongs to."""
    parts, owner = shapely.get_parts(shapes, return_index=True)  # multipolygons have no rings for Shapely
    rings, part = shapely.get_rings(parts, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    start = np.flatnonzero(ring[1:] == ring[:-1])
    return xy[start], xy[start + 1], owner[part[ring[start]]]


def _longest_edges(shapes: Shapes, source: str, target: str, tolerance: float) -> Floats:
    """How long an edge of each polygon may be, in units of ``source``; infinite where none is too long.

    The distance of the curve from its chord falls with the square of the edge's length.
    """
    a, b, owner = _edges(shapes)
    ends = [np.stack(transform(source, target, *end.T), axis=1) for end in (a, b)]
    sag = np.zeros(len(a))
    with np.errstate(invalid="ignore", divide="ignore"):
        chord = ends[1] - ends[0]
        length = np.hypot(chord[:, 0], chord[:, 1])
        for share in QUARTERS[1:-1]:
            middle = np.stack(transform(source, target, *(a + share * (b - a)).T), axis=1) - ends[0]
            across = np.abs(chord[:, 0] * middle[:, 1] - chord[:, 1] * middle[:, 0]) / length
            sag = np.fmax(sag, np.where(length > 0, across, np.hypot(middle[:, 0], middle[:, 1])))
        pieces = np.ceil(2.0 * np.sqrt(sag / tolerance))
    pieces = np.where(np.isfinite(sag) & (sag > tolerance), np.clip(pieces, 1.0, MOST_PIECES), 1.0)
    allowed = np.where(pieces > 1.0, np.hypot(*(b - a).T) / pieces, np.inf)
    longest = np.full(len(shapes), np.inf)
    np.minimum.at(longest, owner, allowed)
    return longest


class _Turned(NamedTuple):
    """A polygon, moved by whole turns, on a grid that it overlaps there."""

    shift: float
    window: PixelWindow
    shape: BaseGeometry


def _windows(
    group: CrsGroup, shapes: Shapes, polygons: Polygons, near: Ints
) -> Iterator[tuple[int, int, PixelWindow, BaseGeometry]]:
    """(position in ``shapes``, grid of the group, window, shape) of each overlap."""
    found: dict[tuple[int, int], list[_Turned]] = {}
    for shift, members in _turned(group, shapes):
        moved = _moved(shapes[members], shift)
        for place, grid in _near_boxes(group, moved):
            window = crop_window(group.grids.grid(grid, group.crs), moved[place])
            if window is not None:
                found.setdefault((int(members[place]), grid), []).append(_Turned(shift, window, moved[place]))
    for (number, grid), turns in found.items():
        if len(turns) > 1:
            yield number, grid, *_part_by_part(group, grid, shapes[number], turns, polygons.label(int(near[number])))
        else:
            yield number, grid, turns[0].window, turns[0].shape


def _part_by_part(
    group: CrsGroup, number: int, shape: BaseGeometry, turns: list[_Turned], label: str
) -> tuple[PixelWindow, BaseGeometry]:
    """Window and shape of a polygon of several parts, each moved by the turns that bring it to the grid.

    A polygon that is cut at the antimeridian, as GeoJSON wants it, is whole again on a grid that goes across.
    """
    grid = group.grids.grid(number, group.crs)
    parts = shapely.get_parts(shape)
    moved = [_moved(parts, turn.shift) for turn in turns]
    meets = np.array([[crop_window(grid, part) is not None for part in each] for each in moved])
    if (meets.sum(axis=0) > 1).any():
        raise InputError(
            f"{label} lies on both edges of a raster that goes around the globe; cut it at the raster's first "
            f"longitude, {group.grids.transform[number, 2]:g}, and give each piece as a polygon"
        )
    whole = shapely.union_all([moved[turn][part] for part, turn in enumerate(meets.argmax(axis=0))])
    window = crop_window(grid, whole)
    assert window is not None
    return window, whole


def _moved(shapes: Shapes, shift: float) -> Shapes:
    if not shift:
        return shapes
    return shapely.transform(shapes, lambda xy: xy + np.array([shift, 0.0]))


def _turned(group: CrsGroup, shapes: Shapes) -> Iterator[tuple[float, Ints]]:
    """Whole turns by which some of the polygons have to be shifted to meet the group's grids, and those polygons."""
    everything = np.arange(len(shapes), dtype=np.int64)
    turn = full_turn(group.crs)
    if turn is None or not len(shapes):
        yield 0.0, everything
        return
    bounds = shapely.bounds(shapes)
    lowest = np.ceil((group.boxes[:, 0].min() - bounds[:, 2]) / turn)
    highest = np.floor((group.boxes[:, 2].max() - bounds[:, 0]) / turn)
    for turns in sorted(range(int(lowest.min()), int(highest.max()) + 1), key=abs):
        yield turns * turn, everything[(lowest <= turns) & (turns <= highest)]


def _near_boxes(group: CrsGroup, shapes: Shapes) -> Iterator[tuple[int, int]]:
    """Pairs (polygon, grid) whose boxes meet."""
    if group.tree is not None:
        pairs = group.tree.query(shapely.box(*shapely.bounds(shapes).T))
        yield from zip(*pairs.tolist(), strict=True)
        return
    bounds = shapely.bounds(shapes)
    for grid, box in enumerate(group.boxes):
        meets = (
            (bounds[:, 0] <= box[2]) & (bounds[:, 2] >= box[0]) & (bounds[:, 1] <= box[3]) & (bounds[:, 3] >= box[1])
        )
        for place in np.flatnonzero(meets):
            yield int(place), grid


def crop_window(grid: Grid, shape: BaseGeometry) -> PixelWindow | None:
    """The window that rasterio crops for a polygon given in the CRS of the grid, or None without an overlap.

    It goes from the floor of the smallest row and column of the polygon's vertices to the
    ceiling of the largest, cut at the raster's edges. Touching the edge from outside does not count as overlap.
    """
    row, col = grid.to_pixel(*shapely.get_coordinates(shape).T)
    top, left, bottom, right = _edges_of(row, col)
    inner = max(top, 0), max(left, 0), min(bottom, grid.height), min(right, grid.width)
    if inner[2] <= inner[0] or inner[3] <= inner[1]:
        return None
    if inner != (top, left, bottom, right):
        on_grid = shapely.transform(shape, lambda xy: np.stack([col, row], axis=1))
        if not shapely.relate_pattern(on_grid, shapely.box(0, 0, grid.width, grid.height), INTERIORS_MEET):
            return None
    return PixelWindow(inner[0], inner[1], inner[2] - inner[0], inner[3] - inner[1])


def _edges_of(row: Floats, col: Floats) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of the smallest window, beyond the raster's edges too, that holds vertices."""
    return int(np.floor(row.min())), int(np.floor(col.min())), int(np.ceil(row.max())), int(np.ceil(col.max()))


def whole_window(grid: Grid, shape: BaseGeometry) -> PixelWindow:
    """As :func:`crop_window`, but not cut at the raster's edges: its first row or column may be negative."""
    top, left, bottom, right = _edges_of(*grid.to_pixel(*shapely.get_coordinates(shape).T))
    return PixelWindow(top, left, bottom - top, right - left)


def as_dtype(value: float, dtype: np.dtype) -> np.generic | None:
    """A number in a dtype, or None where the dtype cannot hold it; floats may be rounded, not overflow."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if not math.isfinite(value) or value != int(value) or not limits.min <= int(value) <= limits.max:
            return None
        return dtype.type(int(value))
    with np.errstate(over="ignore"):
        rounded = dtype.type(value)
    return rounded if np.isfinite(rounded) or not np.isfinite(value) else None
