"""Samples and zonal statistics with geometries, as GeoPandas and DuckDB read them: against rasterio, PROJ, Shapely."""

import json
import subprocess
from pathlib import Path

import apache_beam as beam
import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from apache_beam.transforms.window import FixedWindows
from hypothesis import given
from hypothesis import strategies as st

from pipelines import sample_points, zonal_statistics
from rasteret_beam import (
    Collection,
    ReadPoints,
    ReadPolygons,
    SamplePoints,
    WriteSamplesToParquet,
    WriteZonalStatisticsToParquet,
    ZonalStatistics,
    build_from_cogs,
    write_geoparquet,
)
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.wkb import pixel_wkb, point_wkb, shapes_of
from rasteret_beam.model import Grid
from tests.support.commands import execute
from tests.support.emulators import environment
from tests.support.geoparquet import check_geoparquet
from tests.support.pipelines import XY, run
from tests.support.rasters import ROTATED, UTM, RasterCase
from tests.support.streams import stamp

SOUTH_UP = Affine(16.0, 0.0, 500_000.0, 0.0, 16.0, 4_497_488.0)
BANDS = ["B1", "B2"]
LAYOUTS = ("long", "values", "columns")


@pytest.fixture(scope="module")
def rasters(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Three grids of one CRS over the same place, with gaps: north up, south up and rotated."""
    folder = tmp_path_factory.mktemp("rasters")
    paths = [
        RasterCase(name=name, dtype="uint8", count=2, nodata=0, gaps=0, transform=transform).write(folder)
        for name, transform in {"north": UTM, "south": SOUTH_UP, "rotated": ROTATED}.items()
    ]
    collection = build_from_cogs(paths, name="grids", datetime=[f"202{year}-01-01" for year in range(3)])
    collection.export(folder / "c")
    return collection


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 points over the rasters and beside them, and one without coordinates."""
    rng = np.random.default_rng(3)
    x, y = rng.uniform(500_000, 503_600, 60), rng.uniform(4_497_300, 4_500_000, 60)
    path = tmp_path_factory.mktemp("plots") / "p.parquet"
    pq.write_table(pa.table({"x": pa.array([*x, None], pa.float64()), "y": pa.array([*y, 1.0])}), path)
    return path


def check_pixels(frame: gpd.GeoDataFrame, collection: Collection, value: str = "value") -> None:
    """Each outline is that of a pixel of the raster, and this pixel has the value."""
    hrefs = {row["id"]: row["assets"]["B1"]["href"] for row in collection.to_table(["id", "assets"]).to_pylist()}
    assert len(frame)
    for record, rows in frame.groupby("record_id"):
        with rasterio.open(hrefs[record]) as src:
            centres = [src.index(centre.x, centre.y) for centre in rows.geometry.centroid]
            for (row, col), outline in zip(centres, rows.geometry, strict=True):
                corners = [src.transform * (col + i, row + j) for i, j in [(0, 0), (1, 0), (1, 1), (0, 1)]]
                assert outline.equals(shapely.Polygon(corners))
                assert outline.exterior.is_ccw
            bands = rows["band"] if "band" in rows else ["B1"] * len(rows)
            pixels = [src.read(int(band[1]))[at] for band, at in zip(bands, centres, strict=True)]
            np.testing.assert_array_equal(rows[value], pixels)


def check_points(frame: gpd.GeoDataFrame) -> None:
    there = frame["point_x"].notna().to_numpy()
    expected = shapely.points(frame["point_x"].to_numpy()[there], frame["point_y"].to_numpy()[there])
    assert shapely.equals(frame.geometry.to_numpy()[there], expected).all()
    assert frame.geometry[~there].isna().all()


@pytest.mark.parametrize("join", ["inner", "left"])
@pytest.mark.parametrize("geometry", ["point", "pixel"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_samples_have_geometries(
    rasters: Collection, plots: Path, tmp_path: Path, layout: str, geometry: str, join: str
) -> None:
    options = {"layout": layout, "geometry": geometry, "join": join, "max_distance_pixels": 2}
    table = rasters.sample_points(pq.read_table(plots), BANDS, **XY, **options)
    frame = gpd.GeoDataFrame.from_arrow(table)
    assert frame.crs.to_epsg() == 32631
    sampled = frame[frame["record_id"].notna()]
    if geometry == "point":
        check_points(frame)
    else:
        assert frame.geometry.isna().equals(frame["record_id"].isna())
        frame["first"] = [values[0] for values in frame["values"]] if layout == "values" else frame.get("B1")
        named = {"long": "value", "values": "first", "columns": "B1"}
        check_pixels(frame.loc[sampled.index], rasters, named[layout])
    assert (len(sampled) < len(frame)) == (join == "left")
    write_geoparquet(table, tmp_path / "samples.parquet")
    types = {"Point" if geometry == "point" else "Polygon"}
    check_geoparquet(tmp_path / "samples.parquet", types)
    read = gpd.read_parquet(tmp_path / "samples.parquet")
    assert read.crs == frame.crs
    assert read.geometry.to_wkt().equals(frame.geometry.to_wkt())


def test_a_filled_value_has_the_neighbour_that_filled_it(rasters: Collection, plots: Path) -> None:
    options = {"max_distance_pixels": 3, "geometry": "pixel", "extra_columns": ["status", "pixel_x", "pixel_y"]}
    frame = gpd.GeoDataFrame.from_arrow(rasters.sample_points(pq.read_table(plots), BANDS, **XY, **options))
    filled = frame[frame["status"] == "filled"]
    assert len(filled)
    assert not shapely.contains_xy(filled.geometry.to_numpy(), filled["point_x"], filled["point_y"]).any()
    check_pixels(filled, rasters)


@pytest.mark.parametrize("layout", ["long", "values"])
def test_pixels_of_places_are_those_of_records(rasters: Collection, plots: Path, layout: str) -> None:
    options = {"layout": layout, "geometry": "pixel", "match": "latest", "skip_invalid": True, "join": "left"}
    table = rasters.sample_points(pq.read_table(plots), BANDS, **XY, **options)
    frame = gpd.GeoDataFrame.from_arrow(table)
    sampled = frame[frame["record_id"].notna()].copy()
    assert sampled.geometry.notna().all() and frame.geometry.isna().sum() == len(frame) - len(sampled)
    if layout == "values":
        sampled["value"] = [values[0] for values in sampled["values"]]
        sampled = sampled[sampled["value"].notna()]
    check_pixels(sampled, rasters)


def test_rasters_of_several_crss_have_outlines_in_longitude_and_latitude(tmp_path: Path) -> None:
    """Also across the antimeridian, where an outline goes on beyond 180 degrees."""
    east = Affine(1000.0, 0.0, 100_000.0, 0.0, -1000.0, 60_000.0)
    paths = [
        RasterCase(name="west", dtype="uint8", crs="EPSG:32631", transform=UTM).write(tmp_path),
        RasterCase(name="edge", dtype="uint8", crs="EPSG:32601", transform=east).write(tmp_path),
    ]
    collection = build_from_cogs(paths, name="two")
    # In UTM zone 1, the 180th meridian is at x = 166,021.
    points = pa.table({"x": [179.999, -179.99, 3.01], "y": [0.3, 0.3, 40.64]})
    options = {"geometry": "pixel", "extra_columns": ["pixel_x", "pixel_y"], "geometry_crs": 4326}
    table = collection.sample_points(points, ["B1"], x_column="x", y_column="y", **options)
    frame = gpd.GeoDataFrame.from_arrow(table).sort_values("point_index")
    assert frame.crs.to_string() == "OGC:CRS84" and len(frame) == 3
    for _, row in frame.iterrows():
        size = 500 if row["record_id"] == "edge" else 8
        at_x, at_y = row["pixel_x"] + size * np.array([-1, -1, 1, 1]), row["pixel_y"] + size * np.array([-1, 1, -1, 1])
        to_degrees = pyproj.Transformer.from_crs(row["raster_crs"], "OGC:CRS84", always_xy=True)
        expected = np.stack(to_degrees.transform(at_x, at_y), axis=1)
        found = shapely.get_coordinates(row.geometry)[:4]
        assert np.ptp(found[:, 0]) < 0.1 and row.geometry.is_valid
        assert sorted(map(tuple, within_a_turn(found))) == sorted(map(tuple, within_a_turn(expected)))


def within_a_turn(places: np.ndarray) -> np.ndarray:
    return np.stack([places[:, 0] % 360, places[:, 1]], axis=1).round(9)


@pytest.mark.parametrize(("crs", "on"), [("ESRI:102013", "sink"), ("+proj=laea +lat_0=52 +lon_0=10", "sampling")])
def test_points_keep_a_crs_with_and_without_a_code(rasters: Collection, tmp_path: Path, crs: str, on: str) -> None:
    to_crs = pyproj.Transformer.from_crs(32631, crs, always_xy=True)
    x, y = to_crs.transform([500_100.0, 500_500.0, 900_000.0], [4_499_000.0, 4_498_000.0, 4_498_000.0])
    pq.write_table(pa.table({"x": x, "y": y}), tmp_path / "p.parquet")
    reading = ReadPoints(str(tmp_path / "p.parquet"), x_column="x", y_column="y", geometry_crs=crs)
    sampled, written = ({"geometry": "point"}, {}) if on == "sampling" else ({}, {"geometry": "point"})
    sampling = SamplePoints(rasters, BANDS, join="left", **sampled)
    run(lambda pipeline: pipeline | reading | sampling | WriteSamplesToParquet(tmp_path / "s", **written))
    (file,) = tmp_path.glob("s-*.parquet")
    frame = gpd.read_parquet(file)
    assert frame.crs.equals(pyproj.CRS(crs), ignore_axis_order=True)
    check_points(frame)
    assert check_geoparquet(file, {"Point"})["crs"]["name"] == pyproj.CRS(crs).name
    assert set(frame["point_index"]) == {0, 1, 2}
    points, way = pq.read_table(tmp_path / "p.parquet"), {"x_column": "x", "y_column": "y", "geometry_crs": crs}
    write_geoparquet(rasters.sample_points(points, BANDS, **way), tmp_path / "e.parquet", geometry="point")
    assert gpd.read_parquet(tmp_path / "e.parquet").crs.equals(pyproj.CRS(crs), ignore_axis_order=True)


def test_outlines_need_the_option_of_sampling(rasters: Collection, plots: Path, tmp_path: Path) -> None:
    sink = WriteSamplesToParquet(tmp_path / "s", geometry="pixel")
    way_out = 'give geometry="pixel" to SamplePoints too'
    with pytest.raises(InputError, match=way_out), beam.Pipeline() as pipeline:
        pipeline | ReadPoints(str(plots), **XY) | SamplePoints(rasters, BANDS) | sink
    with pytest.raises(InputError, match="leave one of the two out"), beam.Pipeline() as pipeline:
        samples = pipeline | ReadPoints(str(plots), **XY) | SamplePoints(rasters, BANDS, geometry="pixel")
        samples | WriteSamplesToParquet(tmp_path / "s", geometry="point")
    with pytest.raises(InputError, match=r"geometry is 'pixels'; it can be one of \('point', 'pixel'\), or None"):
        WriteSamplesToParquet(tmp_path / "s", geometry="pixels")
    table = rasters.sample_points(pq.read_table(plots), BANDS, **XY)
    with pytest.raises(InputError, match=way_out):
        write_geoparquet(table, tmp_path / "s.parquet", geometry="pixel")
    with pytest.raises(InputError, match="the rows have no column 'geometry' of WKB with a CRS"):
        write_geoparquet(table, tmp_path / "s.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["geometry", "bbox"])
def test_a_kept_column_of_the_same_name_is_refused(rasters: Collection, plots: Path, tmp_path: Path, name: str) -> None:
    pq.write_table(pq.read_table(plots).append_column(name, pa.array(range(61))), tmp_path / "p.parquet")
    rasters.export(tmp_path / "c")
    flags = [f"--points={tmp_path}/p.parquet", "--x_column=x", "--y_column=y", "--geometry_crs=32631", "--bands=B1"]
    flags += [f"--collection={tmp_path}/c", f"--output={tmp_path}/s", "--geometry=point"]
    outcome = execute(sample_points.main, *flags)
    assert outcome.code == 1 and not list(tmp_path.glob("s-*"))
    assert f"column '{name}', but the table has another column of this name; rename it, or choose " in outcome.err
    assert "--columns A,B" in outcome.err
    assert execute(sample_points.main, *flags, "--columns=x").code == 0
    with pytest.raises(InputError, match=f"column '{name}', but the table has another column of this name"):
        table = pq.read_table(tmp_path / "p.parquet")
        write_geoparquet(rasters.sample_points(table, ["B1"], **XY), tmp_path / "s.parquet", geometry="point")


def test_batches_are_written_in_bounded_memory_and_replace_a_file(
    rasters: Collection, plots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rasteret_beam.collection.eager.geoparquet.ROW_GROUP_ROWS", 20)
    for bands in (["B1"], BANDS):
        reader = rasters.sample_batches(pq.read_table(plots), bands, geometry="pixel", **XY)
        write_geoparquet(reader, str(tmp_path / "s.parquet"))
    table = rasters.sample_points(pq.read_table(plots), BANDS, geometry="pixel", **XY)
    read = pq.ParquetFile(tmp_path / "s.parquet")
    assert read.metadata.num_rows == len(table) and read.metadata.num_row_groups >= len(table) // 20
    check_geoparquet(tmp_path / "s.parquet", {"Polygon"})
    assert [path.name for path in tmp_path.iterdir()] == ["s.parquet"]
    with pytest.raises(InputError, match="write a local file, or use WriteSamplesToParquet"):
        write_geoparquet(table, "gs://bucket/s.parquet")


@pytest.mark.parametrize("geometry", [pytest.param("point", marks=pytest.mark.slow), "pixel"])
def test_rounds_and_outputs_without_rows(rasters: Collection, plots: Path, tmp_path: Path, geometry: str) -> None:
    rasters.export(tmp_path / "c")
    flags = ["--x_column=x", "--y_column=y", "--bands=B1,B2", f"--collection={tmp_path}/c", f"--geometry={geometry}"]
    flags += [f"--points={plots}", "--match=latest"]
    rounds = "--geometry_crs=32631", "--round_points=25", f"--output={tmp_path}/s"
    assert execute(sample_points.main, *flags, *rounds).code == 0
    files = sorted(tmp_path.glob("s-*.parquet"))
    assert len(files) == 3
    whole = rasters.sample_points(pq.read_table(plots), BANDS, match="latest", geometry=geometry, **XY)
    read = [gpd.read_parquet(file) for file in files]
    assert sorted(text for each in read for text in each.geometry.to_wkt()) == sorted(
        gpd.GeoDataFrame.from_arrow(whole).geometry.to_wkt()
    )
    for file in files:
        check_geoparquet(file, {"Point" if geometry == "point" else "Polygon"})
    assert execute(sample_points.main, *flags, "--geometry_crs=32633", f"--output={tmp_path}/none").code == 0
    (empty,) = tmp_path.glob("none-*.parquet")
    assert len(gpd.read_parquet(empty)) == 0
    column = check_geoparquet(empty, set())
    assert pyproj.CRS.from_json_dict(column["crs"]).to_epsg() == (32633 if geometry == "point" else 32631)


def test_windows_of_a_stream_have_geoparquet_files(rasters: Collection, plots: Path, tmp_path: Path) -> None:
    batches = list(ReadPoints(str(plots), **XY).batches())
    points = pa.Table.from_batches(batches)
    parts = [points.slice(start, 20).combine_chunks().to_batches()[0] for start in (0, 20, 40)]

    def build(pipeline: beam.Pipeline) -> None:
        given = pipeline | beam.Create(list(enumerate(parts)))
        stamped = given | beam.MapTuple(stamp).with_output_types(pa.RecordBatch)
        windowed = stamped | beam.WindowInto(FixedWindows(10))
        windowed | SamplePoints(rasters, ["B1"], geometry="pixel") | WriteSamplesToParquet(tmp_path / "s")

    run(build)
    files = sorted(tmp_path.glob("s-*.parquet"))
    assert len(files) == 3
    for file in files:
        check_geoparquet(file, {"Polygon"})
        check_pixels(gpd.read_parquet(file), rasters)


def test_zonal_statistics_have_polygons(rasters: Collection, tmp_path: Path) -> None:
    shapes = [
        shapely.box(500_100, 4_499_000, 500_200, 4_499_100),
        shapely.MultiPolygon([shapely.box(500_400, 4_498_000, 500_450, 4_498_050), shapely.box(0, 0, 1, 1)]),
        shapely.box(5, 5, 6, 6),
    ]
    fields = gpd.GeoDataFrame({"name": ["a", "b", "outside"]}, geometry=shapes, crs=32631)
    fields.to_parquet(tmp_path / "fields.parquet")
    rasters.export(tmp_path / "c")
    table = rasters.zonal_statistics(fields, BANDS, geometry="polygon", join="left")
    frames = {"eager": gpd.GeoDataFrame.from_arrow(table)}
    reading = ReadPolygons(str(tmp_path / "fields.parquet"))
    zones = ZonalStatistics(rasters, BANDS, geometry="polygon", join="left")
    run(lambda pipeline: pipeline | reading | zones | WriteZonalStatisticsToParquet(tmp_path / "beam"))
    flags = [f"--polygons={tmp_path}/fields.parquet", f"--collection={tmp_path}/c", "--bands=B1,B2", "--join=left"]
    assert execute(zonal_statistics.main, *flags, "--geometry=polygon", f"--output={tmp_path}/command").code == 0
    for face in ("beam", "command"):
        (file,) = tmp_path.glob(f"{face}-*.parquet")
        frames[face] = gpd.read_parquet(file)
        assert check_geoparquet(file, {"Polygon", "MultiPolygon"})["crs"]["id"]["code"] == 32631
    for frame in frames.values():
        assert frame.crs.to_epsg() == 32631 and set(frame["geometry_id"]) == {0, 1, 2}
        assert shapely.equals(frame.geometry.to_numpy(), np.array(shapes)[frame["geometry_id"]]).all()


numbers = st.floats(-1e6, 1e6)


@given(
    st.tuples(numbers, numbers, numbers, numbers, numbers, numbers).filter(
        lambda affine: abs(affine[0] * affine[4] - affine[1] * affine[3]) > 1e-3
    ),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), max_size=8),
)
def test_outlines_are_those_of_shapely(affine: tuple[float, ...], pixels: list[tuple[int, int]]) -> None:
    grid = Grid("EPSG:32631", affine, 5001, 5001, 256, 256)
    row, col = np.array(pixels, dtype=np.int64).reshape(-1, 2).T
    wkb = pixel_wkb(grid, row, col, "EPSG:32631")
    shapes = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))
    to_map = Affine(*affine)
    for shape, (r, c) in zip(shapes, pixels, strict=True):
        corners = [to_map * corner for corner in [(c, r), (c + 1, r), (c + 1, r + 1), (c, r + 1)]]
        found = sorted(map(tuple, shapely.get_coordinates(shape)[:4]))
        np.testing.assert_allclose(found, sorted(corners), rtol=1e-12, atol=1e-6)
    boxes, types = shapes_of(wkb)
    np.testing.assert_array_equal(boxes, shapely.bounds(shapes).reshape(-1, 4))
    assert types == ({"Polygon"} if pixels else set())


def test_points_are_those_of_shapely() -> None:
    x, y = np.array([1.5, np.nan, 3.0, np.inf]), np.array([2.0, 1.0, -4.25, 0.0])
    wkb = point_wkb(x, y)
    expected = shapely.to_wkb(shapely.points([1.5, 3], [2, -4.25])).tolist()
    assert wkb.to_pylist() == [expected[0], None, expected[1], None]
    boxes, types = shapes_of(wkb)
    np.testing.assert_array_equal(boxes, [[1.5, 2, 1.5, 2], [np.nan] * 4, [3, -4.25, 3, -4.25], [np.nan] * 4])
    assert types == {"Point"}


@pytest.mark.parametrize(
    ("wkt", "name"),
    [
        ("POINT Z (1 2 3)", "Point Z"),
        ("LINESTRING (0 0, 1 1)", "LineString"),
        ("POLYGON ((0 0, 1 1, 1 0, 0 0))", "Polygon"),
        ("MULTIPOLYGON (((0 0, 1 1, 1 0, 0 0)))", "MultiPolygon"),
        ("MULTIPOINT ((0 0), (1 1))", "MultiPoint"),
        ("MULTILINESTRING ((0 0, 1 1))", "MultiLineString"),
        ("GEOMETRYCOLLECTION (POINT (1 1))", "GeometryCollection"),
    ],
)
def test_other_geometries_have_boxes_and_names(wkt: str, name: str) -> None:
    shape = shapely.from_wkt(wkt)
    boxes, types = shapes_of(pa.array([None, shapely.to_wkb(shape), shapely.to_wkb(shapely.Point())], pa.binary()))
    np.testing.assert_array_equal(boxes, [[np.nan] * 4, shape.bounds, [np.nan] * 4])
    assert types == {name, "Point"}


DUCKDB = """
import duckdb, duckdb_extension_spatial, json, pathlib, sys
(extension,) = pathlib.Path(duckdb_extension_spatial.__file__).parent.glob("extensions/*/spatial.duckdb_extension")
duckdb.sql(f"INSTALL '{extension}'")
duckdb.sql("LOAD spatial")
columns = "record_id, value, ST_AsText(geometry), ST_IsValid(geometry), typeof(geometry), bbox.xmin"
print(json.dumps(duckdb.execute(f"SELECT {columns} FROM read_parquet(?)", [sys.argv[1]]).fetchall()))
"""


@pytest.mark.slow
def test_duckdb_reads_the_geometry(rasters: Collection, plots: Path, tmp_path: Path) -> None:
    """Its spatial extension does, in an environment of its own: the package has it for one version of DuckDB."""
    table = rasters.sample_points(pq.read_table(plots), ["B1"], geometry="pixel", **XY)
    write_geoparquet(table, tmp_path / "s.parquet")
    words = [environment("bigquery") / "python", "-c", DUCKDB, tmp_path / "s.parquet"]
    ended = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    frame = gpd.GeoDataFrame.from_arrow(table)
    assert len(found) == len(frame)
    for (record, value, wkt, valid, kind, xmin), (_, row) in zip(found, frame.iterrows(), strict=True):
        assert (record, value, valid) == (row["record_id"], row["value"], True)
        assert shapely.from_wkt(wkt).equals(row.geometry) and xmin == row.geometry.bounds[0]
        assert kind == "GEOMETRY('EPSG:32631')"
