"""What crosses a shuffle: keys as rows and batches as Arrow IPC, in every step of the whole sampling pipeline."""

from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam import coders
from apache_beam.coders.coders import FastPrimitivesCoder, PickleCoder
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import FixedWindows

import rasteret_beam
from rasteret_beam import Collection, CollectionUpdates, ReadPoints, SamplePoints, WriteSamplesToParquet
from rasteret_beam.transforms.runtime.coders import RecordBatchCoder
from tests.support.pipelines import LOCAL, XY

PICKLES = (FastPrimitivesCoder, PickleCoder, coders.CloudpickleCoder, coders.DillCoder)
"""The first falls back to a pickle for what it does not know."""

SMALL = ("ReadPoints/", "/Collect/Collect/")
"""Steps before points are read (a file or a row group an element), and Beam's key of a combination: None."""


def leaves(coder: coders.Coder) -> Iterator[coders.Coder]:
    parts = coder._get_component_coders()
    if not parts:
        yield coder
    for part in parts:
        yield from leaves(part)


@pytest.fixture
def pipeline() -> beam.Pipeline:
    return beam.Pipeline(options=PipelineOptions(LOCAL))


def inputs_of_steps(pipeline: beam.Pipeline) -> Iterator[tuple[str, str, coders.Coder]]:
    """(name, urn, coder of an input) of every primitive step, as a runner is given them."""
    proto, context = pipeline.to_runner_api(return_context=True)
    for step in proto.components.transforms.values():
        if not step.subtransforms and step.spec.urn:
            for pcollection in step.inputs.values():
                coder = context.coders.get_by_id(proto.components.pcollections[pcollection].coder_id)
                yield step.unique_name, step.spec.urn, coder


@pytest.mark.parametrize("windows", [False, True])
def test_no_batch_and_no_key_is_pickled(
    scenes: Collection, points: pa.Table, pipeline: beam.Pipeline, tmp_path: Path, windows: bool
) -> None:
    pq.write_table(points, tmp_path / "points.parquet")
    scenes.export(tmp_path / "scenes")
    collection, updates = rasteret_beam.load(tmp_path / "scenes"), None
    read = pipeline | ReadPoints(str(tmp_path / "points.parquet"), **XY)
    if windows:
        read, updates = read | beam.WindowInto(FixedWindows(10)), pipeline | CollectionUpdates(collection)
    outputs = read | SamplePoints(collection, ["B10"], with_unsampled=True, on_error="dead_letter", updates=updates)
    for name, rows in outputs._asdict().items():
        rows | name >> WriteSamplesToParquet(str(tmp_path / name))

    steps = list(inputs_of_steps(pipeline))
    groups = {name: coder for name, urn, coder in steps if urn == "beam:transform:group_by_key:v1"}
    by_tile = [coder for name, coder in groups.items() if "GroupByTile" in name]
    assert len(by_tile) == (2 if windows else 1)  # of windows before the first version of the collection, and others
    assert all(isinstance(coder.key_coder(), coders.RowCoder) for coder in by_tile)
    assert all(isinstance(coder.value_coder(), RecordBatchCoder) for coder in by_tile)
    writing = [coder for name, coder in groups.items() if name.endswith("/Together")]
    assert [type(coder.value_coder()) for coder in writing] == [RecordBatchCoder] * (3 if windows else 0)

    of_points = [(name, coder) for name, _, coder in steps if not any(small in name for small in SMALL)]
    if windows:  # how often a collection is looked at, and when
        of_points = [(name, coder) for name, coder in of_points if not name.startswith("CollectionUpdates/")]
    kinds = {(name, type(leaf)) for name, coder in of_points for leaf in leaves(coder)}
    assert [(name, kind) for name, kind in kinds if issubclass(kind, PICKLES)] == []
    carrying = {name.split("/")[0] for name, kind in kinds if kind is RecordBatchCoder}
    assert carrying >= {"SamplePoints", *outputs._fields}
