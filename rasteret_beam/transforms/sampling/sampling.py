"""Groups of points to samples; :mod:`rasteret_beam.readers.jobs.sampler` does the work."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import apache_beam as beam
import pyarrow as pa
from apache_beam.utils.windowed_value import WindowedValue

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.index.band_facts import sample_types, warn_of_rounding
from rasteret_beam.collection.index.extra_columns import record_types
from rasteret_beam.collection.index.pixel_crs import pixel_crs
from rasteret_beam.collection.index.quality_checks import check_rules
from rasteret_beam.collection.parquet.versions import CollectionVersion
from rasteret_beam.keywords import SampleKeywords
from rasteret_beam.metrics import Counters
from rasteret_beam.option_fields import options_from, takes_options
from rasteret_beam.options import SampleOptions
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.jobs.sampler import DEAD_LETTERS, SAMPLES, UNSAMPLED, Sampled, Sampler
from rasteret_beam.readers.tiles.source import TileSource
from rasteret_beam.scales import check_scaled_bands
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.event_times import by_stamp, in_windows
from rasteret_beam.transforms.runtime.index_settings import IndexSettings
from rasteret_beam.transforms.runtime.shared_resources import acquire, release
from rasteret_beam.transforms.sampling.collection_updates import (
    Updates,
    VersionOf,
    by_version,
    check_version,
    parsed,
    told,
)
from rasteret_beam.transforms.sampling.outputs import SamplingOutputs

_SIDE_OUTPUTS: dict[str, Callable[[SampleOptions], bool]] = {
    DEAD_LETTERS: lambda options: options.on_error == "dead_letter",
    UNSAMPLED: lambda options: options.invalid == "drop",
}
"""What sampling gives beside samples, by fields of :class:`SamplingOutputs`, and with which options."""


class SampleFn(beam.DoFn):
    """Groups of points to batches of samples, and of dead letters; several groups are under way at the same time."""

    def __init__(self, settings: IndexSettings[SampleOptions]):
        self.settings = settings

    @property
    def _source_key(self) -> Any:
        return TileSource, self.settings.cache, self.settings.options.prefix_reads

    def setup(self) -> None:
        self.indexes = self.settings.acquire()
        _, cache, prefix_reads = self._source_key
        self.source: TileSource = acquire(self._source_key, lambda: TileSource.of_budget(cache, prefix_reads))
        self.sampler: Sampler | None = None

    def teardown(self) -> None:
        self._cancel()
        self.settings.release()
        release(self._source_key)

    def start_bundle(self) -> None:
        self._cancel()  # what a failed bundle left
        if self.settings.first is None:
            self._open(None)

    def _open(self, version: CollectionVersion | None) -> None:
        settings = self.settings
        index = self.indexes.at(version)
        self.version = version
        name, types = settings.collection.name, settings.value_types
        job = SampleJob(
            index.routing,
            index.assets,
            name,
            settings.bands,
            settings.options,
            types,
            index.records,
            settings.pixel_crs,
        )
        self.sampler = Sampler(self.source, job, Counters())

    def process(
        self,
        element: Any,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterator[Any]:
        assert self.sampler is not None
        key, chunks = element
        yield from self._emit(self.sampler.push((timestamp, (window,), pane), key, chunks))

    def finish_bundle(self) -> Iterator[Any]:
        if self.sampler is not None:
            yield from self._emit(self.sampler.drain())

    def _emit(self, sampled: Iterator[Sampled]) -> Iterator[Any]:
        """Each batch in the window and at the time of its points, whenever it is ready."""
        try:
            for (timestamp, windows, pane), rows, kind in sampled:
                value = WindowedValue(rows, timestamp, windows, pane)
                yield value if kind == SAMPLES else beam.pvalue.TaggedOutput(kind, value)
        finally:
            assert self.sampler is not None
            count(self.sampler.counters.take())

    def _cancel(self) -> None:
        if self.sampler is not None:
            self.sampler.cancel()
            self.sampler = None


@contextmanager
def held(settings: IndexSettings) -> Iterator[None]:
    """Hold the index and the caches of a process between the pipelines that share these settings."""
    holder = SampleFn(settings)
    holder.setup()
    try:
        yield
    finally:
        holder.teardown()


class SampleInWindowsFn(SampleFn):
    """The same, where points keep their times, and the version that they were routed by."""

    def process(
        self,
        element: Any,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
        version: str | None = None,
    ) -> Iterator[Any]:
        key, chunks = element
        seen = parsed(version)
        for stamp, same in by_stamp(chunks, timestamp):
            check_version(stamp.version, seen)
            if self.sampler is None or seen != self.version:
                yield from self.finish_bundle()
                self._open(seen)
            assert self.sampler is not None
            yield from self._emit(self.sampler.push((stamp.time, (window,), pane), key, same))


def sampled_by(sampling: SampleFn, groups: beam.PCollection, **side_inputs: Any) -> SamplingOutputs:
    """Apply a sampling DoFn; the outputs that it gives."""
    applied = beam.ParDo(sampling, **side_inputs)
    options = sampling.settings.options
    kinds = [kind for kind, is_given in _SIDE_OUTPUTS.items() if is_given(options)]
    if not kinds:
        return SamplingOutputs(groups | "Sample" >> applied.with_output_types(pa.RecordBatch))
    outputs = groups | "Sample" >> applied.with_outputs(*kinds, main=SAMPLES)
    for kind in (SAMPLES, *kinds):
        outputs[kind].element_type = pa.RecordBatch
    return SamplingOutputs(outputs[SAMPLES], **{kind: outputs[kind] for kind in kinds})


class SampleTiles(beam.PTransform):
    """Groups of points to batches in the samples schema; each touched tile is decoded once.

    With ``on_error="dead_letter"``, a tile that cannot be read becomes a row of a second output, with its points, while
    the other tiles of its file still give their samples; this gives :class:`SamplingOutputs`. So does
    ``invalid="drop"``: the points of which every row is dropped are unsampled.

    Parameters
    ----------
    collection, bands, updates
        The same as given to :class:`KeyByRecordAndTile`.
    options : SampleOptions, or its fields
        The same as given to :class:`KeyByRecordAndTile`.

    Raises
    ------
    InputError
        As :class:`KeyByRecordAndTile`, or the layout does not suit the collection.
    """

    @takes_options(SampleOptions)
    def __init__(
        self,
        collection: Collection,
        bands: Sequence[str],
        *,
        updates: Updates = None,
        **keywords: Unpack[SampleKeywords],
    ):
        super().__init__()
        self.collection = collection
        self.bands = bands
        self.updates = updates
        self.options = options_from(keywords, SampleOptions)

    def expand(self, groups: beam.PCollection) -> Any:
        settings = IndexSettings.of(self.collection, self.bands, self.options, self.updates is not None)
        settings = with_types(settings)
        outputs = by_version(groups, self.updates, settings.first, partial(sampled, settings))
        return outputs.samples if set(outputs[1:]) == {None} else outputs


def with_types(settings: IndexSettings[SampleOptions]) -> IndexSettings[SampleOptions]:
    """Settings with types of values and a CRS of pixels, known before rows are; warns of values that are rounded.

    Raises
    ------
    InputError
        The layout or the types do not suit the collection, or ``scales`` have a band that is not read.
    """
    check_scaled_bands(settings.options.scales, settings.bands)
    warn_of_rounding(settings.collection, settings.bands, settings.options)
    record_types(settings.collection, settings.bands, settings.options.extra_columns)
    check_rules(settings.collection, settings.options)
    types = sample_types(settings.collection, settings.bands, settings.options)
    return replace(settings, value_types=types, pixel_crs=pixel_crs(settings.collection, settings.options))


def sampled(
    settings: IndexSettings[SampleOptions], groups: beam.PCollection, version: VersionOf | None
) -> SamplingOutputs:
    """Sample groups of points."""
    sampling = SampleInWindowsFn if in_windows(groups) else SampleFn
    return sampled_by(sampling(settings), groups, **told(version))
