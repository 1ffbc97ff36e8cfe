"""Points to samples: key by record and tile, group, sample.

Wiring only: routing is :func:`rasteret_beam.kernels.routing.chunks.route`, sampling
:meth:`rasteret_beam.readers.jobs.sampler.TileSampler.sample`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam import typehints
from apache_beam.utils.windowed_value import WindowedValue

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam import metrics
from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.index.band_facts import warn_of_rounding
from rasteret_beam.collection.parquet.versions import CollectionVersion
from rasteret_beam.kernels.geo.crs import crs_text
from rasteret_beam.kernels.routing.chunks import ChunkRules, route
from rasteret_beam.kernels.sampling.layouts import check_layout, check_one_row_each
from rasteret_beam.kernels.sampling.neighbourhood import Neighbourhood
from rasteret_beam.metrics import Counters
from rasteret_beam.model import TileKey
from rasteret_beam.readers.jobs.sampler import Sampled, SampleStream, TileSampler
from rasteret_beam.readers.jobs.work_units import SampleJob
from rasteret_beam.readers.tiles.budget import DEFAULT_CACHE_BYTES
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.event_times import GroupByTile, by_stamp, chunk_rules, in_windows
from rasteret_beam.transforms.runtime.shared_resources import acquire, release
from rasteret_beam.transforms.sampling.collection_updates import (
    VersionOf,
    check_layout_grows,
    check_version,
    parsed,
    told,
    with_version,
)
from rasteret_beam.transforms.sampling.index_settings import IndexSettings, Updates, index_settings
from rasteret_beam.transforms.sampling.outputs import KeyedOutputs, SamplingOutputs

UNSAMPLED = "unsampled"
SAMPLES = "samples"
DEAD_LETTERS = "dead_letters"
CHUNKS = "chunks"


class _RouteFn(beam.DoFn):
    def __init__(self, settings: IndexSettings, crs: str | None, rules: ChunkRules, with_position: bool):
        self.settings = settings
        self.crs = crs
        self.rules = rules
        self.with_position = with_position

    def setup(self) -> None:
        self.indexes = self.settings.acquire()

    def teardown(self) -> None:
        self.settings.release()

    def process(self, points: pa.RecordBatch, version: str | None = None) -> Iterator[Any]:
        seen = parsed(version)
        routing = self.indexes.at(seen).routing
        routed = route(routing, points, self.crs, self.rules, self.with_position)
        sent = values = 0
        for key, chunk in routed.chunks if seen is None else with_version(routed.chunks, seen):
            sent += 1
            values += len(chunk) * len(routing.bands_of(key))
            yield key, chunk
        if len(routed.unsampled):
            yield beam.pvalue.TaggedOutput(UNSAMPLED, routed.unsampled)
        counts = {
            metrics.POINTS_IN: len(points),
            metrics.POINTS_SAMPLED: routed.sampled,
            metrics.POINTS_UNSAMPLED: len(routed.unsampled),
            metrics.CHUNKS_OUT: sent,
            metrics.VALUES_ROUTED: values,
        }
        count(counts | {metrics.unsampled(reason): number for reason, number in routed.reasons.items()})


@dataclass(frozen=True)
class _SampleSettings:
    """How a DoFn samples."""

    index: IndexSettings
    around: Neighbourhood
    layout: str = "long"
    on_error: str = "raise"


class _SampleFn(beam.DoFn):
    """Groups of points to batches of samples, and of dead letters; several groups are under way at the same time."""

    def __init__(self, settings: _SampleSettings):
        self.settings = settings

    @property
    def _sampler_key(self) -> Any:
        return TileSampler, self.settings.index.cache, self.settings.index.prefix_reads

    def setup(self) -> None:
        self.indexes = self.settings.index.acquire()
        index = self.settings.index
        self.sampler: TileSampler = acquire(
            self._sampler_key, lambda: TileSampler.of_budget(index.cache, index.prefix_reads)
        )
        self.stream: SampleStream | None = None

    def teardown(self) -> None:
        self._cancel()
        self.settings.index.release()
        release(self._sampler_key)

    def start_bundle(self) -> None:
        self._cancel()  # what a failed bundle left
        if self.settings.index.first is None:
            self._open(None)

    def _open(self, version: CollectionVersion | None) -> None:
        settings = self.settings
        index = self.indexes.at(version)
        self.version = version
        job = SampleJob(
            index.routing,
            index.assets,
            settings.index.collection.name,
            settings.around,
            settings.layout,
            settings.index.bands,
            settings.on_error == "dead_letter",
        )
        self.stream = self.sampler.stream(job, Counters())

    def process(
        self,
        element: Any,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterator[Any]:
        assert self.stream is not None
        yield from self._emit(self._push(self.stream, (timestamp, (window,), pane), element))

    def _push(self, stream: SampleStream, context: Any, element: Any) -> Iterator[Sampled]:
        key, chunks = element
        return stream.push(context, key, chunks)

    def finish_bundle(self) -> Iterator[Any]:
        if self.stream is not None:
            yield from self._emit(self.stream.drain())

    def _emit(self, sampled: Iterator[Sampled]) -> Iterator[Any]:
        """Each batch in the window and at the time of its points, whenever it is ready."""
        try:
            for (timestamp, windows, pane), rows, failed in sampled:
                value = WindowedValue(rows, timestamp, windows, pane)
                yield beam.pvalue.TaggedOutput(DEAD_LETTERS, value) if failed else value
        finally:
            assert self.stream is not None
            count(self.stream.counters.take())

    def _cancel(self) -> None:
        if self.stream is not None:
            self.stream.cancel()
            self.stream = None


class _SampleInWindowsFn(_SampleFn):
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
            if self.stream is None or seen != self.version:
                yield from self.finish_bundle()
                self._open(seen)
            assert self.stream is not None
            yield from self._emit(self.stream.push((stamp.time, (window,), pane), key, same))


def sampled_by(sampling: _SampleFn, groups: beam.PCollection, **side_inputs: Any) -> SamplingOutputs:
    """Apply a sampling DoFn; the outputs that it gives."""
    applied = beam.ParDo(sampling, **side_inputs)
    if sampling.settings.on_error == "raise":
        return SamplingOutputs(groups | "Sample" >> applied.with_output_types(pa.RecordBatch))
    outputs = groups | "Sample" >> applied.with_outputs(DEAD_LETTERS, main=SAMPLES)
    outputs[SAMPLES].element_type = pa.RecordBatch
    outputs[DEAD_LETTERS].element_type = pa.RecordBatch
    return SamplingOutputs(outputs[SAMPLES], dead_letters=outputs[DEAD_LETTERS])


@dataclass(eq=False)
class KeyByRecordAndTile(beam.PTransform):
    """Batches of points to chunks of points, keyed by record and block of tiles.

    Each chunk holds the points of one batch that fall in one block of one record's grid, with
    their pixel on the grid (``schema.PIXEL``), then the columns of the batch.

    Parameters
    ----------
    collection : Collection
    bands : sequence of str
    match : "all" or "latest"
        Every record that contains a point, or for each band the newest.
    geometry_crs : optional
        CRS of the points, where their batches do not carry it (those of ReadPoints do).
    rules : ChunkRules, optional
        How chunks are cut; by default as suits the runner.
    max_distance_pixels : int
        That of :class:`SampleTiles`; with 0, where in its pixel a point lies is not sent along.
    with_unsampled : bool
        Give :class:`KeyedOutputs`: also the points that no record contains, with a reason each.
    updates : PCollection, optional
        Versions of the collection, which grows: see :class:`SamplePoints`.

    Raises
    ------
    InputError
        When applied: a band is not in the collection, or the collection has no records.
    """

    collection: Collection
    bands: Sequence[str]
    _: KW_ONLY
    match: str = "all"
    geometry_crs: Any = None
    rules: ChunkRules | None = None
    max_distance_pixels: int = 0
    with_unsampled: bool = False
    updates: Updates = field(default=None, repr=False)
    settings: IndexSettings | None = field(default=None, repr=False)

    def expand(self, points: beam.PCollection) -> Any:
        settings = self.settings or index_settings(self.collection, self.bands, self.match, updates=self.updates)
        return settings.by_version(points, self.updates, partial(self._routed, settings))

    def _routed(self, settings: IndexSettings, points: beam.PCollection, version: VersionOf | None) -> Any:
        crs = crs_text(self.geometry_crs) if self.geometry_crs is not None else None
        routing = _RouteFn(settings, crs, self.rules or chunk_rules(points), self.max_distance_pixels > 0)
        applied = beam.ParDo(routing, **told(version))
        routed = points | "Route" >> applied.with_outputs(UNSAMPLED, main=CHUNKS)
        chunks = routed[CHUNKS]
        chunks.element_type = typehints.Tuple[TileKey, pa.RecordBatch]
        routed[UNSAMPLED].element_type = pa.RecordBatch
        return KeyedOutputs(chunks, routed[UNSAMPLED]) if self.with_unsampled else chunks


@dataclass(eq=False)
class SampleTiles(beam.PTransform):
    """Groups of points to batches in the samples schema; each touched tile is decoded once.

    Parameters
    ----------
    collection, bands, match, max_distance_pixels, updates
        The same as given to :class:`KeyByRecordAndTile`.
    max_distance_pixels, return_neighbourhood, fallback
        Nodata fallback, as in :func:`rasteret_beam.collection.eager.sample.sample_points`.
    layout : "long", "values" or "columns"
        Of the sample table, as there.
    on_error : "raise" or "dead_letter"
        What a tile that cannot be read does: fail the job; or become a row of a second output, with its points, while
        the other tiles of its file still give their samples. With "dead_letter" this gives :class:`SamplingOutputs`.
    cache_bytes : int
        What the caches of a process may hold in all: decoded tiles, open files, tile offsets, GDAL's blocks.
    prefix_reads : bool
        Ask servers only for the first bytes of a tile that lies alone, as many as the rows of its points should need.

    Raises
    ------
    InputError
        When applied: as :class:`KeyByRecordAndTile`, or the layout does not suit the options or the collection.
    """

    collection: Collection
    bands: Sequence[str]
    _: KW_ONLY
    match: str = "all"
    max_distance_pixels: int = 0
    return_neighbourhood: str = "off"
    fallback: str = "closest"
    layout: str = "long"
    on_error: str = "raise"
    cache_bytes: int = DEFAULT_CACHE_BYTES
    prefix_reads: bool = False
    updates: Updates = field(default=None, repr=False)
    settings: IndexSettings | None = field(default=None, repr=False)

    def expand(self, groups: beam.PCollection) -> Any:
        settings = self.settings or index_settings(
            self.collection, self.bands, self.match, self.cache_bytes, self.prefix_reads, self.updates
        )
        around = Neighbourhood(self.max_distance_pixels, self.return_neighbourhood, self.fallback)
        check_layout(self.layout, around, self.on_error)
        check_layout_grows(self.layout, self.updates)
        if self.layout != "long":
            check_one_row_each(self.collection.index(settings.bands, self.match).routing)
        warn_of_rounding(self.collection, settings.bands)
        sampling = _SampleSettings(settings, around, self.layout, self.on_error)
        return settings.by_version(groups, self.updates, partial(self._sampled, sampling))

    def _sampled(self, settings: _SampleSettings, groups: beam.PCollection, version: VersionOf | None) -> Any:
        sampling = _SampleInWindowsFn if in_windows(groups) else _SampleFn
        outputs = sampled_by(sampling(settings), groups, **told(version))
        return outputs.samples if self.on_error == "raise" else outputs


@dataclass(eq=False)
class SamplePoints(beam.PTransform):
    """Batches of points to batches of samples: KeyByRecordAndTile, GroupByTile, SampleTiles.

    Rows in are rows sampled at least once plus rows unsampled; the metrics of
    :mod:`rasteret_beam.metrics` count both. Parameters as :class:`KeyByRecordAndTile` and
    :class:`SampleTiles`; with ``with_unsampled`` or ``on_error="dead_letter"`` it gives :class:`SamplingOutputs`.

    The points may be a stream in windows (:class:`GroupByTile` says which): a sample has the
    window and the time of its point. The collection may grow meanwhile, with ``updates``, the
    versions that :class:`rasteret_beam.CollectionUpdates` gives: points are sampled from the
    version of their window, and those of windows before the first from the files that were
    there when the pipeline was built.

    Yields
    ------
    RecordBatch
        In ``samples_schema`` of :mod:`rasteret_beam.schema`: one row a point, record and band
        (or, in a wide layout, a point and record); raw values as float64.
    """

    collection: Collection
    bands: Sequence[str]
    _: KW_ONLY
    match: str = "all"
    geometry_crs: Any = None
    rules: ChunkRules | None = None
    max_distance_pixels: int = 0
    return_neighbourhood: str = "off"
    fallback: str = "closest"
    layout: str = "long"
    on_error: str = "raise"
    cache_bytes: int = DEFAULT_CACHE_BYTES
    prefix_reads: bool = False
    with_unsampled: bool = False
    updates: beam.PCollection[str] | None = field(default=None, repr=False)

    def expand(self, points: beam.PCollection) -> Any:
        settings = index_settings(
            self.collection, self.bands, self.match, self.cache_bytes, self.prefix_reads, self.updates
        )
        return settings.by_version(points, self.updates, partial(self._sampled, settings))

    def _sampled(self, settings: IndexSettings, points: beam.PCollection, version: VersionOf | None) -> Any:
        routed = points | KeyByRecordAndTile(
            self.collection,
            self.bands,
            match=self.match,
            geometry_crs=self.geometry_crs,
            rules=self.rules,
            max_distance_pixels=self.max_distance_pixels,
            with_unsampled=True,
            updates=version,
            settings=settings,
        )
        sampling = SampleTiles(
            self.collection,
            self.bands,
            match=self.match,
            max_distance_pixels=self.max_distance_pixels,
            return_neighbourhood=self.return_neighbourhood,
            fallback=self.fallback,
            layout=self.layout,
            on_error=self.on_error,
            updates=version,
            settings=settings,
        )
        outputs = routed.chunks | GroupByTile(spill=True) | sampling
        if not isinstance(outputs, SamplingOutputs):
            return SamplingOutputs(outputs, routed.unsampled) if self.with_unsampled else outputs
        return outputs._replace(unsampled=routed.unsampled if self.with_unsampled else None)
