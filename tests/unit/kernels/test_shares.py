"""Shares of pixels that polygons cover equal the areas of their intersections with pixels, by GEOS."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_beam.kernels.routing.chip_windows import PixelWindow
from rasteret_beam.kernels.statistics.shares import covered_shares
from rasteret_beam.model import Grid
from tests.support.polygons import polygons
from tests.support.properties import examples

WIDTH, HEIGHT = 40, 30
TRANSFORMS = {
    "north_up": (10.0, 0.0, 399_960.0, 0.0, -10.0, 5_400_000.0),
    "south_up": (10.0, 0.0, 399_960.0, 0.0, 10.0, 5_400_000.0),
    "rotated": (8.0, 6.0, 399_960.0, 6.0, -8.0, 5_400_000.0),
    "degrees": (1 / 3600, 0.0, 10 - 1 / 7200, 0.0, -1 / 3600, 47 + 1 / 7200),
}
WHOLE = PixelWindow(0, 0, HEIGHT, WIDTH)


def grid_of(name: str) -> Grid:
    return Grid("EPSG:32631", TRANSFORMS[name], WIDTH, HEIGHT, 16, 16)


def placed(grid: Grid, shape: shapely.Geometry) -> shapely.Geometry:
    """A shape given in pixels, in the CRS."""
    return shapely.transform(shape, lambda xy: np.stack(grid.to_world(xy[:, 1], xy[:, 0]), axis=1))


def by_geos(shape: shapely.Geometry, window: PixelWindow) -> np.ndarray:
    row, col = np.mgrid[: window.height, : window.width]
    row, col = row + window.row, col + window.col
    return shapely.area(shapely.intersection(shape, shapely.box(col, row, col + 1, row + 1)))


def shares(grid: Grid, shapes: list[shapely.Geometry], windows: list[PixelWindow]) -> list[np.ndarray]:
    given = np.empty(len(shapes), dtype=object)
    given[:] = [placed(grid, shape) for shape in shapes]
    found = covered_shares(given, grid, windows)
    ends = np.cumsum([window.height * window.width for window in windows])
    return [part.reshape(window.shape) for part, window in zip(np.split(found, ends[:-1]), windows, strict=True)]


@pytest.mark.parametrize("name", TRANSFORMS)
@settings(max_examples=examples(100))
@given(data=st.data())
def test_shares_are_areas(name: str, data: st.DataObject) -> None:
    """Of several polygons at once, in windows of any size and place, on grids of every kind."""
    grid = grid_of(name)
    shapes = data.draw(st.lists(polygons(WIDTH, HEIGHT), min_size=1, max_size=3))
    sides = st.tuples(st.integers(-5, 25), st.integers(-5, 35), st.integers(1, 20), st.integers(1, 20))
    windows = [PixelWindow(*data.draw(sides)) for _ in shapes]
    for shape, window, found in zip(shapes, windows, shares(grid, shapes, windows), strict=True):
        np.testing.assert_allclose(found, by_geos(shape, window), rtol=0, atol=1e-6)


@settings(max_examples=examples(100))
@given(shapes=st.lists(polygons(WIDTH, HEIGHT), min_size=2, max_size=4))
def test_shares_do_not_depend_on_the_polygons_beside(shapes: list[shapely.Geometry]) -> None:
    """To the last bit, so that a pipeline gives the rows of the eager call."""
    grid = grid_of("north_up")
    windows = [PixelWindow(0, 0, HEIGHT, WIDTH - number) for number in range(len(shapes))]
    together = shares(grid, shapes, windows)
    for shape, window, found in zip(shapes, windows, together, strict=True):
        (alone,) = shares(grid, [shape], [window])
        np.testing.assert_array_equal(found, alone)


@settings(max_examples=examples(100))
@given(shape=polygons(WIDTH, HEIGHT), row=st.integers(1, HEIGHT - 1), col=st.integers(1, WIDTH - 1))
def test_parts_of_a_window_equal_the_whole(shape: shapely.Geometry, row: int, col: int) -> None:
    grid = grid_of("north_up")
    (whole,) = shares(grid, [shape], [WHOLE])
    windows = [
        PixelWindow(top, left, high, wide)
        for top, high in ((0, row), (row, HEIGHT - row))
        for left, wide in ((0, col), (col, WIDTH - col))
    ]
    a, b, c, d = shares(grid, [shape] * 4, windows)
    np.testing.assert_allclose(np.block([[a, b], [c, d]]), whole, rtol=0, atol=1e-12)
    assert ((np.block([[a, b], [c, d]]) > 0) == (whole > 0)).all()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_polygons_along_pixels_cover_nothing_beside_them(name: str) -> None:
    """Vertices on pixel corners, as coordinates in the CRS round them, leave the pixels beside at exactly 0."""
    grid = grid_of(name)
    shape = shapely.Polygon([(3, 2), (11, 2), (11, 5), (37, 5), (37, 29), (3, 29)], [[(5, 7), (9, 7), (9, 9), (5, 9)]])
    (found,) = shares(grid, [shape], [WHOLE])
    expected = np.zeros((HEIGHT, WIDTH))
    expected[2:29, 3:11], expected[5:29, 3:37] = 1, 1
    expected[7:9, 5:9] = 0
    assert (found > 0).tolist() == (expected > 0).tolist()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_tiny_polygons_keep_their_area() -> None:
    """A hundred-thousandth of a pixel on each side, or a millionth wide, counts with its area."""
    grid = grid_of("north_up")
    tiny, thin = shapely.box(7.4, 7.4, 7.40001, 7.40001), shapely.box(12.3, 3.25, 12.300001, 9.75)
    for shape, found in zip((tiny, thin), shares(grid, [tiny, thin], [WHOLE, WHOLE]), strict=True):
        assert found.sum() == pytest.approx(shape.area, rel=1e-3)  # coordinates of millions of metres round it
        assert (found > 0).tolist() == (by_geos(shape, WHOLE) > 0).tolist()


def test_holes_and_parts_of_either_direction() -> None:
    ring = [(5, 5), (25, 5), (25, 25), (5, 25)]
    hole = [(10, 10), (20, 10), (20, 20), (10, 20)]
    both = [shapely.Polygon(ring[::step], [hole[::other]]) for step in (1, -1) for other in (1, -1)]
    for found in shares(grid_of("north_up"), both, [WHOLE] * 4):
        assert found.sum() == 300
