"""Scenes of Mars and the Moon as their archives have them, against rasterio, PROJ and geodesics of their ellipsoids."""

import json
from pathlib import Path
from typing import Any

import geopandas
import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as warped

from pipelines import build_collection, sample_points, zonal_statistics
from rasteret_beam import Collection, build_from_cogs, build_from_stac, build_from_table, load
from rasteret_beam.errors import BuildError, InputError
from rasteret_beam.kernels.geo.crs import crs_text, footprint_crs, full_turn, transform
from rasteret_beam.kernels.geo.map_axes import map_axes
from tests.support.commands import execute

matplotlib.use("agg")
SPHERE, OGRAPHIC, OCENTRIC = "IAU_2015:49900", "IAU_2015:49901", "IAU_2015:49902"
EQUIRECTANGULAR = Affine(25, 0, 4_000_000, 0, -25, 1_200_000)
POLAR = Affine(100, 0, -3_150, 0, -100, 3_150)
USER_DEFINED = (
    "+proj=eqc +lat_ts=15 +lat_0=0 +lon_0=180 +x_0=0 +y_0=0 +a=3394839.8133163 +b=3394839.8133163 +units=m +no_defs"
)
"""The CRS of HiRISE's products: a sphere with the radius of the latitude of their middle."""

SCENES = {
    "hirise": (USER_DEFINED, Affine(0.5, 0, -500_000, 0, -0.5, 900_000), "uint16", 0),
    "ctx": ("IAU_2015:49910", EQUIRECTANGULAR, "uint16", 0),
    "hrsc": ("ESRI:103885", EQUIRECTANGULAR, "int16", -32768),
    "ocentric": ("IAU_2015:49912", EQUIRECTANGULAR, "float32", -3.4e38),
    "mola, south": ("IAU_2015:49935", POLAR, "int16", -32768),
    "lola, north": ("IAU_2015:30130", POLAR, "float32", float("nan")),
    "lola": ("IAU_2015:30110", Affine(118.45, 0, 1_000_000, 0, -118.45, 500_000), "int16", None),
    "mdis": ("+proj=longlat +a=2439400 +b=2439400 +no_defs", Affine(0.01, 0, 190, 0, -0.01, 30), "float32", -1.0),
    "site": ('LOCAL_CS["Quarry",UNIT["metre",1]]', Affine(0.5, 0.1, 100, 0.1, -0.5, 900), "float32", -9999.0),
}


def write(folder: Path, name: str, scene: str, shift: float = 0, seed: int = 0) -> Path:
    """A scene of 64 x 64 random pixels, a tenth of them nodata, moved to the east by a number of pixels."""
    crs, at, dtype, nodata = SCENES[scene]
    path = folder / f"{name}.tif"
    values = np.random.default_rng(seed).integers(1, 30_000, (1, 64, 64)).astype(dtype)
    if nodata is not None:
        values[np.random.default_rng(seed + 1).random(values.shape) < 0.1] = nodata
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": dtype, "nodata": nodata}
    storage = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
    place = {"crs": CRS.from_user_input(crs), "transform": at * Affine.translation(shift, 0)}
    with rasterio.open(path, "w", **profile, **storage, **place) as out:
        out.write(values)
    return path


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scenes")
    return {scene: write(folder, scene.replace(", ", "_"), scene, seed=7) for scene in SCENES}


@pytest.fixture(scope="module")
def all_scenes(scenes: dict[str, Path]) -> Collection:
    return build_from_cogs(scenes.values(), bands={"v": 0}, name="planets")


def points_on(path: Path, count: int = 40) -> tuple[pa.Table, np.ndarray, str]:
    """Points on a scene in its CRS, and rasterio's values."""
    with rasterio.open(path) as raster:
        col, row = np.random.default_rng(3).uniform(0, 64, (2, count))
        x, y = raster.transform * (col, row)
        found = np.array([value[0] for value in raster.sample(zip(x, y, strict=True))], dtype=np.float64)
        return pa.table({"x": x, "y": y}), found, raster.crs.to_wkt()


def values(collection: Collection, points: pa.Table, crs: Any, **options: Any) -> pa.Table:
    where = {"x_column": "x", "y_column": "y", "geometry_crs": crs}
    return collection.sample_points(points, ["v"], **where, **options).sort_by("point_index")


@pytest.mark.parametrize("scene", SCENES)
def test_each_scene_among_all_others(scenes: dict[str, Path], all_scenes: Collection, scene: str) -> None:
    points, want, crs = points_on(scenes[scene])
    table = values(all_scenes, points, crs, extra_columns=["record:crs", "record:footprint_crs"])
    own = table.filter(pc.equal(table["record_id"], scenes[scene].stem))
    np.testing.assert_array_equal(own["value"].to_numpy(), want)
    assert set(table["record:footprint_crs"].to_pylist()) <= {*all_scenes.to_table()["footprint_crs"].to_pylist()}
    assert own["point_crs"].null_count == own["raster_crs"].null_count == len(own) == 40
    assert pyproj.CRS(own["record:crs"][0].as_py()) == pyproj.CRS(crs)


@pytest.mark.parametrize("scene", [scene for scene in SCENES if scene != "site"])
def test_longitude_and_latitude_of_the_body(scenes: dict[str, Path], scene: str) -> None:
    """Points in the geographic CRS below the raster's, and the footprint in it, as GDAL transforms them."""
    points, want, crs = points_on(scenes[scene])
    collection = build_from_cogs([scenes[scene]], bands={"v": 0})
    body = collection.bounds_crs
    assert body is not None and full_turn(body) == 360.0
    lon, lat = map(np.array, warped(crs, body, points["x"].to_pylist(), points["y"].to_pylist()))
    table = values(collection, pa.table({"x": lon, "y": lat}), body, extra_columns=["pixel_lon", "pixel_lat"])
    np.testing.assert_array_equal(table["value"].to_numpy(), want)
    west, south, east, north = collection.bounds
    turned = (lon + 180) % 360 - 180
    assert ((turned >= west) & (turned <= east) & (lat >= south) & (lat <= north)).all()
    shape = shapely.from_wkb(collection.to_table()["geometry"][0].as_py())
    assert shapely.covers(shape.buffer(1e-4), shapely.points(turned, lat)).all()
    step = max(abs(side) for side in rasterio.open(scenes[scene]).transform[:2])
    degree = 1 if scene == "mdis" else np.radians(1) * pyproj.CRS(crs).ellipsoid.semi_major_metre
    assert np.abs(table["pixel_lat"].to_numpy() - lat).max() * degree < step


@pytest.mark.parametrize("crs", [SPHERE, OGRAPHIC, OCENTRIC, "IAU_2015:49911", "ESRI:104905"])
def test_other_crss_of_mars_reach_its_rasters(scenes: dict[str, Path], crs: str) -> None:
    """PROJ's own axes are the oracle: latitude before longitude, which may grow to the west."""
    points, want, _ = points_on(scenes["ctx"])
    first, second = pyproj.Transformer.from_crs("IAU_2015:49910", crs).transform(*points.to_pydict().values())
    x, y = (second, first) if pyproj.CRS(crs).axis_info[0].direction == "north" else (first, second)
    assert (
        values(build_from_cogs([scenes["ctx"]], bands={"v": 0}), pa.table({"x": x, "y": y}), crs)["value"]
        .to_numpy()
        .tolist()
        == want.tolist()
    )


def test_axes_of_planetary_crss() -> None:
    lon, lat = np.array([10.0]), np.array([45.0])
    assert [float(part[0]) for part in transform(SPHERE, OGRAPHIC, lon, lat)] == [-10.0, 45.0]
    x, y = transform(SPHERE, OCENTRIC, lon, lat)
    assert (x[0], y[0]) == pytest.approx((10.0, 44.6617680466192))
    back = transform(OCENTRIC, OGRAPHIC, x, y)
    assert (back[0][0], back[1][0]) == pytest.approx((-10.0, 45.0))
    assert full_turn(OCENTRIC) == 360.0 and footprint_crs(OCENTRIC) == OCENTRIC
    assert map_axes(OGRAPHIC).west and map_axes(OGRAPHIC).x == "longitude (°, IAU_2015:49901)"
    assert map_axes("IAU_2015:49911").x == "westing (m, IAU_2015:49911)" and not map_axes(SPHERE).west
    assert map_axes(crs_text('LOCAL_CS["Quarry",UNIT["metre",1]]')).x == "easting (m, Quarry)"


@pytest.mark.parametrize("crs", ["EPSG:4326", "IAU_2015:30100", "EPSG:32631"])
def test_points_of_another_body_are_one_error_that_names_both(scenes: dict[str, Path], crs: str) -> None:
    mars = build_from_cogs([scenes["ctx"]], bands={"v": 0})
    with pytest.raises(InputError, match=rf"points are in {crs}, .* of the collection \(IAU_2015:49910\)"):
        values(mars, pa.table({"x": [67.5], "y": [20.2]}), crs)


def test_a_collection_of_one_body_is_geoparquet_in_its_crs(scenes: dict[str, Path], tmp_path: Path) -> None:
    mars = build_from_cogs([scenes["ctx"], scenes["mola, south"]], bands={"v": 0}, name="mars")
    mars.export(tmp_path / "mars.parquet")
    frame = geopandas.read_parquet(tmp_path / "mars.parquet", columns=["id", "geometry"])
    assert frame.crs == pyproj.CRS(SPHERE)
    west, south, east, _ = frame.total_bounds
    loaded = load(tmp_path / "mars.parquet")
    assert (west, east) == (-180, 180) and south == -90.0  # the polar scene is around the pole
    assert loaded.bounds_crs == mars.bounds_crs == SPHERE and loaded.describe()["bounds_crs"] == SPHERE
    lon, lat = (side[0] for side in warped("IAU_2015:49910", SPHERE, [4_000_800], [1_199_200]))
    near = loaded.subset(bbox=(lon - 0.01, lat - 0.01, lon + 0.01, lat + 0.01))
    assert (
        near.to_table(["id"])["id"].to_pylist() == ["ctx"]
        and len(loaded.subset(bbox=(lon, lat + 1, lon, lat + 2))) == 0
    )
    circle = geopandas.GeoSeries([shapely.Point(lon, lat).buffer(0.01)], crs=SPHERE)
    assert len(loaded.subset(geometries=circle)) == len(loaded.subset(geometries=circle[0])) == 1
    with pytest.raises(InputError, match=f"geometries are in EPSG:4326; give them in {SPHERE}"):
        loaded.subset(geometries=circle.set_crs(4326, allow_override=True))
    again = build_from_table(str(tmp_path / "mars.parquet"))
    assert again.to_table(["id", "bbox", "footprint_crs"]) == loaded.to_table(["id", "bbox", "footprint_crs"])


def test_geometries_choose_the_body_by_their_crs(all_scenes: Collection) -> None:
    world = shapely.box(-180, -90, 180, 90)
    moon = all_scenes.subset(geometries=geopandas.GeoSeries([world], crs="IAU_2015:30100"))
    assert sorted(moon.to_table(["id"])["id"].to_pylist()) == ["lola", "lola_north"]
    assert moon.bounds_crs == "IAU_2015:30100"
    ax = moon.explore("matplotlib")
    assert ax.get_xlabel() == "longitude (°, IAU_2015:30100)" and len(ax.collections[0].get_paths()) == 2
    assert "tile.openstreetmap.org" not in moon.explore("folium").get_root().render()
    assert moon.explore("lonboard").basemap is None
    assert "in IAU_2015:30100" in moon._repr_html_()
    assert "IAU_2015:30100<br>" in moon.explore("folium").get_root().render()
    site = all_scenes.subset(ids="site").explore("matplotlib")
    assert site.get_xlabel() == "easting (m, Quarry)" and site.get_aspect() == 1.0
    matplotlib.pyplot.close("all")


def test_windows_by_metres_on_the_ellipsoid_of_the_body(tmp_path: Path) -> None:
    """A radius on a grid of degrees is the geodesic on the body: a brute force with its ellipsoid."""
    path = tmp_path / "mercury.tif"
    path.write_bytes(write(tmp_path, "a", "mdis", seed=3).read_bytes())
    with rasterio.open(path) as raster:
        pixels, nodata, at = raster.read(1), raster.nodata, raster.transform
    lon, lat = at * (20.3, 40.6)
    table = values(
        build_from_cogs([path], bands={"v": 0}),
        pa.table({"x": [lon], "y": [lat]}),
        SCENES["mdis"][0],
        radius=2_000,
        statistics=["count", "mean"],
    )
    cols, rows = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
    x, y = at * (cols, rows)
    geod = pyproj.Geod(a=2_439_400, b=2_439_400)
    distance = geod.inv(np.full(x.shape, lon), np.full(x.shape, lat), x, y)[2]
    chosen = pixels[(distance <= 2_000) & (pixels != nodata)].astype(np.float64)
    assert table["count"].to_pylist() == [len(chosen)] and 40 < len(chosen) < 100
    assert table["mean"][0].as_py() == pytest.approx(chosen.mean(), rel=1e-6)


def test_interpolation_across_files_and_the_nearest_date(tmp_path: Path) -> None:
    """Two neighbouring scenes of one day, and the western one of another: as one raster of both."""
    paths = [
        write(tmp_path, "west", "lola", 0, 1),
        write(tmp_path, "east", "lola", 64, 2),
        write(tmp_path, "old", "lola", 0, 3),
    ]
    moon = build_from_cogs(paths, bands={"v": 0}, datetime=["2020-01-02", "2020-01-02", "2019-01-01"])
    both = np.concatenate([rasterio.open(path).read(1) for path in paths[:2]], axis=1).astype(np.float64)
    at = SCENES["lola"][1]
    cols, rows = np.array([63.8, 64.2, 10.0, 100.25]), np.array([20.3, 20.3, 30.5, 40.75])
    x, y = at * (cols, rows)
    points = pa.table({"x": x, "y": y, "when": pa.array(["2020-01-01"] * 4)})
    table = values(
        moon, points, "IAU_2015:30110", match="nearest", time_column="when", tolerance="10D", resampling="bilinear"
    )
    left, top = np.floor(cols - 0.5).astype(int), np.floor(rows - 0.5).astype(int)
    dx, dy = cols - 0.5 - left, rows - 0.5 - top
    want = sum(
        weight * both[top + down, left + right]
        for down, right, weight in (
            (0, 0, (1 - dx) * (1 - dy)),
            (0, 1, dx * (1 - dy)),
            (1, 0, (1 - dx) * dy),
            (1, 1, dx * dy),
        )
    )
    np.testing.assert_allclose(table["value"].to_numpy(), want, rtol=1e-9)
    assert table["record_id"].to_pylist() == ["west", "east", "west", "east"]


def item(path: Path, code: str, **properties: Any) -> dict[str, Any]:
    """A STAC item of another body, with the extension for solar systems."""
    with rasterio.open(path) as raster:
        facts = {"proj:code": code, "proj:shape": list(raster.shape), "proj:transform": list(raster.transform)[:6]}
    ring = [[67.4, 20.2], [67.6, 20.2], [67.6, 20.3], [67.4, 20.3], [67.4, 20.2]]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": ["https://stac-extensions.github.io/ssys/v1.1.0/schema.json"],
        "id": path.stem,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [67.4, 20.2, 67.6, 20.3],
        "properties": {"datetime": "2020-01-02T00:00:00Z", "ssys:targets": ["Mars"], **facts, **properties},
        "assets": {
            "v": {"href": str(path), "type": "image/tiff", "roles": ["data"], "data_type": "uint16", "nodata": 0}
        },
        "links": [],
    }


@pytest.mark.parametrize("enrich", ["auto", False])
def test_items_of_planetary_catalogs(scenes: dict[str, Path], enrich: Any) -> None:
    collection = build_from_stac([item(scenes["ctx"], "IAU_2015:49910")], bands=["v"], enrich=enrich)
    points, want, _ = points_on(scenes["ctx"])
    table = values(collection, points, "IAU_2015:49910", extra_columns=["record:ssys:targets"])
    np.testing.assert_array_equal(table["value"].to_numpy(), want)
    assert json.loads(table["record:ssys:targets"][0].as_py()) == ["Mars"]
    assert collection.crs == ["IAU_2015:49910"] and collection.bounds_crs == SPHERE
    assert len(build_from_stac([item(scenes["ctx"], "IAU_2015:49910")], bands=["v"], bbox=(67.5, 20.2, 68, 21))) == 1


def test_a_file_without_a_crs_says_how_to_assign_one(tmp_path: Path) -> None:
    path = tmp_path / "bare.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=8, height=8, count=1, dtype="uint8", transform=Affine(1, 0, 5, 0, -1, 9)
    ) as out:
        out.write(np.ones((1, 8, 8), np.uint8))
    with pytest.raises(BuildError, match=r"bare.tif: the file has no CRS; assign one \(rio edit-info --crs"):
        build_from_cogs([path])


@pytest.mark.slow
def test_the_commands_build_and_read_scenes_of_mars_and_the_earth(tmp_path: Path) -> None:
    """The files of the collection agree in their columns, though only one month has scenes of Mars."""
    folder = tmp_path / "rasters"
    folder.mkdir()
    write(folder, "ctx_20200102", "ctx", seed=7)
    with rasterio.open(
        folder / "earth_20210505.tif",
        "w",
        driver="GTiff",
        width=8,
        height=8,
        count=1,
        dtype="uint16",
        crs="EPSG:32631",
        transform=Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as out:
        out.write(np.ones((1, 8, 8), np.uint16))
    built, given = tmp_path / "built", tmp_path / "points.parquet"
    outcome = execute(
        build_collection.main, "--cogs", folder, "--output", built, "--bands", "v", "--datetime_regex", r"_(\d{8})"
    )
    assert outcome.code == 0, outcome.err
    files = sorted(built.rglob("*.parquet"))
    of_column = [json.loads(pq.read_schema(file).metadata[b"geo"])["columns"]["geometry"].get("crs") for file in files]
    assert len(files) == 2 and all("footprint_crs" in pq.read_schema(file).names for file in files)
    assert pyproj.CRS(of_column[0]) == pyproj.CRS(SPHERE) and of_column[1] is None
    points, want, crs = points_on(folder / "ctx_20200102.tif")
    pq.write_table(points, given)
    reading = ("--collection", built, "--bands", "v", "--geometry_crs", crs)
    outcome = execute(
        sample_points.main,
        "--points",
        given,
        "--x_column",
        "x",
        "--y_column",
        "y",
        *reading,
        "--output",
        tmp_path / "out",
    )
    assert outcome.code == 0, outcome.err
    rows = pq.read_table(next(tmp_path.glob("out*.parquet"))).sort_by("point_index")
    np.testing.assert_array_equal(rows["value"].to_numpy(), want)
    assert load(built).bounds_crs == "OGC:CRS84"
    west, north = EQUIRECTANGULAR.c, EQUIRECTANGULAR.f
    field = shapely.box(west + 100, north - 300, west + 400, north - 50)
    pq.write_table(pa.table({"geometry": pa.array([field.wkb])}), tmp_path / "fields.parquet")
    outcome = execute(
        zonal_statistics.main,
        "--polygons",
        tmp_path / "fields.parquet",
        *reading,
        "--geometry_column",
        "geometry",
        "--statistics",
        "count,sum",
        "--output",
        tmp_path / "zones",
    )
    assert outcome.code == 0, outcome.err
    zones = pq.read_table(next(tmp_path.glob("zones*.parquet")))
    with rasterio.open(folder / "ctx_20200102.tif") as raster:
        inside = raster.read(1)[2:12, 4:16]
    assert zones["sum"].to_pylist() == [inside[inside != 0].sum()]
    assert zones["count"].to_pylist() == [(inside != 0).sum()]
