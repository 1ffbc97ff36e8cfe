"""Rows for points without a sample: against pandas' left join of all points and bands with the inner rows."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rasteret_beam import Collection, ReadPoints, SamplePoints, WriteSamplesToParquet, build_from_cogs, metrics
from rasteret_beam.kernels.sampling.missing_rows import missing_rows
from rasteret_beam.options import SampleOptions
from rasteret_beam.schema import UNSAMPLED_REASONS
from tests.support.pipelines import Kept, read, run
from tests.support.rasters import RasterCase

LONLAT = {"x_column": "lon", "y_column": "lat", "geometry_crs": 4326}
BANDS = ["B1", "B2"]
WIDE = ["values", "columns"]
NEAREST = {"match": "nearest", "time_column": "when", "tolerance": "40D"}
MATCHES: dict[str, dict[str, Any]] = {
    "all": {},
    "latest": {"match": "latest"},
    "nearest": NEAREST,
    "two nearest": NEAREST | {"limit": 2},
    "all in time": {"time_column": "when", "tolerance": "40D"},
}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Three dates of one place in degrees, two bands."""
    folder = tmp_path_factory.mktemp("left")
    size = {"width": 96, "height": 96, "tile": (32, 32), "crs": "EPSG:4326", "nodata": -1}
    transform = (0.01, 0.0, 5.0, 0.0, -0.01, 52.0)
    paths = [
        RasterCase(name=f"d{number}", dtype="int16", count=2, transform=transform, **size).write(folder)
        for number in range(3)
    ]
    return build_from_cogs(paths, datetime=["2023-01-01", "2023-02-01", "2023-06-01"], name="left")


@pytest.fixture(scope="module")
def points() -> pa.Table:
    """300 points, some of them without coordinates, not finite, beyond the poles, without a time, or outside."""
    rng = np.random.default_rng(6)
    number = np.arange(300)
    lon, lat = rng.uniform(4.8, 5.96, 300), rng.uniform(51.04, 52.0, 300)
    lon[number % 41 == 1], lat[number % 43 == 2], lat[number % 47 == 3] = np.inf, np.nan, 95.0
    when = np.datetime64("2022-12-01") + rng.integers(0, 250, 300)
    return pa.table(
        {
            "lon": pa.array(lon, mask=number % 53 == 4),
            "lat": lat,
            "when": pa.array(when, mask=number % 29 == 5),
            "kind": pa.array([f"k{each % 3}" for each in number]).dictionary_encode(),
            "plot": [None if each % 7 == 0 else f"plot {each}" for each in number],
        }
    )


def left_joined(inner: pa.Table, unsampled: pa.Table, points: pa.Table, layout: str) -> list[dict[str, Any]]:
    """All points, times all bands in the long layout, with their rows if there are any; keys merged by pandas."""
    keys = ["point_index", "band"] if layout == "long" else ["point_index"]
    every = pd.DataFrame({"point_index": np.arange(len(points))})
    if layout == "long":
        every = every.merge(pd.DataFrame({"band": BANDS}), how="cross")
    there = inner.select(keys).to_pandas().assign(row=range(len(inner)))
    merged = every.merge(there, how="left", on=keys)
    rows, kept = inner.to_pylist(), points.to_pylist()
    reasons = dict(zip(unsampled["point_index"].to_pylist(), unsampled["reason"].to_pylist(), strict=True))
    found = []
    for key in merged.to_dict("records"):
        row = key.pop("row")
        if not pd.isna(row):
            found.append(rows[int(row)])
            continue
        point = kept[key["point_index"]]
        known = {"point_x": point["lon"], "point_y": point["lat"], "point_crs": 4326, "collection": "left"}
        known |= {"values": [None] * len(BANDS)}
        known |= {"status": reasons[key["point_index"]]} | key | point
        found.append({name: known.get(name) for name in inner.schema.names})
    return found


def records(rows: pa.Table | list[dict[str, Any]]) -> list[str]:
    """The rows in an order of their own; NaN is equal to itself, and is not null."""
    return sorted(map(repr, rows.to_pylist() if isinstance(rows, pa.Table) else rows))


@pytest.mark.parametrize("layout", ["long", *WIDE])
@pytest.mark.parametrize("match", MATCHES)
def test_rows_are_the_left_join(collection: Collection, points: pa.Table, layout: str, match: str) -> None:
    extra = ["status", "record:datetime", *(["pixel_row", "distance", "href", "scale"] if layout == "long" else [])]
    options = MATCHES[match] | {"layout": layout, "extra_columns": extra} | LONLAT
    inner, unsampled = collection.sample_points(points, BANDS, return_unsampled=True, **options)
    joined, again = collection.sample_points(points, BANDS, return_unsampled=True, join="left", **options)
    assert records(again) == records(unsampled) and joined.schema.equals(inner.schema)
    assert set(unsampled["reason"].to_pylist()) >= {"null", "not_finite", "out_of_range", "no_record"}
    each = 1 if layout != "long" else len(BANDS)
    assert len(joined) == len(inner) + each * len(unsampled) > len(inner) + 40
    if match in ("latest", "nearest"):
        assert len(joined) == each * len(points)
    assert records(joined) == records(left_joined(inner, unsampled, points, layout))
    missing = joined.filter(pa.compute.is_null(joined["record_id"]))
    coordinates = missing.sort_by("point_index")["point_y"].to_pylist()
    at = sorted(missing["point_index"].to_pylist())
    np.testing.assert_equal(coordinates, [points["lat"][place].as_py() for place in at])  # NaN stays NaN, null null


def test_batches_are_the_rows(collection: Collection, points: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several rounds, whose batches are small."""
    monkeypatch.setattr("rasteret_beam.collection.eager.rounds.ROUND_POINTS", 64)
    monkeypatch.setattr("rasteret_beam.collection.eager.inputs.BATCH_ROWS", 50)
    monkeypatch.setattr("rasteret_beam.kernels.sampling.missing_rows.BATCH_ROWS", 7)
    options = {"join": "left", "extra_columns": ["status"], "match": "latest"} | LONLAT
    with collection.sample_batches(points, BANDS, **options) as reader:
        batches = list(reader)
    monkeypatch.undo()
    whole = collection.sample_points(points, BANDS, **options)
    assert records(pa.Table.from_batches(batches)) == records(whole)
    assert max(len(batch) for batch in batches if batch["record_id"].null_count) == 7


@pytest.mark.parametrize("layout", ["long", *WIDE])
@pytest.mark.parametrize("with_unsampled", [False, True])
def test_pipeline_counts_and_rows(
    collection: Collection, points: pa.Table, tmp_path: Path, layout: str, with_unsampled: bool
) -> None:
    options = {"join": "left", "layout": layout, "match": "latest", "extra_columns": ["status"]}
    kept = Kept()

    def build(pipeline: beam.Pipeline) -> None:
        outputs = pipeline | ReadPoints(points, **LONLAT)
        outputs = outputs | SamplePoints(collection, BANDS, with_unsampled=with_unsampled, **options)
        samples = outputs.samples if with_unsampled else outputs
        samples | beam.Map(kept.append)
        samples | WriteSamplesToParquet(str(tmp_path / "s"))
        if with_unsampled:
            outputs.unsampled | "Left" >> WriteSamplesToParquet(str(tmp_path / "left"))

    counts = run(build)
    eager, unsampled = collection.sample_points(points, BANDS, return_unsampled=True, **options, **LONLAT)
    assert records(pa.Table.from_batches(kept)) == records(eager) == records(read(tmp_path / "s"))
    assert counts[metrics.SAMPLES_OUT] == len(eager) == len(points) * (2 if layout == "long" else 1)
    assert counts[metrics.POINTS_UNSAMPLED] == len(unsampled)
    if with_unsampled:
        assert records(read(tmp_path / "left")) == records(unsampled)


def test_neighbourhoods(collection: Collection, points: pa.Table) -> None:
    """Windows are null, not empty."""
    options = {"max_distance_pixels": 1, "return_neighbourhood": "always", "join": "left"} | LONLAT
    found = collection.sample_points(points, BANDS, **options)
    missing = found.filter(pa.compute.is_null(found["record_id"]))
    assert missing["neighbourhood_values"].null_count == missing["value"].null_count == len(missing) > 40


@pytest.mark.parametrize("value_type", ["float32", "raw"])
def test_types_of_values(collection: Collection, points: pa.Table, value_type: str) -> None:
    for layout in ("long", *WIDE):
        options = {"value_type": value_type, "layout": layout} | LONLAT
        found = collection.sample_points(points, BANDS, join="left", **options)
        assert found.schema.equals(collection.sample_points(points, BANDS, **options).schema)
        name = {"long": "value", "values": "values", "columns": "B2"}[layout]
        missing = found.filter(pa.compute.is_null(found["record_id"]))
        wanted = [None, None] if layout == "values" else None
        assert missing[name].to_pylist() == [wanted] * len(missing) and len(missing) > 20


def test_every_reason_is_a_status() -> None:
    points = pa.RecordBatch.from_pydict({"point_index": pa.array([*range(len(UNSAMPLED_REASONS))], pa.int64())})
    for name in ("point_x", "point_y"):
        points = points.append_column(name, pa.nulls(len(points), pa.float64()))
    options = SampleOptions(extra_columns=["status"], layout="values")
    facts = {"collection": "c", "point_crs": None}
    rows = missing_rows(points, [*UNSAMPLED_REASONS], ["a"], options, {"a": pa.float64()}, **facts)
    assert rows["status"].to_pylist() == [*UNSAMPLED_REASONS]
    assert rows["values"].to_pylist() == [[None]] * len(points)
