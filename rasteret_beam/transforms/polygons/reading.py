"""Groups of polygons to batches of rows, and of dead letters."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

import apache_beam as beam
import pyarrow as pa
from apache_beam.utils.windowed_value import WindowedValue

from rasteret_beam.collection.eager.chip_groups import ReadRows
from rasteret_beam.collection.eager.quality_bands import QualityBands
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.model import TileKey
from rasteret_beam.polygon_options import PolygonOptions
from rasteret_beam.quality import Quality
from rasteret_beam.readers.jobs.spill import unspilled
from rasteret_beam.readers.tiles.source import TileSource
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.event_times import by_stamp
from rasteret_beam.transforms.runtime.index_settings import IndexSettings
from rasteret_beam.transforms.runtime.shared_resources import acquire, release

ROWS = "rows"
DEAD_LETTERS = "dead_letters"

Options = TypeVar("Options", bound=PolygonOptions)
QualityOf = Callable[[tuple[Quality, ...]], QualityBands]


class ReadOutputs(NamedTuple):
    """Rows, and with ``on_error="dead_letter"`` dead letters."""

    rows: beam.PCollection[pa.RecordBatch]
    dead_letters: beam.PCollection[pa.RecordBatch] | None = None


class PolygonFn(beam.DoFn, Generic[Options]):
    """What is needed to read polygons: a job, and a reader that all DoFns of a process share."""

    reader_type: Any

    def __init__(self, settings: IndexSettings[Options]):
        self.settings = settings

    @abstractmethod
    def make_job(self, index: CollectionIndex, quality: QualityOf) -> Any:
        """The job, with ``counters``; ``quality`` gives where the records have the bands of rules."""

    @property
    def _reader_key(self) -> Any:
        return self.reader_type, self.settings.cache

    def setup(self) -> None:
        settings = self.settings
        index = settings.acquire().at()
        quality = cache(lambda rules: QualityBands(settings.collection, rules, index.routing, settings.cache.share))
        self.job = self.make_job(index, quality)
        self.reader = acquire(self._reader_key, lambda: self.reader_type(TileSource.of_budget(settings.cache)))

    def teardown(self) -> None:
        self.settings.release()
        release(self._reader_key)

    def _emit(self, read: Iterator[ReadRows], context: tuple[Any, Any, Any]) -> Iterator[Any]:
        """Each batch in the window and at the time of its polygons."""
        try:
            for rows, failed in read:
                value = WindowedValue(rows, *context)
                yield beam.pvalue.TaggedOutput(DEAD_LETTERS, value) if failed else value
        finally:
            count(self.job.counters.take())


class ReadFn(PolygonFn[Options]):
    """Groups of polygons to batches of rows, and of dead letters; a subclass says how a group is read."""

    @abstractmethod
    def read(self, key: TileKey, chunks: Iterable[pa.RecordBatch]) -> Iterator[ReadRows]:
        """The results of a group."""

    def process(
        self,
        element: Any,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterator[Any]:
        key, chunks = element
        for stamp, same in by_stamp(chunks, timestamp):
            yield from self._emit(self.read(key, map(unspilled, same)), (stamp.time, (window,), pane))


class ReadAgainFn(PolygonFn[Options]):
    """Dead letters, each a batch of one row, to batches of rows, and of dead letters; a subclass reads one."""

    @abstractmethod
    def read_again(self, letter: pa.RecordBatch) -> Iterator[ReadRows]:
        """The results of a dead letter; it counts the rows that the letter stands for."""

    def process(
        self,
        letter: pa.RecordBatch,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterator[Any]:
        yield from self._emit(self.read_again(letter), (timestamp, (window,), pane))


def read_by(reading: PolygonFn, groups: beam.PCollection) -> ReadOutputs:
    """Apply a reading DoFn; the outputs that it gives."""
    applied = beam.ParDo(reading)
    if reading.settings.options.on_error == "raise":
        return ReadOutputs(groups | "Read" >> applied.with_output_types(pa.RecordBatch))
    outputs = groups | "Read" >> applied.with_outputs(DEAD_LETTERS, main=ROWS)
    outputs[ROWS].element_type = pa.RecordBatch
    outputs[DEAD_LETTERS].element_type = pa.RecordBatch
    return ReadOutputs(outputs[ROWS], outputs[DEAD_LETTERS])
