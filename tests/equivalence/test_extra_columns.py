"""Optional columns against rasterio, on grids that are turned, south-up and coarse, with and without fallback."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import rasterio
from rasterio.transform import Affine, rowcol

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
