"""Interpolated values equal a reference that goes point by point, and PROJ on geoid grids; pipelines give the same."""

import math
import os
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio
import rasterio.warp
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from rasteret_beam import Collection, ReadPoints, SampleOptions, SamplePoints, WriteSamplesToParquet, build_from_cogs
from rasteret_beam.errors import BuildError, InputError
from tests.support.interpolated import reference, write
from tests.support.pipelines import XY, read, run
from tests.support.properties import examples

DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
NORTH_UP, SOUTH_UP, OBLIQUE = Affine(8, 0, 0, 0, -2, 200), Affine(8, 0, 0, 0, 8, 0), Affine(16, 8, 4096, 8, -16, 4096)
GEOID = Path(os.environ.get("RASTERET_BEAM_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "geoid"


def numbers(dtype: str, share: float, seed: int, shape: tuple[int, int] = (40, 50)) -> np.ndarray:
    """Pixels of which a share is nodata."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 120, shape).astype(dtype)
    values[rng.random(shape) < share] = 127
    if values.dtype.kind == "f":
        values[rng.random(shape) < share / 2] = np.nan
    return values


def positions(n: int, seed: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns in 16ths of a pixel: many lie on rows and columns of centres, none on an edge of pixels."""
    rng = np.random.default_rng(seed)
    row, col = (rng.integers(0, size, n) + rng.integers(1, 16, n) / 16 for size in shape)
    return row, col


def points_at(transform: Affine, row: np.ndarray, col: np.ndarray) -> pa.Table:
    x, y = transform * (col, row)
    return pa.table({"x": x, "y": y})


@settings(max_examples=examples(32), deadline=None, derandomize=True)
@given(
    transform=st.sampled_from([NORTH_UP, SOUTH_UP, OBLIQUE]),
    dtype=st.sampled_from(
        ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
    ),
    share=st.sampled_from([0.0, 0.1, 0.6]),
    resampling=st.sampled_from(["bilinear", "cubic"]),
    skip=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_values_equal_the_reference(
    tmp_path_factory: pytest.TempPathFactory,
    transform: Affine,
    dtype: str,
    share: float,
    resampling: Any,
    skip: bool,
    seed: int,
) -> None:
    values = numbers(dtype, share, seed)
    path = write(tmp_path_factory.mktemp("pixels") / "a.tif", values, transform, nodata=127)
    row, col = positions(80, seed, values.shape)
    samples = build_from_cogs([path]).sample_points(
        points_at(transform, row, col),
        ["B1"],
        **XY,
        resampling=resampling,
        skip_nodata=skip,
        extra_columns=["status", "pixel_row", "pixel_col", "distance"],
    )
    rows = samples.sort_by("point_index")
    valid, size = (values != 127) & (values == values), {"bilinear": 2, "cubic": 4}[resampling]
    expected = [reference(values, valid, r, c, size, skip) for r, c in zip(row, col, strict=True)]
    np.testing.assert_allclose(rows["value"].to_numpy(), expected, rtol=1e-9, atol=1e-9)
    status = np.array(rows["status"].cast(pa.string()).to_pylist())
    np.testing.assert_array_equal(status == "valid", np.isfinite(expected))
    assert set(status) <= {"valid", "nodata"}
    np.testing.assert_array_equal(rows["pixel_row"].to_numpy(), np.floor(row))
    np.testing.assert_array_equal(rows["pixel_col"].to_numpy(), np.floor(col))
    assert set(rows["distance"].to_pylist()) == {0.0}


@pytest.mark.parametrize("resampling", ["bilinear", "cubic"])
def test_gdal_warps_to_the_same_values(tmp_path: Path, resampling: Any) -> None:
    """Points are the centres of a raster that lies between the pixels, to which GDAL resamples."""
    values = np.random.default_rng(5).uniform(0, 1000, (40, 50))
    path = write(tmp_path / "a.tif", values, NORTH_UP)
    between = NORTH_UP @ Affine.translation(3.3, 3.7)  # no pixel beyond the edge is needed
    warped = np.zeros((32, 42))
    warp = {"src_transform": NORTH_UP, "dst_transform": between, "src_crs": "EPSG:32631", "dst_crs": "EPSG:32631"}
    rasterio.warp.reproject(values, warped, resampling=rasterio.enums.Resampling[resampling], **warp)
    row, col = (part.ravel() + 0.5 for part in np.indices(warped.shape))
    points = points_at(between, row, col)
    samples = build_from_cogs([path]).sample_points(points, ["B1"], **XY, resampling=resampling)
    np.testing.assert_allclose(samples.sort_by("point_index")["value"].to_numpy(), warped.ravel(), rtol=1e-9)


def ramp(tmp_path: Path, **profile: Any) -> Collection:
    """A raster of the number 10 * row + col."""
    values = (10.0 * np.arange(40)[:, None] + np.arange(50)).astype(np.float32)
    return build_from_cogs([write(tmp_path / "ramp.tif", values, NORTH_UP, **profile)])


def test_a_mask_counts_and_the_first_pixel_that_is_left_out_gives_the_status(tmp_path: Path) -> None:
    values = np.arange(1600, dtype=np.int16).reshape(40, 40)
    path = write(tmp_path / "a.tif", values, NORTH_UP, nodata=45)  # pixel (1, 5)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        mask = np.full((40, 40), 255, dtype=np.uint8)
        mask[20, 20] = 0
        dataset.write_mask(mask)
    row, col = np.array([20.9, 19.75, 1.25, 5.0, 0.25]), np.array([20.9, 20.6, 4.75, 5.0, 30.0])
    samples = build_from_cogs([path]).sample_points(
        points_at(NORTH_UP, row, col), ["B1"], **XY, resampling="bilinear", extra_columns=["status"], invalid="null"
    )
    rows = samples.sort_by("point_index")
    assert rows["status"].cast(pa.string()).to_pylist() == ["masked", "masked", "nodata", "valid", "nodata"]
    np.testing.assert_allclose(rows["value"][3].as_py(), 40 * 4.5 + 4.5)
    assert rows["value"].to_pylist()[:3] == [None] * 3 and rows["value"][4].as_py() is None


@pytest.mark.parametrize(("resampling", "last"), [("bilinear", 0.5), ("cubic", 1.5)])
def test_beyond_the_edge_pixels_are_missing(tmp_path: Path, resampling: Any, last: float) -> None:
    collection = ramp(tmp_path)
    row = np.array([last, last - 0.25, 40 - last, 40 - last + 0.25, 0.5])
    points = points_at(NORTH_UP, row, np.array([20.25, 20.25, 20.25, 20.25, 20.5]))
    strict = collection.sample_points(points, ["B1"], **XY, resampling=resampling).sort_by("point_index")
    expected = [10 * (last - 0.5) + 19.75, math.nan, 10 * (39.5 - last) + 19.75, math.nan, 20.0]
    np.testing.assert_allclose(strict["value"].to_numpy(), expected, rtol=1e-12)
    lenient = collection.sample_points(points, ["B1"], **XY, resampling=resampling, skip_nodata=True)
    assert np.isfinite(lenient["value"].to_numpy()).all()


def test_what_becomes_of_invalid_samples(tmp_path: Path) -> None:
    collection = ramp(tmp_path, nodata=205.0)  # pixel (20, 5), and others of the same number
    points = points_at(NORTH_UP, np.array([20.25, 30.5]), np.array([5.75, 9.5]))
    options = {**XY, "resampling": "bilinear"}
    kept = collection.sample_points(points, ["B1"], **options).sort_by("point_index")["value"].to_pylist()
    assert math.isnan(kept[0]) and kept[1] == 309.0
    null = collection.sample_points(points, ["B1"], **options, invalid="null").sort_by("point_index")
    assert null["value"].to_pylist() == [None, 309.0]
    dropped, unsampled = collection.sample_points(points, ["B1"], **options, invalid="drop", return_unsampled=True)
    assert dropped["value"].to_pylist() == [309.0] and unsampled["reason"].to_pylist() == ["invalid"]
    scaled = collection.sample_points(points, ["B1"], **options, unscale=True, scales={"B1": (0.5, 1.0)})
    assert scaled.sort_by("point_index")["value"].to_pylist() == [None, 155.5]


def test_long_integers_are_rounded_to_doubles_and_single_precision_at_the_end(tmp_path: Path) -> None:
    values = np.full((20, 20), 2**60 + 1, dtype=np.int64)
    collection = build_from_cogs([write(tmp_path / "a.tif", values, NORTH_UP)])
    points = points_at(NORTH_UP, np.array([5.3]), np.array([5.3]))
    samples = collection.sample_points(points, ["B1"], **XY, resampling="cubic", value_type="float32")
    assert samples["value"].type == pa.float32()
    np.testing.assert_allclose(samples["value"][0].as_py(), 2.0**60, rtol=1e-7)


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.ones((20, 20), dtype=np.complex64), NORTH_UP)
    with pytest.raises(BuildError, match="band index 0 is complex64; only real numbers can be sampled"):
        build_from_cogs([path])


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("resampling", ["bilinear", "cubic"])
def test_infinite_pixels_and_the_largest_numbers(tmp_path: Path, resampling: Any) -> None:
    values = np.arange(400, dtype=np.float64).reshape(20, 20)
    values[5, 5], values[15, 5], values[15, 6], values[5, 15] = np.inf, np.inf, -np.inf, -np.finfo(np.float64).max
    path = write(tmp_path / "a.tif", values, NORTH_UP, nodata=-np.finfo(np.float64).max)
    row, col = np.array([5.25, 5.5, 15.75, 5.25, 10.5]), np.array([5.25, 6.5, 6.0, 15.75, 10.5])
    samples = build_from_cogs([path]).sample_points(
        points_at(NORTH_UP, row, col), ["B1"], **XY, resampling=resampling, extra_columns=["status"]
    )
    rows = samples.sort_by("point_index")
    np.testing.assert_array_equal(rows["value"].to_numpy(), [np.inf, 106, np.nan, np.nan, 210])
    assert rows["status"].cast(pa.string()).to_pylist() == ["valid", "valid", "nodata", "nodata", "valid"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip_nodata": True}, "skip_nodata is True, but resampling is 'nearest'"),
        ({"resampling": "bilinear", "max_distance_pixels": 2}, "but max_distance_pixels is 2"),
        ({"resampling": "cubic", "value_type": "raw"}, "but value_type is 'raw'"),
        ({"resampling": "lanczos"}, "resampling is 'lanczos'; it can be one of"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SampleOptions(**options)


@pytest.mark.skipif(not GEOID.is_dir(), reason=f"no real rasters in {GEOID} (set RASTERET_BEAM_REAL_DATA)")
@pytest.mark.parametrize("name", ["us_nga_egm96_15", *(f"us_noaa_g1999u0{number}" for number in range(1, 9))])
def test_proj_interpolates_the_same_geoid_heights(name: str) -> None:
    grid, rng = GEOID / f"{name}.tif", np.random.default_rng(16)
    with rasterio.open(grid) as dataset:
        left, bottom, right, top = dataset.bounds
        crs, step = dataset.crs.to_string(), dataset.res[0]
    x, y = rng.uniform(left + step, right - step, 10_000), rng.uniform(bottom + step, top - step, 10_000)
    order = np.lexsort((x // (64 * step), y // (64 * step)))  # PROJ reads a tile for each point otherwise
    x, y = x[order], y[order]
    pipeline = f"+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad +step +proj=vgridshift +grids={grid}"
    *_, height = pyproj.Transformer.from_pipeline(f"{pipeline} +multiplier=1").transform(x, y, np.zeros(10_000))
    samples = build_from_cogs([grid]).sample_points(
        pa.table({"x": x, "y": y}), ["B1"], x_column="x", y_column="y", geometry_crs=crs, resampling="bilinear"
    )
    assert len(samples) == 10_000
    np.testing.assert_allclose(samples.sort_by("point_index")["value"].to_numpy(), height, atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", [{"skip_nodata": True}, {"invalid": "drop"}, {"layout": "columns"}])
def test_the_pipeline_gives_the_rows_of_the_eager_call(tmp_path: Path, options: dict[str, Any]) -> None:
    values = numbers("uint8", 0.1, 3)
    collection = build_from_cogs([write(tmp_path / "a.tif", values, NORTH_UP, nodata=127)])
    row, col = positions(300, 3, values.shape)
    points = points_at(NORTH_UP, row, col)
    options = {"resampling": "cubic", **options}
    eager = collection.sample_points(points, ["B1"], **XY, **options).sort_by("point_index")
    source = tmp_path / "points.parquet"
    pq.write_table(points, source)

    def build(pipeline: beam.Pipeline) -> None:
        samples = pipeline | ReadPoints(str(source), **XY) | SamplePoints(collection, ["B1"], **options)
        samples | WriteSamplesToParquet(str(tmp_path / "out"))

    run(build)
    piped = read(tmp_path / "out")
    value = "B1" if options.get("layout") == "columns" else "value"
    np.testing.assert_array_equal(piped["point_index"].to_numpy(), eager["point_index"].to_numpy())
    np.testing.assert_array_equal(piped[value].to_numpy(), eager[value].to_numpy())
    skip = "skip_nodata" in options
    expected = [reference(values, values != 127, r, c, 4, skip) for r, c in zip(row, col, strict=True)]
    at = np.array(expected)[eager["point_index"].to_numpy()]
    np.testing.assert_allclose(eager[value].to_numpy(), at, rtol=1e-9, atol=1e-9)
