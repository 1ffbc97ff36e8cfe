"""Compute footprints of grids, for the collection's ``geometry`` and ``bbox``."""

from typing import NamedTuple

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import LONLAT, Floats, crs_label, footprint_crs, full_turn, on_wgs84, transform
from rasteret_beam.kernels.geo.regions import box_boundary, poles_in
from rasteret_beam.model import Grid

EDGE_POINTS = 65
OUTLINE_STEP = 4
DATUM_MARGIN = 0.002
"""Maximum difference, in degrees, of a datum's shift from WGS 84 between points of an edge (200 m)."""

Box = tuple[float, float, float, float]
WORLD: Box = (-180.0, -90.0, 180.0, 90.0)


class Footprint(NamedTuple):
    """The outline of a record as WKB and a box that contains it, both in ``crs`` (None for CRS84)."""

    wkb: bytes
    box: Box
    crs: str | None = None


def footprint(grid: Grid) -> tuple[BaseGeometry, Box] | None:
    """Outline of a grid and a box that contains it, both in the :func:`.crs.footprint_crs`; None if there is none.

    This is CRS84 on the Earth, the geographic CRS of another body, or an engineering CRS itself. Geocentric and
    vertical CRSs have no outline. A grid across the antimeridian or around a pole
    gives two polygons and a box of all longitudes. A grid that PROJ cannot transform completely gets the world.

    Raises
    ------
    InputError
        The grid's coordinates are not valid longitudes and latitudes, though its CRS is geographic.
    """
    turn = full_turn(grid.crs)
    if turn is not None:
        _check_angles(grid, turn)
    lonlat = footprint_crs(grid.crs)
    if lonlat is None:
        return None
    if full_turn(lonlat) is None:
        return _plane_outline(grid)
    lon, lat = _edges(grid, lonlat)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return shapely.box(*WORLD), WORLD
    lat = np.clip(lat, -90.0, 90.0)  # a grid of pixel centres may extend beyond the pole
    turned = (lon.flat[0] + 180.0) % 360.0 - 180.0 + _unwrapped(lon.ravel()).reshape(lon.shape)
    margin = 0.0 if on_wgs84(grid.crs) or lonlat != LONLAT else DATUM_MARGIN
    beside, above = _bulge(turned) + margin, _bulge(lat) + margin
    south, north = float(max(-90.0, lat.min() - above)), float(min(90.0, lat.max() + above))
    poles = [] if turn is not None else poles_in(grid.crs, _hull(grid), lonlat)
    if poles or np.ptp(turned) >= 360.0 - 1e-9 or (turn is not None and np.ptp(_hull(grid)[[0, 2]]) >= turn):
        band = (-180.0, -90.0 if -90.0 in poles else south, 180.0, 90.0 if 90.0 in poles else north)
        return shapely.box(*band), band
    ring = np.stack([turned, lat], axis=2)[:, :-1:OUTLINE_STEP].reshape(-1, 2)
    outline = shapely.polygons(ring)
    if shapely.area(outline) == 0 or not shapely.is_valid(outline):
        outline = shapely.box(turned.min() - beside, south, turned.max() + beside, north)
    pieces = [piece for turn in (-360.0, 0.0, 360.0) if shapely.area(piece := _within_world(outline, turn)) > 0]
    if len(pieces) > 1:
        return shapely.union_all(pieces), (-180.0, south, 180.0, north)
    west, _, east, _ = pieces[0].bounds
    return pieces[0], (float(max(-180.0, west - beside)), south, float(min(180.0, east + beside)), north)


def _check_angles(grid: Grid, turn: float) -> None:
    """Refuse metres in a CRS of degrees: all latitudes beyond half a turn, or a longitude beyond two turns."""
    west, south, east, north = _hull(grid)
    if south > turn / 2 or north < -turn / 2 or max(abs(west), abs(east)) > 2 * turn:
        raise InputError(
            f"its coordinates (x {west:g} to {east:g}, y {south:g} to {north:g}) are not longitudes and latitudes, but "
            f"its CRS is {crs_label(grid.crs)}; assign the CRS of the coordinates (rio edit-info --crs ...)"
        )


def _plane_outline(grid: Grid) -> tuple[BaseGeometry, Box]:
    """Outline and box of a grid in its own CRS."""
    x, y = grid.to_world(np.array([0.0, 0.0, grid.height, grid.height]), np.array([0.0, grid.width, grid.width, 0.0]))
    west, south, east, north = _hull(grid).tolist()
    return shapely.polygons(np.stack([x, y], axis=1)), (west, south, east, north)


def _edges(grid: Grid, lonlat: str) -> tuple[Floats, Floats]:
    """Longitude and latitude [4, EDGE_POINTS] along the four edges, in ring order."""
    col, row = box_boundary(np.array([0.0, 0.0, grid.width, grid.height]), EDGE_POINTS)
    lon, lat = transform(grid.crs, lonlat, *grid.to_world(row, col))
    return lon.reshape(4, EDGE_POINTS), lat.reshape(4, EDGE_POINTS)


def _unwrapped(lon: Floats) -> Floats:
    """Longitudes relative to the first, continuous across the antimeridian."""
    return np.concatenate([[0.0], np.cumsum((np.diff(lon) + 180.0) % 360.0 - 180.0)])


def _bulge(along: Floats) -> float:
    """Maximum distance of edges [4, n] beyond their points: twice an eighth of the second difference."""
    return float(np.abs(np.diff(along, n=2, axis=1)).max() / 4) + 1e-9


def _hull(grid: Grid) -> Floats:
    """Box of a grid in its own CRS."""
    col, row = np.array([0.0, grid.width, 0.0, grid.width]), np.array([0.0, 0.0, grid.height, grid.height])
    x, y = grid.to_world(row, col)
    return np.array([x.min(), y.min(), x.max(), y.max()])


def _within_world(outline: BaseGeometry, turn: float) -> BaseGeometry:
    """The part of an outline, shifted by ``turn``, between -180 and 180 degrees."""
    moved = shapely.transform(outline, lambda xy: xy + np.array([turn, 0.0]))
    west, _, east, _ = moved.bounds
    if west >= -180.0 and east <= 180.0:
        return moved
    return shapely.intersection(moved, shapely.box(*WORLD))
