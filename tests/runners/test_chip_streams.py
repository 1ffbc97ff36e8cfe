"""Polygons in windows: chips keep the windows and times of their polygons, and windows that cannot work are refused."""

from typing import Any
from uuid import uuid4

import apache_beam as beam
import pyarrow as pa
import pytest
import shapely
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, AfterWatermark
from apache_beam.transforms.window import FixedWindows, IntervalWindow, TimestampedValue

from rasteret_beam import Collection, ReadChips, ReadPolygons
from rasteret_beam.errors import InputError
from tests.support.pipelines import LOCAL, Kept, run

LEFT, TOP = 500_000.0, 5_400_000.0
SECONDS = 25


def batches() -> list[pa.RecordBatch]:
    """Four batches of one polygon each, on the same tile of the scenes."""
    boxes = [shapely.box(LEFT + at, TOP - at - 40, LEFT + at + 40, TOP - at) for at in (0, 10, 20, 30)]
    whole = ReadPolygons(boxes, geometry_crs=32631).first_batch()
    assert whole is not None and len(whole) == 4
    return [whole.slice(number, 1) for number in range(4)]


def stamp(number: int, batch: pa.RecordBatch) -> TimestampedValue:
    return TimestampedValue(batch, number * SECONDS)


class _Note(beam.DoFn):
    def __init__(self, kept: Kept):
        self.kept = kept

    def process(self, chips: pa.RecordBatch, time: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam):
        self.kept.keep((number, float(time), window) for number in chips["geometry_id"].to_pylist())


@pytest.mark.parametrize("how", [{}, {"skip_invalid": True}], ids=["newest", "valid"])
def test_chips_have_the_window_and_the_time_of_their_polygon(scenes: Collection, how: dict[str, Any]) -> None:
    kept = Kept()

    def build(pipeline: beam.Pipeline) -> None:
        given = pipeline | beam.Create(list(enumerate(batches())), reshuffle=False)
        rows = given | beam.MapTuple(stamp).with_output_types(pa.RecordBatch)
        windows = rows | beam.WindowInto(FixedWindows(50))
        windows | ReadChips(scenes, ["B10"], match="latest", **how) | beam.ParDo(_Note(kept))

    run(build)
    assert sorted(kept) == [
        (0, 0.0, IntervalWindow(0, 50)),
        (1, 25.0, IntervalWindow(0, 50)),
        (2, 50.0, IntervalWindow(50, 100)),
        (3, 75.0, IntervalWindow(50, 100)),
    ]


def unbounded(pipeline: beam.Pipeline) -> beam.PCollection:
    """An unbounded input, of which only the construction is looked at."""
    given = pipeline | f"Create {uuid4().hex}" >> beam.Create([]).with_output_types(pa.RecordBatch)
    given.is_bounded = False
    return given


def test_the_global_window_of_a_stream_is_refused(scenes: Collection) -> None:
    rows = unbounded(beam.Pipeline(options=PipelineOptions(LOCAL)))
    message = "the input of GroupByTile is unbounded and in the global window, which never ends"
    with pytest.raises(InputError, match=message):
        rows | ReadChips(scenes, ["B10"])


def test_panes_that_accumulate_are_refused(scenes: Collection) -> None:
    windows = beam.WindowInto(
        FixedWindows(10),
        trigger=AfterWatermark(late=AfterCount(1)),
        accumulation_mode=AccumulationMode.ACCUMULATING,
        allowed_lateness=60,
    )
    rows = unbounded(beam.Pipeline(options=PipelineOptions(LOCAL))) | windows
    with pytest.raises(InputError, match="accumulation_mode=ACCUMULATING, so each later pane"):
        rows | ReadChips(scenes, ["B10"])
