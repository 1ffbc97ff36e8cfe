"""Interpolation reads just the tiles that hold a pixel with a weight: in runs, in plans, and in dead letters."""

import shutil
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from rasteret_beam import (
    Collection,
    ReadPoints,
    SampleDeadLetters,
    SamplePoints,
    WriteSamplesToParquet,
    build_from_cogs,
    metrics,
)
from rasteret_beam.collection.eager.plan import plan_totals
from rasteret_beam.errors import InputError
from tests.support.interpolated import needed
from tests.support.pipelines import ORDER, XY, read, run
from tests.support.properties import examples

PLACE = Affine(8, 0, 500_000, 0, -8, 4_500_000)
SIZES = {"bilinear": 2, "cubic": 4}
FIGURES = (metrics.TILES_DECODED, metrics.TILE_BYTES_READ, metrics.RANGE_REQUESTS, metrics.SAMPLES_OUT)
BANDS = ["B1", "B2"]


def write(path: Path, height: int = 88, width: int = 72, **layout: Any) -> Path:
    """Two bands, one after the other, in tiles of 16 x 16 unless the layout says otherwise."""
    pixels = np.random.default_rng(7).integers(0, 4000, (2, height, width)).astype(np.uint16)
    layout = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate", "interleave": "band"} | layout
    size = {"driver": "GTiff", "width": width, "height": height, "count": 2, "dtype": "uint16"}
    with rasterio.open(path, "w", crs="EPSG:32631", transform=PLACE, **size, **layout) as dataset:
        dataset.write(pixels)
    return path


def points_at(row: np.ndarray, col: np.ndarray) -> pa.Table:
    return pa.table({"x": 500_000 + 8 * col, "y": 4_500_000 - 8 * row})


def some(n: int, seed: int, shape: tuple[int, int] = (88, 72)) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns in 16ths of a pixel, near the edges of tiles more often than not."""
    rng = np.random.default_rng(seed)
    row, col = (rng.integers(0, size // 8, n) * 8 + rng.integers(-30, 31, n) / 16 for size in shape)
    return np.clip(row, 1 / 16, shape[0] - 1 / 16), np.clip(col, 1 / 16, shape[1] - 1 / 16)


def needed_tiles(row: float, col: float, size: int, tile: tuple[int, int] = (16, 16)) -> set[tuple[int, int]]:
    """The tiles of the raster that hold a pixel with a weight."""
    inside = [(r, c) for r, c in needed(row, col, size) if 0 <= r < 88 and 0 <= c < 72]
    return {(r // tile[0], c // tile[1]) for r, c in inside}


@settings(max_examples=examples(24), deadline=None, derandomize=True)
@given(
    n=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    resampling=st.sampled_from([*SIZES]),
    tile=st.sampled_from([(16, 16), (32, 16), (16, 48)]),
)
def test_a_plan_has_the_tiles_that_blocks_reach_into(
    tmp_path_factory: pytest.TempPathFactory, n: int, seed: int, resampling: Any, tile: tuple[int, int]
) -> None:
    layout = {"blockysize": tile[0], "blockxsize": tile[1]}
    collection = build_from_cogs([write(tmp_path_factory.mktemp("plan") / "a.tif", **layout)])
    row, col = some(n, seed)
    plan = collection.plan(points_at(row, col), BANDS, **XY, resampling=resampling)
    expected = set().union(*(needed_tiles(r, c, SIZES[resampling], tile) for r, c in zip(row, col, strict=True)))
    found = [(each["band"], each["tile_row"], each["tile_col"]) for each in plan.to_pylist()]
    assert sorted(found) == sorted((band, *place) for band in BANDS for place in expected)
    held = {(each["tile_row"], each["tile_col"]): each["points"] for each in plan.to_pylist()}
    own, counts = np.unique(np.stack([row // tile[0], col // tile[1]]).astype(int), axis=1, return_counts=True)
    expected_points = zip(zip(*own.tolist(), strict=True), counts.tolist(), strict=True)
    assert {place: points for place, points in held.items() if points} == dict(expected_points)
    assert plan_totals(plan)[metrics.SAMPLES_OUT] == 2 * n


def counted(collection: Collection, points: pa.Table, **options: Any) -> dict[str, int]:
    def build(pipeline: beam.Pipeline) -> None:
        pipeline | ReadPoints(points, **XY) | SamplePoints(collection, BANDS, **options)

    counts = run(build)
    return {name: counts.get(name, 0) for name in FIGURES}


@pytest.mark.parametrize(("resampling", "n", "layout"), [("bilinear", 3, {}), ("cubic", 2, {"interleave": "pixel"})])
def test_a_run_reads_what_the_plan_has(tmp_path: Path, resampling: Any, n: int, layout: dict[str, Any]) -> None:
    collection = build_from_cogs([write(tmp_path / "a.tif", height=64, **layout)])
    row, col = some(n, 5, (64, 72))
    points = points_at(row, col)
    totals = plan_totals(collection.plan(points, BANDS, **XY, resampling=resampling))
    assert counted(collection, points, resampling=resampling) == {name: totals[name] for name in FIGURES}
    alone = plan_totals(collection.plan(points, BANDS, **XY))
    assert totals[metrics.TILES_DECODED] > alone[metrics.TILES_DECODED]


def test_a_centre_needs_its_own_tile_alone(tmp_path: Path) -> None:
    collection = build_from_cogs([write(tmp_path / "a.tif")])
    corner = points_at(np.array([15.5]), np.array([31.5]))  # the last pixel of a tile
    assert counted(collection, corner, resampling="cubic")[metrics.TILES_DECODED] == 2
    beside = points_at(np.array([15.5]), np.array([31.5625]))
    assert counted(collection, beside, resampling="cubic")[metrics.TILES_DECODED] == 4


def spoil(path: Path, row: int, col: int) -> None:
    """Overwrite the data of a tile of the first band."""
    with rasterio.open(path) as dataset:
        first, size = (
            int(dataset.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")
        )
    with path.open("r+b") as file:
        file.seek(first)
        file.write(b"\xff" * size)


def try_again(collection: Collection, folder: Path, name: str = "again", **options: Any) -> pa.Table:
    def build(pipeline: beam.Pipeline) -> None:
        outputs = pipeline | SampleDeadLetters(collection, str(folder / "dead-*.parquet"), **options)
        outputs.samples | WriteSamplesToParquet(str(folder / name))

    run(build)
    return read(folder / name).sort_by(ORDER)


def sampled(collection: Collection, points: pa.Table, folder: Path, **options: Any) -> tuple[pa.Table, pa.Table]:
    """Samples and dead letters of a run."""

    def build(pipeline: beam.Pipeline) -> None:
        batches = pipeline | ReadPoints(points, **XY)
        outputs = batches | SamplePoints(collection, BANDS, on_error="dead_letter", **options)
        outputs.samples | "Samples" >> WriteSamplesToParquet(str(folder / "samples"))
        outputs.dead_letters | "Letters" >> WriteSamplesToParquet(str(folder / "dead"))

    run(build)
    letters = pa.concat_tables(pq.read_table(file) for file in sorted(folder.glob("dead-*.parquet")))
    return read(folder / "samples").sort_by(ORDER), letters


def test_dead_letters_have_the_points_that_need_a_pixel_of_the_tile(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    shutil.copy(path, tmp_path / "good")
    collection = build_from_cogs([path])
    row, col = some(200, 1)
    points, options = points_at(row, col), {"resampling": "cubic", "skip_nodata": True}
    before = collection.sample_points(points, BANDS, **XY, **options).sort_by(ORDER)
    spoil(path, 2, 1)
    samples, letters = sampled(collection, points, tmp_path, **options)
    lost = [at for at, (r, c) in enumerate(zip(row, col, strict=True)) if (2, 1) in needed_tiles(r, c, 4)]
    assert 10 < len(lost) < 100
    (letter,) = letters.to_pylist()
    assert (letter["band"], letter["tile_row"], letter["tile_col"]) == ("B1", 2, 1)
    assert sorted(letter["point_indexes"]) == lost
    shutil.copy(tmp_path / "good", path)
    again = try_again(collection, tmp_path, **options)
    assert sorted(again["point_index"].to_pylist()) == lost
    assert pa.concat_tables([samples, again]).sort_by(ORDER).equals(before)
    linear = try_again(collection, tmp_path, "linear", resampling="bilinear")
    expected = collection.sample_points(points.take(lost), ["B1"], **XY, resampling="bilinear").sort_by(ORDER)
    assert linear["value"].equals(expected["value"])
    nearest = try_again(collection, tmp_path, "nearest")
    expected = collection.sample_points(points.take(lost), ["B1"], **XY).sort_by(ORDER)
    assert nearest["value"].equals(expected["value"])


def test_dead_letters_of_a_run_without_interpolation_are_not_interpolated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    collection = build_from_cogs([path])
    spoil(path, 2, 1)
    sampled(collection, points_at(*some(60, 1)), tmp_path)
    message = "resampling is 'bilinear', but the dead letters come from a run with 'nearest'; try them again without it"
    with pytest.raises(InputError, match=message):
        try_again(collection, tmp_path, resampling="bilinear")
