"""Sampling with a summary of what it gives, made per bundle beside the sinks and added up for the whole job."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.kernels.summary.feeding import SampleFeed
from rasteret_beam.kernels.summary.stored import from_bytes, to_bytes
from rasteret_beam.kernels.summary.summary import Summary
from rasteret_beam.transforms.sampling.outputs import SamplingOutputs

SAMPLES, UNSAMPLED, DEAD_LETTERS, POINTS = "samples", "unsampled", "dead_letters", "points"


class SummarisedOutputs(NamedTuple):
    """As :class:`.outputs.SamplingOutputs`; ``report`` has one summary, as bytes."""

    samples: beam.PCollection[pa.RecordBatch]
    unsampled: beam.PCollection[pa.RecordBatch] | None
    dead_letters: beam.PCollection[pa.RecordBatch] | None
    report: beam.PCollection[bytes]


class SampleWithSummary(beam.PTransform):
    """What a sampling transform gives, and the summary of it.

    Parameters
    ----------
    sampling : SamplePoints or SampleDeadLetters
    bands : sequence of str
    nodata : {band: values}
        Of the collection; see :class:`rasteret_beam.kernels.summary.summary.Summary`.
    """

    def __init__(self, sampling: Any, bands: Sequence[str], nodata: Mapping[str, Sequence[float]]):
        super().__init__()
        self.sampling = sampling
        self.settings = tuple(bands), dict(nodata)

    def held(self) -> AbstractContextManager[None]:
        """As that of the sampling transform."""
        held: AbstractContextManager[None] = self.sampling.held()
        return held

    def expand(self, points: Any) -> Any:
        outputs = points | "Sample" >> self.sampling
        if isinstance(outputs, beam.PCollection):
            outputs = SamplingOutputs(outputs)
        kinds = {SAMPLES: outputs.samples, UNSAMPLED: outputs.unsampled, DEAD_LETTERS: outputs.dead_letters}
        kinds |= {POINTS: points if isinstance(points, beam.PCollection) else None}
        found = [
            rows | f"Summarise {kind}" >> beam.ParDo(_SummariseFn(kind, self.settings)).with_output_types(bytes)
            for kind, rows in kinds.items()
            if rows is not None
        ]
        together = found | "Summaries" >> beam.Flatten()
        report = together | "AddUp" >> beam.CombineGlobally(_AddUp(self.settings)).with_output_types(bytes)
        return SummarisedOutputs(outputs.samples, outputs.unsampled, outputs.dead_letters, report)


class _SummariseFn(beam.DoFn):
    """The summary of the batches of a bundle."""

    def __init__(self, kind: str, settings: tuple[tuple[str, ...], dict[str, Sequence[float]]]):
        self.kind = kind
        self.settings = settings

    def start_bundle(self) -> None:
        self._summary = Summary(*self.settings)
        self._feed = SampleFeed(self._summary)

    def process(self, batch: pa.RecordBatch) -> None:
        if self.kind == SAMPLES:
            self._feed.add(batch)
        elif self.kind == UNSAMPLED:
            self._summary.add_unsampled(batch)
        elif self.kind == DEAD_LETTERS:
            self._summary.add_dead_letters(batch)
        else:
            self._summary.points_in += len(batch)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        self._feed.close()
        yield WindowedValue(to_bytes(self._summary), GlobalWindow().max_timestamp(), (GlobalWindow(),))


class _AddUp(beam.CombineFn):
    """Summaries as bytes to one."""

    def __init__(self, settings: tuple[tuple[str, ...], dict[str, Sequence[float]]]):
        self.settings = settings

    def create_accumulator(self) -> Summary:
        return Summary(*self.settings)

    def add_input(self, whole: Summary, part: bytes) -> Summary:
        whole.merge(from_bytes(part))
        return whole

    def merge_accumulators(self, summaries: Iterable[Summary]) -> Summary:
        whole = self.create_accumulator()
        for each in summaries:
            whole.merge(each)
        return whole

    def extract_output(self, whole: Summary) -> bytes:
        return to_bytes(whole)
