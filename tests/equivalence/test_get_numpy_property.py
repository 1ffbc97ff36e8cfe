"""Polygons in another CRS than the raster's: chips equal rasterio.mask on the polygon's true outline.

The oracle divides the polygon's edges so finely, in the polygon's own CRS, that they lie within a millionth of a
pixel of their curve, and brings every vertex into the raster's CRS by pyproj. get_numpy divides an edge only until
it lies within 0.01 pixel of the curve. So the two may differ in pixels that this much decides: those
whose centre lies no farther than that from the outline, or, with ``all_touched``, whose sides do.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.mask
import shapely
from affine import Affine
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from rasteret_beam import Collection, build_from_cogs
from rasteret_beam.errors import InputError
from tests.support.properties import examples
from tests.support.rasters import RasterCase, case

pytestmark = pytest.mark.slow

TOLERANCE = 0.011
"""In pixels: the 0.01 that an edge may lie off, and a little for the oracle's own chords."""

PIECES = 1024
"""That the oracle divides the longest edge into: 60 pixels that bend by one pixel lie within 1e-6 of their curve."""

# Pixels of a kilometre: a polygon of 60 of them bends by pixels, not by hundredths, in another CRS.
COARSE = RasterCase(name="coarse", dtype="uint16", transform=Affine(1000.0, 0.0, 300_000.0, 0.0, -1000.0, 6_000_000.0))
CASES = {
    one.name: one for one in (COARSE, *map(case, "nodata_integer geographic not_square rotated web_mercator".split()))
}

PAIRS = [
    ("coarse", "EPSG:4326"),
    ("coarse", "EPSG:3857"),
    ("coarse", "EPSG:32632"),
    ("nodata_integer", "EPSG:32630"),
    ("geographic", "EPSG:3857"),
    ("geographic", "EPSG:32632"),
    ("not_square", "EPSG:4326"),
    ("rotated", "EPSG:4326"),
    ("web_mercator", "EPSG:32631"),
]
"""Raster and the CRS of the polygons: degrees, Mercator, or a UTM zone that is not the raster's."""

Rasters = dict[str, tuple[Path, Collection]]


@dataclass(frozen=True)
class Outline:
    """A polygon on a raster: its true outline in the raster's CRS, and in pixels (x is the column)."""

    on_raster: shapely.Geometry
    in_pixels: shapely.Geometry


@pytest.fixture(scope="module")
def rasters(tmp_path_factory: pytest.TempPathFactory) -> Rasters:
    folder = tmp_path_factory.mktemp("property")
    paths = {name: raster.write(folder) for name, raster in CASES.items()}
    return {name: (path, build_from_cogs([path])) for name, path in paths.items()}


@st.composite
def shapes(draw: st.DrawFn, width: int, height: int) -> shapely.Geometry:
    """Valid polygons in pixels, most of them on the raster or across one of its edges."""
    kind = draw(st.sampled_from(["star", "holes", "multi", "triangle", "sliver", "box"]))
    col, row = draw(st.floats(0, width)), draw(st.floats(0, height))
    size, turn = draw(st.floats(2, 60)), draw(st.floats(0, 6.3))
    if kind in ("triangle", "sliver"):
        thin = draw(st.floats(1e-3, 0.4)) if kind == "sliver" else draw(st.floats(0.5, 40))
        corners = np.array([(0, 0), (size, draw(st.floats(-0.5, 0.5)) * thin), (draw(st.floats(0, 1)) * size, thin)])
        return turned(shapely.Polygon(corners), turn, col, row)
    if kind == "box":
        return turned(shapely.box(0, 0, size, size * draw(st.floats(0.1, 1))), turn, col, row)
    radii = [size / 2 * draw(st.floats(0.4, 1.0)) for _ in range(draw(st.integers(3, 12)))]
    outer = star(radii)
    if kind == "holes":
        for away in (-0.15, 0.12):
            outer = outer.difference(shapely.affinity.translate(star([0.1 * size] * 5), away * size, 0.03 * size))
    if kind == "multi":
        outer = shapely.MultiPolygon([outer, shapely.affinity.translate(star(radii[::-1]), 1.3 * size, 0.2 * size)])
    return turned(outer, turn, col, row)


def star(radii: list[float]) -> shapely.Polygon:
    angle = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return shapely.Polygon(np.stack([radii * np.cos(angle), radii * np.sin(angle)], axis=1))


def turned(shape: shapely.Geometry, turn: float, col: float, row: float) -> shapely.Geometry:
    rotated = shapely.affinity.rotate(shape, turn, use_radians=True)
    return shapely.affinity.translate(rotated, col, row)


def moved(shape: shapely.Geometry, source: str, target: str) -> shapely.Geometry:
    """A shape whose vertices, and nothing else, are brought into another CRS."""
    transformer = Transformer.from_crs(source, target, always_xy=True)
    return shapely.transform(shape, transformer.transform, interleaved=False)


def by_affine(shape: shapely.Geometry, affine: Any) -> shapely.Geometry:
    return shapely.affinity.affine_transform(shape, [affine.a, affine.b, affine.d, affine.e, affine.c, affine.f])


def true_outline(shape: shapely.Geometry, source: str, dataset: Any) -> Outline:
    rings = shapely.get_parts(shapely.get_rings(shapely.get_parts(shape)))
    edges = np.concatenate([np.hypot(*np.diff(shapely.get_coordinates(ring), axis=0).T) for ring in rings])
    fine = shapely.segmentize(shape, edges.max() / PIECES)
    on_raster = moved(fine, source, dataset.crs.to_string())
    return Outline(on_raster, by_affine(on_raster, ~dataset.transform))


def window_is_certain(outline: Outline, width: int, height: int) -> bool:
    """Whether no side of the outline's box, where it is on the raster, may fall on either side of a pixel border."""
    bounds, ends = np.array(outline.in_pixels.bounds), np.array([width, height] * 2)
    inside = (bounds > -0.5) & (bounds < ends + 0.5)
    return not (inside & (np.abs(bounds - np.round(bounds)) < TOLERANCE)).any()


def undecided(outline: Outline, row: int, col: int, all_touched: bool) -> bool:
    """Whether the tolerance decides if a pixel is in the outline."""
    boundary = outline.in_pixels.boundary
    if not all_touched:
        return boundary.distance(shapely.Point(col + 0.5, row + 0.5)) <= TOLERANCE
    smaller = shapely.box(col + TOLERANCE, row + TOLERANCE, col + 1 - TOLERANCE, row + 1 - TOLERANCE)
    larger = shapely.box(col - TOLERANCE, row - TOLERANCE, col + 1 + TOLERANCE, row + 1 + TOLERANCE)
    return larger.intersects(boundary) and not smaller.intersects(boundary)


def check(rasters: Rasters, name: str, crs: str, shape: shapely.Geometry, all_touched: bool) -> None:
    path, collection = rasters[name]
    with rasterio.open(path) as dataset:
        given_shape = moved(by_affine(shape, dataset.transform), dataset.crs.to_string(), crs)
        assume(shapely.is_valid(given_shape))
        outline = true_outline(given_shape, crs, dataset)
        raster = shapely.box(0, 0, dataset.width, dataset.height)
        assume(shapely.is_valid(outline.in_pixels))
        common = shapely.area(outline.in_pixels.intersection(raster))
        assume(window_is_certain(outline, dataset.width, dataset.height))
        if outline.in_pixels.distance(raster) > TOLERANCE:
            with pytest.raises(InputError, match="overlaps no record"):
                collection.get_numpy(given_shape, ["B1"], geometry_crs=crs, all_touched=all_touched)
            return
        assume(common > 0 and outline.in_pixels.intersection(raster.buffer(-TOLERANCE)).area > 0)
        options = {"crop": True, "all_touched": all_touched}
        expected = rasterio.mask.mask(dataset, [outline.on_raster], filled=False, indexes=1, **options)[0]
    found, valid = collection.get_numpy(
        given_shape, ["B1"], geometry_crs=crs, all_touched=all_touched, return_mask=True
    )
    assert found.shape == (1, *expected.shape)
    top, left = (max(0, int(np.floor(outline.in_pixels.bounds[side]))) for side in (1, 0))
    wanted = ~np.ma.getmaskarray(expected)
    for row, col in np.argwhere(valid[0] != wanted):
        assert undecided(outline, top + int(row), left + int(col), all_touched), (row, col)
    both = valid[0] & wanted
    np.testing.assert_array_equal(found[0][both], expected.data[both])
    fill = CASES[name].nodata or 0
    assert (found[0][~valid[0]] == fill).all()


@pytest.mark.parametrize(("name", "crs"), PAIRS)
@settings(max_examples=examples(30), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), all_touched=st.booleans())
def test_chips_equal_those_of_the_true_outline(
    rasters: Rasters, name: str, crs: str, data: st.DataObject, all_touched: bool
) -> None:
    raster = CASES[name]
    check(rasters, name, crs, data.draw(shapes(raster.width, raster.height)), all_touched)
