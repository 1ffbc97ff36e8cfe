"""Points of a stream in windows, matched with their own times against a collection that grows."""

from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import FixedWindows
from apache_beam.utils.timestamp import Timestamp

from rasteret_beam import CollectionUpdates, SamplePoints, build_from_cogs, load
from tests.support.pipelines import LOCAL, ORDER, XY, Kept
from tests.support.rasters import RasterCase
from tests.support.streams import BATCHES, batches, stamp

OPTIONS = {"match": "before", "time_column": "when", "tolerance": "40D", "extra_columns": ("time_difference",)}


def test_a_stream_gives_the_rows_of_the_eager_call(tmp_path: Path) -> None:
    paths = [RasterCase(name=f"s{number}", dtype="int16").write(tmp_path) for number in range(3)]
    dates = ["2023-01-01", "2023-02-01", "2023-05-01"]
    build_from_cogs(paths, datetime=dates, bands={"B": 0}, name="stream").export(tmp_path / "collection")
    collection = load(tmp_path / "collection")
    rng = np.random.default_rng(8)
    count = 100 * BATCHES
    when = np.datetime64("2022-12-01") + rng.integers(0, 200, count)
    x, y = 500_000 + rng.uniform(0, 203 * 16, count), 4_500_000 - rng.uniform(0, 157 * 16, count)
    points = pa.table({"x": x, "y": y, "when": pa.array(when, mask=np.arange(count) % 100 == 3)})
    eager, left = collection.sample_points(points, ["B"], **XY, **OPTIONS, return_unsampled=True)
    rows, reasons = Kept(), Kept()
    with beam.Pipeline(options=PipelineOptions(LOCAL)) as pipeline:
        updates = pipeline | CollectionUpdates(collection, every=600, until=Timestamp(0))
        windowed = (
            pipeline
            | beam.Create([stamp(number, batch) for number, batch in enumerate(batches(points))])
            | beam.Map(lambda each: each).with_output_types(pa.RecordBatch)
            | beam.WindowInto(FixedWindows(30))
        )
        outputs = windowed | SamplePoints(collection, ["B"], updates=updates, with_unsampled=True, **OPTIONS)
        outputs.samples | "Samples" >> beam.Map(rows.append)
        outputs.unsampled | "Unsampled" >> beam.Map(reasons.append)
    found = pa.Table.from_batches(rows)
    assert found.sort_by(ORDER).equals(eager.sort_by(ORDER)) and 300 < len(found) < count
    assert pa.Table.from_batches(reasons).sort_by("point_index").equals(left.sort_by("point_index"))
    assert set(left["reason"].to_pylist()) == {"no_time", "out_of_tolerance"}
