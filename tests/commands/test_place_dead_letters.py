"""Dead letters where records are chosen while they are sampled: by quality, by validity, or both."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine

from rasteret_beam import (
    Collection,
    Quality,
    ReadPoints,
    SampleDeadLetters,
    SamplePoints,
    WriteSamplesToParquet,
    build_from_table,
    metrics,
)
from rasteret_beam.schema import DEAD_LETTER_SCHEMA
from tests.support.pipelines import XY, read, run
from tests.support.rasters import damage_tile

BANDS = ["A", "B"]
SIZE = 128
CLEAR = Quality("Q", keep=[4])
ORDER = [("point_index", "ascending"), ("record_id", "ascending"), ("band", "ascending")]


@pytest.fixture
def stack(tmp_path: Path) -> tuple[Collection, pa.Table]:
    """Three dates of two bands and a quality band, a third of it clouds, in four tiles each; and 500 points."""
    rng = np.random.default_rng(3)
    assets = []
    for date in range(3):
        of_record = {}
        for band in ("A", "B", "Q"):
            values = rng.integers(1, 200, (SIZE, SIZE)) if band != "Q" else rng.choice([4, 4, 9], (SIZE, SIZE))
            path = tmp_path / f"r{date}_{band}.tif"
            size = {"width": SIZE, "height": SIZE, "blockxsize": 64, "blockysize": 64, "tiled": True}
            where = {"crs": "EPSG:32631", "transform": Affine(10, 0, 500_000, 0, -10, 4_500_000)}
            kind = {"dtype": "uint8", "count": 1, "compress": "deflate"}
            with rasterio.open(path, "w", driver="GTiff", **size, **where, **kind) as dataset:
                dataset.write(values.astype(np.uint8), 1)
            of_record[band] = {"href": str(path), "band_index": 0}
        assets.append(of_record)
    times = pa.array([date * 86_400_000_000 for date in range(3)], pa.timestamp("us"))
    collection = build_from_table(pa.table({"id": ["r0", "r1", "r2"], "datetime": times, "assets": assets}))
    x, y = 500_000 + rng.uniform(0, 1280, 500), 4_500_000 - rng.uniform(0, 1280, 500)
    return collection, pa.table({"x": x, "y": y, "plot": [f"plot {number}" for number in range(500)]})


def in_first_tile(samples: pa.Table) -> np.ndarray:
    return (samples["point_x"].to_numpy() < 500_640) & (samples["point_y"].to_numpy() > 4_499_360)


def sampled(
    collection: Collection, points: pa.Table, folder: Path, reading: dict[str, Any] = XY, **options: Any
) -> tuple[pa.Table, dict[str, int]]:
    def build(pipeline: Any) -> None:
        batches = pipeline | ReadPoints(points, **reading)
        outputs = batches | SamplePoints(collection, BANDS, on_error="dead_letter", with_unsampled=True, **options)
        outputs.samples | "Samples" >> WriteSamplesToParquet(str(folder / "samples"))
        outputs.dead_letters | "Letters" >> WriteSamplesToParquet(str(folder / "dead"), schema=DEAD_LETTER_SCHEMA)

    counts = run(build)
    assert counts[metrics.VALUES_ROUTED] == sum(counts.get(name, 0) for name in metrics.VALUES_DONE)
    assert counts[metrics.POINTS_IN] == counts[metrics.POINTS_SAMPLED] + counts[metrics.POINTS_UNSAMPLED]
    return read(folder / "samples").sort_by(ORDER), counts


def again(collection: Collection, folder: Path, **options: Any) -> pa.Table:
    def build(pipeline: Any) -> None:
        outputs = pipeline | SampleDeadLetters(collection, str(folder / "dead-*.parquet"), **options)
        outputs.samples | WriteSamplesToParquet(str(folder / "again"))

    counts = run(build)
    assert counts[metrics.VALUES_ROUTED] == sum(counts.get(name, 0) for name in metrics.VALUES_DONE)
    return read(folder / "again")


@pytest.mark.parametrize("damaged", ["A", "Q"])
@pytest.mark.parametrize("invalid", ["keep", "null", "drop"])
def test_one_record_of_all(stack: tuple[Collection, pa.Table], tmp_path: Path, invalid: str, damaged: str) -> None:
    """The rows of the other records are there; those of the damaged tile come with the next try."""
    collection, points = stack
    options: dict[str, Any] = {"quality": [CLEAR], "invalid": invalid, "extra_columns": ["status"]}
    before = collection.sample_points(points, BANDS, **XY, **options).sort_by(ORDER)
    good = (path := tmp_path / f"r1_{damaged}.tif").read_bytes()
    damage_tile(path, 0)
    samples, counts = sampled(collection, points, tmp_path, **options)
    lost = in_first_tile(before) & (np.array(before["record_id"].to_pylist()) == "r1")
    if damaged == "A":
        lost &= np.array(before["band"].to_pylist()) == "A"
    assert samples.equals(before.filter(pa.array(~lost))) and lost.sum() > 50
    (letter,) = {(row["record_id"], row["href"]) for row in pq.read_table(next(tmp_path.glob("dead-*"))).to_pylist()}
    assert letter == ("r1", str(path)) and counts[metrics.DEAD_LETTERS] == (1 if damaged == "A" else 2)
    path.write_bytes(good)
    both = pa.concat_tables([samples, again(collection, tmp_path, **options)]).sort_by(ORDER)
    assert both.equals(before)


@pytest.mark.parametrize("damaged", ["A", "Q"])
@pytest.mark.parametrize("skip_nodata", [True, False])
def test_interpolated_samples(
    stack: tuple[Collection, pa.Table], tmp_path: Path, damaged: str, skip_nodata: bool
) -> None:
    """Lost are the points that need a pixel of the tile, or the quality of one."""
    collection, points = stack
    options: dict[str, Any] = {"quality": [CLEAR], "invalid": "null", "extra_columns": ["status"]}
    options |= {"resampling": "bilinear", "skip_nodata": skip_nodata}
    before = collection.sample_points(points, BANDS, **XY, **options).sort_by(ORDER)
    good = (path := tmp_path / f"r1_{damaged}.tif").read_bytes()
    damage_tile(path, 0)
    samples, _ = sampled(collection, points, tmp_path, **options)
    lost = (before["point_x"].to_numpy() < 500_645) & (before["point_y"].to_numpy() > 4_499_355)  # half a pixel further
    lost &= np.array(before["record_id"].to_pylist()) == "r1"
    if damaged == "A":
        lost &= np.array(before["band"].to_pylist()) == "A"
    assert samples.equals(before.filter(pa.array(~lost)))
    assert lost.sum() > in_first_tile(before).sum() // (6 if damaged == "A" else 3)  # of three records, and two bands
    path.write_bytes(good)
    both = pa.concat_tables([samples, again(collection, tmp_path, **options)]).sort_by(ORDER)
    assert both.equals(before)


@pytest.mark.parametrize("options", [{"invalid": "drop"}, {"join": "left"}, {"limit": 2, "time_column": "when"}])
def test_several_records_at_one_place(
    stack: tuple[Collection, pa.Table], tmp_path: Path, options: dict[str, Any]
) -> None:
    """Each has its dead letters, and all of their rows come with the next try."""
    collection, points = stack
    points = points.append_column("when", pa.array([0] * len(points), pa.timestamp("us")))
    options = options | {"quality": [CLEAR]} | ({"invalid": "null"} if "limit" in options else {})
    reading = XY | ({"time_column": "when"} if "limit" in options else {})
    before = collection.sample_points(points, BANDS, **XY, **options).sort_by(ORDER)
    files = [tmp_path / f"r{date}_{band}.tif" for date in (0, 1) for band in ("A", "Q")]
    good = {path: path.read_bytes() for path in files}
    for path in files:
        damage_tile(path, 0)
    samples, _ = sampled(collection, points, tmp_path, reading, **options)
    for path, content in good.items():
        path.write_bytes(content)
    kept = {name: value for name, value in options.items() if name not in ("limit", "time_column")}
    both = pa.concat_tables([samples, again(collection, tmp_path, **kept)]).sort_by(ORDER)
    assert len(samples) < len(before) and both.equals(before)


@pytest.mark.parametrize("damaged", ["A", "Q"])
def test_the_best_of_several(stack: tuple[Collection, pa.Table], tmp_path: Path, damaged: str) -> None:
    """A point whose best record cannot be read goes to a dead letter, and is tried again on that record alone."""
    collection, points = stack
    options: dict[str, Any] = {"quality": [CLEAR], "extra_columns": ["status"]}
    best = {"match": "latest", "skip_invalid": True}
    before = collection.sample_points(points, BANDS, **XY, **options, **best).sort_by(ORDER)
    newest = collection.subset(ids="r2").sample_points(points, BANDS, **XY, **options).sort_by(ORDER)
    good = (path := tmp_path / f"r2_{damaged}.tif").read_bytes()
    damage_tile(path, 0)
    samples, _ = sampled(collection, points, tmp_path, **options, **best)
    # Band A of the newest record is read where that is clear, and where no record is.
    clear, none_clear = (
        np.array([row["status"] == status for row in rows.to_pylist()])
        for rows, status in ((newest, "valid"), (before, "masked"))
    )
    of_a = np.array(newest["band"].to_pylist()) == "A"
    lost = in_first_tile(newest) & (of_a & (clear | none_clear) | (damaged == "Q"))
    keys = {(row["point_index"], row["band"]) for row in newest.filter(pa.array(lost)).to_pylist()}
    rest = [(row["point_index"], row["band"]) not in keys for row in before.to_pylist()]
    assert samples.equals(before.filter(pa.array(rest))) and 50 < len(keys) < 400
    path.write_bytes(good)
    assert again(collection, tmp_path, **options).sort_by(ORDER).equals(newest.filter(pa.array(lost)))
