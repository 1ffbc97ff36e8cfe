"""A grid's tiles and pixels, beside what rasterio and the affine package say of the same image."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.io import MemoryFile

from rasteret_beam.kernels.geo.grids import GridTable
from rasteret_beam.model import Grid, tiles_along

SIDES = st.integers(1, 300)
STEPS = st.sampled_from([10.0, 0.25, 1 / 64, 30.0, -10.0, -1 / 3])
TURNS = st.sampled_from([0.0, 0.0, 2.5, -1 / 7])


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    across, down = draw(STEPS), draw(STEPS)
    b, d = draw(TURNS), draw(TURNS)
    transform = across, b if across * down != b * d else 0.0, draw(st.floats(-1e6, 1e6)), d, down, 4_500_000.0
    return Grid("EPSG:32631", transform, draw(SIDES), draw(SIDES), draw(st.integers(1, 64)), draw(st.integers(1, 64)))


@given(grids())
def test_tiles_cover_the_grid_once(grid: Grid) -> None:
    down, across = grid.tile_counts()
    seen = np.zeros((grid.height, grid.width), dtype=int)
    for row in range(down):
        for col in range(across):
            height, width = grid.tile_shape(row, col)
            assert 0 < height <= grid.tile_height and 0 < width <= grid.tile_width
            top, left = row * grid.tile_height, col * grid.tile_width
            seen[top : top + height, left : left + width] += 1
    assert seen.min() == seen.max() == 1


@given(grids(), st.lists(st.tuples(st.integers(-10, 310), st.integers(-10, 310)), min_size=1, max_size=20))
def test_pixels_round_as_the_affine_package_does(grid: Grid, positions: list[tuple[int, int]]) -> None:
    affine = Affine(*grid.transform)
    for row, col in positions:
        x, y = affine * (col, row)
        assert grid.to_world(row, col) == (x, y)
        assert grid.to_pixel(x, y) == (~affine * (x, y))[::-1]


@given(grids(), st.lists(st.tuples(st.integers(-10, 310), st.integers(-10, 310)), min_size=1, max_size=20))
def test_arrays_are_as_numbers_one_by_one(grid: Grid, positions: list[tuple[int, int]]) -> None:
    row, col = np.array(positions, dtype=np.float64).T
    x, y = grid.to_world(row, col)
    assert [*zip(x, y, strict=True)] == [grid.to_world(float(r), float(c)) for r, c in zip(row, col, strict=True)]
    assert [*zip(*grid.to_pixel(x, y), strict=True)] == [grid.to_pixel(one, two) for one, two in zip(x, y, strict=True)]


@given(grids())
def test_a_table_of_grids_gives_each_back(grid: Grid) -> None:
    other = Grid("EPSG:32632", (1.0, 0.0, 0.0, 0.0, -1.0, 0.0), 1, 2, 3, 4)
    table = GridTable.from_grids([other, grid])
    assert (table.grid(0, "EPSG:32632"), table.grid(1, "EPSG:32631")) == (other, grid)
    assert list(zip(table.tiles_down().tolist(), table.tiles_across().tolist(), strict=True)) == [
        other.tile_counts(),
        grid.tile_counts(),
    ]


@pytest.fixture(scope="module")
def tiled() -> Iterator[rasterio.DatasetReader]:
    """An image of 100 x 70 pixels in tiles of 32 x 16."""
    profile = {"driver": "GTiff", "width": 100, "height": 70, "count": 1, "dtype": "uint8", "crs": "EPSG:32631"}
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 16}
    with MemoryFile() as file:
        with file.open(**profile, **tiles, transform=Affine(10.0, 0.0, 5e5, 0.0, -10.0, 4.5e6)):
            pass
        with file.open() as dataset:
            yield dataset


def test_tiles_are_the_blocks_of_rasterio(tiled: rasterio.DatasetReader) -> None:
    grid = Grid("EPSG:32631", tiled.transform[:6], tiled.width, tiled.height, 32, 16)
    blocks = dict(tiled.block_windows(1))
    down, across = grid.tile_counts()
    assert set(blocks) == {(row, col) for row in range(down) for col in range(across)}
    assert all(grid.tile_shape(*place) == (window.height, window.width) for place, window in blocks.items())


@given(st.integers(0, 10_000), st.integers(1, 512))
def test_tiles_along_rounds_up(pixels: int, tile: int) -> None:
    assert tiles_along(pixels, tile) == math.ceil(pixels / tile)
    assert tiles_along(np.array([pixels]), np.array([tile])).tolist() == [math.ceil(pixels / tile)]
