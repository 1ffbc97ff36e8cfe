"""Footprints of grids in longitude and latitude, for the collection's ``geometry`` and ``bbox``."""

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from rasteret_beam.kernels.crs import LONLAT, Floats, full_turn, transform
from rasteret_beam.kernels.grids import GridTable
from rasteret_beam.kernels.regions import box_boundary, holds_pole
from rasteret_beam.model import Grid

EDGE_POINTS = 17
WORLD = (-180.0, -90.0, 180.0, 90.0)
SAG = 1e-3
"""Share of a box's size by which it grows to hold the bulge of edges between their points."""


def _corners_box(grid: Grid) -> Floats:
    return GridTable.from_grids([grid]).boxes()[0]


def footprint(grid: Grid) -> tuple[BaseGeometry, tuple[float, float, float, float]]:
    """Outline of a grid and a box that holds it, both in CRS84.

    A grid across the antimeridian gives two polygons, and a box of all longitudes; so does
    one around a pole. A grid that PROJ cannot bring to longitude and latitude gets the world.
    """
    col, row = box_boundary(np.array([0.0, 0.0, grid.width, grid.height]), EDGE_POINTS)
    a, b, c, d, e, f = grid.transform
    lon, lat = transform(grid.crs, LONLAT, a * col + b * row + c, d * col + e * row + f)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return shapely.box(*WORLD), WORLD
    south, north = max(-90.0, lat.min()), min(90.0, lat.max())
    if full_turn(grid.crs) is None and holds_pole(grid.crs, _corners_box(grid)):
        band = (-180.0, -90.0 if lat.mean() < 0 else south, 180.0, 90.0 if lat.mean() > 0 else north)
        return shapely.box(*band), band
    if full_turn(grid.crs) is None:
        turned = lon[0] + np.concatenate([[0.0], np.cumsum((np.diff(lon) + 180.0) % 360.0 - 180.0)])
    else:
        turned = lon
    if turned.max() - turned.min() >= 360.0:
        band = (-180.0, float(south), 180.0, float(north))
        return shapely.box(*band), band
    outline = shapely.polygons(np.stack([turned, np.clip(lat, -90.0, 90.0)], axis=1))
    if shapely.area(outline) == 0 or not shapely.is_valid(outline):
        outline = shapely.box(turned.min(), south, turned.max(), north)
    pieces = [
        piece
        for shift in (-360.0, 0.0, 360.0)
        if not (piece := _clipped(outline, shift)).is_empty and shapely.area(piece) > 0
    ]
    shape = pieces[0] if len(pieces) == 1 else shapely.union_all(pieces)
    return shape, _grown(shape.bounds if len(pieces) == 1 else (-180.0, south, 180.0, north))


def _clipped(outline: BaseGeometry, shift: float) -> BaseGeometry:
    moved = shapely.transform(outline, lambda xy: xy + np.array([shift, 0.0]))
    xmin, _, xmax, _ = moved.bounds
    return moved if xmin >= -180.0 and xmax <= 180.0 else shapely.intersection(moved, shapely.box(*WORLD))


def _grown(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    xmin, ymin, xmax, ymax = box
    east, north = (xmax - xmin) * SAG, (ymax - ymin) * SAG
    return max(-180.0, xmin - east), max(-90.0, ymin - north), min(180.0, xmax + east), min(90.0, ymax + north)
