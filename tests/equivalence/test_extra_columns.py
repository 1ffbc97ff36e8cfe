"""Optional columns against rasterio, PROJ and GEOS, on turned and south-up grids, with and without fallback."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import shapely
from pyproj import Transformer
from rasterio.transform import Affine, rowcol, xy

from rasteret_beam import Collection, build_from_cogs
from rasteret_beam.errors import InputError
from tests.support.rasters import RasterCase

GRIDS = {
    "north-up": Affine(10, 0, 500_000, 0, -10, 5_400_000),
    "south-up": Affine(10, 0, 500_000, 0, 10, 5_399_040),
    "turned": Affine(8, 3, 500_000, 2, -9, 5_400_000),
}
EXTRA = ["pixel_row", "pixel_col", "href"]


@pytest.fixture(params=GRIDS)
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Collection:
    case = RasterCase(
        name="a", dtype="int16", count=1, nodata=-1, width=96, height=96, tile=(32, 32), transform=GRIDS[request.param]
    )
    path = case.write(tmp_path)
    with rasterio.open(path, "r+") as dataset:
        values = dataset.read(1)
        values[np.random.default_rng(3).random(values.shape) < 0.4] = -1
        dataset.write(values, 1)
    return build_from_cogs([path], bands={"v": 0})


@pytest.fixture
def points(collection: Collection) -> pa.Table:
    col, row = np.random.default_rng(4).uniform(0, 96, (2, 500))
    with rasterio.open(collection.to_table()["assets"][0].as_py()["v"]["href"]) as dataset:
        a, b, c, d, e, f = dataset.transform[:6]
    return pa.table({"x": a * col + b * row + c, "y": d * col + e * row + f})


XY = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}


def test_pixels_are_those_of_rasterio(collection: Collection, points: pa.Table) -> None:
    samples = collection.sample_points(points, ["v"], extra_columns=EXTRA, **XY).sort_by("point_index")
    assert samples.schema.names[10:] == [*EXTRA, "x", "y"]
    assert [samples.schema.field(name).type for name in EXTRA] == [pa.int32(), pa.int32(), pa.string()]
    (href,) = set(samples["href"].to_pylist())
    with rasterio.open(href) as dataset:
        row, col = rowcol(dataset.transform, points["x"].to_numpy(), points["y"].to_numpy())
    at = samples["point_index"].to_numpy()
    assert len(at) > 450
    assert samples["pixel_row"].to_pylist() == np.asarray(row, int)[at].tolist()
    assert samples["pixel_col"].to_pylist() == np.asarray(col, int)[at].tolist()


def test_the_pixel_of_a_fallback_holds_the_value(collection: Collection, points: pa.Table) -> None:
    options = {"max_distance_pixels": 2, "extra_columns": EXTRA} | XY
    samples = collection.sample_points(points, ["v"], **options).sort_by("point_index")
    own = collection.sample_points(points, ["v"], extra_columns=EXTRA, **XY).sort_by("point_index")
    with rasterio.open(samples["href"][0].as_py()) as dataset:
        values = dataset.read(1)
    row, col = samples["pixel_row"].to_numpy(), samples["pixel_col"].to_numpy()
    assert np.array_equal(values[row, col], samples["value"].to_numpy())
    away = np.maximum(abs(row - own["pixel_row"].to_numpy()), abs(col - own["pixel_col"].to_numpy()))
    filled = (own["value"].to_numpy() == -1) & (samples["value"].to_numpy() != -1)
    assert filled.sum() > 100 and away.max() <= 2
    assert np.array_equal(away > 0, filled)


def test_names_are_reserved_only_where_they_are_asked_for(collection: Collection, points: pa.Table) -> None:
    named = points.append_column("href", pa.array(["mine"] * len(points)))
    assert set(collection.sample_points(named, ["v"], **XY)["href"].to_pylist()) == {"mine"}
    with pytest.raises(InputError, match=r"^extra_columns adds column\(s\) href, but the sample table has columns of"):
        collection.sample_points(named, ["v"], extra_columns=["href"], **XY)


PLACES = ["pixel_row", "pixel_col", "pixel_x", "pixel_y", "pixel_lon", "pixel_lat", "distance", "status"]


@pytest.mark.parametrize("radius", [0, 2])
def test_places_of_pixels_are_those_of_rasterio_and_proj(collection: Collection, points: pa.Table, radius: int) -> None:
    """The distance is that of GEOS from the point to the pixel's parallelogram."""
    samples = collection.sample_points(points, ["v"], extra_columns=PLACES, max_distance_pixels=radius, **XY)
    found = {name: samples[name].to_numpy() for name in PLACES[:-1]}
    row, col = found["pixel_row"], found["pixel_col"]
    with rasterio.open(collection.to_table()["assets"][0].as_py()["v"]["href"]) as dataset:
        transform = dataset.transform
    x, y = (np.asarray(places) for places in xy(transform, row, col))
    np.testing.assert_allclose(found["pixel_x"], x, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found["pixel_y"], y, rtol=0, atol=1e-8)
    lon, lat = Transformer.from_crs("EPSG:32631", "OGC:CRS84", always_xy=True).transform(x, y)
    np.testing.assert_allclose(found["pixel_lon"], lon, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["pixel_lat"], lat, rtol=0, atol=1e-12)
    corners = [xy(transform, row, col, offset=corner) for corner in ("ul", "ur", "lr", "ll")]
    pixels = shapely.polygons(np.stack([np.stack(corner, axis=1) for corner in corners], axis=1))
    apart = shapely.distance(pixels, shapely.points(samples["point_x"], samples["point_y"]))
    np.testing.assert_allclose(found["distance"], apart, rtol=0, atol=1e-7)
    is_filled = np.array(samples["status"].to_pylist()) == "filled"
    assert (found["distance"][~is_filled] == 0).all() and (found["distance"][is_filled] > 0).all()
    assert is_filled.any() == bool(radius)


def test_status_of_samples(collection: Collection, points: pa.Table) -> None:
    samples = collection.sample_points(points, ["v"], extra_columns=["status"], **XY)
    assert samples.schema.field("status").type == pa.dictionary(pa.int8(), pa.string())
    is_nodata = samples["value"].to_numpy() == -1
    assert 100 < is_nodata.sum() < len(samples) - 100
    assert samples["status"].to_pylist() == np.where(is_nodata, "nodata", "valid").tolist()


def test_longitudes_beyond_the_earth(tmp_path: Path) -> None:
    """On the Moon they are those of the Moon; in a local CRS the columns are null."""
    local = 'ENGCRS["site",EDATUM["site"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    for number, crs in enumerate(["IAU_2015:30110", local]):
        transform = Affine(1, 0, 0, 0, -1, 32)
        size = {"width": 32, "height": 32, "tile": (32, 32)}
        path = RasterCase(name=f"r{number}", dtype="int16", count=1, crs=crs, transform=transform, **size).write(
            tmp_path
        )
        points = pa.table({"x": [5.5, 6.5], "y": [3.5, 3.25]})
        collection = build_from_cogs([path], bands={"v": 0})
        extra = ["pixel_x", "pixel_lon", "pixel_lat"]
        given = {"x_column": "x", "y_column": "y", "geometry_crs": collection.crs[0]}
        found = collection.sample_points(points, ["v"], extra_columns=extra, **given)
        assert found["pixel_x"].to_pylist() == [5.5, 6.5]
        lonlat = found["pixel_lon"].to_pylist(), found["pixel_lat"].to_pylist()
        if crs == local:
            assert lonlat == ([None, None], [None, None])
        else:
            radius = 1_737_400.0
            np.testing.assert_allclose(lonlat[0], np.degrees(np.array([5.5, 6.5]) / radius), rtol=1e-12)
            np.testing.assert_allclose(lonlat[1], np.degrees(np.array([3.5, 3.5]) / radius), rtol=1e-12)


@pytest.mark.parametrize("nodata", [None, -7, float("nan")])
def test_facts_of_the_band(tmp_path: Path, nodata: float | None) -> None:
    case = RasterCase(name="a", dtype="float32", count=2, nodata=nodata, width=32, height=32, tile=(32, 32))
    path = case.write(tmp_path)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.5, 1.0), (-3.0, 0.0)
    points = pa.table({"x": [500_010.0], "y": [4_499_990.0]})
    extra = ["nodata", "scale", "offset", "candidate"]
    found = build_from_cogs([path]).sample_points(points, ["B1", "B2"], extra_columns=extra, **XY).sort_by("band")
    assert found.select(extra).schema.types == [pa.float64()] * 3 + [pa.int32()]
    np.testing.assert_equal(found["nodata"].to_pylist(), [nodata] * 2)
    assert found["scale"].to_pylist() == [0.5, 1.0] and found["offset"].to_pylist() == [-3.0, 0.0]
    assert found["candidate"].to_pylist() == [0, 0]


def test_status_of_wide_rows(tmp_path: Path) -> None:
    """Valid where all bands are, else the status of the first that is not."""
    case = RasterCase(name="w", dtype="int16", count=3, nodata=-1, width=32, height=32, tile=(32, 32))
    path = case.write(tmp_path)
    with rasterio.open(path, "r+") as dataset:
        values = dataset.read()
        values[:, 0, :8] = [[1, -1, 1, 1, -1, 1, -1, -1], [1, 1, -1, 1, -1, -1, 1, -1], [1, 1, 1, -1, 1, -1, -1, -1]]
        values[:, 1, :8] = 5
        dataset.write(values)
    points = pa.table({"x": 500_000 + 16 * (np.arange(8) + 0.5), "y": np.full(8, 4_500_000 - 8.0)})
    collection = build_from_cogs([path])
    options = {"extra_columns": ["status"], "layout": "columns", "max_distance_pixels": 1} | XY
    found = collection.sample_points(points, ["B1", "B2", "B3"], **options).sort_by("point_index")
    assert found["status"].to_pylist() == ["valid"] + ["filled"] * 7
    plain = collection.sample_points(points, ["B1", "B2", "B3"], **options | {"max_distance_pixels": 0})
    assert plain.sort_by("point_index")["status"].to_pylist() == ["valid"] + ["nodata"] * 7
