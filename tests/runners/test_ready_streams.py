"""Points of a stream in windows get the rows of the eager call, with the options of ready samples."""

import logging
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import FixedWindows
from apache_beam.utils.timestamp import Timestamp

from rasteret_beam import Collection, CollectionUpdates, Quality, SamplePoints, build_from_table, load
from tests.support.pipelines import LOCAL, XY, Kept
from tests.support.random_stacks import random_points, write_random_stack
from tests.support.ready import EXTRA, RULES, wide_columns
from tests.support.streams import BATCHES, batches, stamp

WHEN = {"time_column": "when", "tolerance": "20h"}
QUALITY = {"quality": [Quality(**RULES["keep"])]}
CASES: dict[str, dict[str, Any]] = {
    "clear, left": WHEN | QUALITY | {"match": "nearest", "skip_invalid": True, "join": "left", "extra_columns": EXTRA},
    "dropped": QUALITY | {"match": "latest", "invalid": "drop"},
    "all, wide": QUALITY | {"match": "all", "layout": "columns", "unscale": True},
    "before, wide, left": WHEN
    | QUALITY
    | {"match": "before", "layout": "values", "join": "left", "extra_columns": wide_columns("AB"), "unscale": True},
}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = tmp_path_factory.mktemp("stream")
    logging.disable(logging.WARNING)  # of scales that differ in the table and the file
    build_from_table(write_random_stack(folder, 2, complete=True), name="stack").export(folder / "collection")
    logging.disable(logging.NOTSET)
    return load(folder / "collection")


FAST = ("clear, left", "dropped")


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in CASES])
def test_a_stream_gives_the_rows_of_the_eager_call(collection: Collection, name: str, tmp_path: Path) -> None:
    points = random_points(5, 100 * BATCHES)
    eager, left = collection.sample_points(points, ["A", "B"], **XY, **CASES[name], return_unsampled=True)
    rows, reasons = Kept(), Kept()
    with beam.Pipeline(options=PipelineOptions(LOCAL)) as pipeline:
        updates = pipeline | CollectionUpdates(collection, every=600, until=Timestamp(0))
        windowed = (
            pipeline
            | beam.Create([stamp(number, batch) for number, batch in enumerate(batches(points))])
            | beam.Map(lambda each: each).with_output_types(pa.RecordBatch)
            | beam.WindowInto(FixedWindows(30))
        )
        outputs = windowed | SamplePoints(collection, ["A", "B"], updates=updates, with_unsampled=True, **CASES[name])
        outputs.samples | "Samples" >> beam.Map(rows.append)
        outputs.unsampled | "Unsampled" >> beam.Map(reasons.append)
    assert same(pa.Table.from_batches(rows), eager) and eager.num_rows > 100
    assert same(pa.Table.from_batches(reasons), left) and left.num_rows > 10


def same(found: pa.Table, wanted: pa.Table) -> bool:
    rows, expected = (sorted(map(repr, table.to_pylist())) for table in (found, wanted))
    return found.schema.equals(wanted.schema) and rows == expected
