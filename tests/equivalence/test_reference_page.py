"""The reference's page on point sampling: its snippets, and what its sentences say of points and outputs."""

import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import duckdb
import geopandas as gpd
import numpy as np
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import rasterio
import rasterio.mask
import rasterio.warp
import sedonadb
import shapely
from shapely.geometry import Point

import rasteret_beam as rasteret
from rasteret_beam.collection import catalogue
from rasteret_beam.errors import InputError
from tests.support.lookalike import BOTTOMS, HEIGHT, LEFT, NODATA, PIXEL, WIDTH, build_lookalike, check, in_order

ID = "test/aef-v1-annual"
OUTPUT = "point_index point_x point_y point_crs record_id datetime collection band value raster_crs".split()


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rasteret.Collection]:
    folder: Path = tmp_path_factory.mktemp("aef")
    build_lookalike(folder).export(folder / "collection")
    rasteret.register(ID, folder / "collection")
    yield rasteret.load(ID).subset(
        bbox=(11.3, -0.002, 11.5, 0.001),
        date_range=("2023-01-01", "2023-12-31"),
    )
    catalogue._registered.pop(ID)


@pytest.fixture
def points() -> pa.Table:
    return pa.table(
        {
            "sensor_id": ["s-001", "s-002"],
            "plot_id": ["plot-a", "plot-b"],
            "lon": [11.36, 11.44],
            "lat": [-0.001, -0.0005],
        }
    )


def test_the_collection_of_the_page(collection: rasteret.Collection) -> None:
    assert len(collection) == 2
    assert collection.describe()["date_range"][0].year == 2023


def test_coordinate_columns(collection: rasteret.Collection, points: pa.Table) -> None:
    samples = collection.sample_points(
        points=points,
        x_column="lon",
        y_column="lat",
        bands=["A00", "A01"],
        geometry_crs=4326,
    )
    check(samples, collection, 4)
    keys = samples.select(["point_index", "record_id", "band"]).to_pylist()
    assert len({tuple(key.values()) for key in keys}) == 4  # one row a point, record and band


@pytest.mark.parametrize("x,y", [("x", "y"), ("lon", "lat"), ("longitude", "latitude"), ("lng", "lat")])
def test_coordinate_columns_are_inferred(collection: rasteret.Collection, points: pa.Table, x: str, y: str) -> None:
    renamed = points.rename_columns(["sensor_id", "plot_id", x, y])
    samples = collection.sample_points(points=renamed, bands=["A00"], geometry_crs=4326)
    check(samples, collection, 2)
    explicit = collection.sample_points(points=renamed, bands=["A00"], geometry_crs=4326, x_column=x, y_column=y)
    assert samples.equals(explicit)


def test_plain_coordinate_columns_need_a_crs(collection: rasteret.Collection, points: pa.Table) -> None:
    with pytest.raises(InputError, match="plain coordinate columns have no CRS; give it with geometry_crs"):
        collection.sample_points(points=points, x_column="lon", y_column="lat", bands=["A00"])


def test_duckdb(collection: rasteret.Collection, points: pa.Table) -> None:
    con = duckdb.connect()
    con.register("point_source", points)
    found = con.sql("""
        SELECT sensor_id, plot_id, lon, lat
        FROM point_source
        WHERE lon BETWEEN 11.3 AND 11.5
          AND lat BETWEEN -0.002 AND 0.001
    """)
    samples = collection.sample_points(
        points=found,
        x_column="lon",
        y_column="lat",
        bands=["A00", "A01"],
        geometry_crs=4326,
    )
    check(samples, collection, 4)
    assert set(samples["sensor_id"].to_pylist()) == {"s-001", "s-002"}


def test_every_table_tool_named(collection: rasteret.Collection, points: pa.Table) -> None:
    wanted = in_order(collection.sample_points(points=points, bands=["A00"], geometry_crs=4326))
    session = sedonadb.connect()
    session.create_data_frame(points).to_view("plots")
    frame = points.to_pandas()
    tables = [
        polars.from_arrow(points),
        session.sql("SELECT * FROM plots"),
        frame,
        gpd.GeoDataFrame(frame, geometry=gpd.points_from_xy(frame.lon, frame.lat), crs=4326),
    ]
    for table in tables:
        found = in_order(collection.sample_points(points=table, bands=["A00"], geometry_crs=4326))
        assert found.to_pylist() == wanted.to_pylist()


def test_geometry_columns(collection: rasteret.Collection) -> None:
    point_gdf = gpd.GeoDataFrame(
        {
            "plot_id": ["plot-a", "plot-b"],
            "sensor_id": ["s-001", "s-002"],
        },
        geometry=[Point(11.36, -0.001), Point(11.44, -0.0005)],
        crs="OGC:CRS84",
    )
    point_table = point_gdf.to_arrow(geometry_encoding="WKB")
    samples = collection.sample_points(
        points=point_table,
        geometry_column="geometry",
        bands=["A00"],
    )
    check(samples, collection, 2)
    assert samples.schema.names == [*OUTPUT, "plot_id", "sensor_id"]
    assert samples["point_crs"].to_pylist() == [4326, 4326]


def test_geometry_columns_without_crs_need_one(collection: rasteret.Collection) -> None:
    frame = gpd.GeoDataFrame({"plot_id": ["a"]}, geometry=[Point(11.36, -0.001)])
    with pytest.raises(InputError, match=r"geometry column 'geometry' .* has no CRS; give it with geometry_crs"):
        collection.sample_points(points=frame, geometry_column="geometry", bands=["A00"])
    samples = collection.sample_points(points=frame, geometry_column="geometry", bands=["A00"], geometry_crs=4326)
    check(samples, collection, 1)


def test_duckdb_geometries_as_wkb(collection: rasteret.Collection) -> None:
    con = duckdb.connect()
    con.sql("CREATE TABLE plot_points AS SELECT 'plot-a' AS plot_id, 'POINT(11.36 -0.001)'::GEOMETRY AS geom")
    found = con.sql("SELECT plot_id, ST_AsWKB(geom) AS geometry FROM plot_points")
    samples = collection.sample_points(
        points=found, geometry_column="geometry", bands=["A00"], geometry_crs="OGC:CRS84"
    )
    check(samples, collection, 1)


def test_output_columns(collection: rasteret.Collection, points: pa.Table) -> None:
    split = points.append_column("split", pa.array(["train", "test"]))
    samples = collection.sample_points(points=split, bands=["A00"], geometry_crs=4326)
    assert samples.schema.names == [*OUTPUT, "sensor_id", "plot_id", "lon", "lat", "split"]
    row = in_order(samples).to_pylist()[0]
    kept = {
        name: row[name] for name in ("point_index", "point_x", "point_y", "point_crs", "plot_id", "lon", "lat", "split")
    }
    assert kept == {
        "point_index": 0,
        "point_x": 11.36,
        "point_y": -0.001,
        "point_crs": 4326,
        "plot_id": "plot-a",
        "lon": 11.36,
        "lat": -0.001,
        "split": "train",
    }
    assert (row["band"], row["raster_crs"], row["record_id"]) == ("A00", 32732, "aef_32732_2023")
    assert (row["datetime"].year, row["collection"]) == (2023, "aef")


def test_columns_that_collide_are_named(collection: rasteret.Collection, points: pa.Table) -> None:
    with pytest.raises(InputError, match=r"column\(s\) named value, which the sample table needs"):
        collection.sample_points(
            points=points.append_column("value", pa.array([1, 2])), bands=["A00"], geometry_crs=4326
        )


def test_match_all_gives_every_record(collection: rasteret.Collection, points: pa.Table) -> None:
    samples = collection.sample_points(
        points=points,
        bands=["A00"],
        geometry_crs=4326,
        match="all",
    )
    check(samples, collection, 2)
    series = rasteret.load(ID).sample_points(points=points, bands=["A00"], geometry_crs=4326, match="all")
    check(series, rasteret.load(ID), 4)
    assert sorted(moment.year for moment in series["datetime"].to_pylist()) == [2022, 2022, 2023, 2023]


def test_match_latest_gives_one_row_a_point_and_band(collection: rasteret.Collection, points: pa.Table) -> None:
    latest = collection.sample_points(
        points=points,
        bands=["A00"],
        geometry_crs=4326,
        match="latest",
    )
    check(latest, collection, 2)
    both = rasteret.load(ID).sample_points(points=points, bands=["A00", "A01"], geometry_crs=4326, match="latest")
    check(both, rasteret.load(ID), 4)
    assert len(both.group_by(["point_index", "band"]).aggregate([])) == 4
    assert pc.unique(pc.year(both["datetime"])).to_pylist() == [2023]


def test_convenience_inputs(collection: rasteret.Collection) -> None:
    point = Point(11.36, -0.001)
    geojson = {"type": "Point", "coordinates": [11.36, -0.001]}
    for one in (point, shapely.to_wkb(point), geojson):
        for points in (one, [one, one]):
            samples = collection.sample_points(points=points, bands=["A00"], geometry_crs=4326)
            check(samples, collection, 2 if isinstance(points, list) else 1)


def test_crs_notes(collection: rasteret.Collection) -> None:
    """geometry_crs is the points', not the raster's; the output has both."""
    east, north = gpd.GeoSeries([Point(11.36, -0.001)], crs=4326).to_crs(32632).iloc[0].coords[0]
    points = pa.table({"x": [east], "y": [north]})
    samples = collection.sample_points(points=points, bands=["A00"], geometry_crs=32632)
    check(samples, collection, 1, "EPSG:32632")
    assert (samples["point_crs"].to_pylist(), samples["raster_crs"].to_pylist()) == ([32632], [32732])


def test_nodata_fallback_and_its_window(collection: rasteret.Collection, points: pa.Table) -> None:
    plain = collection.sample_points(points=points, bands=["A00"], geometry_crs=4326)
    samples = collection.sample_points(
        points=points,
        bands=["A00"],
        geometry_crs=4326,
        max_distance_pixels=2,  # search up to a 5x5 window
    )
    assert samples.schema.names == plain.schema.names
    assert len(samples) == len(plain)
    samples = collection.sample_points(
        points=points,
        bands=["A00"],
        geometry_crs=4326,
        max_distance_pixels=2,
        return_neighbourhood="always",
    )
    windows = in_order(samples)["neighbourhood_values"].to_pylist()
    assert [len(window) for window in windows] == [25] * len(plain)
    assert [window[12] for window in windows] == in_order(plain)["value"].to_pylist()


# Nodata: of the page's collection, a year and zone in which few pixels are valid


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> rasteret.Collection:
    return build_lookalike(tmp_path_factory.mktemp("sparse"), valid=0.3).subset(ids="aef_32732_2023")


def pixels_of(collection: rasteret.Collection) -> np.ndarray:
    (assets,) = collection.to_table(["assets"])["assets"].to_pylist()
    with rasterio.open(assets["A00"]["href"]) as dataset:
        return dataset.read(1)


def points_on(rows: np.ndarray, cols: np.ndarray) -> pa.Table:
    """Points at places (row, col), in pixels, of the southern zone's grid."""
    return pa.table({"x": LEFT + cols * PIXEL, "y": BOTTOMS[32732] + rows * PIXEL})


def some_places(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(17)
    return rng.uniform(0, HEIGHT, n), rng.uniform(0, WIDTH, n)


def sampled(collection: rasteret.Collection, **options: object) -> pa.Table:
    table = points_on(*some_places())
    return in_order(collection.sample_points(points=table, bands=["A00"], geometry_crs=32732, **options))


def window(pixels: np.ndarray, row: int, col: int, radius: int) -> np.ndarray:
    """The square around a pixel, NaN beyond the raster."""
    around = np.pad(pixels.astype(float), radius, constant_values=np.nan)
    return around[row : row + 2 * radius + 1, col : col + 2 * radius + 1]


def closest_valid(around: np.ndarray, row: float, col: float, radius: int) -> float:
    """The valid value whose pixel's rectangle is closest; ``row`` and ``col`` are the place within the middle pixel."""
    best = (np.inf, float(NODATA))
    for (r, c), value in np.ndenumerate(around):
        if not np.isnan(value) and value != NODATA:
            down = max(0.0, r - radius - row, row - (r - radius + 1))
            across = max(0.0, c - radius - col, col - (c - radius + 1))
            best = min(best, (np.hypot(down, across), value))
    return best[1]


def test_by_default_the_base_pixel_is_sampled(sparse: rasteret.Collection) -> None:
    """Valid or not."""
    rows, cols = some_places()
    base = pixels_of(sparse)[rows.astype(int), cols.astype(int)]
    assert 100 < (base == NODATA).sum() < 390
    np.testing.assert_array_equal(sampled(sparse)["value"].to_numpy(), base)


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_a_valid_base_pixel_stays_and_another_gives_way_to_the_closest(
    sparse: rasteret.Collection, radius: int
) -> None:
    pixels = pixels_of(sparse)
    expected = [
        closest_valid(window(pixels, int(row), int(col), radius), row % 1, col % 1, radius)
        for row, col in zip(*some_places(), strict=True)
    ]
    np.testing.assert_array_equal(sampled(sparse, max_distance_pixels=radius)["value"].to_numpy(), expected)


def test_without_a_valid_pixel_in_reach_nodata_stays(tmp_path: Path) -> None:
    empty = build_lookalike(tmp_path, valid=0.0).subset(ids="aef_32732_2023")
    assert set(sampled(empty, max_distance_pixels=2)["value"].to_pylist()) == {NODATA}


@pytest.mark.parametrize("radius", [1, 2, 3])
@pytest.mark.parametrize("returned", ["off", "always", "if_center_nodata"])
def test_the_three_values_of_return_neighbourhood(sparse: rasteret.Collection, returned: str, radius: int) -> None:
    samples = sampled(sparse, max_distance_pixels=radius, return_neighbourhood=returned)
    assert ("neighbourhood_values" in samples.schema.names) == (returned != "off")
    if returned == "off":
        return
    pixels = pixels_of(sparse)
    for row, col, found in zip(*some_places(), samples["neighbourhood_values"].to_pylist(), strict=True):
        shown = returned == "always" or pixels[int(row), int(col)] == NODATA
        assert (found is not None) == shown
        if shown:
            assert len(found) == (2 * radius + 1) ** 2
            np.testing.assert_array_equal(found, window(pixels, int(row), int(col), radius).ravel())  # row-major


def test_the_snippet_with_the_searched_window(sparse: rasteret.Collection, points: pa.Table) -> None:
    samples = sparse.sample_points(
        points=points,
        bands=["A00"],
        geometry_crs=4326,
        max_distance_pixels=2,
        return_neighbourhood="if_center_nodata",
    )
    assert samples.schema.names == [*OUTPUT, "neighbourhood_values", "sensor_id", "plot_id", "lon", "lat"]
    assert len(samples) == 2


# Further sentences


def test_nothing_is_written_for_a_duckdb_result(
    collection: rasteret.Collection, points: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    found = duckdb.connect().from_arrow(points)
    assert len(collection.sample_points(points=found, bands=["A00"], geometry_crs=4326)) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", ["WKB", "geoarrow"])
def test_the_crs_of_a_geometry_column_is_used(collection: rasteret.Collection, encoding: str) -> None:
    frame = gpd.GeoDataFrame(geometry=[Point(11.36, -0.001), Point(11.44, -0.0005)], crs=4326).to_crs(32632)
    table = frame.to_arrow(geometry_encoding=encoding)
    samples = collection.sample_points(points=table, geometry_column="geometry", bands=["A00"])
    check(samples, collection, 2, "EPSG:32632")
    assert samples["point_crs"].to_pylist() == [32632, 32632]


def test_a_geometry_column_in_place_of_coordinate_columns(collection: rasteret.Collection, points: pa.Table) -> None:
    """With both in the table, it is geometry_column that says which."""
    away = pa.array(shapely.to_wkb(shapely.points([11.40, 11.41], [-0.001, -0.001])))
    table = points.append_column("geometry", away)
    samples = collection.sample_points(points=table, geometry_column="geometry", bands=["A00"], geometry_crs=4326)
    assert in_order(samples)["point_x"].to_pylist() == [11.40, 11.41]
    assert samples.schema.names == [*OUTPUT, "sensor_id", "plot_id", "lon", "lat"]


def test_several_zones_and_years_are_grouped_as_a_table(collection: rasteret.Collection) -> None:
    table = pa.table({"lon": [11.36, 11.36, 11.44], "lat": [-0.001, 0.0005, 0.0007]})
    samples = rasteret.load(ID).sample_points(points=table, bands=["A00"], geometry_crs=4326)
    assert isinstance(samples, pa.Table)
    by_zone = samples.group_by("raster_crs").aggregate([("value", "count")]).sort_by("raster_crs").to_pylist()
    assert by_zone == [{"raster_crs": 32632, "value_count": 4}, {"raster_crs": 32732, "value_count": 2}]
    newer = samples.filter(pc.field("datetime") >= pa.scalar(datetime(2023, 1, 1), pa.timestamp("us")))
    assert sorted(newer["point_index"].to_pylist()) == [0, 1, 2]


def test_coordinate_columns_collide_with_nothing_and_are_kept(
    collection: rasteret.Collection, points: pa.Table
) -> None:
    """ "It also keeps point-table columns [...] unless they collide with Rasteret output column names." """
    samples = collection.sample_points(points=points, bands=["A00"], geometry_crs=4326)
    assert samples.schema.names == [*OUTPUT, "sensor_id", "plot_id", "lon", "lat"]


# Polygons


@pytest.mark.parametrize("all_touched", [None, False, True])
def test_all_touched_takes_the_edge_s_pixels_too(collection: rasteret.Collection, all_touched: bool | None) -> None:
    """Without all_touched it is False, as rasterio's."""
    shape = shapely.Point(11.365, -0.0011).buffer(0.0007, quad_segs=2)
    options = {} if all_touched is None else {"all_touched": all_touched}
    arr, inside = collection.get_numpy(geometries=shape, bands=["A00"], return_mask=True, **options)
    (path,) = {
        row["A00"]["href"] for row in collection.to_table(["assets"])["assets"].to_pylist() if "32732" in str(row)
    }
    with rasterio.open(path) as dataset:
        outline = rasterio.warp.transform_geom("OGC:CRS84", dataset.crs, shape.__geo_interface__)
        expected, _ = rasterio.mask.mask(dataset, [outline], crop=True, **options)
        fewer, _ = rasterio.mask.mask(dataset, [outline], crop=True)
    np.testing.assert_array_equal(arr[0], expected[0])
    assert (inside.sum() > (fewer[0] != NODATA).sum()) == bool(all_touched)


def test_polygon_masking(collection: rasteret.Collection) -> None:
    box = (11.35, -0.0018, 11.38, -0.0008)
    arr = collection.get_numpy(
        geometries=box,
        bands=["A00"],
        all_touched=False,  # rasterio default
    )
    (path,) = {
        row["A00"]["href"] for row in collection.to_table(["assets"])["assets"].to_pylist() if "32732" in str(row)
    }
    with rasterio.open(path) as dataset:
        outline = rasterio.warp.transform_geom("OGC:CRS84", dataset.crs, shapely.box(*box).__geo_interface__)
        expected, _ = rasterio.mask.mask(dataset, [outline], crop=True, indexes=1)
    assert arr.dtype == expected.dtype
    np.testing.assert_array_equal(arr, expected[None])
