"""Polygons to read pixels under, and rasterio's answer for them."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.mask
import shapely
from hypothesis import strategies as st

from rasteret_beam import Collection, build_from_cogs
from tests.support.rasters import case


class Rasters:
    """Files of the cases, each written and made a collection at its first use."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._made: dict[str, tuple[Path, Collection]] = {}

    def __call__(self, name: str) -> tuple[Path, Collection]:
        if name not in self._made:
            path = case(name).write(self.folder)
            self._made[name] = path, build_from_cogs([str(path)])
        return self._made[name]


def oracle(path: Path, shape: Any, **options: Any) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return rasterio.mask.mask(dataset, [shape], crop=True, filled=True, **options)[0]


def oracle_mask(path: Path, shape: Any, **options: Any) -> np.ndarray:
    """Valid pixels: rasterio's, less NaN."""
    with rasterio.open(path) as dataset:
        found = rasterio.mask.mask(dataset, [shape], crop=True, filled=False, **options)[0]
    return ~np.ma.getmaskarray(found) & ~np.isnan(found.data)


def on_raster(path: Path, shape: shapely.Geometry) -> shapely.Geometry:
    """A shape given in pixels (x is the column), in the CRS of the raster."""
    with rasterio.open(path) as dataset:
        a, b, c, d, e, f = dataset.transform[:6]

    def placed(xy: np.ndarray) -> np.ndarray:
        col, row = xy.T
        return np.stack([a * col + b * row + c, d * col + e * row + f], axis=1)

    return shapely.transform(shape, placed)


def crs_of(collection: Collection) -> str:
    (crs,) = collection.crs
    return crs


def star(col: float, row: float, radii: list[float], turn: float = 0.0) -> np.ndarray:
    angle = turn + np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return np.stack([col + radii * np.cos(angle), row + radii * np.sin(angle)], axis=1)


@st.composite
def polygons(draw: st.DrawFn, width: int, height: int) -> shapely.Geometry:
    """Valid polygons in pixels, about a raster and across its edges; corners often on pixel corners."""
    kind = draw(st.sampled_from(["star", "hole", "multi", "sliver", "box"]))
    col, row = draw(st.floats(-5, width + 5)), draw(st.floats(-5, height + 5))
    if draw(st.booleans()):
        col, row = float(round(col)), float(round(row))
    size = draw(st.floats(0.2, 30))
    radii = [size * draw(st.floats(0.4, 1.0)) for _ in range(draw(st.integers(3, 12)))]
    if kind == "box":
        return shapely.box(col, row, col + max(1, round(size)), row + max(1, round(size / 2)))
    if kind == "sliver":
        long, thin = size, draw(st.sampled_from([1e-6, 1e-3, 0.3]))
        return shapely.affinity.rotate(
            shapely.box(col, row, col + long, row + thin), draw(st.sampled_from([0, 45, 90, 17.3]))
        )
    outer = shapely.Polygon(star(col, row, radii))
    if kind == "hole":
        return outer.difference(shapely.Polygon(star(col, row, [0.3 * size] * 5)))
    if kind == "multi":
        away = shapely.Polygon(star(col + 2.5 * size, row + draw(st.floats(-3, 3)), radii[::-1]))
        return shapely.MultiPolygon([outer, away])
    return outer
