"""Statistics of windows around points equal brute force over whole rasters, read by rasterio."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.transform import Affine

from rasteret_beam import build_from_cogs
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.sampling.blocks import WantedBlocks
from rasteret_beam.readers.jobs import pixel_reader
from rasteret_beam.statistics import NAMES, percentile_of
from tests.support.mosaics import TEN_METRES, cut, pieces, points_at
from tests.support.pipelines import XY
from tests.support.properties import examples
from tests.support.rasters import case

ALL = (*NAMES, "percentile_10", "percentile_97.5")
WGS84 = pyproj.Geod(ellps="WGS84")


def statistic(name: str, valid: NDArray[Any], cells: int) -> float | None:
    """Of the valid numbers of one window, float64."""
    if name in ("count", "variety"):
        return len(valid) if name == "count" else len(np.unique(valid))
    if name == "valid_fraction":
        return len(valid) / cells if cells else 0.0
    if not len(valid):
        return None
    if name == "majority":
        return float(min(Counter(valid.tolist()).items(), key=lambda item: (-item[1], item[0]))[0])
    number = percentile_of(name)
    return float(getattr(np, name)(valid) if number is None else np.percentile(valid, number))


class Whole:
    """A band of a file, read whole."""

    def __init__(self, path: Path, number: int = 1):
        with rasterio.open(path) as dataset:
            self.values = dataset.read(number)
            self.transform, self.crs, nodata = dataset.transform, dataset.crs, dataset.nodata
            self.valid = (dataset.read_masks(number) != 0) & (self.values == self.values)
        if nodata is not None and not math.isnan(nodata):
            self.valid &= self.values != np.asarray(nodata).astype(self.values.dtype)

    def cells(self, x: float, y: float, reach: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Rows and columns of a square around the pixel of a point, [k] each; beyond the raster too."""
        col, row = (math.floor(place) for place in ~self.transform * (x, y))
        along = np.arange(-reach, reach + 1)
        rows, cols = np.meshgrid(row + along, col + along, indexing="ij")
        return rows.ravel(), cols.ravel()

    def distances(self, x: float, y: float, rows: NDArray[Any], cols: NDArray[Any]) -> NDArray[Any]:
        """Metres from a point to centres of pixels: in UTM in the plane, else geodesic."""
        east, north = self.transform * (cols + 0.5, rows + 0.5)
        if self.crs.is_projected:
            return np.hypot(east - x, north - y) * self.crs.linear_units_factor[1]
        return np.asarray(WGS84.inv(np.full(len(east), x), np.full(len(east), y), east, north)[2])

    def statistics(self, x: float, y: float, reach: int, radius: float | None = None) -> list[float | None]:
        rows, cols = self.cells(x, y, reach)
        if radius is not None:
            near = self.distances(x, y, rows, cols) <= radius
            rows, cols = rows[near], cols[near]
        height, width = self.values.shape
        if self.crs.is_geographic and self.transform.a * width == 360:  # the raster goes on at its other side
            cols = cols % width
        inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        at = rows[inside], cols[inside]
        valid = self.values[at][self.valid[at]].astype(np.float64)
        return [statistic(name, valid, len(rows)) for name in ALL]


def compare(path: Path, points: pa.Table, crs: Any, reach: int, radius: float | None = None, **options: Any) -> None:
    """Rows of the points, each of which the raster holds, against brute force."""
    window = {"window_pixels": reach} if radius is None else {"radius": radius}
    where = {"x_column": "x", "y_column": "y", "geometry_crs": crs, "columns": []}
    rows = build_from_cogs([path]).sample_points(points, ["B1"], **where, statistics=ALL, **window, **options)
    assert rows.column_names[8 : 9 + len(ALL)] == ["value", *ALL]
    whole = Whole(path)
    given = np.array([rows[name].to_pylist() for name in ALL], dtype=object).T
    places = zip(rows["point_x"].to_pylist(), rows["point_y"].to_pylist(), strict=True)
    wanted = np.array([whole.statistics(x, y, reach, radius) for x, y in places], dtype=object)
    assert len(given) == len(points) and (np.equal(given, None) == np.equal(wanted, None)).all()
    known = ~np.equal(wanted, None)
    np.testing.assert_allclose(given[known].astype(float), wanted[known].astype(float), rtol=1e-9, atol=1e-9)


def points_in(path: Path, count: int, seed: int = 0) -> pa.Table:
    """Random points of a raster; a few in its corners and on its edges."""
    rng = np.random.default_rng(seed)
    with rasterio.open(path) as dataset:
        width, height, transform = dataset.width, dataset.height, dataset.transform
    col, row = rng.uniform(0, width, count), rng.uniform(0, height, count)
    corners = [(0.25, 0.25), (width - 0.25, 0.25), (0.25, height - 0.25), (width - 0.25, height - 0.25)]
    edges = [(width / 2 + 0.1, 0.25), (64.25, 64.25), (63.75, 32.5)]
    col[:7], row[:7] = zip(*[(min(x, width - 0.25), min(y, height - 0.25)) for x, y in [*corners, *edges]], strict=True)
    x, y = transform * (col, row)
    return pa.table({"x": x, "y": y})


SQUARE = [
    ("type_uint8", 1),
    ("type_int8", 2),
    ("predictor2_uint16", 2),
    ("type_int32", 1),
    ("nodata_integer", 3),
    ("nodata_zero", 2),
    ("nodata_float", 1),
    ("nodata_and_nan", 2),
    ("nodata_nan", 2),
    ("nan_without_nodata", 0),
    ("mask", 2),
    ("sparse_nodata", 3),
    ("sparse", 2),
    ("smaller_than_tile", 4),
    ("one_pixel", 1),
    ("strips_predictor2", 2),
    ("jpeg_gray", 1),
    ("rotated", 2),
    ("south_up", 2),
    ("cog", 20),
]


@pytest.mark.parametrize(("name", "reach"), SQUARE)
def test_squares(tmp_path: Path, name: str, reach: int) -> None:
    path = case(name).write(tmp_path)
    compare(path, points_in(path, 40), case(name).crs, reach)


ROUND = [
    ("metres_10", 36.0, 4),
    ("metres_10", 4.0, 1),
    ("south_up", 45.0, 4),
    ("rotated", 60.0, 5),
    ("rotated_30", 40.0, 5),
    ("sheared", 50.0, 12),
    ("not_square", 70.0, 12),
    ("nodata_integer", 33.0, 4),
    ("geographic", 4000.0, 12),
    ("arc_seconds_3", 400.0, 12),
    ("longitude_0_360", 250_000.0, 14),
    ("web_mercator", 100.0, 5),
]


@pytest.mark.parametrize(("name", "radius", "reach"), ROUND)
def test_rounds(tmp_path: Path, name: str, radius: float, reach: int) -> None:
    """The reach is that of brute force, and more than enough; the global grid is sampled between 77 degrees."""
    path = case(name).write(tmp_path)
    points = points_in(path, 40)
    if name == "longitude_0_360":
        points = points.filter(pa.array(np.abs(points["y"].to_numpy()) < 77))
    compare(path, points, case(name).crs, reach, radius)


@pytest.mark.parametrize("cells", [1, 100, 4000])
def test_portions_of_points_do_not_change_the_rows(tmp_path: Path, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_reader, "WINDOW_CELLS", cells)
    for name, window in (("nodata_integer", {"reach": 2}), ("geographic", {"reach": 12, "radius": 4000.0})):
        path = case(name).write(tmp_path)
        compare(path, points_in(path, 60), case(name).crs, **window, max_distance_pixels=1)


def test_windows_are_read_in_bounded_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many points there are, and however large their windows."""
    sizes: list[int] = []
    original = WantedBlocks.on

    def on(grid: Any, blocks: Any) -> Any:
        sizes.append(blocks.cells * blocks.count)
        return original(grid, blocks)

    monkeypatch.setattr(WantedBlocks, "on", on)
    path = case("metres_10").write(tmp_path)
    for count, window in ((30_000, {"window_pixels": 2}), (300, {"window_pixels": 40}), (300, {"radius": 400.0})):
        sizes.clear()
        rows = build_from_cogs([path]).sample_points(
            points_in(path, count), ["B1"], **XY, statistics=["count"], **window
        )
        assert len(rows) == count and max(sizes) <= pixel_reader.WINDOW_CELLS < sum(sizes)


def write(path: Path, values: NDArray[Any], transform: Affine, crs: Any, **profile: Any) -> Path:
    height, width = values.shape
    size = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": values.dtype.name}
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    with rasterio.open(path, "w", crs=crs, transform=transform, **size, **tiled, **profile) as dataset:
        dataset.write(values, 1)
    return path


def counts(path: Path, x: list[float], y: list[float], crs: Any, **window: Any) -> list[int]:
    """Of the valid pixels of windows."""
    where = {"x_column": "x", "y_column": "y", "geometry_crs": crs}
    points = pa.table({"x": x, "y": y})
    rows = build_from_cogs([path]).sample_points(points, ["B1"], **where, statistics=["count"], **window)
    return rows.sort_by("point_index")["count"].to_pylist()


def test_centres_at_the_very_radius_count(tmp_path: Path) -> None:
    """Of a point on a centre: 4 of the 8 neighbours at 10 m; on a corner of pixels 4 at 7.07 m."""
    path = write(tmp_path / "a.tif", np.ones((32, 32), np.uint8), Affine(10, 0, 500_000, 0, -10, 5_000_000), 32631)
    x, y = [500_105.0, 500_100.0, 500_105.0], [4_999_895.0, 4_999_900.0, 4_999_900.0]
    assert counts(path, x, y, 32631, radius=10) == [5, 4, 2]
    assert counts(path, x, y, 32631, radius=4.9) == [1, 0, 0]
    assert counts(path, x, y, 32631, radius=5) == [1, 0, 2]


def test_a_radius_is_in_metres_where_the_unit_is_the_foot(tmp_path: Path) -> None:
    """EPSG:2263 is in US survey feet: pixels of 10 feet are 3.048 m wide."""
    path = write(tmp_path / "a.tif", np.ones((32, 32), np.uint8), Affine(10, 0, 980_000, 0, -10, 200_000), 2263)
    centre = [980_105.0], [199_895.0]
    assert counts(path, *centre, 2263, radius=3.04) == [1]
    assert counts(path, *centre, 2263, radius=3.05) == [5]
    assert counts(path, *centre, 2263, radius=9.5) == [29]


def test_windows_are_wider_towards_the_pole(tmp_path: Path) -> None:
    """At 60 degrees a degree of longitude is half as long: against PROJ."""
    step = 1 / 1200
    path = write(tmp_path / "a.tif", np.ones((48, 96), np.uint8), Affine(step, 0, 10, 0, -step, 60), 4326)
    whole = Whole(path)
    x, y = 10 + 48.3 * step, 60 - 24.6 * step
    rows, cols = whole.cells(x, y, 40)
    near = whole.distances(x, y, rows, cols) <= 500
    assert np.ptp(cols[near]) > 1.8 * np.ptp(rows[near])
    assert counts(path, [x], [y], 4326, radius=500) == [near.sum()]


def test_windows_around_a_pole(tmp_path: Path) -> None:
    """A point half a degree from the pole, and one beside it: pixels of all longitudes are near."""
    values = np.arange(20 * 72, dtype=np.int16).reshape(20, 72)
    path = write(tmp_path / "a.tif", values, Affine(5, 0, -180, 0, -0.25, 90), 4326)
    for x, y in ((12.0, 89.5), (-170.0, 89.9), (178.0, 89.0)):
        row, col = np.indices(values.shape)
        lon, lat = Affine(5, 0, -180, 0, -0.25, 90) * (col.ravel() + 0.5, row.ravel() + 0.5)
        distance = WGS84.inv(np.full(lon.size, x), np.full(lon.size, y), lon, lat)[2]
        near = distance <= 60_000
        rows = build_from_cogs([path]).sample_points(
            pa.table({"x": [x], "y": [y]}),
            ["B1"],
            x_column="x",
            y_column="y",
            geometry_crs=4326,
            statistics=["count", "sum"],
            radius=60_000,
        )
        assert rows["count"].to_pylist() == [near.sum()]
        assert rows["sum"].to_pylist() == [values.ravel()[near].sum()]


def test_a_radius_without_a_pixel_centre_has_no_statistics(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.full((16, 16), 7, np.uint8), Affine(10, 0, 0, 0, -10, 160), 32631)
    rows = build_from_cogs([path]).sample_points(
        pa.table({"x": [50.0], "y": [50.0]}), ["B1"], **XY, statistics=list(ALL), radius=3
    )
    (row,) = rows.to_pylist()
    assert row["value"] == 7
    assert [row[name] for name in ("count", "variety", "valid_fraction")] == [0, 0, 0.0]
    assert {row[name] for name in ALL if name not in ("count", "variety", "valid_fraction")} == {None}


def test_local_coordinates_in_metres(tmp_path: Path) -> None:
    local = 'LOCAL_CS["site",UNIT["metre",1]]'
    path = write(tmp_path / "a.tif", np.ones((16, 16), np.uint8), Affine(1, 0, 0, 0, -1, 16), local)
    assert counts(path, [8.5], [8.5], build_from_cogs([path]).crs[0], radius=1) == [5]


@pytest.mark.parametrize("crs", [32631, 4326])
def test_windows_that_are_too_large_are_refused(tmp_path: Path, crs: int) -> None:
    pixel, where = (10.0, 5_000_000) if crs == 32631 else (1e-4, 45)
    path = write(tmp_path / "a.tif", np.ones((16, 16), np.uint8), Affine(pixel, 0, 0, 0, -pixel, where), crs)
    points = pa.table({"x": [pixel], "y": [where - pixel]})
    columns = {"x_column": "x", "y_column": "y", "geometry_crs": crs}
    message = (
        r"^radius is 50000 m, which is [5-9],\d{3} pixels on a grid of 16 x 16 pixels .*EPSG:.*the most are 4096: use"
    )
    with pytest.raises(InputError, match=message):
        build_from_cogs([path]).sample_points(points, ["B1"], **columns, statistics=["mean"], radius=50_000)


# Across files

cuts = st.lists(st.integers(1, 23), max_size=2, unique=True).map(sorted)


@settings(max_examples=examples(64), deadline=None, derandomize=True)
@given(
    rows=cuts,
    cols=cuts,
    window=st.sampled_from([{"window_pixels": 1}, {"window_pixels": 4}, {"radius": 35.0}, {"window_pixels": 12}]),
    options=st.sampled_from([{}, {"resampling": "bilinear"}, {"max_distance_pixels": 2}, {"unscale": True}]),
    share=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 1000),
)
def test_a_raster_in_pieces_has_the_statistics_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[int],
    cols: list[int],
    window: dict[str, Any],
    options: dict[str, Any],
    share: float,
    seed: int,
) -> None:
    """At each seam; a window can reach over several pieces, and beyond the whole."""
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 60, (24, 30)).astype(np.int16)
    values[rng.random(values.shape) < share] = 0
    points = points_at(rng.uniform(0, 24, 60), rng.uniform(0, 30, 60))
    folder, given = tmp_path_factory.mktemp("pieces"), {"nodata": 0}
    found = []
    for name, parts in (("whole", pieces([0, 24], [0, 30])), ("cut", pieces([0, *rows, 24], [0, *cols, 30]))):
        (folder / name).mkdir()
        collection = cut(folder / name, values, parts, settings=dict.fromkeys(range(len(parts)), given))
        table = collection.sample_points(points, ["B1"], **XY, statistics=ALL, **window, **options)
        found.append(table.sort_by("point_index").select(["point_index", *ALL]).to_pydict())
    whole, in_pieces = found
    assert whole["point_index"] == list(range(60))
    for name in ALL:
        assert in_pieces[name] == pytest.approx(whole[name], rel=1e-12), name


def test_pixels_beyond_every_raster_are_not_valid(tmp_path: Path) -> None:
    collection = cut(tmp_path, np.ones((12, 20), np.uint8), pieces([0, 12], [0, 9, 20]))
    points = points_at(np.array([0.5, 5.5]), np.array([8.5, 8.5]), TEN_METRES)
    rows = collection.sample_points(points, ["B1"], **XY, statistics=["count", "valid_fraction"], window_pixels=2)
    assert rows.sort_by("point_index").select(["count", "valid_fraction"]).to_pydict() == {
        "count": [15, 25],
        "valid_fraction": [0.6, 1.0],
    }
