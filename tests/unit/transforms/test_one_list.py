"""All elements of a PCollection as one list, where there are none too."""

import apache_beam as beam
import pyarrow as pa
import pytest

from rasteret_beam.transforms.runtime.one_list import InOneList
from tests.support.pipelines import EMBEDDED, LOCAL, Kept, run


@pytest.mark.parametrize("options", [LOCAL, pytest.param(EMBEDDED, marks=pytest.mark.slow)], ids=["local", "portable"])
@pytest.mark.parametrize("count", [0, 1, 300])
def test_elements_are_in_one_list(count: int, options: list[str]) -> None:
    kept = Kept()

    def build(pipeline: beam.Pipeline) -> None:
        numbers = pipeline | beam.Create(range(count)) | beam.Reshuffle()
        numbers.element_type = int
        listed = numbers | InOneList()
        assert listed.element_type == beam.typehints.List[int]
        listed | beam.Map(kept.append)

    run(build, options)
    assert [sorted(numbers) for numbers in kept] == [list(range(count))]


def test_batches_keep_their_type() -> None:
    kept = Kept()
    batches = [pa.record_batch({"x": [number]}) for number in range(3)]

    def build(pipeline: beam.Pipeline) -> None:
        pipeline | beam.Create(batches).with_output_types(pa.RecordBatch) | InOneList() | beam.Map(kept.append)

    run(build)
    (found,) = kept
    assert sorted(batch["x"][0].as_py() for batch in found) == [0, 1, 2]
