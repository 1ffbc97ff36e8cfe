"""Rows of points without a sample in a stream: in the window and at the time of their points."""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import FixedWindows
from apache_beam.utils.timestamp import Timestamp

from rasteret_beam import Collection, CollectionUpdates, SamplePoints, build_from_cogs, load
from tests.support.pipelines import LOCAL, ORDER, XY, Kept
from tests.support.rasters import RasterCase
from tests.support.streams import BATCHES, SECONDS, batches, stamp

WIDTH = 30
EXTRA = ["status", "record:platform"]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = tmp_path_factory.mktemp("left_stream")
    paths = [RasterCase(name=f"s{number}", dtype="int16").write(folder) for number in range(2)]
    table = build_from_cogs(paths, datetime=["2023-01-01", "2023-02-01"], bands={"B": 0}, name="stream").to_table()
    named = table.append_column("platform", pa.array(["one", None]))
    Collection.from_table(named, name="stream").export(folder / "collection")
    return load(folder / "collection")


@pytest.fixture(scope="module")
def points() -> pa.Table:
    """A quarter of them beside the rasters."""
    rng = np.random.default_rng(8)
    count = 100 * BATCHES
    x, y = 500_000 + rng.uniform(-60 * 16, 180 * 16, count), 4_500_000 - rng.uniform(0, 157 * 16, count)
    return pa.table({"x": x, "y": y})


class _PlaceFn(beam.DoFn):
    """Rows with the end of their window and their time, in seconds."""

    def process(
        self, rows: pa.RecordBatch, window: Any = beam.DoFn.WindowParam, time: Any = beam.DoFn.TimestampParam
    ) -> Iterator[tuple[pa.RecordBatch, float, float]]:
        yield rows, float(window.end), float(time)


@pytest.mark.parametrize("grows", [False, True])
def test_rows_keep_windows_and_times(collection: Collection, points: pa.Table, grows: bool) -> None:
    options = {"match": "latest", "join": "left", "extra_columns": EXTRA}
    kept, left = Kept(), Kept()
    with beam.Pipeline(options=PipelineOptions(LOCAL)) as pipeline:
        updates = pipeline | CollectionUpdates(collection, every=600, until=Timestamp(0)) if grows else None
        windowed = (
            pipeline
            | beam.Create([stamp(number, batch) for number, batch in enumerate(batches(points))])
            | beam.Map(lambda each: each).with_output_types(pa.RecordBatch)
            | beam.WindowInto(FixedWindows(WIDTH))
        )
        outputs = windowed | SamplePoints(collection, ["B"], updates=updates, with_unsampled=True, **options)
        outputs.samples | "Place" >> beam.ParDo(_PlaceFn()) | "Keep" >> beam.Map(kept.append)
        outputs.unsampled | "Left" >> beam.Map(left.append)
    found = pa.Table.from_batches([rows for rows, _, _ in kept])
    eager = collection.sample_points(points, ["B"], **options, **XY)
    assert found.sort_by(ORDER).equals(eager.sort_by(ORDER)) and len(found) == len(points)
    missing = sum(rows["record_id"].null_count for rows, _, _ in kept)
    assert missing == sum(map(len, left)) and 150 < missing < 500
    for rows, end, time in kept:
        assert {number // 100 * SECONDS for number in rows["point_index"].to_pylist()} == {time}
        assert end == time // WIDTH * WIDTH + WIDTH


def test_windows_in_a_stream(collection: Collection, points: pa.Table) -> None:
    """Statistics of windows around points are those of the eager call."""
    options = {"match": "latest", "statistics": ["mean", "count"], "radius": 40.0}
    kept = Kept()
    with beam.Pipeline(options=PipelineOptions(LOCAL)) as pipeline:
        windowed = (
            pipeline
            | beam.Create([stamp(number, batch) for number, batch in enumerate(batches(points))])
            | beam.Map(lambda each: each).with_output_types(pa.RecordBatch)
            | beam.WindowInto(FixedWindows(WIDTH))
        )
        windowed | SamplePoints(collection, ["B"], **options) | beam.Map(kept.append)
    eager = collection.sample_points(points, ["B"], **options, **XY)
    assert pa.Table.from_batches(kept).sort_by(ORDER).equals(eager.sort_by(ORDER)) and len(eager) > 500
