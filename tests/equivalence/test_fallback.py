"""Nodata fallback and neighbourhoods equal a brute-force loop, and the pipeline the eager call."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from rasteret_beam import Collection, build_from_cogs, metrics
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.sampling.pixel_methods import Window, distances
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Grid
from rasteret_beam.readers.gdal.rasters import RasterPool
from rasteret_beam.readers.tiles.gdal import RasterioEngine
from tests.support import tiles
from tests.support.pipelines import XY, sample_to
from tests.support.properties import examples

NODATA = -128
# Powers of two: rasterio itself puts points on the edges of other pixels on either side.
NORTH_UP, SOUTH_UP, NOT_SQUARE = Affine(8, 0, 0, 0, -8, 512), Affine(8, 0, 0, 0, 8, 0), Affine(8, 0, 0, 0, -2, 200)


def write_sparse(path: Path, transform: Affine, share: float, seed: int, size: int = 64) -> np.ndarray:
    """An int8 raster of 16-pixel tiles in which a share of the pixels is valid; gives its values."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((size, size)) < share, rng.integers(-127, 128, (size, size)), NODATA).astype(np.int8)
    profile = {"driver": "GTiff", "width": size, "height": size, "count": 1, "dtype": "int8", "nodata": NODATA}
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    with rasterio.open(path, "w", crs="EPSG:32631", transform=transform, **profile, **tiled) as dataset:
        dataset.write(values, 1)
    return values


def some_points(transform: Affine, n: int, seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray, pa.Table]:
    """Positions (row, col) in eighths of a pixel, so that distances are exact, and the points."""
    rng = np.random.default_rng(seed)
    row, col = rng.integers(0, 8 * size, n) / 8, rng.integers(0, 8 * size, n) / 8
    x, y = transform.c + transform.a * col, transform.f + transform.e * row
    return row, col, pa.table({"x": x, "y": y})


def side(dr: int, dc: int, ring: int) -> int:
    return 0 if dr == -ring else 1 if dr == ring else 2 if dc == -ring else 3


def brute(
    values: np.ndarray, transform: Affine, row: float, col: float, radius: int, fallback: str
) -> tuple[float, list[float]]:
    """Value and window of one point, by looking at each cell with exact arithmetic."""
    base_row, base_col = math.floor(row), math.floor(col)
    window, candidates = [], []
    for dr in range(-radius, radius + 1):
        for dc in range(-radius, radius + 1):
            r, c = base_row + dr, base_col + dc
            if not (0 <= r < values.shape[0] and 0 <= c < values.shape[1]):
                window.append(math.nan)
                continue
            window.append(float(values[r, c]))
            if values[r, c] != NODATA:
                across = max(Fraction(0), c - Fraction(col), Fraction(col) - c - 1) * Fraction(transform.a)
                down = max(Fraction(0), r - Fraction(row), Fraction(row) - r - 1) * Fraction(transform.e)
                ring = max(abs(dr), abs(dc))
                key = (across**2 + down**2, ring, side(dr, dc, ring), dr, dc)
                candidates.append((key, float(values[r, c])))
    base = float(values[base_row, base_col])
    if base != NODATA or not candidates:
        return base, window
    if fallback == "ring":
        first = min(key[1] for key, _ in candidates)
        candidates = [(key, value) for key, value in candidates if key[1] == first]
    return min(candidates)[1], window


def check(
    folder: Path, transform: Affine, share: float, radius: int, fallback: str, returned: str, n: int, seed: int
) -> None:
    values = write_sparse(folder / f"{seed}.tif", transform, share, seed)
    row, col, table = some_points(transform, n, seed)
    samples = build_from_cogs([folder / f"{seed}.tif"]).sample_points(
        table, ["B1"], **XY, max_distance_pixels=radius, return_neighbourhood=returned, fallback=fallback
    )
    rows = samples.sort_by("point_index")
    assert rows["point_index"].to_pylist() == list(range(n))
    expected = [brute(values, transform, r, c, radius, fallback) for r, c in zip(row, col, strict=True)]
    np.testing.assert_array_equal(rows["value"].to_numpy(), [value for value, _ in expected])
    if returned == "off":
        assert "neighbourhood_values" not in rows.schema.names
        return
    assert rows.schema.names[10] == "neighbourhood_values"
    base = values[np.floor(row).astype(int), np.floor(col).astype(int)]
    shown = [returned == "always" or value == NODATA for value in base]
    windows = rows["neighbourhood_values"].to_pylist()
    assert [window is not None for window in windows] == shown
    for window, (_, wanted) in zip(windows, expected, strict=True):
        if window is not None:
            np.testing.assert_array_equal(window, wanted)


@pytest.mark.parametrize("radius", [1, 2, 3, 4, 5])
def test_ten_thousand_points_equal_brute_force(tmp_path: Path, radius: int) -> None:
    check(tmp_path, NOT_SQUARE, 0.05, radius, "closest", "if_center_nodata", 2_000, radius)


@settings(max_examples=examples(25), deadline=None, derandomize=True)
@given(
    transform=st.sampled_from([NORTH_UP, SOUTH_UP, NOT_SQUARE]),
    share=st.sampled_from([0.0, 0.01, 0.1, 0.5]),
    radius=st.integers(1, 5),
    fallback=st.sampled_from(["closest", "ring"]),
    returned=st.sampled_from(["off", "always", "if_center_nodata"]),
    seed=st.integers(0, 1000),
)
def test_fallback_equals_brute_force(
    tmp_path_factory: pytest.TempPathFactory,
    transform: Affine,
    share: float,
    radius: int,
    fallback: str,
    returned: str,
    seed: int,
) -> None:
    check(tmp_path_factory.mktemp("fallback"), transform, share, radius, fallback, returned, 120, seed)


OBLIQUE, EAST_LEFT = Affine(16, 8, 4096, 8, -16, 4096), Affine(-8, 0, 512, 0, -2, 200)


def write_floats(path: Path, transform: Affine, seed: int, size: int = 64) -> np.ndarray:
    """A float32 raster in which one pixel in ten is valid, some of the others nodata and some NaN."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(size, size)).astype(np.float32)
    kind = rng.random((size, size))
    values[kind > 0.1], values[kind > 0.6] = -9999, np.nan
    profile = {"driver": "GTiff", "width": size, "height": size, "count": 1, "dtype": "float32", "nodata": -9999}
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    with rasterio.open(path, "w", crs="EPSG:32631", transform=transform, **profile, **tiled) as dataset:
        dataset.write(values, 1)
    return values


def closest(values: np.ndarray, transform: Affine, row: float, col: float, radius: int) -> float:
    """The value for one point by the distance, in map units, to each valid pixel's outline."""
    base = math.floor(row), math.floor(col)
    if valid(values[base]):
        return float(values[base])
    found = []
    point = shapely.Point(transform * (col, row))
    for r in range(max(0, base[0] - radius), min(values.shape[0], base[0] + radius + 1)):
        for c in range(max(0, base[1] - radius), min(values.shape[1], base[1] + radius + 1)):
            if valid(values[r, c]):
                outline = [transform * corner for corner in ((c, r), (c + 1, r), (c + 1, r + 1), (c, r + 1))]
                found.append((shapely.Polygon(outline).distance(point), values[r, c]))
    return float(min(found)[1] if found else values[base])


def valid(value: np.float32) -> bool:
    return not np.isnan(value) and value != -9999


@pytest.mark.parametrize("transform", [OBLIQUE, EAST_LEFT, NOT_SQUARE], ids=["oblique", "east_left", "not_square"])
@pytest.mark.parametrize("radius", [1, 2, 3, 4, 5])
def test_any_position_on_floats_with_nodata_and_nan(tmp_path: Path, transform: Affine, radius: int) -> None:
    values = write_floats(tmp_path / "f.tif", transform, radius)
    row, col = np.random.default_rng(radius).uniform(0, 64, (2, 300))
    x, y = transform * (col, row)
    samples = build_from_cogs([tmp_path / "f.tif"]).sample_points(
        pa.table({"x": x, "y": y}), ["B1"], **XY, max_distance_pixels=radius
    )
    expected = [closest(values, transform, r, c, radius) for r, c in zip(row, col, strict=True)]
    np.testing.assert_array_equal(samples.sort_by("point_index")["value"].to_numpy(), expected)


def test_the_closest_is_not_always_in_the_first_ring(tmp_path: Path) -> None:
    values = np.full((9, 9), NODATA, dtype=np.int8)
    values[3, 3], values[4, 6] = 1, 2  # at (-1, -1) and at (0, +2) of pixel (4, 4)
    profile = {"driver": "GTiff", "width": 9, "height": 9, "count": 1, "dtype": "int8", "nodata": NODATA}
    with rasterio.open(tmp_path / "x.tif", "w", crs="EPSG:32631", transform=Affine(1, 0, 0, 0, -1, 9), **profile) as ds:
        ds.write(values, 1)
    point = pa.table({"x": [4.95], "y": [9 - 4.95]})
    collection = build_from_cogs([tmp_path / "x.tif"])
    by_rule = {
        rule: collection.sample_points(point, ["B1"], **XY, max_distance_pixels=2, fallback=rule)["value"].to_pylist()
        for rule in ("closest", "ring")
    }
    assert by_rule == {"closest": [2.0], "ring": [1.0]}


def test_ties_go_to_top_bottom_left_right() -> None:
    window = Window.of_radius(2)
    order = np.argsort(window.rank)
    cells = list(zip(window.row[order].tolist(), window.col[order].tolist(), strict=True))
    assert cells[:9] == [(0, 0), (-1, -1), (-1, 0), (-1, 1), (1, -1), (1, 0), (1, 1), (0, -1), (0, 1)]
    assert cells[9:14] == [(-2, -2), (-2, -1), (-2, 0), (-2, 1), (-2, 2)]
    assert cells[-3:] == [(-1, 2), (0, 2), (1, 2)]


@pytest.mark.parametrize("linear", [(10, 0, 0, -10), (6, 8, 8, -6), (7, 3, 2, -9), (5, 1, 0, 4)])
def test_distances_on_oblique_grids(linear: tuple[float, ...]) -> None:
    a, b, d, e = linear
    grid = Grid("EPSG:32631", (a, b, 0.0, d, e, 0.0), 50, 50, 16, 16)
    window = Window.of_radius(2)
    rng = np.random.default_rng(1)
    row, col = rng.random(20), rng.random(20)
    found = distances(grid, window, row, col)
    steps = np.linspace(0, 1, 201)
    for number in range(20):
        for cell in range(25):
            r, c = np.meshgrid(window.row[cell] + steps, window.col[cell] + steps, indexing="ij")
            r, c = r - row[number], c - col[number]
            sampled = np.hypot(a * c + b * r, d * c + e * r).min()
            pixel = max(math.hypot(a, d), math.hypot(b, e))
            assert found[number, cell] <= sampled + 1e-9
            assert found[number, cell] >= sampled - pixel / 200


def test_only_tiles_under_windows_are_read(tmp_path: Path) -> None:
    write_sparse(tmp_path / "x.tif", NORTH_UP, 0.0, 1)
    collection = build_from_cogs([tmp_path / "x.tif"], bands=["B10"])
    for row, decoded in ((8.5, 1), (15.5, 2)):  # in the middle of a tile, and at its lower edge
        point = pa.table({"x": [8.5 * 8], "y": [512 - row * 8]})
        found, counts = sample_to(tmp_path / "s", point, collection, max_distance_pixels=2, bands=["B10"])
        assert found["value"].to_pylist() == [NODATA]
        assert counts[metrics.TILES_DECODED] == decoded


@pytest.mark.parametrize("fallback", ["closest", "ring"])
@pytest.mark.parametrize("returned", ["off", "always", "if_center_nodata"])
@pytest.mark.parametrize("match", ["all", "latest"])
def test_pipeline_equals_eager(tmp_path: Path, match: str, returned: str, fallback: str) -> None:
    paths = []
    for number in range(2):
        paths.append(tmp_path / f"r{number}.tif")
        write_sparse(paths[-1], NORTH_UP, 0.1, number)
    collection = build_from_cogs(paths, bands=["B10"], datetime=["2022", "2023"], name="c")
    _, _, table = some_points(NORTH_UP, 500, 9)
    options = {"match": match, "max_distance_pixels": 2, "return_neighbourhood": returned, "fallback": fallback}
    found, _ = sample_to(tmp_path / "s", table, collection, bands=["B10"], **options)
    order = [("point_index", "ascending"), ("record_id", "ascending")]
    eager = collection.sample_points(table, ["B10"], **XY, **options).sort_by(order)
    assert found.schema.equals(eager.schema)
    assert repr(found.sort_by(order).to_pydict()) == repr(eager.to_pydict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_distance_pixels": -1}, "max_distance_pixels is -1"),
        ({"max_distance_pixels": 1.5}, "max_distance_pixels is 1.5"),
        ({"return_neighbourhood": "always"}, "max_distance_pixels is 0"),
        ({"max_distance_pixels": 1, "return_neighbourhood": "yes"}, "return_neighbourhood is 'yes'"),
        ({"max_distance_pixels": 1, "fallback": "nearest"}, "fallback is 'nearest'"),
    ],
)
def test_options_that_cannot_be_used(scenes: Collection, points: pa.Table, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scenes.sample_points(points, ["B10"], **XY, **options)


def test_filters_are_those_of_subset(scenes: Collection, points: pa.Table) -> None:
    samples = scenes.sample_points(points, ["B10"], **XY, date_range=("2023-04-01", "2023-04-30"))
    assert set(samples["record_id"].to_pylist()) == {"P0_1", "P1_1"}


def test_columns_called_row_and_col_pass_through(scenes: Collection, points: pa.Table, tmp_path: Path) -> None:
    table = points.select(["x", "y"]).append_column("row", points["plot"]).append_column("col", points["plot"])
    found, _ = sample_to(tmp_path / "s", table, scenes)
    wanted = points["plot"].take(found["point_index"]).to_pylist()
    assert found["row"].to_pylist() == found["col"].to_pylist() == wanted
    assert pc.all(pc.is_valid(found["value"])).as_py()


def test_the_engine_keeps_a_bounded_number_of_open_files(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.tif" for number in range(6)]
    for number, path in enumerate(paths):
        write_sparse(path, NORTH_UP, 0.5, number)
    engine, counters = RasterioEngine(RasterPool(max_open=2)), Counters()
    for path in [*paths, *reversed(paths)]:
        tiles.read(engine, tiles.wants_of(path)[:1], counters)
        assert len(engine.pool) <= 2
    assert counters.snapshot()[metrics.DATASETS_OPENED] == 10  # the last two of the first round are still open
    assert counters.snapshot()[metrics.DATASET_CACHE_HITS] == 2
    engine.close()
    assert len(engine.pool) == 0
