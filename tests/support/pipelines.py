"""Pipelines in tests: running them, reading what they write, and keeping what comes by on the way."""

from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions

from rasteret_beam import Collection, ReadPoints, SamplePoints, WriteSamplesToParquet, metrics

ORDER = [("point_index", "ascending"), ("record_id", "ascending"), ("band", "ascending")]
XY = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
LOCAL = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]
EMBEDDED = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]


class Kept(list[Any]):
    """What the steps of a pipeline in this process put aside: a pickle of it gives the list itself, not a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.number = next(_numbers)
        _kept[self.number] = self

    def __reduce__(self) -> tuple[Callable[[int], "Kept"], tuple[int]]:
        return _same, (self.number,)

    def keep(self, elements: Iterable[Any]) -> None:
        self.extend(elements)


_numbers = count()
_kept: WeakValueDictionary[int, Kept] = WeakValueDictionary()


def _same(number: int) -> Kept:
    return _kept[number]


def run(build: Callable[[beam.Pipeline], object], options: list[str] | None = None) -> dict[str, int]:
    """Run a pipeline; its counters, summed over steps."""
    pipeline = beam.Pipeline(options=PipelineOptions(options or LOCAL))
    build(pipeline)
    result = pipeline.run()
    result.wait_until_finish()
    counts: dict[str, int] = {}
    for metric in result.metrics().query()["counters"]:
        if metric.key.metric.namespace == metrics.NAMESPACE:
            name = metric.key.metric.name
            counts[name] = counts.get(name, 0) + int(metric.committed or metric.attempted or 0)
    return counts


def read(prefix: Path) -> pa.Table:
    """The files of an output, by point."""
    files = sorted(prefix.parent.glob(prefix.name + "-*-of-*.parquet"))
    return pa.concat_tables(pq.read_table(file) for file in files).sort_by(ORDER[:1])


def sample_to(
    prefix: Path, source: object, collection: Collection, options: list[str] | None = None, **settings: Any
) -> tuple[pa.Table, dict[str, int]]:
    """Sample points to files; the rows in order, and the counters."""
    reading = {**XY, **settings.pop("reading", {})}
    bands = settings.pop("bands", ["B10", "B20"])

    def build(pipeline: beam.Pipeline) -> None:
        points = pipeline | ReadPoints(source, **reading)
        points | SamplePoints(collection, bands, **settings) | WriteSamplesToParquet(str(prefix))

    counts = run(build, options)
    return read(prefix).sort_by(ORDER), counts
