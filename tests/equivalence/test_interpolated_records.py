"""Interpolated samples of several records, bands and grids, with quality rules, against brute force point by point."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.transform import Affine

from pipelines.sample_points import main
from rasteret_beam import Collection, Quality, build_from_table
from tests.support.commands import execute
from tests.support.interpolated import reference
from tests.support.pipelines import ORDER, XY, read, sample_to

LEFT, TOP, SIDE = 500_000, 4_500_000, 80
METRES = {"B": 10, "C": 20, "SCL": 20}
IDS = ["old", "mid", "new"]
BANDS = ["B", "C"]
DAY = 86_400_000_000
CLEAR = Quality("SCL", keep=[4, 5])


def write(path: Path, pixels: np.ndarray, metres: int) -> None:
    place = Affine(metres, 0, LEFT, 0, -metres, TOP)
    layout = {"tiled": True, "blockxsize": 16, "blockysize": 16, "crs": "EPSG:32631", "nodata": 0}
    height, width = pixels.shape
    with rasterio.open(path, "w", "GTiff", width, height, 1, dtype=pixels.dtype, transform=place, **layout) as out:
        out.write(pixels, 1)


@dataclass(frozen=True)
class Scene:
    """Three records of one place, a day apart, the numbers of their bands, and points in 16ths of a pixel of ``B``."""

    folder: Path
    collection: Collection
    pixels: dict[tuple[str, str], np.ndarray]
    row: np.ndarray
    col: np.ndarray

    @property
    def points(self) -> pa.Table:
        when = pa.array(np.arange(len(self.row)) % 3 * DAY, pa.timestamp("us"))
        return pa.table({"x": LEFT + 10 * self.col, "y": TOP - 10 * self.row, "when": when})

    def value(self, point: int, record: str, band: str, size: int, skip: bool, rules: bool) -> float:
        """What a record has at a point, NaN where the sample is not valid."""
        pixels, step = self.pixels[record, band], METRES[band] // 10
        valid = pixels != 0
        if rules:
            passing = np.isin(self.pixels[record, "SCL"], [4, 5])
            valid = valid & (passing if band == "C" else passing.repeat(2, axis=0).repeat(2, axis=1))
        return reference(pixels, valid, self.row[point] / step, self.col[point] / step, size, skip)


def built(folder: Path, clear: float, n: int = 50) -> Scene:
    """A scene, of which a share of the quality pixels pass."""
    rng = np.random.default_rng(3)
    pixels = {}
    for record in IDS:
        for band, metres in METRES.items():
            side = SIDE * 10 // metres
            values = rng.integers(1, 200, (side, side)).astype(np.uint8 if band == "SCL" else np.uint16)
            if band == "SCL":
                values = np.where(rng.random(values.shape) < clear, 4, 9).astype(np.uint8)
            else:
                values[rng.random(values.shape) < 0.03] = 0
            pixels[record, band] = values
            write(folder / f"{record}_{band}.tif", values, metres)
    kind = pa.struct([("href", pa.string()), ("band_index", pa.int32())])
    assets = [{band: {"href": f"{folder}/{record}_{band}.tif", "band_index": 0} for band in METRES} for record in IDS]
    moments = pa.array([DAY * number for number in range(3)], pa.timestamp("us"))
    fields = pa.struct([(band, kind) for band in METRES])
    table = pa.table({"id": IDS, "datetime": moments, "assets": pa.array(assets, fields)})
    row, col = (rng.integers(2, SIDE - 3, n) + rng.integers(1, 16, n) / 16 for _ in "xy")
    return Scene(folder, build_from_table(table, name="scene"), pixels, row, col)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    made = built(tmp_path_factory.mktemp("scene"), 0.9)
    made.collection.export(made.folder / "collection")
    pq.write_table(made.points, made.folder / "points.parquet")
    return made


Rows = dict[tuple[int, str], tuple[str, float]]


def walked(scene: Scene, size: int, skip: bool, kept: bool) -> Rows:
    """By point and band the newest record that is valid, and its value; ``kept``: else the newest, and NaN."""
    rows: Rows = {}
    for point in range(len(scene.row)):
        for band in BANDS:
            for record in reversed(IDS):
                value = scene.value(point, record, band, size, skip, rules=True)
                if math.isfinite(value):
                    rows[point, band] = record, value
                    break
            else:
                if kept:
                    rows[point, band] = IDS[-1], math.nan
    return rows


def check(found: Rows, expected: Rows) -> None:
    assert {at: record for at, (record, _) in found.items()} == {at: record for at, (record, _) in expected.items()}
    values = ([rows[at][1] for at in sorted(rows)] for rows in (found, expected))
    np.testing.assert_allclose(*values, rtol=1e-9)


def of_table(table: pa.Table) -> Rows:
    return {
        (row["point_index"], row["band"]): (row["record_id"], math.nan if row["value"] is None else row["value"])
        for row in table.to_pylist()
    }


SIZES: dict[Any, int] = {"bilinear": 2, "cubic": 4}
WALK: dict[str, Any] = {"match": "latest", "quality": [CLEAR], "skip_invalid": True}


@pytest.mark.parametrize(("resampling", "skip"), [("bilinear", False), ("cubic", True), ("cubic", False)])
@pytest.mark.parametrize("invalid", ["null", "drop"])
def test_the_next_record_is_taken_where_the_interpolated_sample_is_not_valid(
    scene: Scene, resampling: Any, skip: bool, invalid: Any
) -> None:
    options = {**WALK, "resampling": resampling, "skip_nodata": skip, "invalid": invalid}
    samples = scene.collection.sample_points(scene.points, BANDS, **XY, **options)
    expected = walked(scene, SIZES[resampling], skip, kept=invalid == "null")
    assert skip or {record for record, _ in expected.values()} == {*IDS}
    check(of_table(samples), expected)


@pytest.mark.parametrize("rules", [True, False])
def test_all_records_and_those_nearest_in_time(scene: Scene, rules: bool) -> None:
    options: dict[str, Any] = {"resampling": "bilinear", "invalid": "null", "quality": [CLEAR] if rules else []}
    samples = scene.collection.sample_points(scene.points, BANDS, **XY, **options)
    found = {(row["point_index"], row["record_id"], row["band"]): row["value"] for row in samples.to_pylist()}
    for (point, record, band), value in found.items():
        expected = scene.value(point, record, band, 2, False, rules)
        assert (value is None) == math.isnan(expected)
        assert value is None or math.isclose(value, expected, rel_tol=1e-9)
    assert len(found) == len(samples) == len(scene.row) * len(IDS) * len(BANDS)
    nearest = scene.collection.sample_points(
        scene.points, BANDS, **XY, **options, match="nearest", time_column="when", tolerance="6h"
    )
    pairs = [(point, band, IDS[point % 3]) for point in range(len(scene.row)) for band in BANDS]
    values = {at: math.nan if value is None else value for at, value in found.items()}
    check(of_table(nearest), {(point, band): (own, values[point, own, band]) for point, band, own in pairs})


@pytest.mark.parametrize("layout", ["columns", "values"])
def test_wide_rows_have_the_values_of_long_ones(scene: Scene, layout: Any) -> None:
    options = {**WALK, "resampling": "bilinear", "invalid": "null"}
    wide = scene.collection.sample_points(scene.points, BANDS, **XY, **options, layout=layout).sort_by("point_index")
    if layout == "columns":
        columns = [wide[band].to_pylist() for band in BANDS]
    else:
        columns = [list(column) for column in zip(*wide["values"].to_pylist(), strict=True)]
    expected = walked(scene, 2, False, kept=True)
    for band, column in zip(BANDS, columns, strict=True):
        values = [math.nan if value is None else value for value in column]
        np.testing.assert_allclose(values, [expected[point, band][1] for point in range(len(values))], rtol=1e-9)


def test_with_a_left_join_points_without_a_valid_sample_have_a_row(scene: Scene) -> None:
    options = {**WALK, "resampling": "cubic", "invalid": "drop", "max_candidates": 1, "join": "left"}
    samples = scene.collection.sample_points(scene.points, BANDS, **XY, **options)
    newest = {
        (point, band): scene.value(point, IDS[-1], band, 4, False, True)
        for point in range(len(scene.row))
        for band in BANDS
    }
    assert len(samples) == len(newest)
    none = {(row["point_index"], row["band"]) for row in samples.to_pylist() if row["record_id"] is None}
    assert none == {at for at, value in newest.items() if math.isnan(value)} and 20 < len(none) < len(newest)


def test_a_pipeline_and_the_command_give_the_rows_of_the_eager_call(scene: Scene, tmp_path: Path) -> None:
    options = {**WALK, "resampling": "bilinear", "invalid": "drop"}
    eager = scene.collection.sample_points(scene.points, BANDS, **XY, **options).sort_by(ORDER)
    source = f"{scene.folder}/points.parquet"
    piped, _ = sample_to(tmp_path / "piped", source, scene.collection, bands=BANDS, **options)
    assert piped.equals(eager)
    flags = ["--resampling=bilinear", "--quality=SCL in 4,5", "--skip_invalid", "--invalid=drop", "--match=latest"]
    around = [f"--collection={scene.folder}/collection", f"--points={source}", "--bands=B,C"]
    place = ["--x_column=x", "--y_column=y", "--geometry_crs=32631"]
    done = execute(main, *around, *place, *flags, f"--output={tmp_path}/commanded")
    assert (done.code, done.err) == (0, "")
    assert read(tmp_path / "commanded").sort_by(ORDER).equals(eager)


def test_no_pixel_is_read_that_no_sample_needs(tmp_path: Path) -> None:
    """Where the newest record is valid everywhere, no other is opened; nor a band where no pixel passes."""
    made = built(tmp_path, 1.0, 20)
    for record in IDS:
        for band in BANDS:
            made.pixels[record, band][made.pixels[record, band] == 0] = 7
            write(tmp_path / f"{record}_{band}.tif", made.pixels[record, band], METRES[band])
    (tmp_path / "old_B.tif").unlink(), (tmp_path / "mid_B.tif").unlink()
    options = {**WALK, "resampling": "bilinear", "invalid": "drop"}
    samples = made.collection.sample_points(made.points, BANDS, **XY, **options)
    check(of_table(samples), walked(made, 2, False, kept=False))
    made.pixels["new", "SCL"][:] = 9
    write(tmp_path / "new_SCL.tif", made.pixels["new", "SCL"], 20)
    write(tmp_path / "mid_B.tif", made.pixels["mid", "B"], 10)
    (tmp_path / "new_B.tif").unlink(), (tmp_path / "new_C.tif").unlink()
    samples = made.collection.sample_points(made.points, BANDS, **XY, **options)
    assert set(samples["record_id"].to_pylist()) == {"mid"}
    check(of_table(samples), walked(made, 2, False, kept=False))


def test_columns_of_the_pixel_are_those_of_the_one_that_the_point_lies_in(scene: Scene) -> None:
    extra = ["status", "nodata", "pixel_row", "pixel_col", "pixel_x", "pixel_y", "distance"]
    samples = scene.collection.sample_points(
        scene.points, ["B"], **XY, match="latest", resampling="cubic", skip_nodata=True, extra_columns=extra
    ).sort_by("point_index")
    row, col = np.floor(scene.row), np.floor(scene.col)
    np.testing.assert_array_equal(samples["pixel_row"].to_numpy(), row)
    np.testing.assert_array_equal(samples["pixel_col"].to_numpy(), col)
    np.testing.assert_array_equal(samples["pixel_x"].to_numpy(), LEFT + 10 * col + 5)
    np.testing.assert_array_equal(samples["pixel_y"].to_numpy(), TOP - 10 * row - 5)
    assert set(samples["distance"].to_pylist()) == {0.0} and set(samples["nodata"].to_pylist()) == {0.0}
    assert set(samples["status"].cast(pa.string()).to_pylist()) == {"valid"}


def test_scales_apply_before_interpolation(scene: Scene) -> None:
    samples = scene.collection.sample_points(
        scene.points, BANDS, **XY, resampling="cubic", unscale=True, scales={"B": (0.5, -10.0)}, value_type="float32"
    )
    assert samples["value"].type == pa.float32()
    for row in samples.to_pylist():
        expected = scene.value(row["point_index"], row["record_id"], row["band"], 4, False, False)
        expected = expected * 0.5 - 10 if row["band"] == "B" else expected
        assert (row["value"] is None) == math.isnan(expected)
        assert row["value"] is None or math.isclose(row["value"], expected, rel_tol=1e-6, abs_tol=1e-5)


@pytest.mark.parametrize(
    "options", [{"invalid": "null"}, {"invalid": "drop"}, {"match": "latest", "skip_invalid": True, "invalid": "drop"}]
)
def test_quality_of_smaller_pixels_counts_at_the_centres_of_those_that_are_summed_up(
    tmp_path: Path, options: Any
) -> None:
    """SCL of 20 m beside a band of 60 m: only each third SCL pixel holds the centre of a pixel of the band."""
    quality = np.full((24, 24), 9, np.uint8)
    quality[1::3, 1::3] = 4  # the centres pass, all around them fails
    quality[13, 13] = 9
    values = np.arange(1, 65, dtype=np.uint16).reshape(8, 8)
    write(tmp_path / "a_B01.tif", values, 60)
    write(tmp_path / "a_SCL.tif", quality, 20)
    kind = pa.struct([("href", pa.string()), ("band_index", pa.int32())])
    assets = [{band: {"href": f"{tmp_path}/a_{band}.tif", "band_index": 0} for band in ("B01", "SCL")}]
    fields = pa.struct([("B01", kind), ("SCL", kind)])
    moment = pa.array([DAY], pa.timestamp("us"))
    collection = build_from_table(pa.table({"id": ["a"], "datetime": moment, "assets": pa.array(assets, fields)}))
    row, col = np.array([2.1, 2.1, 5.5, 3.9, 4.4]), np.array([2.1, 2.5, 2.2, 3.9, 4.5])
    points = pa.table({"x": LEFT + 60 * col, "y": TOP - 60 * row})
    samples = collection.sample_points(points, ["B01"], **XY, quality=[CLEAR], resampling="bilinear", **options)
    valid = np.ones((8, 8), bool)
    valid[4, 4] = False
    expected = [reference(values, valid, r, c, 2, False) for r, c in zip(row, col, strict=True)]
    assert [math.isfinite(value) for value in expected] == [True, True, True, False, False]
    found = {row["point_index"]: row["value"] for row in samples.to_pylist() if row["value"] is not None}
    assert found == pytest.approx({at: value for at, value in enumerate(expected) if math.isfinite(value)})
